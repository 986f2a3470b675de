"""What int8 costs in accuracy: rounds of runs, quantised after training with ranges found in each of the three ways.

Command: python benchmarks/int8_accuracy.py DATA RUN[:ROUND,...][@TASK]... > docs/results/int8-accuracy.jsonl
n: 3 seeds of the LeNets, 1 of the others; nothing is timed
Hardware: 2 cores of AMD Zen 5
Date: 2026-11-28

DATA is what `--data` of the runs was, or none; a RUN a folder that `gossamer compress` wrote, or a task whose network
comes trained, `path/file.py:function`; TASK is that of a run of one's own. All rounds by default. One line of JSON a
round and way of finding ranges.

The runs: gossamer compress lenet-300-100 --per-round 0.55 --target-sparsity 0.96 --seed 0 (1, 2); lenet-5 likewise,
seeds 1 and 2 with --epochs 4; text-classification --epochs 3 --per-round 0.8 --rounds 1; shapes-detector and
ResNet-20 with 40 epochs a round as docs/results.md has them.

`python benchmarks/int8_accuracy.py --texts FOLDER` makes the data of text-classification: docstrings of installed
packages, whose package is to be told.
"""

import ast
import csv
import importlib.util
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from gossamer.export.form import RANGES_BY, FileForm
from gossamer.export.int8 import quantise
from gossamer.export.source import Source, open_source
from gossamer.loop.records import read_records

PACKAGES = ("networkx", "numpy", "scipy", "sklearn", "torch", "transformers")
TEXTS = 700
"""Of each package."""
LETTERS = 300


def sources(argument: str, data: Path | None) -> Iterator[tuple[dict[str, object], Source]]:
    """A round, or a task's network, with what tells it from others."""
    argument, _, task = argument.partition("@")
    if not Path(argument.split(":")[0]).is_dir():
        yield {"network": argument.rsplit("/", 1)[-1]}, open_source(argument, data_folder=data)
        return
    name, _, numbers = argument.partition(":")
    folder = Path(name)
    wanted = {int(number) for number in numbers.split(",")} if numbers else None
    for record in read_records(folder):
        if wanted is None or record.round in wanted:
            told = {
                "network": folder.name.rpartition("-")[0] or folder.name,
                "seed": record.seed,
                "round": record.round,
            }
            kept = {"kept": round(record.kept / record.prunable, 4)}
            yield told | kept, open_source(name, round_number=record.round, data_folder=data, task=task or None)


def texts(folder: Path) -> None:
    """Writes docstrings of packages as train.csv and test.csv; a package's own name is taken out of them."""
    rows = []
    for package in PACKAGES:
        found = importlib.util.find_spec(package)
        assert found is not None
        assert found.origin is not None
        seen: dict[str, None] = {}
        for path in sorted(Path(found.origin).parent.rglob("*.py")):
            try:
                tree = ast.parse(path.read_text(encoding="utf-8"))
            except (SyntaxError, UnicodeDecodeError, ValueError):
                continue
            kinds = (ast.FunctionDef, ast.ClassDef, ast.Module)
            for one in ast.walk(tree):
                text = " ".join((ast.get_docstring(one) or "").split()) if isinstance(one, kinds) else ""
                if len(text) > 60:
                    seen[" ".join(word for word in text.split() if package not in word.lower())[:LETTERS]] = None
        chosen = random.Random(0).sample(list(seen), min(TEXTS, len(seen)))
        rows += [(text, package) for text in chosen]
    random.Random(1).shuffle(rows)
    folder.mkdir(parents=True, exist_ok=True)
    test = len(rows) // 5
    for name, part in {"test": rows[:test], "train": rows[test:]}.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *part])


def main(data: Path | None, arguments: list[str]) -> None:
    for argument in arguments:
        for told, source in sources(argument, data):
            for by in RANGES_BY:
                found = quantise(source, FileForm(dense=True, int8=True, ranges_by=by, max_drop=1.0))
                scores = {
                    split: {"fp32": round(score.before, 6), "int8": round(score.after, 6)}
                    for split, score in found.scores.items()
                }
                line = {**told, "ranges_by": by, **scores, "output_difference": round(found.difference, 5)}
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--texts":
        texts(Path(sys.argv[2]))
    else:
        main(None if sys.argv[1] == "none" else Path(sys.argv[1]), sys.argv[2:])
