"""How the kept weights are shared among the layers. "global" is no sharing: one ranking over all layers."""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import floor, prod

from gossamer.arguments import require_kind
from gossamer.errors import ConfigurationError

Shapes = Mapping[str, Sequence[int]]
"""Outputs first, then inputs, then the kernel."""

Allocation = Callable[[Shapes, int], Mapping[str, Fraction]]
"""(shape of each weight, how many weights to keep) -> how many to keep in each, summing to that, not yet rounded."""


def uniform(shapes: Shapes, kept: int) -> dict[str, Fraction]:
    """The same density in every layer."""
    density = Fraction(kept, sum(prod(shape) for shape in shapes.values()))
    return {name: density * prod(shape) for name, shape in shapes.items()}


def erk(shapes: Shapes, kept: int) -> dict[str, Fraction]:
    """Erdős-Rényi-Kernel: density proportional to (sum of the shape) / (product of the shape), at most 1; what full
    layers cannot take is shared among the others (Evci et al. 2020, section 3)."""
    full: set[str] = set()
    while True:
        open_layers = [name for name in shapes if name not in full]
        left = kept - sum(prod(shapes[name]) for name in full)
        # A density of scale * sum / product over `product` weights keeps scale * sum of them.
        scale = Fraction(left, sum(sum(shapes[name]) for name in open_layers)) if open_layers else Fraction(0)
        overfull = {name for name in open_layers if scale * sum(shapes[name]) > prod(shapes[name])}
        if not overfull:
            return {
                name: Fraction(prod(shape)) if name in full else scale * sum(shape) for name, shape in shapes.items()
            }
        full |= overfull


ALLOCATIONS: dict[str, Allocation | None] = {
    "global": None,
    "uniform": uniform,
    "erk": erk,
}


def find_allocation(name: str) -> Allocation | None:
    """The allocation of this name; None for "global".

    Raises:
        ConfigurationError: there is none.
    """
    require_kind("allocation", name, str, f"one of {', '.join(ALLOCATIONS)}")
    if name not in ALLOCATIONS:
        raise ConfigurationError(
            f"there is no allocation {name!r}; expected one of {', '.join(ALLOCATIONS)}, or a file of densities that "
            f"ends in .toml"
        )
    return ALLOCATIONS[name]


def apportion(wanted: Mapping[str, Fraction], available: Mapping[str, int], kept: int) -> dict[str, int]:
    """Apportions `kept` weights: the shares, rounded to whole numbers of this sum, none above what is available.

    The largest remainders are rounded up (Hamilton's method; of equal ones the first). What a layer cannot take is
    shared among those that can, in proportion to what they still have.

    Raises:
        ValueError: fewer than `kept` are available.
    """
    if sum(available.values()) < kept:
        raise ValueError(f"got {sum(available.values())} weights to keep {kept} of; expected at least as many")
    possible = {name: min(share, Fraction(available[name])) for name, share in wanted.items()}
    missing = kept - sum(possible.values())
    room = {name: available[name] - possible[name] for name in wanted}
    if missing > 0:
        all_room = sum(room.values())
        possible = {name: share + missing * room[name] / all_room for name, share in possible.items()}
    counts = {name: floor(share) for name, share in possible.items()}
    by_remainder = sorted(possible, key=lambda name: counts[name] - possible[name])
    for name in by_remainder[: kept - sum(counts.values())]:
        counts[name] += 1
    return counts
