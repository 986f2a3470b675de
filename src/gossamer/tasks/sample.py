"""Examples of a split that are gone through several times: those in memory as they are, of others the first; and all of
them, or some drawn at random, once."""

import functools
import operator
from collections.abc import Iterator, Sequence

from gossamer.randomness import derived_seed
from gossamer.tasks.batch import Batch
from gossamer.tasks.in_memory import MOST, first_batches
from gossamer.tasks.loaded import CHOSEN_AT_A_TIME, order_of
from gossamer.tasks.task import Examples, Split

BATCH = 500
"""Examples at a time, of those in memory."""


class Sample:
    """Examples to look at a network with, as the batches that it is called with."""

    def __init__(self, examples: Examples | Sequence[Batch]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        if isinstance(self._examples, Examples):
            return len(self._examples)
        return sum(batch.examples for batch in self._examples)

    def __iter__(self) -> Iterator[Batch]:
        if not isinstance(self._examples, Examples):
            yield from self._examples
            return
        for start in range(0, len(self._examples), BATCH):
            inputs, targets = self._examples.batch(slice(start, start + BATCH))
            yield Batch((inputs,), targets=targets)

    def first(self, count: int) -> "Sample":
        """The first of them, at most so many."""
        if isinstance(self._examples, Examples):
            return Sample(self._examples.first(count))
        batches, left = [], count
        for batch in self._examples:
            if left > 0:
                batches.append(batch.first(left))
                left -= batches[-1].examples
        return Sample(batches)

    def one(self, index: int) -> Batch:
        """A batch of the example at an index."""
        if isinstance(self._examples, Examples):
            inputs, targets = self._examples.batch(slice(index, index + 1))
            return Batch((inputs,), targets=targets)
        before = 0
        for batch in self._examples:
            row = index - before
            if row < batch.examples:
                return batch.mapped(operator.itemgetter(slice(row, row + 1)))
            before += batch.examples
        raise IndexError(index)


def sample(split: Split, most: int = MOST) -> Sample:
    """All examples in memory, and of those that are read while they are used the first, at most so many.

    Raises:
        TaskError: they cannot be read.
    """
    return Sample(split if isinstance(split, Examples) else first_batches(split, most))


def all_batches(split: Split) -> Iterator[Batch]:
    """All examples of a split once, in their order, on the CPU.

    Raises:
        TaskError: they cannot be read.
    """
    yield from (
        Sample(split) if isinstance(split, Examples) else split.once(functools.partial(derived_seed, "evaluation"))
    )


def chosen_batches(split: Split, most: int, seed: int) -> list[Batch]:
    """Some examples of a split, drawn without replacement; of those that have no numbers the first. Nothing is
    augmented but by a `Dataset` that does it itself and does not say what it reads without (`Loaded.unaugmented`).

    Args:
        most: how many; all if there are no more.

    Raises:
        TaskError: they cannot be read.
    """
    if isinstance(split, Examples):
        rows = order_of(len(split), seed)[:most].sort().values
        return [Batch((inputs,), targets=targets) for inputs, targets in map(split.batch, rows.split(CHOSEN_AT_A_TIME))]
    batches, left = [], most
    for batch in split.chosen(most, functools.partial(derived_seed, seed)):
        batches.append(batch.first(left))
        left -= batches[-1].examples
        if left <= 0:
            break
    return batches
