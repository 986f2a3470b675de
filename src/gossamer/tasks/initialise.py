"""Initial weights of the built-in models, stated rather than left to torch's defaults."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from gossamer.prune.layers import CONVOLUTIONS


def for_relu(model: nn.Module) -> None:
    """He et al. (2015): normal weights of variance 2 / fan-in, which keeps the variance through ReLU; biases zero."""
    for layer in _layers(model):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


def as_caffe(model: nn.Module) -> None:
    """Caffe's filler "xavier": uniform weights of variance 1 / fan-in; biases zero."""
    for layer in _layers(model):
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="linear")


def _layers(model: nn.Module) -> Iterator[Any]:
    """The layers with weights, their biases set to zero."""
    for layer in model.modules():
        if isinstance(layer, (nn.Linear, *CONVOLUTIONS)):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            yield layer
