"""What a job would do, before anything is trained: its rounds, their weights, epochs and bytes."""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.job.training import Training
from gossamer.loop.driver import plan_of
from gossamer.loop.stop import Stop
from gossamer.model.stored import storable
from gossamer.prune.cut import Cut
from gossamer.prune.scope import Scope
from gossamer.rewind.strategies import Retraining
from gossamer.tasks.loading import failing
from gossamer.tasks.task import Task
from gossamer.tasks.training import initial_model

MOST = 100
"""Rounds that are told of a plan that only `max_drop` ends."""


@dataclass(frozen=True)
class PlannedRound:
    """A round that is to come."""

    number: int
    kept: int
    """Prunable weights that are left in it."""
    prunable: int
    epochs: float | None
    """For how long it is trained, all replicates together; None where that depends on the number of examples."""
    bytes: int
    """Of tensors in its folder: the model, the masks, and what the optimizer keeps of every weight. Random states,
    records and headers come on top."""


def planned_rounds(
    task: Task, stop: Stop, cut: Cut, scope: Scope, training: Training, retraining: Retraining
) -> list[PlannedRound]:
    """The rounds of a job, at most the first `MOST`; no data are read.

    Raises:
        ConfigurationError: as the job itself.
    """
    model = initial_model(task, training.seed, torch.device("cpu"))
    plan = plan_of(model, stop, cut, scope)
    size = _bytes(storable(model).values()) + math.ceil(plan.prunable / 8)
    if not training.fresh_optimizer:
        with failing(task, "making its optimizer"):
            size += _bytes(_slots(task.recipe.optimizer, model))
    dense = float(training.epochs_of(task.recipe.epochs))
    later = _retrained(retraining, int(dense))
    return [
        PlannedRound(number, kept, plan.prunable, _dense(task, dense) if number == 0 else later, size)
        for number, kept in enumerate(islice(plan, MOST))
    ]


def _dense(task: Task, epochs: float) -> float:
    return 0.0 if task.pretrained else epochs


def _retrained(retraining: Retraining, epochs: int) -> float | None:
    """Epochs of a round after a cut."""
    span = retraining.length or retraining.start
    if span is not None and span.unit == "steps" and span.count:
        return None
    return float((epochs - retraining.first(epochs, 1)) * retraining.replicates)


def _slots(make: Any, model: nn.Module) -> list[Tensor]:
    """What an optimizer has of a model after its first step."""
    tried = copy.deepcopy(model)
    optimizer = make(tried)
    for parameter in tried.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    states = optimizer.state_dict()["state"].values()
    return [slot for slots in states for slot in slots.values() if isinstance(slot, Tensor)]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
