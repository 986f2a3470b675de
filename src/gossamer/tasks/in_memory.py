"""The first examples of a split, in memory: what looks at a network many times looks at these."""

import functools
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from gossamer.randomness import derived_seed
from gossamer.tasks.batch import Batch
from gossamer.tasks.errors import TaskError
from gossamer.tasks.task import Examples, Split

MOST = 1000
"""How many examples are taken of a split that is read while it is used."""


def in_memory(split: Split, most: int = MOST) -> Examples:
    """Examples in memory as they are, all of them; of others the first, at most `most`.

    Raises:
        TaskError: the network takes something else than one tensor, or the examples differ in shape; or they cannot be
            read.
    """
    if isinstance(split, Examples):
        return split
    inputs: list[Tensor] = []
    targets: list[Any] = []
    for batch in first_batches(split, most):
        one = batch.positional[0] if len(batch.positional) == 1 and not batch.named else None
        if not isinstance(one, Tensor):
            raise TaskError(
                f"{split.name}: the network takes {_described(batch)}; expected one tensor, of which the examples are "
                f"held in memory here. From Python: gossamer.load_round, and gossamer.shrink.shrink(model, inputs)"
            )
        inputs.append(one)
        targets.append(batch.targets)
    try:
        together = torch.cat(inputs)
        tensors = all(isinstance(target, Tensor) for target in targets)
        joined = torch.cat(targets) if tensors else [entry for target in targets for entry in target]
        return Examples(together, joined)  # type: ignore[arg-type]
    except (RuntimeError, TypeError, ValueError) as error:
        raise TaskError(
            f"{split.name}: examples cannot be put together ({' '.join(str(error).split())}); expected inputs of one "
            f"shape, and one target each"
        ) from error


def first_batches(split: Split, most: int, batch_size: int = 100) -> list[Batch]:
    """The batches with the first examples of a split, at most so many of them together, on the CPU.

    Args:
        batch_size: of examples in memory.
    """
    if isinstance(split, Examples):
        count = min(most, len(split))
        found = []
        for start in range(0, count, batch_size):
            inputs, targets = split.batch(slice(start, min(count, start + batch_size)))
            found.append(Batch((inputs,), targets=targets))
        return found
    found, left = [], most
    for batch in islice(split.once(functools.partial(derived_seed, "evaluation")), most):
        found.append(batch.first(left))
        left -= found[-1].examples
        if left <= 0:
            break
    return found


def _described(batch: Batch) -> str:
    parts = [type(value).__name__ for value in batch.positional] + [f"{name}=" for name in batch.named]
    return ", ".join(parts) or "nothing"
