"""Prints the rounds of several seeds as one table: median (min, max) of the test metric.

python docs/results/rounds_table.py docs/results/lenet-300-100/*.jsonl
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def percent_wrong(row: dict[str, Any]) -> float:
    return 100 * (1 - float(row["test"]))


def main(paths: list[Path]) -> None:
    runs = [rows(path) for path in paths]
    assert len({len(run) for run in runs}) == 1, "the runs have different numbers of rounds"
    print(f"| round | density | compression | test error %, median (min, max) of {len(runs)} seeds |")
    print("|---|---|---|---|")
    for same_round in zip(*runs, strict=True):
        first, errors = same_round[0], [percent_wrong(row) for row in same_round]
        print(
            f"| {first['round']} | {first['density']:.2%} | {first['prunable'] / first['kept']:.1f}x "
            f"| {statistics.median(errors):.2f} ({min(errors):.2f}, {max(errors):.2f}) |"
        )


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
