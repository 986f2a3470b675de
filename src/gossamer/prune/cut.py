"""One cut: what a weight is worth, how many stay in each layer, and what has to stay or go together."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from gossamer.arguments import require_function, require_kind
from gossamer.errors import ConfigurationError
from gossamer.prune.allocate import Allocation, Shapes, apportion, find_allocation
from gossamer.prune.criteria import ScoreInputs, find_criterion
from gossamer.prune.densities import Densities, read_densities
from gossamer.prune.gradients import Losses, mean_gradients
from gossamer.prune.masks import count_kept
from gossamer.prune.scope import inputs_first
from gossamer.prune.structure import find_structure
from gossamer.randomness import derived_seed

DensityPlan = str | Path | Mapping[str, float]
"""The name of an allocation, a file of densities (`.toml`), or the densities themselves by weight name."""


@dataclass(frozen=True)
class Cut:
    """How every round chooses the weights that stay. The default is the paper's: global, raw magnitudes."""

    criterion: str = "magnitude"
    """A name in `gossamer.prune.criteria.CRITERIA`."""
    allocation: str | Densities = "global"
    """A name in `gossamer.prune.allocate.ALLOCATIONS`, or densities."""
    structure: str = "unstructured"
    """A name in `gossamer.prune.structure.STRUCTURES`, or N:M."""
    losses: Losses | None = None
    """For criteria that need gradients: see `gossamer.prune.gradients`."""
    seed: int = 0
    """Of criteria that draw random numbers."""

    def __post_init__(self) -> None:
        require_function("losses", self.losses, "a function that yields the model's loss on some batches")
        needs_gradients = find_criterion(self.criterion).needs_gradients
        find_structure(self.structure)
        if isinstance(self.allocation, str):
            find_allocation(self.allocation)
        else:
            self.allocation.check_structure(self.structure)
        if needs_gradients and self.losses is None:
            raise ConfigurationError(
                f"the criterion {self.criterion!r} needs gradients; pass losses=, a function that yields the model's "
                f"loss on some batches"
            )
        if self.losses is not None and not needs_gradients:
            raise ConfigurationError(
                f"losses is given, but the criterion {self.criterion!r} uses no gradients; leave it out, or pass "
                f"criterion='taylor'"
            )

    def describe(self) -> dict[str, object]:
        """The settings as plain values, for a run's configuration."""
        return {
            "criterion": self.criterion,
            "allocation": self.allocation if isinstance(self.allocation, str) else "densities",
            "densities": None if isinstance(self.allocation, str) else dict(self.allocation.of),
            "structure": self.structure,
        }

    def own_target(self, weights: Mapping[str, Tensor]) -> float | None:
        """The target sparsity at which given densities end; None for an allocation by name."""
        if isinstance(self.allocation, str):
            return None
        total = self.allocation.total(_shapes(weights))
        # Half a weight past it, so that no rounding of this number moves the whole count.
        return 1 - (total - 0.5) / sum(weight.numel() for weight in weights.values())

    def check(self, model: nn.Module, weights: Mapping[str, nn.Parameter], last_kept: int | None) -> None:
        """Verifies, before anything is trained, that the cuts can be made.

        Args:
            last_kept: how many weights the last round keeps; None if that is not known.

        Raises:
            ConfigurationError: they cannot; the message says what to do.
        """
        if self.structure != "unstructured":
            inputs_first(model, weights)
        if isinstance(self.allocation, Densities):
            self.allocation.total(_shapes(weights))
        if last_kept is None:
            return
        shapes = self._shapes(model, weights)
        most = {name: find_structure(self.structure).most(shape) for name, shape in shapes.items()}
        if last_kept > sum(most.values()):
            prunable = sum(weight.numel() for weight in weights.values())
            raise ConfigurationError(
                f"the last round keeps {last_kept} weights, but {self.structure} leaves at most {sum(most.values())}; "
                f"expected a target sparsity of at least {1 - sum(most.values()) / prunable:.4g}"
            )
        allocation = self._allocation()
        if allocation is None:
            return
        sizes = {name: weight.numel() for name, weight in weights.items()}
        for name, number in apportion(allocation(shapes, last_kept), sizes, last_kept).items():
            if number > most[name]:
                raise ConfigurationError(
                    f"{self.describe()['allocation']} keeps {number} weights of {name}, but {self.structure} leaves at "
                    f"most {most[name]}; expected a larger target sparsity, or the allocation uniform or global"
                )

    def choose(
        self,
        model: nn.Module,
        weights: Mapping[str, nn.Parameter],
        kept: int,
        masks: Mapping[str, Tensor],
        *,
        round_number: int,
    ) -> dict[str, Tensor]:
        """New masks that keep `kept` of the weights: exactly, or in whole groups as many as fit.

        What `masks` pruned stays pruned. Equal scores are kept in the model's order.

        Raises:
            TrainingDivergedError: a weight, a loss or a score is not finite.
            ConfigurationError: not one group fits.
        """
        criterion, structure = find_criterion(self.criterion), find_structure(self.structure)
        gradients = {}
        if criterion.needs_gradients and self.losses is not None:
            gradients = mean_gradients(model, weights, self.losses)
        generator = torch.Generator().manual_seed(derived_seed(self.seed, round_number, "criterion"))
        with torch.no_grad():
            scores = criterion.score(ScoreInputs(weights, masks, gradients, generator))
        turned = set() if self.structure == "unstructured" else inputs_first(model, weights)
        scores = {name: _turned(score, name in turned) for name, score in scores.items()}
        there = {name: _turned(mask, name in turned) for name, mask in masks.items()}
        allocation = self._allocation()
        if allocation is None:
            chosen = structure.keep(scores, kept, there)
        else:
            shapes = self._shapes(model, weights)
            available = {name: count_kept({name: mask}) for name, mask in masks.items()}
            # Whole groups may have gone faster than planned.
            kept = min(kept, sum(available.values()))
            counts = apportion(allocation(shapes, kept), available, kept)
            chosen = {
                name: structure.keep({name: scores[name]}, counts[name], {name: there[name]})[name] for name in weights
            }
        if count_kept(chosen) == 0:
            raise ConfigurationError(
                f"nothing would be left: not one of the groups of {self.structure} fits into {kept} weights; expected "
                f"a smaller target sparsity or a finer structure"
            )
        return {name: _turned(mask, name in turned) for name, mask in chosen.items()}

    def _allocation(self) -> Allocation | None:
        return find_allocation(self.allocation) if isinstance(self.allocation, str) else self.allocation

    def _shapes(self, model: nn.Module, weights: Mapping[str, Tensor]) -> Shapes:
        """Outputs first, for structures that tell them from inputs."""
        turned = set() if self.structure == "unstructured" else inputs_first(model, weights)
        return {name: tuple(_turned(weight, name in turned).shape) for name, weight in weights.items()}


def allocation_of(given: DensityPlan) -> str | Densities:
    """An allocation by name, from a file, or given.

    Raises:
        ConfigurationError: there is no such name, or the file or the densities are no good.
    """
    if isinstance(given, Mapping):
        return Densities(given)
    require_kind("allocation", given, (str, Path), "a name, a file of densities, or densities by weight name")
    if isinstance(given, Path) or given.endswith(".toml"):
        return read_densities(Path(given))
    return given


def _shapes(weights: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def _turned(tensor: Tensor, inputs_are_first: bool) -> Tensor:
    """With outputs first (and back): a view."""
    return tensor.transpose(0, 1) if inputs_are_first else tensor
