"""What the last round trained for int8 wins back on images: an EfficientNet of a public package, on CIFAR-10.

Command: python benchmarks/quantised_images.py DATA SEED FOLDER >> docs/results/quantised-images.jsonl
n: 1 seed, 10,000 images for testing; nothing is timed
Hardware: 1 core of AMD Zen 5
Date: 2026-11-30

transformers' EfficientNet (swish, squeeze and excitation, depthwise layers), thinned to 0.5 of b0's width for images of
32 pixels, is trained once, cut to 20% of its weights and retrained, in float and, from the same dense network, by
--quantised-rounds 1. Both are exported by --dense --int8, and the files measured in ONNX Runtime.
"""

import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import EfficientNetConfig, EfficientNetForImageClassification

from gossamer import Cut, Retraining, Stop
from gossamer.export.exporting import export
from gossamer.export.form import FileForm
from gossamer.export.source import open_source
from gossamer.job.compress import compress
from gossamer.job.training import DenseRound, Training
from gossamer.tasks import SGD, Data, Examples, OneCycle, Recipe, Task
from gossamer.tasks.cifar10 import cifar10, cropped_and_flipped, standardised

EPOCHS = 6


class Network(nn.Module):
    """The scores of the classes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.network = EfficientNetForImageClassification(
            EfficientNetConfig(
                num_labels=10,
                image_size=32,
                width_coefficient=0.5,
                depth_coefficient=0.5,
                hidden_dim=640,
                strides=[1, 1, 2, 2, 1, 2, 1],
                dropout_rate=0.0,
                drop_connect_rate=0.0,
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.network(images).logits
        return scores


def data(folder: Path | None) -> Data:
    found = cifar10(folder)
    return Data(
        *(Examples(split.inputs, split.targets, standardised) for split in (found.train, found.validation, found.test))
    )


def task() -> Task:
    return Task(
        name="efficientnet-cifar-10",
        description="transformers' EfficientNet at half of b0's width on CIFAR-10",
        model=Network,
        data=data,
        recipe=Recipe(
            epochs=EPOCHS,
            batch_size=128,
            learning_rate=OneCycle(peak=0.2, warm_up=0.2),
            optimizer=SGD(momentum=0.9, nesterov=True, weight_decay=2e-4),
            augment=cropped_and_flipped,
            channels_last=True,
        ),
    )


def main(images: Path, seed: int, folder: Path) -> None:
    torch.set_num_threads(1)
    for name, retraining in (("float", Retraining()), ("quantised", Retraining(quantised_rounds=1))):
        run = folder / f"{name}-{seed}"
        records = compress(
            task(),
            folder=run,
            data_folder=images,
            stop=Stop(target_sparsity=0.8),
            cut=Cut(one_shot=True),
            retraining=retraining,
            training=Training(seed=seed),
            dense=DenseRound(taken_from=folder / f"float-{seed}" if name == "quantised" else None),
        )
        source = open_source(str(run), task=f"{Path(__file__)}:task", data_folder=images)
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
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
