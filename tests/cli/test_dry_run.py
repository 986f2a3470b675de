"""A plan printed by `--dry-run`, beside what the same command then does."""

import json
import re
import shlex
from pathlib import Path

from command_line import gossamer
from safetensors import safe_open

from gossamer.loop.records import read_records

RANDOM_STATES = {"0", "1"}
BESIDES = 40_000
"""Bytes: more than random states, records and headers of a round of digits take."""


def planned_rows(output: str) -> list[list[int]]:
    """Round, weights kept, epochs and bytes of each row."""
    rows = [re.fullmatch(r"\s*(\d+)\s+([\d,]+)\s+[\d.]+%\s+(\d+)\s+([\d,]+)\s*", line) for line in output.splitlines()]
    return [[int(cell.replace(",", "")) for cell in row.groups()] for row in rows if row is not None]


def bytes_of_tensors(path: Path) -> int:
    with safe_open(path, framework="numpy") as stored:
        # In a file of state the optimizer's slots are beside random states, whose names are the smallest numbers.
        names = set(stored.keys()) - (RANDOM_STATES if path.name == "state.safetensors" else set())
        return sum(stored.get_tensor(name).nbytes for name in names)


def test_the_rounds_of_a_plan(tmp_path: Path) -> None:
    command = ("compress", "digits", "--target-sparsity", 0.5, "--epochs", 2, "--out", "run")
    planned = gossamer(tmp_path, *command, "--dry-run")
    assert (planned.returncode, planned.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []
    rows = planned_rows(planned.stdout)
    done = gossamer(tmp_path, *command)
    assert (done.returncode, done.stderr) == (0, "")
    records = read_records(tmp_path / "run")
    assert [row[:2] for row in rows] == [[record.round, record.kept] for record in records]
    for number, _, epochs, size in rows:
        folder = tmp_path / "run" / f"round-{number:02}"
        assert json.loads((folder / "cost.json").read_text())["work"]["epochs"] == epochs
        assert sum(map(bytes_of_tensors, folder.glob("*.safetensors"))) == size
        assert 0 < sum(file.stat().st_size for file in folder.iterdir()) - size < BESIDES
    total = sum(size for *_, size in rows)
    assert (
        f"{len(rows)} rounds, {sum(row[2] for row in rows)} epochs, {total:,} bytes; nothing was trained"
        in planned.stdout
    )


def test_the_runs_of_a_comparison(tmp_path: Path) -> None:
    command = ("compare", "digits", "--target-sparsity", 0.2, "--epochs", 1, "--seeds", 1, "--out", "compared")
    planned = gossamer(tmp_path, *command, "--dry-run")
    assert (planned.returncode, planned.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []
    lines = planned.stdout.splitlines()
    assert len(lines) >= 4
    assert all(line.startswith("to do: ") for line in lines)
    # What is told can be given to a shell: the first run by hand, then all of them.
    first = shlex.split(lines[0].partition(": gossamer ")[2])
    by_hand = gossamer(tmp_path, *first)
    assert (by_hand.returncode, by_hand.stderr) == (0, "")
    resumed = gossamer(tmp_path, *command, "--dry-run").stdout.splitlines()
    assert resumed == [lines[0].replace("to do: ", "done: "), *lines[1:]]
    done = gossamer(tmp_path, *command)
    assert (done.returncode, done.stderr) == (0, "")
    told = {shlex.split(line)[shlex.split(line).index("--out") + 1] for line in lines}
    made = {str(path.parent.relative_to(tmp_path)) for path in (tmp_path / "compared").rglob("rounds.jsonl")}
    assert told == made
    again = gossamer(tmp_path, *command, "--dry-run").stdout.splitlines()
    assert again == [line.replace("to do: ", "done: ") for line in lines]
