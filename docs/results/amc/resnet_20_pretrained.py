"""A ResNet-20 for CIFAR-10 that someone else trained, as a task: `gossamer search resnet_20_pretrained.py:task`.

RESNET_20_WEIGHTS names its weights as safetensors (the tensors of `resnet20-12fca82f.th` of akamaster's
pytorch_resnet_cifar10 under their names, without the leading `module.`). It was trained on all 50,000 training images, so
nothing held out of training is left among them: validation is the first half of the 10,000 test images, test the other.
"""

import os
from dataclasses import replace
from pathlib import Path

import torch
from gossamer.tasks import Data, Examples, Task, find_task
from gossamer.tasks.cifar_resnet import CifarResNet
from safetensors.torch import load_file
from torch import Tensor, nn

MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
DEVIATION = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def model() -> nn.Module:
    network = CifarResNet(20, shortcut="padding")
    network.load_state_dict(load_file(os.environ["RESNET_20_WEIGHTS"]))
    return network


def normalised(images: Tensor) -> Tensor:
    return (images.float() / 255 - MEAN) / DEVIATION


def data(folder: Path | None) -> Data:
    """The two halves of the test images, and all training images but those that the built-in task sets aside."""
    splits = find_task("resnet-20").data(folder)

    def part(examples: Examples, rows: slice) -> Examples:
        return Examples(examples.inputs[rows], examples.targets[rows], normalised)

    return Data(
        part(splits.train, slice(None)), part(splits.test, slice(0, 5000)), part(splits.test, slice(5000, None))
    )


def task() -> Task:
    return replace(find_task("resnet-20"), name="resnet-20-pretrained", model=model, data=data)
