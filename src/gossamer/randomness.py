"""The state of the random number generators that a training loop may use without saying so."""

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

Draw = Callable[..., int]
"""(purpose, ...) -> the seed of the random numbers that are drawn for it."""


def derived_seed(*parts: int | str) -> int:
    """A seed from what it is for, e.g. (run's seed, round, epoch, purpose): the first 63 bits of BLAKE2b of the parts
    joined by slashes. Random numbers are derived like this everywhere and nowhere carried along, so there is no
    generator state to save: any epoch can be repeated from the model and the optimizer alone."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def capture() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's global generators, those of every GPU included."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore(state: dict[str, Any]) -> None:
    """Puts the generators back to where `capture` found them; GPUs that are no longer there are left out."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for index, generator in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(generator, index)


def as_tensors(state: Mapping[str, Any]) -> dict[str, Any]:
    """What `capture` returns, in plain numbers and tensors, as torch.load reads it with weights_only."""
    numpy = dict(state["numpy"])
    inner = {name: torch.from_numpy(value.copy()) if name == "key" else value for name, value in numpy["state"].items()}
    return {**state, "numpy": {**numpy, "state": inner}}


def from_tensors(state: Mapping[str, Any]) -> dict[str, Any]:
    """The opposite."""
    numpy = dict(state["numpy"])
    inner = {name: value.numpy() if name == "key" else value for name, value in numpy["state"].items()}
    return {**state, "numpy": {**numpy, "state": inner}}


def as_plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """What `capture` returns, in numbers, texts, lists and dictionaries, as JSON says them."""
    numpy = state["numpy"]
    inner = {name: value.tolist() if name == "key" else value for name, value in numpy["state"].items()}
    tensors = {"torch": state["torch"].tolist(), "cuda": [one.tolist() for one in state["cuda"]]}
    return {"python": state["python"], "numpy": {**numpy, "state": inner}, **tensors}


def from_plain(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The opposite."""
    version, numbers, gauss = plain["python"]
    numpy, keys = plain["numpy"], plain["numpy"]["state"]
    return {
        "python": (version, tuple(numbers), gauss),
        "numpy": {**numpy, "state": {**keys, "key": np.array(keys["key"], dtype=np.uint32)}},
        "torch": torch.tensor(plain["torch"], dtype=torch.uint8),
        "cuda": [torch.tensor(one, dtype=torch.uint8) for one in plain["cuda"]],
    }


def seed_all(seed: int) -> None:
    """Seeds Python's, numpy's and torch's global generators, those of every GPU included."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global generators start from `seed` inside, and go on afterwards as if nothing had been drawn."""
    before = capture()
    seed_all(seed)
    try:
        yield
    finally:
        restore(before)


@contextmanager
def seeded_on_cpu(seed: int) -> Iterator[None]:
    """As `seeded`, without the generators of GPUs, of which a worker process that was forked may ask nothing."""
    before = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
