"""What accelerate sets in a model that it prepares, which the Trainer of transformers does too."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

MARKS = ("forward", "_original_forward", "_is_accelerate_prepared")
"""A `forward` that casts (bf16) is put around the model's own each time that it is prepared; by older versions around
that of the round before."""


@contextmanager
def as_before(model: nn.Module) -> Iterator[None]:
    """Lets a round prepare the model, and takes it off again after it."""
    own = {name: value for name, value in vars(model).items() if name in MARKS}
    try:
        yield
    finally:
        for name in MARKS:
            vars(model).pop(name, None)
        vars(model).update(own)
