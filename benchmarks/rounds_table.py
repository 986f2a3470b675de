"""Prints the rounds of several seeds as one table: median (min, max) of the test metric.

Command: python benchmarks/rounds_table.py docs/results/compress-digits.jsonl
n: as many seeds as the files have; 3 in docs/results.md
Hardware: any, nothing is timed
Date: 2026-11-23

A file holds the lines of `rounds.jsonl` of one run, or of several that differ by their seed.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any


def runs_of(path: Path) -> list[list[dict[str, Any]]]:
    by_seed: dict[int, list[dict[str, Any]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        by_seed.setdefault(row["seed"], []).append(row)
    return list(by_seed.values())


def percent_wrong(row: dict[str, Any]) -> float:
    return 100 * (1 - float(row["test"]))


def main(paths: list[Path]) -> None:
    runs = [run for path in paths for run in runs_of(path)]
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
