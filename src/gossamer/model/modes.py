"""Training and evaluation mode, put back afterwards module by module: a user may keep some in another one."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Everything in evaluation mode inside: dropout is off, and statistics stay as they are."""
    with _modes_put_back(model):
        model.eval()
        yield


@contextmanager
def in_training(model: nn.Module) -> Iterator[None]:
    """Everything in the mode that `model.train()` puts it into."""
    with _modes_put_back(model):
        model.train()
        yield


@contextmanager
def _modes_put_back(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
