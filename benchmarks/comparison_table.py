"""Prints a comparison as one table of errors: median (min, max) of the test metric, a row for each density.

Command: python benchmarks/comparison_table.py docs/results/compare-lenet-5.json [METHOD ...]
n: as many seeds as the comparison has; 3 in docs/results.md
Hardware: any, nothing is timed
Date: 2026-11-26
"""

import json
import sys
from pathlib import Path
from typing import Any

SAME = 0.02
"""Densities that differ by at most this share are one row, as in `gossamer compare`."""


def wrong(test: dict[str, float]) -> str:
    median, least, most = (100 * (1 - test[name]) for name in ("median", "most", "least"))
    return f"{median:.2f} ({least:.2f}, {most:.2f})"


def main(path: Path, methods: list[str]) -> None:
    comparison: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    methods = methods or comparison["methods"]
    rows = sorted((row for row in comparison["rows"] if row["method"] in methods), key=lambda row: -row["density"])
    print("| density | compression | " + " | ".join(methods) + " |")
    print("|---|---|" + "---|" * len(methods))
    while rows:
        density, compression = rows[0]["density"], rows[0]["compression"]
        here = {row["method"]: row for row in reversed(rows) if row["density"] >= density * (1 - SAME)}
        cells = [wrong(here[method]["test"]) if method in here else "-" for method in methods]
        print(f"| {density:.2%} | {compression:.1f}x | " + " | ".join(cells) + " |")
        rows = [row for row in rows if here.get(row["method"]) is not row]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
