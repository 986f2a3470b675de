"""The ledger: what a round cost, in its own file beside the round's record, and when a compression pays for itself."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from gossamer.errors import CheckpointError

COST = "cost.json"

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
    """Of one forward pass of one example, counted likewise."""
    inference_flops_left: float
    """The same without those that multiply by a pruned weight."""


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
    """Of the process that trained, over all its threads."""
    work: Work | None = None

    @property
    def joules(self) -> float:
        """An estimate, by the assumptions above."""
        if self.device == "cpu":
            return self.processor_seconds * JOULES_PER_PROCESSOR_SECOND
        return self.wall_seconds * JOULES_PER_GPU_SECOND

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "estimated_joules": self.joules}, allow_nan=False)


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
        values: dict[str, Any] = json.loads((path / COST).read_text(encoding="utf-8"))
        work = values["work"]
        cost = Cost(
            **{field.name: values[field.name] for field in fields(Cost) if field.name != "work"},
            work=None if work is None else _work(work),
        )
        numbers = [cost.round, cost.steps, cost.wall_seconds, cost.processor_seconds]
        if not all(isinstance(number, (int, float)) and math.isfinite(number) and number >= 0 for number in numbers):
            raise ValueError("a number in it is none")
        return cost
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path / COST} is damaged ({error}); restore it, or remove it: it is told only"
        ) from error


def _work(values: Mapping[str, Any]) -> Work:
    work = Work(**{field.name: float(values[field.name]) for field in fields(Work)})
    if not all(math.isfinite(number) and number >= 0 for number in asdict(work).values()):
        raise ValueError("a number in it is none")
    return work
