"""The task of the run in this folder, which was made and interrupted with gossamer as of November 2026 (ca6c7af)."""

from pathlib import Path

import torch
from torch import nn

from gossamer.tasks import SGD, Data, Examples, OneCycle, Recipe, Task


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def data(folder: Path | None) -> Data:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(768, 8, generator=generator)
    targets = (inputs @ torch.randn(8, 3, generator=generator)).argmax(1)
    return Data(*(Examples(inputs[rows], targets[rows]) for rows in (slice(512), slice(512, 640), slice(640, 768))))


def task() -> Task:
    return Task(
        name="three",
        description="which of three sums is the largest",
        model=model,
        data=data,
        recipe=Recipe(
            epochs=4,
            batch_size=32,
            learning_rate=OneCycle(peak=0.1),
            optimizer=SGD(momentum=0.9, weight_decay=1e-4),
        ),
    )
