"""Rounds around a loop with accelerate, on scikit-learn's handwritten digits.

    python examples/accelerate_digits.py runs/accelerate

Kill it at any moment and run it again: it goes on after the last epoch of the round that was going on, and ends with
the same bits. Needs gossamer[accelerate,tasks].
"""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset

import gossamer
from gossamer.integrations.accelerate import rounds

EPOCHS = 5


def network(width: int = 16) -> nn.Module:
    """A network for images of 8x8 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(2 * width * 16, 10),
    )


def main(folder: Path) -> list[gossamer.RoundRecord]:
    """Five rounds: the dense network, and four that keep half of the weights each time."""
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    bunch = load_digits()
    images, targets = torch.from_numpy(bunch.images).float().unsqueeze(1) / 8 - 1, torch.from_numpy(bunch.target)
    train = TensorDataset(images[:1400], targets[:1400])
    model, records = network(), []
    steps = EPOCHS * 22  # 44 batches of 32 are 22 steps
    for round, checkpoints in rounds(
        model, accelerator, folder=folder, stop=gossamer.Stop(rounds=4), cut=gossamer.Cut(per_round=0.5)
    ):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
        # For the default, learning-rate rewinding, OneCycleLR itself would do; this one plays every method.
        schedule = round.scheduler(optimizer, lambda given: OneCycleLR(given, 0.1, total_steps=steps), steps)
        loader = DataLoader(train, batch_size=32, shuffle=True)
        prepared, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
        for _ in checkpoints.epochs(EPOCHS):
            for inputs, labels in loader:
                with accelerator.accumulate(prepared):
                    accelerator.backward(functional.cross_entropy(prepared(inputs), labels))
                    optimizer.step()
                    schedule.step()
                    optimizer.zero_grad()
        model.eval()
        with torch.no_grad():
            accuracy = (model(images[1400:]).argmax(1) == targets[1400:]).float().mean()
        model.train()
        records.append(round.record(accuracy=accuracy))
        print(f"{records[-1].compression:5.1f}x  {records[-1].val:.1%}")
    return records


if __name__ == "__main__":
    main(Path(sys.argv[1]))
