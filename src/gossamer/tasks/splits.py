"""Setting examples aside for validation: the same ones in every run, whatever its seed."""

import torch

from gossamer.tasks.task import Examples

SPLIT_SEED = 20200305
"""Fixed, so that runs of different seeds differ in training only. (The day the paper appeared.)"""


def set_aside(examples: Examples, count: int) -> tuple[Examples, Examples]:
    """Splits examples at random, by a seed of its own, into (the rest, `count` of them).

    Raises:
        ValueError: fewer than one example would be left on either side.
    """
    if not 0 < count < len(examples):
        raise ValueError(f"cannot set {count} of {len(examples)} examples aside; expected 1 to {len(examples) - 1}")
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(SPLIT_SEED))
    aside, rest = order[:count].sort().values, order[count:].sort().values
    return (
        Examples(examples.inputs[rest], examples.targets[rest], examples.prepare),
        Examples(examples.inputs[aside], examples.targets[aside], examples.prepare),
    )
