"""The ledger: what a round cost, in its own file beside the round's record, and when a compression pays for itself."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gossamer.errors import CheckpointError
from gossamer.storage.files import read_text
from gossamer.storage.typed import read_as

COST = "cost.json"

LARGEST = 1e40
"""The largest count; what is beyond it was not counted by a training, and sums of it could overflow."""

JOULES_PER_PROCESSOR_SECOND = 10.0
"""An assumption, not a measurement: a busy core of a server with its share of memory and supply takes 5 to 15 W."""
JOULES_PER_GPU_SECOND = 400.0
"""An assumption: the average draw of a training accelerator of 400 to 700 W, with its host."""


@dataclass(frozen=True)
class Work:
    """What a round computed, where that is known: in built-in tasks."""

    epochs: float
    training_flops: float
    """Floating-point operations of the training, counted as if every weight were there (what dense kernels do)."""
    inference_flops: float
    """Those of one forward pass of one example, counted likewise."""
    inference_flops_left: float
    """Those of the forward pass without those that multiply by a pruned weight."""


@dataclass(frozen=True)
class Cost:
    """What one round cost."""

    round: int
    method: str
    """How it was retrained; "dense" for round 0."""
    device: str
    steps: int
    """Optimizer steps, of the attempts that are part of the result."""
    wall_seconds: float
    processor_seconds: float
    """The time of the process that trained, over all its threads."""
    work: Work | None = None

    @property
    def joules(self) -> float:
        """An estimate, by the assumptions above."""
        if self.device == "cpu":
            return self.processor_seconds * JOULES_PER_PROCESSOR_SECOND
        return self.wall_seconds * JOULES_PER_GPU_SECOND

    def to_json(self) -> str:
        return json.dumps(asdict(self), allow_nan=False)

    def flat(self) -> dict[str, str | float]:
        """A line of the ledger: every number by name, and the estimate of the energy labelled as one."""
        counted = {} if self.work is None else asdict(self.work)
        times = {"wall_seconds": self.wall_seconds, "processor_seconds": self.processor_seconds}
        names = {"round": self.round, "method": self.method, "device": self.device, "steps": self.steps}
        return {**names, **times, **counted, "energy_joules_estimate": self.joules}


@dataclass(frozen=True)
class Bill:
    """The cost of several rounds together; None where one of them did not count it."""

    rounds: int
    steps: int
    wall_seconds: float
    processor_seconds: float
    joules: float
    epochs: float | None
    training_flops: float | None


def total(costs: Sequence[Cost]) -> Bill:
    """All of them together."""
    works = [cost.work for cost in costs if cost.work is not None]
    known = bool(costs) and len(works) == len(costs)
    return Bill(
        len(costs),
        sum(cost.steps for cost in costs),
        sum(cost.wall_seconds for cost in costs),
        sum(cost.processor_seconds for cost in costs),
        sum(cost.joules for cost in costs),
        sum(work.epochs for work in works) if known else None,
        sum(work.training_flops for work in works) if known else None,
    )


def pays_after(costs: Sequence[Cost], chosen: int) -> float | None:
    """After how many inferences of one example the operations that round `chosen` saves outnumber those of all rounds
    after the dense one.

    Assumes that an operation costs the same in training and inference, and that zeros are skipped entirely, which only
    sparse kernels do. None if operations were not counted; infinite if none is saved.
    """
    bill = total([cost for cost in costs if cost.round > 0])
    work = next((cost.work for cost in costs if cost.round == chosen), None)
    if bill.training_flops is None or work is None:
        return None
    saved = work.inference_flops - work.inference_flops_left
    return bill.training_flops / saved if saved > 0 else math.inf


def read_cost(path: Path) -> Cost | None:
    """The cost in a round's folder; None for rounds of versions that kept no ledger.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        cost = read_as(Cost, json.loads(read_text(path / COST)))
        numbers = {name: value for name, value in cost.flat().items() if not isinstance(value, str)}
        for name, number in numbers.items():
            if not 0 <= number < LARGEST:
                raise ValueError(f"{name} is {number}; expected what a training costs")
        return cost
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path / COST} is damaged ({error}); restore it, or remove it: it is told only"
        ) from error
