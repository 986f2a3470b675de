"""Weights whose sign is another one than a round before."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from gossamer.prune.masks import Masks

HOW = (
    "Every weight that the later round keeps is compared with itself at the end of the round before, after "
    "training; weights that are zero in either are left out. A count, no estimate."
)


@dataclass(frozen=True)
class SignFlips:
    """The flips from one round to the next."""

    round: int
    """The later one of the two."""
    survivors: int
    """Weights kept in both rounds, and zero in neither."""
    flipped: int
    """How many of these have another sign."""
    layers: dict[str, tuple[int, int]]
    """Name of the weight tensor -> (survivors, flipped)."""

    @property
    def share(self) -> float:
        return self.flipped / self.survivors if self.survivors else 0.0


@dataclass(frozen=True)
class Signs:
    """The flips of all rounds."""

    rounds: tuple[SignFlips, ...]
    how: str = HOW


def count_sign_flips(rounds: Iterable[tuple[int, Mapping[str, Tensor], Masks]]) -> Signs:
    """Counts sign flips.

    Args:
        rounds: of consecutive rounds, in order: number, weights by name, masks by name.
    """
    found: list[SignFlips] = []
    before: Mapping[str, Tensor] | None = None
    for number, weights, masks in rounds:
        if before is not None:
            layers = {name: _flips(before[name], weights[name], mask) for name, mask in masks.items()}
            survivors, flipped = (sum(counts[index] for counts in layers.values()) for index in (0, 1))
            found.append(SignFlips(number, survivors, flipped, layers))
        before = {name: weights[name].detach().sign() for name in masks}
    return Signs(tuple(found))


def _flips(before: Tensor, after: Tensor, kept: Tensor) -> tuple[int, int]:
    compared = kept & (before != 0) & (after != 0)
    return int(compared.sum()), int((compared & (before.sign() != after.sign())).sum())
