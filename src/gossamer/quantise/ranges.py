"""The ranges of the inputs of a network's layers, as a round that was trained for int8 keeps them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from gossamer.storage.typed import read_as
from gossamer.storage.versions import refuse_newer

FORMAT = 1
"""The version of the file."""


@dataclass(frozen=True)
class Range:
    """What a layer's inputs lie in; uint8 has it with 0 included, whether it lies in it or not."""

    low: float
    high: float


Ranges = dict[str, Range]
"""Name of a layer's weight -> the range of the layer's inputs."""


@dataclass(frozen=True)
class _Stored:
    inputs: dict[str, Range]


def to_json(ranges: Ranges) -> str:
    inputs = {name: asdict(found) for name, found in ranges.items()}
    return json.dumps({"format": FORMAT, "inputs": inputs}, allow_nan=False, indent=1) + "\n"


def from_json(text: str, path: Path) -> Ranges:
    """The opposite.

    Args:
        path: where the text is from.

    Raises:
        ValueError: it holds no ranges.
        CheckpointError: it is of a newer version.
    """
    found = json.loads(text)
    refuse_newer(found.get("format", 1) if isinstance(found, dict) else 1, FORMAT, path)
    inputs = read_as(_Stored, found).inputs
    wrong = [name for name, one in inputs.items() if one.low > one.high]
    if wrong:
        raise ValueError(f"the range of {wrong[0]} is {inputs[wrong[0]]}; expected low to be at most high")
    return inputs
