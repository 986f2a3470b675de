"""ResNet-20 (He et al., 2016) on CIFAR-10, trained as in Renda et al. (2020)."""

from torch import nn

from gossamer.tasks import built_in
from gossamer.tasks.cifar10 import cifar10
from gossamer.tasks.cifar_resnet import CifarResNet, recipe
from gossamer.tasks.task import Task


def resnet_20() -> nn.Module:
    """272,762 parameters, 271,152 of them prunable: the weights of convolutions and of the linear layer.

    Inputs (batch, 3, 32, 32) -> logits (batch, 10).
    """
    return CifarResNet(depth=20)


TASK = Task(
    name=built_in.RESNET_20.name,
    description=built_in.RESNET_20.description,
    model=resnet_20,
    data=cifar10,
    recipe=recipe(built_in.RESNET_20.epochs),
)
