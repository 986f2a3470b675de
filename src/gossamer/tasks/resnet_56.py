"""ResNet-56 (He et al., 2016) on CIFAR-10, trained as in Renda et al. (2020)."""

from torch import nn

from gossamer.tasks import built_in
from gossamer.tasks.cifar10 import cifar10
from gossamer.tasks.cifar_resnet import CifarResNet, recipe
from gossamer.tasks.task import Task


def resnet_56() -> nn.Module:
    """856,058 parameters, 851,760 of them prunable: the weights of convolutions and of the linear layer.

    Inputs (batch, 3, 32, 32) -> logits (batch, 10).
    """
    return CifarResNet(depth=56)


TASK = Task(
    name=built_in.RESNET_56.name,
    description=built_in.RESNET_56.description,
    model=resnet_56,
    data=cifar10,
    recipe=recipe(built_in.RESNET_56.epochs),
)
