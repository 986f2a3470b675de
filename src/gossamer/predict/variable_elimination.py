"""Variable elimination: the time of a network's cheapest layout, for many prices of the same layers.

`gossamer.graph.layout.choose_panels` finds the layout by a minimum cut, in milliseconds. Here only its time is wanted,
again and again while layers change their densities. Each unit runs on planes or on panels; networks are nearly chains,
so units are eliminated one by one (nonserial dynamic programming): what the rest has to know of those that are gone is
a small table over the layouts of their neighbours. What can be worked out before prices are known is worked out once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from gossamer.errors import ConfigurationError
from gossamer.graph.layout import Unit

WIDEST = 16
"""Units whose layouts may depend on one another at once; a table has a number for every choice. ResNets need 3."""

Times = tuple[float, float]
"""Seconds of a unit, on planes and on panels."""


@dataclass(frozen=True)
class _Table:
    """A time for each choice of layouts (0: planes, 1: panels) of some units, the first one's changing slowest."""

    units: tuple[int, ...]
    times: tuple[float, ...]


@dataclass(frozen=True)
class _Step:
    """A unit is eliminated. Lists have an entry for each choice of its neighbours' layouts, on planes and on panels."""

    unit: int
    conversions: tuple[list[float], list[float]]
    messages: tuple[tuple[int, list[int], list[int]], ...]
    """Earlier steps whose tables are about this unit, and where in them each choice is found."""


class VariableElimination:
    """Finds the least time over all choices of layouts, conversions included, from the times of all units."""

    def __init__(
        self, units: Sequence[Unit], read_as_planes: Iterable[str], conversion_times: Mapping[str, float]
    ) -> None:
        """Takes what `choose_panels` takes, but for the units' own times, which are given later.

        Raises:
            ConfigurationError: the network branches so widely that this would take too long.
        """
        self._steps: list[_Step] = []
        self._last: list[int] = []
        """Steps whose table is a single number."""
        self._eliminate(_conversions(units, set(read_as_planes), conversion_times), len(units))

    def __call__(self, times: Sequence[Times]) -> float:
        """The least time, in seconds.

        It does not fall when one of the times grows, to the last bit: sums and minima of floats do not either.
        """
        tables: list[list[float]] = []
        for step in self._steps:
            on_planes, on_panels = times[step.unit]
            planes = [on_planes + time for time in step.conversions[0]]
            panels = [on_panels + time for time in step.conversions[1]]
            for message, if_planes, if_panels in step.messages:
                table = tables[message]
                planes = [time + table[index] for time, index in zip(planes, if_planes, strict=True)]
                panels = [time + table[index] for time, index in zip(panels, if_panels, strict=True)]
            tables.append(list(map(min, planes, panels)))
        return sum(tables[step][0] for step in self._last)

    def _eliminate(self, conversions: Sequence[_Table], count: int) -> None:
        neighbours: dict[int, set[int]] = {unit: set() for unit in range(count)}
        for table in conversions:
            for unit in table.units:
                neighbours[unit].update(table.units)
        waiting = list(conversions)
        messages: dict[int, tuple[int, ...]] = {}
        """Step -> what its table is about."""
        while neighbours:
            unit = min(neighbours, key=lambda unit: (len(neighbours[unit]), unit))
            others = tuple(sorted(neighbours.pop(unit) - {unit}))
            _refuse_wide(len(others) + 1)
            for other in others:
                neighbours[other].update(others)
                neighbours[other].discard(unit)
            mine = [table for table in waiting if unit in table.units]
            waiting = [table for table in waiting if unit not in table.units]
            read = [step for step, about in messages.items() if unit in about]
            indices = {step: _indices(messages.pop(step), unit, others) for step in read}
            own = [_indices(table.units, unit, others) for table in mine]
            fixed = [
                [
                    sum(table.times[index[layout][choice]] for table, index in zip(mine, own, strict=True))
                    for choice in range(2 ** len(others))
                ]
                for layout in (0, 1)
            ]
            if others:
                messages[len(self._steps)] = others
            else:
                self._last.append(len(self._steps))
            self._steps.append(_Step(unit, (fixed[0], fixed[1]), tuple((step, *indices[step]) for step in read)))


def _refuse_wide(count: int) -> None:
    if count > WIDEST:
        raise ConfigurationError(
            f"the network branches too widely to predict its time again and again: the layouts of {count} layers "
            f"depend on one another at once, at most {WIDEST} may; search with a budget of flops"
        )


def _conversions(
    units: Sequence[Unit], read_as_planes: set[str], conversion_times: Mapping[str, float]
) -> list[_Table]:
    """Lists for every value the time of its conversion, by the layouts of who makes it and who reads it."""
    maker = {unit.output: number for number, unit in enumerate(units)}
    tables = []
    for value, time in conversion_times.items():
        readers = {number for number, unit in enumerate(units) if value in unit.inputs}
        about = tuple(sorted(readers | ({maker[value]} if value in maker else set())))
        _refuse_wide(len(about))
        times = []
        for layouts in product((0, 1), repeat=len(about)):
            layout = dict(zip(about, layouts, strict=True))
            read = {layout[reader] for reader in readers} | ({0} if value in read_as_planes else set())
            made = layout[maker[value]] if value in maker else 0
            times.append(time if 1 - made in read else 0.0)
        tables.append(_Table(about, tuple(times)))
    return tables


def _indices(about: tuple[int, ...], unit: int, others: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Says where a table about some units, one of them `unit`, has the time for each choice of the others' layouts."""
    found: tuple[list[int], list[int]] = ([], [])
    for layout in (0, 1):
        for layouts in product((0, 1), repeat=len(others)):
            of = {**dict(zip(others, layouts, strict=True)), unit: layout}
            found[layout].append(sum(of[member] << bit for bit, member in enumerate(reversed(about))))
    return found
