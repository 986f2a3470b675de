"""What is known of a finished round: one line of `rounds.jsonl`."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from gossamer.errors import CheckpointError
from gossamer.storage.typed import read_as
from gossamer.storage.versions import refuse_newer

FORMAT = 3
"""The version of the file. Version 1 did not state one; version 2 had no levels."""

SEAL = "round.json"
"""The entry of `sha256` that covers the record itself."""
LONGEST = 1e30
"""Seconds; what claims to have taken longer was not written by a training, and sums of it could overflow."""


@dataclass(frozen=True)
class RoundRecord:
    """A finished round: the size of its network and how it was judged."""

    round: int
    """0 for the dense network."""
    density: float
    """kept / prunable."""
    kept: int
    """Prunable weights that are left."""
    prunable: int
    """Weights that may be pruned: those of the scope."""
    parameters: int
    """All parameters of the dense network, biases and normalisation included."""
    val: float | None
    """The recorded metric, by which choices are made; on validation data in the built-in tasks."""
    test: float | None
    """The metric on test data, which no choice may use."""
    metric: str | None
    seconds: float
    """Wall-clock time of training and evaluating this round."""
    lr_rewound_to: float | None
    """The epoch whose learning rate the round began with (the step, in loops that know no epochs); None in the dense
    round, and where the rates are no part of the schedule."""
    weights_rewound_to: float | None
    """The epoch (or step) whose weights the round began with; None: the weights stayed, or were drawn anew."""
    seed: int | None
    metrics: dict[str, float]
    """Everything that was recorded, by name."""
    sha256: dict[str, str]
    """Name of each file of the round's folder -> SHA-256, in hexadecimal; round.json's is over all other entries."""
    quantised: bool = False
    """Whether it was trained and measured with rounded numbers (`Retraining.quantised_rounds`): weights and inputs as
    int8 has them, or weights in `levels`."""
    levels: int | None = None
    """How many levels on either side of zero its weights are in, multiples of one step for each weight; None: they are
    in float."""
    rounded_to_zero: int = 0
    """Weights that its cut had left, and that left the mask at its end because their level was zero."""
    format: int = 1
    """The version of the file's format."""

    @property
    def sparsity(self) -> float:
        """Pruned / prunable."""
        return 1 - self.density

    @property
    def compression(self) -> float:
        """prunable / kept."""
        return self.prunable / self.kept

    @property
    def parameters_kept(self) -> int:
        """All parameters that are left, with those that are never pruned."""
        return self.parameters - self.prunable + self.kept

    @property
    def trained(self) -> str:
        """How it was trained, for people: "in float", "for int8" or "in 4 levels"."""
        return trained(self.quantised, self.levels)

    @property
    def mark(self) -> str:
        """The same in a table's cell: "", "int8" or "4 levels"."""
        return "" if not self.quantised else "int8" if self.levels is None else f"{self.levels} levels"

    def sealed(self) -> "RoundRecord":
        """The record with its own checksum, over all the rest, so that a changed digit does not go unnoticed."""
        return replace(self, sha256={**self.sha256, SEAL: _seal(asdict(self))})

    def to_json(self) -> str:
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str, where: str) -> "RoundRecord":
        """Reads one line.

        Raises:
            CheckpointError: it is not such a line.
        """
        try:
            found = json.loads(text)
            # First: in a newer version other types may stand.
            refuse_newer(found.get("format", 1) if isinstance(found, dict) else 1, FORMAT, where)
            record = read_as(cls, found)
            # Over what it states: an older version has fewer fields.
            if record.sha256.get(SEAL) != _seal({name: found[name] for name in asdict(record) if name in found}):
                raise ValueError("its SHA-256 is not the one that it states")
            if not 0 < record.kept <= record.prunable <= record.parameters or record.round < 0:
                raise ValueError("its counts contradict each other")
            if not math.isclose(record.density, record.kept / record.prunable, rel_tol=1e-9):
                raise ValueError(f"its density is {record.density}, but it keeps {record.kept} of {record.prunable}")
            if not 0 <= record.seconds < LONGEST:
                raise ValueError(f"seconds is {record.seconds}; expected the time of a training")
            return record
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{where} is damaged: {error}. Restore it, or start in a new folder.") from error


def trained(quantised: bool, levels: int | None) -> str:
    """How a round is trained, for people."""
    if not quantised:
        return "in float"
    return "for int8" if levels is None else f"in {levels} levels"


def _seal(entries: dict[str, Any]) -> str:
    """SHA-256 of a record's entries, its own checksum left out."""
    rest = {**entries, "sha256": {name: digest for name, digest in entries["sha256"].items() if name != SEAL}}
    return hashlib.sha256(json.dumps(rest, allow_nan=False, sort_keys=True).encode()).hexdigest()
