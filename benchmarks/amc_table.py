"""AMC's policies at several densities beside LR rewinding, from one or more comparisons of the same dense networks.

Command: python benchmarks/amc_table.py COMPARISON.json [COMPARISON.json ...]
n: as many seeds as the comparisons have; 3 in docs/results.md
Hardware: any, nothing is timed
Date: 2026-11-27, of docs/results/compare-lenet-300-100*.json and compare-lenet-5*.json

For every density that a policy was found for: test error in %, median (min, max), of AMC's policy cut to at once and
fine-tuned, or retrained with LR rewinding, of one sort of all weights cut at once, and of LR rewinding in rounds (its
next smaller network); then by how many percentage points of accuracy LR rewinding in rounds is ahead of AMC, fine-tuned
and not: mean and 95% interval over the seeds, as `gossamer compare` computes them. The last row is the mean over all
densities from 10x on.
"""

import json
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

from comparison_table import wrong

from gossamer.compare.findings import Difference, Point, Row, differences, rows

REFERENCE = "lr-rewind"
POLICY = ".toml"
TUNED, REWOUND = "AMC, fine-tuned", "AMC, LR rewinding"
AT_ONCE = {"one-shot-fine-tune": TUNED, "one-shot-lr-rewind": REWOUND}
SORTED = "one-shot-lr-rewind"


def points_of(path: Path) -> list[Point]:
    """All policies of one way to retrain are one method here, at several densities."""
    found = []
    rounds: Counter[tuple[str, int]] = Counter()
    for values in json.loads(path.read_text(encoding="utf-8"))["points"]:
        # Files of 2026-11-24 do not number the rounds.
        run = (values["method"], values["seed"])
        point = Point(**{"round": rounds[run], **values})
        rounds[run] += 1
        strategy, _, cut = point.method.partition("+")
        if cut.endswith(POLICY) and strategy in AT_ONCE:
            point = replace(point, method=AT_ONCE[strategy], family=AT_ONCE[strategy])
        if point.method != REFERENCE and point.density < 1:
            point = replace(point, round=1, asked_density=round(point.density, 4))
        if point.method in (REFERENCE, SORTED, TUNED, REWOUND):
            found.append(point)
    return found


def merged(paths: list[Path]) -> list[Point]:
    """Each network once; the reference first. Networks that two files have must be the same."""
    everything: dict[tuple[str, int, int, float], Point] = {}
    for point in (point for path in paths for point in points_of(path)):
        key = (point.method, point.seed, point.round, round(point.density, 4))
        other = everything.setdefault(key, point)
        if other.test != point.test:
            raise SystemExit(f"{key} is {other.test} in one file and {point.test} in another")
    return sorted(everything.values(), key=lambda point: point.method != REFERENCE)


def errors(row: Row | None) -> str:
    return "-" if row is None else wrong(asdict(row.test))


def ahead(difference: Difference | None) -> str:
    if difference is None:
        return "-"
    mean, low, high = (100 * value for value in (difference.mean, difference.low, difference.high))
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"


def main(paths: list[Path]) -> None:
    points = merged(paths)
    table = [row for row in rows(points) if row.density < 1]
    paired = differences(points, "higher")

    def at(method: str, density: float) -> Row | None:
        here = (row for row in table if row.method == method and abs(row.density - density) < 1e-3 * density)
        return next(here, None)

    def over(method: str, compression: float | None) -> str:
        return ahead(next((one for one in paired if one.other == method and one.compression == compression), None))

    headings = ["density", "compression", TUNED, REWOUND, "one sort, LR rewinding", "LR rewinding in rounds, at"]
    headings += [f"ahead of {TUNED}", f"ahead of {REWOUND}"]
    print("| " + " | ".join(headings) + " |")
    print("|---" * len(headings) + "|")
    for row in sorted((row for row in table if row.method == TUNED), key=lambda row: -row.density):
        no_larger = [one for one in table if one.method == REFERENCE and one.density <= row.density * 1.001]
        smaller = max(no_larger, key=lambda one: one.density)
        cells = [f"{row.density:.2%}", f"{row.compression:.1f}x", errors(row), errors(at(REWOUND, row.density))]
        cells += [errors(at(SORTED, row.density)), f"{errors(smaller)}, {smaller.density:.2%}"]
        cells += [over(TUNED, row.compression), over(REWOUND, row.compression)]
        print("| " + " | ".join(cells) + " |")
    print(f"| all from 10x on | | | | | | {over(TUNED, None)} | {over(REWOUND, None)} |")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
