"""A stand-in for the paper's ResNet-20 where there is no GPU: CIFAR-10 with its images halved to 16 x 16, a ResNet of 8
layers instead of 20, and 12 epochs a round instead of 182.

Command: gossamer compare benchmarks/cifar_10_stand_in.py:task --data DATA --per-round 0.488 \\
    --target-sparsity 0.86578 --methods lr-rewind,weight-rewind@11,fine-tune --seeds 3 --jobs 1 --threads 1 --out DIR
n: 3 seeds
Hardware: 2 cores of AMD Zen 4, about 8 minutes of a processor a run
Date: 2026-11-26 to 2026-11-27, docs/results/compare-cifar-10-stand-in.json

The recipe is the paper's for ResNet-20 (learning rate 0.1, cut to a tenth after half and after three quarters of the
time), shortened. Its last rate, 0.001, is what fine-tuning gets. A round cuts as much as three of the paper's.
"""

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from gossamer.tasks import SGD, Data, Examples, Recipe, Steps, Task
from gossamer.tasks.cifar10 import cifar10, cropped_and_flipped, standardised
from gossamer.tasks.cifar_resnet import CifarResNet


def halved(images: Tensor) -> Tensor:
    """Bytes of shape (batch, 3, 32, 32) -> standardised float32 of shape (batch, 3, 16, 16)."""
    return F.avg_pool2d(standardised(images), 2)


def data(folder: Path | None) -> Data:
    found = cifar10(folder)
    return Data(
        *(Examples(split.inputs, split.targets, halved) for split in (found.train, found.validation, found.test))
    )


def task() -> Task:
    return Task(
        name="cifar-10-stand-in",
        description="ResNet-8 on CIFAR-10 at 16 x 16 pixels, 12 epochs a round",
        model=lambda: CifarResNet(depth=8),
        data=data,
        recipe=Recipe(
            epochs=12,
            batch_size=128,
            learning_rate=Steps(first=0.1, milestones=(0.5, 0.75)),
            optimizer=SGD(momentum=0.9, weight_decay=2e-4),
            augment=cropped_and_flipped,
            bfloat16=True,
            channels_last=True,
        ),
    )
