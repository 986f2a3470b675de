"""A task of your own: any data, model and recipe. This one tells malignant tumours from benign ones by 30 measurements
of the cells (569 real cases, which scikit-learn contains).

    gossamer compress examples/own_task.py:task --target-sparsity 0.9 --out runs/own
"""

from pathlib import Path

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn

from gossamer.tasks import SGD, Data, Examples, OneCycle, Recipe, Task


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))


def data(folder: Path | None) -> Data:
    """The folder is what `--data` was given; this data set needs none."""
    cases = load_breast_cancer()
    inputs, targets = torch.from_numpy(cases.data).float(), torch.from_numpy(cases.target).long()
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    train, validation, test = order[:369], order[369:469], order[469:]
    inputs = (inputs - inputs[train].mean(0)) / inputs[train].std(0)
    return Data(*(Examples(inputs[rows], targets[rows]) for rows in (train, validation, test)))


def task() -> Task:
    return Task(
        name="tumours",
        description="malignant or benign, by 30 measurements",
        model=model,
        data=data,
        recipe=Recipe(
            epochs=20,
            batch_size=32,
            learning_rate=OneCycle(peak=0.05),
            optimizer=SGD(nesterov=True, weight_decay=1e-3),
        ),
    )
