"""What may be kept and pruned together: single weights, N of every M, blocks, or whole output channels.

Every structure chooses among scores by name. The tensors have outputs first, then inputs, then the kernel.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from gossamer.arguments import require_kind
from gossamer.errors import ConfigurationError, TrainingDivergedError
from gossamer.model.sharded import on_pieces
from gossamer.prune.masks import count_kept, count_kept_of_each
from gossamer.prune.n_of_m import most_of_groups, n_and_m
from gossamer.prune.select import keep_largest
from gossamer.prune.select_each import keep_largest_of_each

Tensors = Mapping[str, Tensor]

BLOCK = 4
"""Input channels of a block: four int8 weights are what one dot-product instruction reads for an output."""


@dataclass(frozen=True)
class Structure:
    """A way to choose weights by their scores."""

    keep: Callable[[Tensors, int, Tensors], dict[str, Tensor]]
    """(scores, how many to keep, masks of what is still there) -> masks. As many as fit into whole groups, never more;
    what was pruned stays pruned; of equal groups the later ones go first."""
    most: Callable[[Sequence[int]], int] = prod
    """Shape of a weight -> the most of its weights that the finished structure can hold."""
    keep_each: Callable[[Tensors, Mapping[str, int], Tensors], dict[str, Tensor]] | None = None
    """The same, of every tensor by itself, in fewer messages where they are sharded; None: `keep` of each."""
    group: int | None = None
    """How many consecutive inputs one process has to hold of a sharded weight, for the choice to be made where they
    are; None: sharded weights cannot be pruned so."""


@dataclass(frozen=True)
class Grouping:
    """A partition of a weight into groups that stay or go as one."""

    totals: Callable[[Tensor], Tensor]
    """(outputs, inputs, ...) -> the sum over each group, in the groups' own shape."""
    spread: Callable[[Tensor, torch.Size], Tensor]
    """The groups' shape, the weight's shape -> each group's entry at all its weights."""


def keep_groups(grouping: Grouping, scores: Tensors, kept: int, masks: Tensors) -> dict[str, Tensor]:
    """Masks that keep the groups with the largest mean |score| over their surviving weights, in that order, as long
    as all of the next one fits into `kept`. (The mean, so that groups of different size are compared by what a kept
    weight brings.)

    Raises:
        TrainingDivergedError: a score is not finite.
    """
    sizes = {name: grouping.totals(mask.double()) for name, mask in masks.items()}
    means = {}
    for name, score in scores.items():
        totals = grouping.totals(score.detach().double().abs() * masks[name])
        if not bool(torch.isfinite(totals).all()):
            raise TrainingDivergedError(
                f"{name} holds a score that is not finite; expected finite weights. Training diverged: lower the "
                f"learning rate, or go on from the last good round."
            )
        # A group that is pruned already comes last and weighs nothing.
        means[name] = torch.where(sizes[name] > 0, totals / sizes[name].clamp(min=1), -1)
    order = torch.cat([mean.reshape(-1).cpu() for mean in means.values()]).sort(descending=True, stable=True).indices
    all_sizes = torch.cat([size.reshape(-1).cpu() for size in sizes.values()])
    stay = torch.zeros(len(order), dtype=torch.bool)
    stay[order] = all_sizes[order].cumsum(0) <= kept
    parts = stay.split([mean.numel() for mean in means.values()])
    return {
        name: grouping.spread(part.reshape(mean.shape).to(masks[name].device), masks[name].shape) & masks[name]
        for (name, mean), part in zip(means.items(), parts, strict=True)
    }


def keep_n_of_m(n: int, m: int, scores: Tensors, kept: int, masks: Tensors) -> dict[str, Tensor]:
    """Masks that keep exactly `kept` weights and end at no more than N in every M consecutive input channels.

    The N largest of every group come first. While more than those are kept, no group has lost any of them; the others
    are ranked over all groups. When as many or fewer are kept, the ranking is among the N of each group.
    """
    preferred = _largest_of_all_groups(n, m, scores, masks)
    number = count_kept(preferred)
    if kept <= number:
        return keep_largest(scores, kept, preferred)
    more = keep_largest(scores, kept - number, {name: _others(masks[name], preferred[name]) for name in masks})
    return {name: on_pieces(torch.bitwise_or, preferred[name], more[name]) for name in scores}


def keep_n_of_m_of_each(n: int, m: int, scores: Tensors, kept: Mapping[str, int], masks: Tensors) -> dict[str, Tensor]:
    """`keep_n_of_m` of every tensor by itself."""
    preferred = _largest_of_all_groups(n, m, scores, masks)
    numbers = count_kept_of_each(preferred)
    beyond = {name: kept[name] > numbers[name] for name in scores}
    ranked = {name: _others(masks[name], preferred[name]) if beyond[name] else preferred[name] for name in scores}
    wanted = {name: kept[name] - numbers[name] if beyond[name] else kept[name] for name in scores}
    found = keep_largest_of_each(scores, wanted, ranked)
    return {
        name: on_pieces(torch.bitwise_or, preferred[name], mask) if beyond[name] else mask
        for name, mask in found.items()
    }


def _largest_of_all_groups(n: int, m: int, scores: Tensors, masks: Tensors) -> dict[str, Tensor]:
    largest = partial(_largest_of_groups, n, m)
    return {name: on_pieces(largest, masks[name], score) for name, score in scores.items()}


def _others(mask: Tensor, preferred: Tensor) -> Tensor:
    return on_pieces(lambda there, first: there & ~first, mask, preferred)


def _largest_of_groups(n: int, m: int, mask: Tensor, scores: Tensor) -> Tensor:
    """The n surviving weights with the largest |score| in every m consecutive input channels; of equal ones the first.
    The last group of a row is shorter if m does not divide the number of inputs."""
    groups = _grouped(torch.where(mask, scores.abs(), -1), m, filled=-1)
    ranked = groups.argsort(dim=2, descending=True, stable=True).narrow(2, 0, min(n, m))
    chosen: Tensor = torch.zeros_like(groups, dtype=torch.bool).scatter_(2, ranked, True).flatten(1, 2)
    return mask & chosen.narrow(1, 0, mask.shape[1])


def _grouped(tensor: Tensor, length: int, filled: float) -> Tensor:
    """(outputs, inputs, ...) -> (outputs, groups, length, ...), the last group filled up."""
    lacking = -tensor.shape[1] % length
    whole: Tensor = F.pad(tensor, (0, 0) * (tensor.dim() - 2) + (0, lacking), value=filled)
    groups: Tensor = whole.unflatten(1, (-1, length))
    return groups


BLOCKS = Grouping(
    totals=lambda tensor: _grouped(tensor, BLOCK, filled=0).sum(2),
    spread=lambda groups, shape: groups.repeat_interleave(BLOCK, dim=1).narrow(1, 0, shape[1]),
)
CHANNELS = Grouping(
    totals=lambda tensor: tensor.flatten(1).sum(1),
    spread=lambda groups, shape: groups.reshape(-1, *(1 for _ in shape[1:])).expand(shape),
)


def _n_of_m(n: int, m: int) -> Structure:
    return Structure(
        partial(keep_n_of_m, n, m), partial(most_of_groups, n, m), partial(keep_n_of_m_of_each, n, m), group=m
    )


STRUCTURES: dict[str, Structure] = {
    "unstructured": Structure(keep_largest, keep_each=keep_largest_of_each, group=1),
    "2:4": _n_of_m(2, 4),
    "1x4": Structure(partial(keep_groups, BLOCKS)),
    "channels": Structure(partial(keep_groups, CHANNELS)),
}


def find_structure(name: str) -> Structure:
    """The structure of this name; `N:M` for any 0 < N < M.

    Raises:
        ConfigurationError: there is none.
    """
    require_kind("structure", name, str, f"one of {', '.join(STRUCTURES)}")
    if name in STRUCTURES:
        return STRUCTURES[name]
    numbers = n_and_m(name)
    if numbers is None:
        raise ConfigurationError(
            f"there is no structure {name!r}; expected one of {', '.join(STRUCTURES)}, or N:M with 0 < N < M"
        )
    return _n_of_m(*numbers)
