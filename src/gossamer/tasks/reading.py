"""How examples are read in whatever process reads them: seeded batch by batch; and what a source is made of."""

import random
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from gossamer import randomness
from gossamer.randomness import Draw

LARGEST_EPOCH = 2**31
"""What a `set_epoch` is given is below it."""


class Reading:
    """A dataset that is asked for a batch at a time, with the seed of its random numbers. Otherwise it passes for the
    dataset, which a worker finds in `torch.utils.data.get_worker_info()`."""

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Any]) -> None:
        self.__dict__.update(dataset=dataset, collate=collate)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        # Asked for while it is unpickled, before there is one.
        if name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.dataset, name, value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __getitems__(self, batch: tuple[int, list[int]]) -> Any:
        seed, rows = batch
        with randomness.seeded_on_cpu(seed):
            seed_generators(self.dataset, seed)
            together = getattr(self.dataset, "__getitems__", None)
            examples = together(rows) if together is not None else [self.dataset[row] for row in rows]
            return self.collate(examples)


def begin_worker(given: Callable[[int], Any] | None, number: int) -> None:
    """What a worker does first: it leaves an interruption (Ctrl-C reaches all processes of a terminal) to the training,
    which ends it, and then what the loader's own `worker_init_fn` wants."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if given is not None:
        given(number)


def as_it_is(batch: Any) -> Any:
    return batch


def has_length(source: Any) -> bool:
    """Whether a source's examples have the numbers from 0 to its length."""
    if isinstance(source, IterableDataset) or not (hasattr(source, "__getitem__") and hasattr(source, "__len__")):
        return False
    try:
        len(source)
    except (TypeError, NotImplementedError):
        return False
    return True


def parts_of(source: Any) -> list[Any]:
    """A source, and what a loader is made of, each once."""
    found = [source]
    if isinstance(source, DataLoader):
        batched = source.batch_sampler
        found += [source.dataset, source.sampler, batched, getattr(batched, "sampler", None)]
    return list({id(part): part for part in found if part is not None}.values())


def reseed(source: Any, draw: Draw) -> None:
    """Seeds the generators of a source and tells it which epoch begins."""
    for part in parts_of(source):
        seed_generators(part, draw("generator"))
        set_epoch = getattr(part, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(draw("number") % LARGEST_EPOCH)


def seed_generators(part: Any, seed: int) -> None:
    """Seeds the generators that an object, its dataset or its transform has as attributes: torch's, numpy's, Python's.
    Workers are forked with a copy of them, and would draw the same numbers, in every worker and every epoch."""
    for owner in (part, getattr(part, "dataset", None), getattr(part, "transform", None)):
        for name, value in vars(owner).items() if hasattr(owner, "__dict__") else ():
            own = randomness.derived_seed(seed, name)
            if isinstance(value, torch.Generator):
                value.manual_seed(own)
            elif isinstance(value, random.Random):
                value.seed(own)
            elif isinstance(value, np.random.RandomState):
                value.seed(own % 2**32)
            elif isinstance(value, np.random.Generator):
                value.bit_generator.state = type(value.bit_generator)(own).state


def told(error: Exception) -> tuple[str, str]:
    """An error's kind and its message in one line; of a worker's, those at the end of the traceback that it sent."""
    text = str(error)
    if "Original Traceback" in text:
        # Of a chain of errors the last; its frames are indented.
        lines = text.rpartition("Traceback (most recent call last):")[2].splitlines()
        first = next((number for number, line in enumerate(lines) if line and not line[0].isspace()), 0)
        kind, _, message = " ".join(" ".join(lines[first:]).split()).partition(": ")
        return kind.rpartition(".")[2], message
    return type(error).__name__, " ".join(text.split())
