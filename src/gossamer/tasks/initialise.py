"""Initial weights of the built-in models, stated rather than left to torch's defaults."""

from torch import nn

from gossamer.prune.scope import CONVOLUTIONS


def for_relu(model: nn.Module) -> None:
    """He et al. (2015): normal weights of variance 2 / fan-in, which keeps the variance through ReLU; biases zero."""
    for layer in model.modules():
        if isinstance(layer, (nn.Linear, *CONVOLUTIONS)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
