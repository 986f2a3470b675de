"""Rounds around Lightning's Trainer, on scikit-learn's handwritten digits.

    python examples/lightning_digits.py runs/lightning

Kill it at any moment and run it again: it goes on after the last epoch of the round that was going on, and ends with
the same bits. Needs gossamer[lightning,tasks].
"""

import logging
import sys
import warnings
from pathlib import Path

import torch
from lightning import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import gossamer
from gossamer.integrations.lightning import rounds

EPOCHS = 5
# Of data loaders on machines with several processors, and of Lightning's own use of torch.
warnings.filterwarnings("ignore", "The '.*dataloader' does not have many workers")
warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated")
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


class Digits(LightningModule):
    """A network for images of 8x8 pixels, with everything that its training is."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(
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

    def forward(self, images):
        return self.network(images)

    def training_step(self, batch, index):
        loss = functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, index):
        self.log("val_acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
        steps = self.trainer.estimated_stepping_batches
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def make_trainer(folder: Path) -> Trainer:
    """A new Trainer for every round; one that has finished fits nothing."""
    return Trainer(
        max_epochs=EPOCHS,
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def main(folder: Path) -> list[gossamer.RoundRecord]:
    """Five rounds: the dense network, and four that keep half of the weights each time."""
    seed_everything(0, verbose=False)
    bunch = load_digits()
    images, targets = torch.from_numpy(bunch.images).float().unsqueeze(1) / 8 - 1, torch.from_numpy(bunch.target)
    train = DataLoader(TensorDataset(images[:1400], targets[:1400]), batch_size=64, shuffle=True)
    validation = DataLoader(TensorDataset(images[1400:], targets[1400:]), batch_size=397)
    records = []
    for round, trainer in rounds(
        module := Digits(),
        make_trainer,
        folder=folder,
        stop=gossamer.Stop(rounds=4, metric="val_acc"),
        cut=gossamer.Cut(per_round=0.5),
    ):
        trainer.fit(module, train, validation)
        records.append(round.record(**trainer.callback_metrics))
        print(f"{records[-1].compression:5.1f}x  {records[-1].val:.1%}")
    return records


if __name__ == "__main__":
    main(Path(sys.argv[1]))
