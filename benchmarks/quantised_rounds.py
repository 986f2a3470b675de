"""What the last round trained for int8 wins back, where quantisation after training costs much: the angles of an arm's
two joints, from where its hand is, by a network with 80% zeros.

Command: python benchmarks/quantised_rounds.py SEED FOLDER >> docs/results/quantised-rounds.jsonl
n: 2 seeds (0, 1), 10,000 positions for testing; nothing is timed
Hardware: 1 core of AMD Zen 5
Date: 2026-11-28

The network is trained once, cut to 20% of its weights and retrained, in float and, from the same dense network, by
--quantised-rounds 1. Both are exported by --dense --int8, and the files measured in ONNX Runtime: the share of angles
within two degrees. Positions come into the first layer as bytes, steps of 0.013 of the upper arm's length: no training
can win back all.
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gossamer import Cut, Retraining, Stop
from gossamer.export.exporting import export
from gossamer.export.form import FileForm
from gossamer.export.source import open_source
from gossamer.job.compress import compress
from gossamer.job.training import DenseRound, Training
from gossamer.tasks import AdamW, Data, Examples, Metric, OneCycle, Recipe, Task

COUNTS = (20_000, 10_000, 10_000)
"""Positions for training, validation and testing."""
LENGTHS = (1.0, 0.7)
"""Of the upper and the lower arm."""
TOLERANCE = torch.pi / 90
HIDDEN = 48


def data(folder: Path | None) -> Data:
    generator = torch.Generator().manual_seed(0)
    shoulder = (torch.rand(sum(COUNTS), generator=generator) - 0.5) * torch.pi
    elbow = 0.3 + torch.rand(sum(COUNTS), generator=generator) * (torch.pi - 0.6)
    upper, lower = LENGTHS
    hand = torch.stack(
        (
            upper * shoulder.cos() + lower * (shoulder + elbow).cos(),
            upper * shoulder.sin() + lower * (shoulder + elbow).sin(),
        ),
        1,
    )
    angles = torch.stack((shoulder, elbow), 1)
    splits = zip(hand.split(list(COUNTS)), angles.split(list(COUNTS)), strict=True)
    return Data(*(Examples(inputs, targets) for inputs, targets in splits))


def within_tolerance(angles: Tensor, targets: Tensor) -> Tensor:
    return ((angles - targets).abs() <= TOLERANCE).float()


def network() -> nn.Module:
    hidden = (layer for _ in range(3) for layer in (nn.Linear(HIDDEN, HIDDEN), nn.ReLU()))
    return nn.Sequential(nn.Linear(2, HIDDEN), nn.ReLU(), *hidden, nn.Linear(HIDDEN, 2))


def task() -> Task:
    return Task(
        name="arm",
        description="the angles of an arm's joints, from where its hand is",
        model=network,
        data=data,
        recipe=Recipe(
            epochs=30,
            batch_size=200,
            learning_rate=OneCycle(peak=0.005),
            optimizer=AdamW(weight_decay=0.0),
            loss=F.mse_loss,
        ),
        metric=Metric("accuracy", score=within_tolerance),
    )


def main(seed: int, folder: Path) -> None:
    torch.set_num_threads(1)
    for name, retraining in (("float", Retraining()), ("quantised", Retraining(quantised_rounds=1))):
        run = folder / f"{name}-{seed}"
        records = compress(
            task(),
            folder=run,
            stop=Stop(target_sparsity=0.8),
            cut=Cut(one_shot=True),
            retraining=retraining,
            training=Training(seed=seed),
            dense=DenseRound(taken_from=folder / f"float-{seed}" if name == "quantised" else None),
        )
        source = open_source(str(run), task=f"{Path(__file__)}:task")
        # Whatever it costs.
        form = FileForm(dense=True, int8=True, max_drop=1.0)
        exported = export(source, folder / f"{run.name}.onnx", form=form, overwrite=True)
        assert exported.quantised is not None
        line = {
            "seed": seed,
            "last round": name,
            "dense": records[0].test,
            "recorded": records[1].metrics,
            "exported": {split: [found.before, found.after] for split, found in exported.quantised.scores.items()},
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
