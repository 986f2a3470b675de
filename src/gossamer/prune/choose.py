"""One cut: of the weights that are left, those that stay."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gossamer.errors import ConfigurationError
from gossamer.model.sharded import cuts_groups, is_sharded, transposed
from gossamer.prune.allocate import Allocation, Shapes, apportion, find_allocation
from gossamer.prune.criteria import CRITERIA, ScoreInputs, find_criterion
from gossamer.prune.cut import Cut
from gossamer.prune.gradients import mean_gradients
from gossamer.prune.masks import count_kept, count_kept_of_each
from gossamer.prune.prunable import inputs_first
from gossamer.prune.structure import find_structure
from gossamer.randomness import derived_seed
from gossamer.ranks.group import current


def require_losses(cut: Cut) -> None:
    """Verifies that a criterion which needs gradients can have them.

    Raises:
        ConfigurationError: it cannot.
    """
    if find_criterion(cut.criterion).needs_gradients and cut.losses is None:
        raise ConfigurationError(
            f"the criterion {cut.criterion!r} needs gradients; pass losses=, a function that yields the model's loss "
            f"on some batches"
        )


def own_target(cut: Cut, weights: Mapping[str, Tensor]) -> float | None:
    """The target sparsity at which given densities end; None for an allocation by name."""
    if cut.densities is None:
        return None
    total = cut.densities.total(_shapes(weights))
    # Half a weight past it, so that no rounding of this number moves the whole count.
    return 1 - (total - 0.5) / sum(weight.numel() for weight in weights.values())


def check(cut: Cut, model: nn.Module, weights: Mapping[str, nn.Parameter], last_kept: int | None) -> None:
    """Verifies, before anything is trained, that the cuts can be made.

    Args:
        last_kept: how many weights the last round keeps; None if that is not known.

    Raises:
        ConfigurationError: they cannot; the message says what to do.
    """
    if cut.structure != "unstructured":
        inputs_first(model, weights)
    _check_sharded(cut, model, weights)
    if cut.densities is not None:
        cut.densities.total(_shapes(weights))
    if last_kept is None:
        return
    shapes = _outputs_first(cut, model, weights)
    most = {name: find_structure(cut.structure).most(shape) for name, shape in shapes.items()}
    if last_kept > sum(most.values()):
        prunable = sum(weight.numel() for weight in weights.values())
        raise ConfigurationError(
            f"the last round keeps {last_kept} weights, but {cut.structure} leaves at most {sum(most.values())}; "
            f"expected a target sparsity of at least {1 - sum(most.values()) / prunable:.4g}"
        )
    allocation = _allocation(cut)
    if allocation is None:
        return
    sizes = {name: weight.numel() for name, weight in weights.items()}
    for name, number in apportion(allocation(shapes, last_kept), sizes, last_kept).items():
        if number > most[name]:
            raise ConfigurationError(
                f"{cut.allocation_name} keeps {number} weights of {name}, but {cut.structure} leaves at most "
                f"{most[name]}; expected a larger target sparsity, or the allocation uniform or global"
            )


def _check_sharded(cut: Cut, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    sharded = {name: weight for name, weight in weights.items() if is_sharded(weight)}
    if not sharded:
        return
    group = find_structure(cut.structure).group
    if not find_criterion(cut.criterion).of_shards or group is None:
        possible = [name for name, criterion in CRITERIA.items() if criterion.of_shards]
        raise ConfigurationError(
            f"{next(iter(sharded))} is sharded (a DTensor: fully_shard, tensor parallelism), and the cut is by "
            f"{cut.criterion} and {cut.structure}; expected the criterion {' or '.join(possible)} and the structure "
            f"unstructured or N:M for sharded weights. Choose these, or prune where the network is whole"
        )
    turned = set() if cut.structure == "unstructured" else inputs_first(model, weights)
    for name, weight in sharded.items():
        axis = 0 if name in turned else 1
        if cuts_groups(name, weight, axis, group):
            rows = weight.numel() // weight.shape[axis]
            raise ConfigurationError(
                f"{cut.structure} looks at {group} consecutive inputs of {name} at a time, and {weight.placements} "  # type: ignore[attr-defined]
                f"of {tuple(weight.shape)} divides some of them between processes; expected whole groups: of a divided "
                f"one nobody knows the largest without the others' weights, and to send those of {rows} rows in every "
                f"round would grow with the network. Shard it along its outputs (axis {1 - axis}), or over a number of "
                f"processes that leaves each a multiple of {group} inputs; or leave it as it is (Scope(exclude=...))"
            )


def choose(
    cut: Cut,
    model: nn.Module,
    weights: Mapping[str, nn.Parameter],
    kept: int,
    masks: Mapping[str, Tensor],
    *,
    round_number: int,
    seed: int = 0,
) -> dict[str, Tensor]:
    """New masks that keep `kept` of the weights: exactly, or in whole groups as many as fit.

    What `masks` pruned stays pruned. Equal scores are kept in the model's order.

    Raises:
        TrainingDivergedError: a weight, a loss or a score is not finite.
        ConfigurationError: not one group fits.
    """
    criterion, structure = find_criterion(cut.criterion), find_structure(cut.structure)
    gradients = {}
    if criterion.needs_gradients and cut.losses is not None:
        # Every rank has losses of its own examples.
        gradients = current().mean(mean_gradients(model, weights, cut.losses))
    generator = torch.Generator().manual_seed(derived_seed(seed, round_number, "criterion"))
    with torch.no_grad():
        scores = criterion.score(ScoreInputs(weights, masks, gradients, generator))
    turned = set() if cut.structure == "unstructured" else inputs_first(model, weights)
    scores = {name: _turned(score, name in turned) for name, score in scores.items()}
    there = {name: _turned(mask, name in turned) for name, mask in masks.items()}
    allocation = _allocation(cut)
    if allocation is None:
        chosen = structure.keep(scores, kept, there)
    else:
        shapes = _outputs_first(cut, model, weights)
        available = count_kept_of_each(masks)
        # Whole groups may have gone faster than planned.
        kept = min(kept, sum(available.values()))
        counts = apportion(allocation(shapes, kept), available, kept)
        if structure.keep_each is not None:
            chosen = structure.keep_each(scores, counts, there)
        else:
            chosen = {
                name: structure.keep({name: scores[name]}, counts[name], {name: there[name]})[name] for name in weights
            }
    if count_kept(chosen) == 0:
        raise ConfigurationError(
            f"nothing would be left: not one of the groups of {cut.structure} fits into {kept} weights; expected "
            f"a smaller target sparsity or a finer structure"
        )
    return {name: _turned(mask, name in turned) for name, mask in chosen.items()}


def _allocation(cut: Cut) -> Allocation | None:
    return cut.densities or find_allocation(cut.allocation_name)


def _outputs_first(cut: Cut, model: nn.Module, weights: Mapping[str, Tensor]) -> Shapes:
    """Shapes with the outputs first, for structures that tell them from inputs."""
    turned = set() if cut.structure == "unstructured" else inputs_first(model, weights)
    return {name: tuple(_turned(weight, name in turned).shape) for name, weight in weights.items()}


def _shapes(weights: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def _turned(tensor: Tensor, inputs_are_first: bool) -> Tensor:
    """A view with outputs first (and back)."""
    return transposed(tensor) if inputs_are_first else tensor
