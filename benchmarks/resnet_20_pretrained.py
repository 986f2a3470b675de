"""A ResNet-20 that somebody else trained on CIFAR-10, compressed without their script.

Command: WEIGHTS=resnet20.safetensors gossamer compare benchmarks/resnet_20_pretrained.py:task --data DIR \\
    --methods lr-rewind,fine-tune --seeds 1 --epochs 1 --per-round 0.488 --target-sparsity 0.86578 --out OUT
n: 1 seed
Hardware: 2 cores of AMD Zen 4, about 110 s of a processor a round
Date: 2026-11-26, docs/results/compare-resnet-20-pretrained.json

The weights are those of github.com/akamaster/pytorch_resnet_cifar10 (91.73% on test), as a .safetensors file. That
network was trained on all 50,000 training images, so the 5,000 of validation are no unseen data here; test is.
"""

import os
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gossamer.tasks import SGD, Data, Examples, OneCycle, Recipe, Task
from gossamer.tasks.cifar10 import cifar10, cropped_and_flipped
from gossamer.tasks.cifar_resnet import CifarResNet

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels, with which the network was trained."""


def normalised(images: Tensor) -> Tensor:
    mean, deviation = (torch.tensor(values, device=images.device)[:, None, None] for values in (MEAN, DEVIATION))
    return (images.float() / 255 - mean) / deviation


def model() -> nn.Module:
    network = CifarResNet(depth=20, shortcut="padding")
    network.load_state_dict(load_file(os.environ["WEIGHTS"]))
    return network


def data(folder: Path | None) -> Data:
    found = cifar10(folder)
    return Data(
        *(Examples(split.inputs, split.targets, normalised) for split in (found.train, found.validation, found.test))
    )


def task() -> Task:
    return Task(
        name="resnet-20-pretrained",
        description="ResNet-20 from somebody else's weights, one epoch a round",
        model=model,
        data=data,
        recipe=Recipe(
            epochs=1,
            batch_size=128,
            learning_rate=OneCycle(peak=0.03),
            # The last rate of the paper's schedule for this network.
            fine_tune_rate=0.001,
            optimizer=SGD(momentum=0.9, weight_decay=2e-4),
            augment=cropped_and_flipped,
            bfloat16=True,
            channels_last=True,
        ),
        pretrained=True,
    )
