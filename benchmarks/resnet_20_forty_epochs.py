"""ResNet-20 on CIFAR-10 trained to completion on a CPU, 40 epochs a round instead of 182, and rewound to 10.7% of its
weights.

Command: OMP_NUM_THREADS=1 gossamer compress benchmarks/resnet_20_forty_epochs.py:task --data DATA \\
    --target-sparsity 0.8926 --per-round 0.525 --out RUN
n: 1 seed
Hardware: 1 core of AMD Zen 5, about 35 minutes a round
Date: 2026-11-28, docs/results/compress-resnet-20-forty-epochs.jsonl

One cycle of the learning rate to 0.2 and back takes the place of the paper's steps from 0.1, which need their 182
epochs. A round cuts as much as three and a third of the paper's.
"""

from pathlib import Path

import torch
from torch import Tensor

from gossamer.tasks import SGD, Data, OneCycle, Recipe, Task
from gossamer.tasks.cifar10 import CIFAR10, cropped_and_flipped
from gossamer.tasks.cifar_resnet import CifarResNet
from gossamer.tasks.hub_images import load_split
from gossamer.tasks.splits import set_aside
from gossamer.tasks.task import Examples

VALIDATION_EXAMPLES = 2_500
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def normalised(images: Tensor) -> Tensor:
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return (images.float() / 255 - mean) / deviation


def data(folder: Path | None) -> Data:
    train, validation = set_aside(load_split(CIFAR10, folder, "train"), VALIDATION_EXAMPLES)
    splits = (train, validation, load_split(CIFAR10, folder, "test"))
    return Data(*(Examples(split.inputs, split.targets, normalised) for split in splits))


def task() -> Task:
    return Task(
        name="resnet-20-forty-epochs",
        description="ResNet-20 on CIFAR-10 in 40 epochs",
        model=lambda: CifarResNet(depth=20),
        data=data,
        recipe=Recipe(
            epochs=40,
            batch_size=128,
            learning_rate=OneCycle(peak=0.2, warm_up=0.15),
            optimizer=SGD(momentum=0.9, nesterov=True, weight_decay=5e-4),
            augment=cropped_and_flipped,
            bfloat16=True,
            channels_last=True,
        ),
    )
