"""Prints a file of JSON as one line that names its series, for the files of docs/results that collect measurements.

Command: python benchmarks/one_line.py SERIES FILE.json >> docs/results/bench-shapes-engines.jsonl
n: 1
Hardware: any, nothing is timed
Date: 2026-11-28
"""

import json
import sys
from pathlib import Path


def main(series: str, path: Path) -> None:
    print(json.dumps({"series": series, **json.loads(path.read_text(encoding="utf-8"))}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
