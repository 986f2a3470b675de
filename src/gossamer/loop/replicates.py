"""Several trainings of one round from one start, and their average: "sparse model soups".

The parameters of the average are the means of the replicates'. Their masks are the same, so zeros stay zeros. All else
is as replicate 0 left it: the optimizers and other `state`, of which a mean need not mean anything, and the model's
buffers. The running statistics of normalisation layers belong to no replicate and are computed anew.

Source: Zimmer, Spiegel, Pokutta, "Sparse Model Soups: A Recipe for Improved Pruning via Model Averaging", ICLR 2024,
algorithm 1 with uniform weights.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gossamer import randomness
from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.loop.records import REPLICATES
from gossamer.loop.spent import Spent
from gossamer.model.stored import fill, storable
from gossamer.model.wrappers import unwrap
from gossamer.storage import state as states
from gossamer.storage.files import remove, write_file
from gossamer.storage.typed import WrongTypeError, read_as


@dataclass(frozen=True)
class Trained:
    """The replicates of a round that are trained so far: all that is needed to go on, or to average them."""

    round: int
    count: int
    """How many they are."""
    total: dict[str, Tensor]
    """The sum of their parameters, by name; in float64, where the order of a few summands leaves no trace in float32,
    and which a file holds to the bit."""
    first_model: dict[str, Tensor]
    """Replicate 0, as `storable` returns it."""
    first_objects: dict[str, Any]
    """Name -> `state_dict` of what lives on across rounds, as replicate 0 left it."""
    random: dict[str, Any]
    """The global random generators after the last of them."""
    steps: int
    """Optimizer steps of all of them."""
    seconds: float
    processor_seconds: float

    def save(self, folder: Path) -> None:
        content = {name: getattr(self, name) for name in self.__dataclass_fields__}
        write_file(folder / REPLICATES, lambda temporary: states.save(temporary, content))


class Start:
    """What a round begins with after its cut: where each of its replicates begins."""

    def __init__(self, model: nn.Module, objects: Mapping[str, Any]) -> None:
        self.model = storable(model)
        self.objects = _states_of(objects)

    def restore(self, model: nn.Module, objects: Mapping[str, Any]) -> None:
        """Puts model and objects back to it; gradients that a training left behind are dropped."""
        fill(unwrap(model), self.model, Path("the start of the round"))
        _load(objects, self.objects)
        for parameter in model.parameters():
            parameter.grad = None


def load_trained(folder: Path, round_number: int) -> Trained | None:
    """The replicates of this round that are trained already; None if there are none.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = folder / REPLICATES
    if not path.exists():
        return None
    saved = states.load_entries(path)
    try:
        found = read_as(Trained, saved)
    except WrongTypeError as error:
        raise CheckpointError(
            f"{path} holds no trained replicates ({error}); remove it to train those of round {round_number} again"
        ) from error
    if found.round != round_number:
        # Left by a crash between the end of its round and its removal.
        remove(path)
        return None
    return found


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter once, in float64 and on the CPU."""
    return {
        name: parameter.detach().cpu().to(torch.promote_types(parameter.dtype, torch.float64), copy=True)
        for name, parameter in unwrap(model).named_parameters()
    }


def with_one_more(
    before: Trained | None, model: nn.Module, objects: Mapping[str, Any], round_number: int, spent: Spent
) -> Trained:
    """The replicates trained before, with what is now in the model.

    Args:
        spent: what the round has cost so far.

    Raises:
        ConfigurationError: the second one is the first again, so that there would be nothing to average.
    """
    weights = parameters_of(model)
    if (
        before is not None
        and before.count == 1
        and all(torch.equal(before.total[name], weights[name]) for name in weights)
    ):
        raise ConfigurationError(
            f"replicates 0 and 1 of round {round_number} ended with the same weights, so there is nothing to average; "
            f"let each see the data in another order (drawn from the global random numbers, or by its number), or "
            f"leave replicates out"
        )
    return Trained(
        round=round_number,
        count=1 if before is None else before.count + 1,
        total=weights if before is None else {name: total + weights[name] for name, total in before.total.items()},
        first_model=storable(model) if before is None else before.first_model,
        first_objects=_states_of(objects) if before is None else before.first_objects,
        random=randomness.capture(),
        steps=spent.steps,
        seconds=spent.seconds,
        processor_seconds=spent.processor_seconds,
    )


@torch.no_grad()
def put_average(trained: Trained, model: nn.Module, objects: Mapping[str, Any]) -> None:
    """Puts the mean of the replicates' parameters into the model, and all else as replicate 0 left it.

    Raises:
        CheckpointError: they do not fit.
    """
    fill(unwrap(model), trained.first_model, Path(REPLICATES))
    _load(objects, trained.first_objects)
    parameters = dict(unwrap(model).named_parameters())
    other = sorted({*parameters} ^ {*trained.total})
    if other or any(parameters[name].shape != total.shape for name, total in trained.total.items()):
        raise CheckpointError(
            f"the replicates in {REPLICATES} do not fit the model{f': {other[0]} is only in one' if other else ''}; "
            f"remove the file to train them again"
        )
    for name, total in trained.total.items():
        parameters[name].copy_(total / trained.count)


def _states_of(objects: Mapping[str, Any]) -> dict[str, Any]:
    return {name: copy.deepcopy(thing.state_dict()) for name, thing in objects.items()}


def _load(objects: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    for name, thing in objects.items():
        # Copied, since optimizers work on in the tensors that they are given.
        thing.load_state_dict(copy.deepcopy(saved[name]))
