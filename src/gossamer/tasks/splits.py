"""Setting examples aside for validation: the same ones in every run, whatever its seed."""

import torch

from gossamer.tasks.task import Examples

SPLIT_SEED = 20200305
"""Fixed, so that runs of different seeds differ in training only. (The day the paper appeared.)"""
VALIDATION = ("validation", "val", "valid", "dev")
"""What people call their validation examples."""
SHARE_ASIDE = 0.1
"""Of the training examples, set aside where a folder has none for validation."""


def set_aside(examples: Examples, count: int) -> tuple[Examples, Examples]:
    """Splits examples at random, by a seed of its own, into (the rest, `count` of them).

    Raises:
        ValueError: fewer than one example would be left on either side.
    """
    if not 0 < count < len(examples):
        raise ValueError(f"cannot set {count} of {len(examples)} examples aside; expected 1 to {len(examples) - 1}")
    rest, aside = (torch.tensor(rows) for rows in rows_aside(len(examples), count))
    return (
        Examples(examples.inputs[rest], examples.targets[rest], examples.prepare),
        Examples(examples.inputs[aside], examples.targets[aside], examples.prepare),
    )


def rows_aside(length: int, count: int | None = None) -> tuple[list[int], list[int]]:
    """Rows drawn by a seed of their own, as (the rest, `count` of them), each in order.

    Args:
        count: None: `SHARE_ASIDE` of them, and at least one.
    """
    count = max(1, round(SHARE_ASIDE * length)) if count is None else count
    order = torch.randperm(length, generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
    return sorted(order[count:]), sorted(order[:count])
