"""The model that a run prunes: its prunable weights of today, and what has to hold of them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.errors import ConfigurationError, TrainingDivergedError
from gossamer.loop import fingerprint
from gossamer.loop.fingerprint import Fingerprint
from gossamer.model.sharded import is_sharded, piece_of
from gossamer.model.ties import require_ties, ties_of
from gossamer.model.whole import settle
from gossamer.model.wrappers import unwrap
from gossamer.prune.enforce import attach_masks, check
from gossamer.prune.names import vanished
from gossamer.prune.prunable import count_parameters
from gossamer.rewind.optimizers import optimizers
from gossamer.rewind.parts import local


class PrunedModel:
    """A model with its prunable weights, whose parameters may be replaced by others of the same names."""

    def __init__(self, model: nn.Module, weights: Mapping[str, nn.Parameter], state: Mapping[str, Any]) -> None:
        self.model = model
        self.weights = weights
        self.state = state
        self.parameters = count_parameters(model)
        self._ties = ties_of(model)

    @property
    def device(self) -> str:
        return next(self.model.parameters()).device.type

    @property
    def is_sharded(self) -> bool:
        """Whether this process has a piece only of some parameters."""
        return any(is_sharded(parameter) for parameter in self.model.parameters())

    def fingerprint(self) -> Fingerprint:
        """The fingerprint of all parameters."""
        return fingerprint.fingerprint(unwrap(self.model).named_parameters())

    def shapes(self) -> dict[str, torch.Size]:
        """The shapes of all parameters, by name."""
        return {name: parameter.shape for name, parameter in unwrap(self.model).named_parameters()}

    def attach_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Keeps the zeros of the masks from here on, in the optimizers too."""
        attach_masks(self.model, self.current_weights(), masks, map(local, optimizers(self.state).values()))

    def current_weights(self) -> dict[str, nn.Parameter]:
        """The parameters of today under the names of the weights.

        Raises:
            ConfigurationError: one is gone, or they are no longer tied as they were.
        """
        return self._find(self.weights)

    def refuse_vanished(self) -> None:
        """At a first step: an adapter may be around a weight, until it is merged.

        Raises:
            ConfigurationError: a weight that is trained no longer is found by no name.
        """
        there = {id(parameter) for parameter in unwrap(self.model).parameters()}
        self._find({name: weight for name, weight in self.weights.items() if id(weight) not in there})

    def verify_zeros(self, masks: Mapping[str, Tensor], dense: bool) -> None:
        """Verifies that what was pruned is zero, and goes on with the parameters of today.

        Raises:
            PrunedWeightError: it is not.
        """
        current = self.current_weights()
        if not dense:
            check(self.model, masks=masks)
        if any(current[name] is not weight for name, weight in self.weights.items()):
            # The parameters were replaced (load_state_dict(assign=True), a new head): these get the masks.
            self.weights = current
            if not dense:
                self.attach_masks(masks)

    def verify_initialised(self) -> None:
        """Verifies that training begins with numbers: what `to_empty` leaves, and no layer has filled, is anything.

        Raises:
            TrainingDivergedError: a parameter is not finite.
        """
        name = self._first_not_finite(dict(unwrap(self.model).named_parameters()))
        if name is not None:
            raise TrainingDivergedError(
                f"{name} is not finite before round 0: it was not initialised, or the weights that were loaded are "
                f"broken. After to_empty, call reset_parameters of every layer, or load weights, before the rounds."
            )

    def verify_finite(self, tensors: Mapping[str, Tensor], round_number: int) -> None:
        """Verifies that what a round is to keep is finite.

        Raises:
            TrainingDivergedError: it is not.
        """
        name = self._first_not_finite(tensors)
        if name is not None:
            raise TrainingDivergedError(
                f"{name} is not finite after round {round_number}: training diverged. The last good round is kept; "
                f"lower the learning rate and start in a new folder."
            )

    def _first_not_finite(self, tensors: Mapping[str, Tensor]) -> str | None:
        parameters = dict(unwrap(self.model).named_parameters(remove_duplicate=False))
        for name, tensor in ((name, piece_of(tensor)) for name, tensor in tensors.items()):
            # A buffer may hold infinities, as attention masks do.
            if not (_is_finite(tensor) if name in parameters else not torch.isnan(tensor).any()):
                return name
        return None

    def is_trained(self, since: Fingerprint) -> bool:
        """Whether a prunable weight is another one than it was; of frozen ones, whether any parameter is. Of sharded
        ones what this process has."""
        current = dict(unwrap(self.model).named_parameters())
        frozen = not any(current[name].requires_grad for name in self.weights)
        names = current if frozen else self.weights
        # One after the other: the first weight is enough to know.
        return any(fingerprint.fingerprint([(name, current[name])]).items() - since.items() for name in names)

    def _find(self, weights: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
        settle(self.model)
        require_ties(self.model, self._ties)
        return prunable_parameters(self.model, weights)


def prunable_parameters(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """The model's parameters of today under the names of `weights`.

    Raises:
        ConfigurationError: one is gone, or has another shape.
    """
    parameters = dict(unwrap(model).named_parameters())
    for name, weight in weights.items():
        parameter = parameters.get(name)
        if parameter is None or parameter.shape != weight.shape:
            raise ConfigurationError(vanished(name, weight.shape, parameter))
    return {name: parameters[name] for name in weights}


def _is_finite(tensor: Tensor) -> bool:
    if tensor.is_floating_point() and tensor.dtype.itemsize == 1:
        # torch compares few of the float8 types; float32 has all their numbers.
        tensor = tensor.float()
    return bool(torch.isfinite(tensor).all())
