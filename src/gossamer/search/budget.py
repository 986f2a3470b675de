"""What a pruned network may cost, and what that leaves to one layer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from gossamer.arguments import as_written
from gossamer.search.compressible import Compressible
from gossamer.search.errors import SearchError
from gossamer.search.layers import LayerFacts

Cost = Callable[[Mapping[str, int]], float]
"""Weights kept, by name -> what the network costs. It must not fall when more are kept."""

NANOSECONDS = 1e6
"""In a millisecond. A network takes about as many as it has FLOPs, of which the paper takes the logarithm."""


@dataclass(frozen=True)
class Budget:
    """What the network may cost."""

    name: str
    """The unit, such as "weights" or "milliseconds"."""
    cost: Cost
    limit: float | None
    """The most that it may cost, in the cost's own unit. None: no limit; the reward weighs the cost."""
    in_one: float = 1.0
    """Smaller units in one of the cost's. A reward that weighs the logarithm of the cost takes it in those: were it
    below 0, as of a tenth of a millisecond, the reward would be for errors."""

    def check(self, network: Compressible, lowest: Sequence[int]) -> None:
        """Verifies that the limit can be kept, and that it is one.

        Raises:
            SearchError: even the least of every layer costs more, or just as much, or nothing has to go.
        """
        if self.limit is None:
            return
        least, dense = self.cost(network.kept(lowest)), self.cost(network.kept(network.sizes))
        if least > self.limit:
            raise SearchError(
                f"the budget is {self.limit:g} {self.name}, but with every layer at its lowest density the network "
                f"costs {least:g}; expected at least that. Lower the lowest density, or raise the budget."
            )
        if dense <= self.limit:
            raise SearchError(
                f"the budget is {self.limit:g} {self.name}, and the dense network costs {dense:g} already; expected "
                f"less than that"
            )
        if all(self.cost(network.kept(more)) > self.limit for more in _one_more(lowest, network.sizes)):
            raise SearchError(
                f"the budget is {self.limit:g} {self.name}, which every layer at its lowest density uses up: there is "
                f"nothing to choose. Lower the lowest density, or raise the budget."
            )

    def allowed(self, network: Compressible, chosen: Sequence[int], lowest: Sequence[int]) -> tuple[int, int]:
        """The fewest and the most that the next action may keep.

        The most: so that the budget is kept if all later ones keep their least (algorithm 1 of the paper). The fewest:
        so that it can be used up if all later ones keep everything; the paper's released code lets an agent stay below
        it, which no reward for accuracy makes worthwhile and which makes policies hard to compare.
        """
        position = len(chosen)
        if self.limit is None:
            return lowest[position], network.sizes[position]

        def cost(number: int, later: Sequence[int]) -> float:
            return self.cost(network.kept([*chosen, number, *later[position + 1 :]]))

        limit = self.limit
        least, most = lowest[position], network.sizes[position]
        highest = _last(least, most, lambda number: cost(number, lowest) <= limit)
        fewest = min(_last(least - 1, highest, lambda number: cost(number, network.sizes) < limit) + 1, highest)
        return fewest, highest


def _one_more(numbers: Sequence[int], most: Sequence[int]) -> Iterator[list[int]]:
    """The numbers with one of them higher by one, for each that is below its most."""
    for position, number in enumerate(numbers):
        if number < most[position]:
            yield [*numbers[:position], number + 1, *numbers[position + 1 :]]


def weights(layers: Sequence[LayerFacts], share: float | None) -> Budget:
    """A budget of prunable weights. `share`: kept / prunable, in (0, 1); the number is rounded up, as rounds do."""
    total = sum(layer.weights for layer in layers)
    limit = None if share is None else ceil(as_written(_checked("weights", share)) * total)
    return Budget("weights", lambda kept: sum(kept.values()), limit)


def flops(layers: Sequence[LayerFacts], share: float | None) -> Budget:
    """A budget of the floating-point operations of the prunable layers for one example, zeros not counted. `share`: of
    the dense network's, in (0, 1)."""
    per_weight = {layer.name: 2 * layer.positions for layer in layers}
    limit = None if share is None else _checked("flops", share) * sum(layer.flops for layer in layers)
    return Budget("flops", lambda kept: sum(per_weight[name] * number for name, number in kept.items()), limit)


def milliseconds(
    layers: Sequence[LayerFacts], predict: Callable[[Mapping[str, float]], float], limit: float | None
) -> Budget:
    """A budget of predicted time.

    Args:
        predict: density of each weight by name -> milliseconds of one inference; it must not fall when a density
            grows. `gossamer.search.expected_time.expected_milliseconds` makes one from a calibration.
        limit: in milliseconds.

    Raises:
        SearchError: the limit is no number above 0.
    """
    sizes = {layer.name: layer.weights for layer in layers}
    if limit is not None and not limit > 0:
        raise SearchError(f"the budget is {limit} milliseconds; expected a number above 0")
    return Budget(
        "milliseconds",
        lambda kept: predict({name: number / sizes[name] for name, number in kept.items()}),
        limit,
        in_one=NANOSECONDS,
    )


def _checked(name: str, share: float) -> float:
    if not 0 < share < 1:
        raise SearchError(f"the budget of {name} is {share}; expected a share of the dense network's between 0 and 1")
    return share


def _last(first: int, last: int, holds: Callable[[int], bool]) -> int:
    """The largest number from `first` to `last` for which it holds, if it holds up to some number and not after;
    `first` is taken to hold."""
    while first < last:
        middle = (first + last + 1) // 2
        first, last = (middle, last) if holds(middle) else (first, middle - 1)
    return first
