"""ResNet-56 (He et al., 2016) on CIFAR-10, trained as in Renda et al. (2020)."""

from torch import nn

from gossamer.tasks.cifar10 import cifar10
from gossamer.tasks.cifar_resnet import CifarResNet, recipe
from gossamer.tasks.task import Task


def resnet_56() -> nn.Module:
    """856,058 parameters, 851,760 of them prunable: the weights of convolutions and of the linear layer.

    Inputs (batch, 3, 32, 32) -> logits (batch, 10).
    """
    return CifarResNet(depth=56)


TASK = Task(
    name="resnet-56",
    description="ResNet-56 on CIFAR-10 (851,760 prunable weights)",
    model=resnet_56,
    data=cifar10,
    recipe=recipe(),
)
