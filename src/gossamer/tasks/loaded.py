"""Examples that are read while they are used: a torch `Dataset` or `DataLoader`, of any size.

An epoch is read again with the same bits, from any of its batches on, wherever the examples have numbers: a `Dataset`
with a length, or a `DataLoader` over one. The order is then drawn before the epoch, and before each batch the random
numbers of Python, numpy and torch are seeded from (seed, round, epoch, batch), in the worker that reads it, so that
neither the number of workers nor the batch that an interrupted epoch goes on with changes an augmentation.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from gossamer import randomness
from gossamer.errors import GossamerError
from gossamer.model.nested import tensors_in
from gossamer.randomness import Draw
from gossamer.tasks.batch import Batch, as_batch
from gossamer.tasks.errors import TaskError
from gossamer.tasks.reading import Reading, as_it_is, begin_worker, has_length, parts_of, reseed, told

COMPARED_BATCHES = 4
"""How many batches of a loader's order are drawn twice, to see whether it can be drawn again."""
CHOSEN_AT_A_TIME = 16
"""Of examples that are drawn, those of a batch at most: whoever looks at a network keeps inner values of it."""


@dataclass(frozen=True)
class Loaded:
    """The examples of one split, read batch by batch. A task may give its `Dataset` or `DataLoader` as it is; this says
    how one is read.

    Raises:
        TaskError: a value is out of range.
    """

    source: Any
    """A torch `Dataset` (one with a length, or an `IterableDataset`), or whatever yields batches in a `for` loop: a
    `DataLoader`, with its own batch size, order, workers and collate function."""
    workers: int = 0
    """Processes that read a `Dataset`; 0: the training reads it itself."""
    collate: Callable[[list[Any]], Any] | None = None
    """Makes a batch of a list of a `Dataset`'s examples; torch's `default_collate` by default."""
    steps: int | None = None
    """Batches of an epoch, where the source has no length or a longer one; each epoch begins at its start."""
    batch_size: int | None = None
    """Examples a batch of a `Dataset`; the recipe's by default."""
    batch: Callable[[Any], Batch] | None = None
    """What is read -> a `Batch`; that of `Data` by default, or `as_batch`."""
    name: str = "the examples"
    """The name of the task and its split, for messages."""
    unaugmented: Any = None
    """The same `Dataset` without augmentation, where `source` augments what it reads: for what looks at training
    examples without training on them."""

    def __post_init__(self) -> None:
        least = {"workers": (self.workers, 0), "steps": (self.steps, 1), "batch_size": (self.batch_size, 1)}
        for name, (value, smallest) in least.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < smallest):
                raise TaskError(f"Loaded: {name} is {value!r}; expected a whole number of at least {smallest}")
        if not self.of_examples and (self.workers or self.collate or self.batch_size):
            raise TaskError(
                f"Loaded: a {type(self.source).__name__} has workers, collate and batch size of its own; give them to "
                f"it"
            )

    def to(self, device: torch.device | str) -> "Loaded":
        """Itself: batches are moved as they are read."""
        return self

    @property
    def of_examples(self) -> bool:
        """Whether the source gives examples, of which batches are made here; otherwise it gives batches."""
        return not isinstance(self.source, DataLoader) and (isinstance(self.source, Dataset) or has_length(self.source))

    @property
    def numbered(self) -> bool:
        """Whether the examples have numbers, so that an epoch can be read again from any batch on."""
        if not isinstance(self.source, DataLoader):
            return has_length(self.source)
        # A loader that reads in a way of its own is left to it.
        own = type(self.source).__iter__ is not DataLoader.__iter__
        return not own and self.source.batch_sampler is not None and has_length(self.source.dataset)

    @property
    def dataset(self) -> Any:
        """What the examples come from."""
        return self.source.dataset if isinstance(self.source, DataLoader) else self.source

    @property
    def epoch_steps(self) -> int:
        """Batches of an epoch of training.

        Raises:
            TaskError: nobody knows, or there is none.
        """
        own = self._own_steps()
        steps = self.steps or own
        if self.steps and self.numbered and own is not None and own < self.steps:
            raise TaskError(f"{self.name}: steps is {self.steps}, but there are {own} batches; expected no more")
        if steps is None:
            raise TaskError(
                f"{self.name}: nothing says how many batches an epoch has, which the schedule of the learning rate "
                f"needs; give gossamer.tasks.Loaded(source, steps=NUMBER), or the source a length"
            )
        if steps < 1:
            raise TaskError(f"{self.name}: there is no batch to train on; expected at least one")
        return steps

    def epoch(self, draw: Draw, first_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch of training, in an order drawn from `draw`, from `first_step` on.

        Raises:
            TaskError: reading fails, or the epoch ends before its number of steps.
            GossamerError: what reads raised it.
        """
        steps = self.epoch_steps

        def read() -> Iterator[Any]:
            if self.numbered:
                return self._read(islice(self._order(draw, shuffled=True), steps), draw, first_step)
            return islice(self._passing(draw, drop_last=True), first_step, steps)

        count = first_step
        for batch in self._batches(read):
            count += 1
            yield batch
        if count < steps:
            raise TaskError(
                f"{self.name}: an epoch ended after {count} batches; expected {steps}. An iterable has to begin anew "
                f"each time; give gossamer.tasks.Loaded(source, steps=NUMBER) if it is shorter than it says"
            )

    def once(self, draw: Draw) -> Iterator[Batch]:
        """All batches once, for measuring: those of a `Dataset` in its order, the last one perhaps smaller."""

        def read() -> Iterator[Any]:
            if self.numbered:
                return self._read(islice(self._order(draw, shuffled=False), self.steps), draw)
            return islice(self._passing(draw, drop_last=False), self.steps)

        count = 0
        for batch in self._batches(read):
            count += 1
            yield batch
        if not count:
            raise TaskError(f"{self.name}: there is no batch; expected at least one")

    def chosen(self, most: int, draw: Draw) -> Iterator[Batch]:
        """Some examples, drawn without replacement, without augmentation where the split says how; the first batches of
        a source whose examples have no numbers.

        Args:
            most: how many; all if there are no more.
        """
        if self.unaugmented is not None:
            yield from replace(self, source=self.unaugmented, unaugmented=None).chosen(most, draw)
        elif not self.numbered:
            yield from self.once(draw)
        else:
            rows = order_of(len(self.dataset), draw("chosen"))[:most].sort().values
            parts = rows.split(min(self._size, CHOSEN_AT_A_TIME))
            yield from self._batches(lambda: self._read(iter(part.tolist() for part in parts), draw))

    @property
    def once_steps(self) -> int | None:
        """How many batches `once` has, if that is known."""
        if self.steps is None and self.numbered and not isinstance(self.source, DataLoader):
            return -(-len(self.source) // self._size)
        return self.steps or self._own_steps()

    def sample(self, count: int | None = None) -> Batch:
        """The first examples of a `Dataset`, read in this process, or the first batch of another source; the same ones
        each time, and the global random numbers stay.

        Args:
            count: how many; None: a batch.
        """
        draw = functools.partial(randomness.derived_seed, "sample")
        with randomness.seeded(draw("global")):
            if self.numbered and getattr(self.source, "batch_size", 1) is not None:
                size = min(count or self._size, len(self.dataset))
                if not size:
                    raise TaskError(f"{self.name}: there is no batch; expected at least one")
                reading = Reading(self.dataset, self._collate)
                rows = (draw("batch"), list(range(size)))
                return next(self._batches(lambda: (reading.__getitems__(rows) for _ in range(1))))
            return next(self.once(draw))

    def why_not_repeated(self) -> str | None:
        """Why an epoch may have other batches when it is read again, such as after an interruption; None if it has the
        same ones, as far as two short looks can tell.

        Raises:
            TaskError: drawing the order fails.
        """
        draw = functools.partial(randomness.derived_seed, "repeated")
        if self.numbered:
            if not isinstance(self.source, DataLoader):
                return None
            with self._failing():
                first, second = (list(islice(self._order(draw, shuffled=True), COMPARED_BATCHES)) for _ in range(2))
            return None if first == second else "its sampler gives another order each time, whatever is seeded"
        if getattr(self.source, "persistent_workers", False) and self.source.num_workers:
            return "its workers live on from epoch to epoch, with random numbers of their own"
        if any(callable(getattr(part, "set_epoch", None)) for part in parts_of(self.source)):
            return None
        one, other = (self._first_passing(draw) for _ in range(2))
        same = len(one) == len(other) and all(map(_equal, one, other))
        return None if same else "it begins with other examples each time; give it a set_epoch(number) that seeds it"

    @property
    def _size(self) -> int:
        """Examples of a batch, where they are numbered."""
        if isinstance(self.source, DataLoader):
            return self.source.batch_size or 1
        return min(self._asked_size, len(self.source)) or 1

    @property
    def _asked_size(self) -> int:
        if self.batch_size is None:
            raise TaskError(f"{self.name}: nothing says how large a batch is; give the recipe a batch_size")
        return self.batch_size

    @property
    def _collate(self) -> Callable[[list[Any]], Any]:
        if isinstance(self.source, DataLoader):
            return self.source.collate_fn
        return self.collate or default_collate

    def _own_steps(self) -> int | None:
        """Full batches of an epoch; of a loader, as many as it says."""
        if self.numbered and not isinstance(self.source, DataLoader):
            return len(self.source) // self._size
        try:
            length: int = (
                len(self._loader(drop_last=True)) if isinstance(self.source, IterableDataset) else len(self.source)
            )
            return length
        except (TypeError, NotImplementedError):
            return None

    def _order(self, draw: Draw, shuffled: bool) -> Iterator[list[int]]:
        """The numbers of the examples of each batch."""
        if isinstance(self.source, DataLoader):
            with randomness.seeded(draw("order")):
                reseed(self.source, draw)
                assert self.source.batch_sampler is not None
                numbers = list(islice(self.source.batch_sampler, self.steps))
            yield from numbers
            return
        count = len(self.source)
        if shuffled:
            reseed(self.source, draw)
            # Those left over are left out, other ones each time.
            order = order_of(count, draw("order"))[: count // self._size * self._size]
        else:
            order = torch.arange(count)
        for rows in order.split(self._size):
            yield rows.tolist()

    def _read(self, order: Iterator[list[int]], draw: Draw, first_step: int = 0) -> Iterator[Any]:
        """What is read of numbered examples, batch by batch; the random numbers of each are its own."""
        plan = ((draw("batch", step), rows) for step, rows in enumerate(islice(order, first_step, None), first_step))
        given = self.source if isinstance(self.source, DataLoader) else None
        workers = self.workers if given is None else given.num_workers
        own: dict[str, Any] = {"num_workers": workers}
        if given is not None:
            own |= {"timeout": given.timeout, "pin_memory": given.pin_memory}
        if given is not None and workers:
            own |= {"prefetch_factor": given.prefetch_factor, "multiprocessing_context": given.multiprocessing_context}
        return iter(
            DataLoader(
                Reading(self.dataset, self._collate),  # type: ignore[arg-type]
                batch_sampler=plan,  # type: ignore[arg-type]
                collate_fn=as_it_is,
                worker_init_fn=functools.partial(begin_worker, getattr(given, "worker_init_fn", None)),
                generator=torch.Generator().manual_seed(draw("workers")),
                **own,
            )
        )

    def _passing(self, draw: Draw, drop_last: bool) -> Iterator[Any]:
        """What comes out of a source whose examples have no numbers, seeded as far as it lets itself be."""
        reseed(self.source, draw)
        source = self._loader(drop_last) if isinstance(self.source, IterableDataset) else self.source
        if source is not self.source:
            source.generator = torch.Generator().manual_seed(draw("workers"))
        return iter(source)

    def _loader(self, drop_last: bool) -> DataLoader[Any]:
        """The loader of an `IterableDataset`."""
        return DataLoader(
            self.source,
            batch_size=self._asked_size,
            num_workers=self.workers,
            collate_fn=self.collate,
            worker_init_fn=functools.partial(begin_worker, None),
            drop_last=drop_last,
        )

    def _first_passing(self, draw: Draw) -> list[Tensor]:
        with randomness.seeded(draw("global")), self._failing():
            return list(tensors_in(_plain(next(self._passing(draw, drop_last=False), None))))

    def _batches(self, begin: Callable[[], Iterator[Any]]) -> Iterator[Batch]:
        """What is read, as batches; what goes wrong on the way, from the first step on (a sampler is asked, workers are
        started), is told in one line."""
        make = self.batch or as_batch
        nothing = object()
        with self._failing():
            read = begin()
        while True:
            with self._failing():
                loaded = next(read, nothing)
                if loaded is nothing:
                    return
                batch = make(loaded)
                if not isinstance(batch, Batch):
                    raise TaskError(f"batch made a {type(batch).__name__}; expected a gossamer.tasks.Batch")
            yield batch

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            kind, message = told(error)
            if isinstance(error, GossamerError):
                raise type(error)(f"{self.name}: {message}") from error
            raise TaskError(f"{self.name}: reading a batch failed: {kind}: {message}") from error


def bound(split: Any, name: str, batch_size: int | None, batch: Callable[[Any], Batch] | None) -> Any:
    """A split that a task gave as a `Dataset` or `DataLoader`, or as `Loaded`, with what the task says of it; anything
    else as it is."""
    loads = isinstance(split, (Loaded, Dataset, DataLoader)) or (
        hasattr(split, "__iter__") and not isinstance(split, (Tensor, Mapping, tuple, list, str, bytes, Iterator))
    )
    if not loads:
        return split
    loaded = split if isinstance(split, Loaded) else Loaded(split)
    own = loaded.of_examples and loaded.batch_size is None
    return replace(
        loaded,
        name=name,
        batch_size=batch_size if own else loaded.batch_size,
        batch=loaded.batch or batch,
    )


def order_of(count: int, seed: int) -> Tensor:
    """A permutation of the examples, drawn on the CPU so that it is the same for every device. Shape (count,)."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _plain(loaded: Any) -> Any:
    return (loaded.positional, dict(loaded.named), loaded.targets) if isinstance(loaded, Batch) else loaded


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and bool(torch.equal(one, other))
