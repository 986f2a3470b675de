"""What a run's folder says of its rounds: read without the networks, and without torch."""

import json
from contextlib import suppress
from pathlib import Path

from gossamer.errors import CheckpointError
from gossamer.loop.cost import Cost, read_cost
from gossamer.loop.record import RoundRecord
from gossamer.storage.files import read_text, write_text

MODEL = "model.safetensors"
MASKS = "masks.safetensors"
STATE = "state.safetensors"
RECORD = "round.json"
TABLE = "rounds.jsonl"
LEDGER = "ledger.jsonl"
TRAINING = "training.safetensors"
REPLICATES = "replicates.safetensors"
SNAPSHOT = "snapshot.safetensors"
RANGES = "ranges.json"


def round_folder(folder: Path, number: int) -> Path:
    return folder / f"round-{number:02d}"


def write_table(folder: Path, records: list[RoundRecord]) -> None:
    """Writes `rounds.jsonl` and `ledger.jsonl`, if they do not say that already."""
    _write_lines(folder / TABLE, [record.to_json() for record in records])
    costs = [read_cost(round_folder(folder, record.round)) for record in records]
    lines = [json.dumps(cost.flat(), allow_nan=False) for cost in costs if cost is not None]
    if lines or (folder / LEDGER).exists():
        _write_lines(folder / LEDGER, lines)


def _write_lines(path: Path, lines: list[str]) -> None:
    text = "".join(line + "\n" for line in lines)
    with suppress(OSError, UnicodeDecodeError):
        if read_text(path) == text:
            return
    write_text(path, text)


def read_records(folder: Path) -> list[RoundRecord]:
    """The records of the finished rounds, the dense one first.

    Raises:
        CheckpointError: a round between two others is missing, or a record is damaged.
    """
    numbers = sorted(
        int(digits)
        for path in folder.glob("round-*")
        if (digits := path.name.removeprefix("round-")).isdecimal() and path == round_folder(folder, int(digits))
    )
    if numbers != list(range(len(numbers))):
        missing = min(set(range(numbers[-1])) - set(numbers))
        raise CheckpointError(f"{round_folder(folder, missing)} is missing, but later rounds are there; restore it")
    records = []
    for number in numbers:
        path = round_folder(folder, number) / RECORD
        if path.parent.is_symlink():
            raise CheckpointError(f"{path.parent} is a link; expected the round's own folder. Put it in its place.")
        try:
            text = read_text(path)
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(damaged(path, str(error))) from error
        record = RoundRecord.from_json(text, str(path))
        if record.round != number:
            raise CheckpointError(damaged(path, f"it says round {record.round}"))
        records.append(record)
    return records


def read_ledger(folder: Path) -> list[Cost]:
    """What the finished rounds cost, as far as that was kept.

    Raises:
        CheckpointError: a page of it is damaged.
    """
    costs = [read_cost(round_folder(folder, record.round)) for record in read_records(folder)]
    return [cost for cost in costs if cost is not None]


def damaged(path: Path, reason: str) -> str:
    """What to say of a file of a round that cannot be used."""
    return (
        f"{path} is damaged: {reason}. Restore it from a copy; or, to repeat this round and those after it, remove "
        f"the folders {path.parent.name} and later and run the same command again."
    )
