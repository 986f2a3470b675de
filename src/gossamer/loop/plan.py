"""How many weights are left after each round, computed from the number of prunable weights, so that nothing drifts."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from gossamer.arguments import as_written
from gossamer.errors import NothingToPruneError
from gossamer.loop.stop import Stop
from gossamer.prune.cut import PER_ROUND, Cut

FIRST_CUT = 1
"""Round 0 trains the dense network; the first cut comes before round 1."""


def per_round_and_rounds(stop: Stop, cut: Cut) -> tuple[float, int | None]:
    """The share that every round prunes, and the most rounds; one cut is one round of the target's share."""
    if cut.one_shot and stop.target_sparsity is not None:
        return stop.target_sparsity, 1
    return PER_ROUND if cut.per_round is None else cut.per_round, stop.rounds


@dataclass(frozen=True)
class Plan:
    """The size of the network in every round.

    After round i exactly max(ceil(N (1 - per_round)^i), ceil(N (1 - target_sparsity))) of the N prunable weights are
    left (Renda et al. 2020, section 2: 20% of the remaining weights a round).
    """

    prunable: int
    per_round: float = PER_ROUND
    """Share of the remaining weights that every round prunes, in (0, 1)."""
    target_sparsity: float | None = None
    """Pruned weights / prunable weights after the last round, in (0, 1); None: no target."""
    rounds: int | None = None
    """How many times to prune, at least 1; None: as many as it takes."""

    @classmethod
    def of(cls, prunable: int, stop: Stop, cut: Cut) -> "Plan":
        """The plan of a run."""
        per_round, rounds = per_round_and_rounds(stop, cut)
        return cls(prunable, per_round, stop.target_sparsity, rounds)

    def __post_init__(self) -> None:
        if self.target_sparsity is not None and self.smallest == self.prunable:
            raise NothingToPruneError(
                f"target_sparsity {self.target_sparsity} of {self.prunable} weights rounds to no weight at all; "
                f"expected at least {1 / self.prunable:.2g}, one weight"
            )

    @property
    def smallest(self) -> int:
        """The fewest weights that may be left."""
        if self.target_sparsity is None:
            return 1
        return ceil(self.prunable * (1 - as_written(self.target_sparsity)))

    def kept(self, round_number: int) -> int:
        """How many weights are left in round `round_number`; round 0 is dense."""
        remaining = self.prunable * (1 - as_written(self.per_round)) ** round_number
        return max(ceil(remaining), self.smallest)

    def is_last(self, round_number: int) -> bool:
        """Whether the plan ends with this round: its target or its number of rounds is reached."""
        if self.rounds is not None and round_number >= self.rounds:
            return True
        return self.kept(round_number) == self.smallest

    @property
    def last(self) -> int | None:
        """The number of the last round; None without a target and a number of rounds."""
        if self.target_sparsity is None and self.rounds is None:
            return None
        return len(list(self)) - 1

    def is_among_last(self, round_number: int, count: int) -> bool:
        """Whether the round is one of the last `count`, the dense one not counted."""
        return self.last is not None and round_number >= max(FIRST_CUT, self.last + 1 - count)

    def __iter__(self) -> Iterator[int]:
        """The number of weights left in each round, from the dense network on."""
        round_number = 0
        while True:
            yield self.kept(round_number)
            if self.is_last(round_number):
                return
            round_number += 1
