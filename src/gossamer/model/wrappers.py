"""What is wrapped around a user's own module."""

from torch import nn
from torch.optim.swa_utils import AveragedModel

from gossamer.arguments import require_kind


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside `torch.compile`'s, AveragedModel's and the data-parallel wrappers.

    Raises:
        ConfigurationError: it is no module.
    """
    require_kind("model", model, nn.Module, "a torch.nn.Module")
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model
