"""What the last round trained for int8 wins back, on a network of depthwise convolutions that loses by quantisation
after training: CIFAR-10 at 16 x 16 pixels, 80% zeros.

Command: python benchmarks/quantised_rounds.py DATA SEED FOLDER >> docs/results/quantised-rounds.jsonl, SEED 0, 1 and 2
n: 3 seeds, 10,000 test images; nothing is timed
Hardware: 1 core of AMD Zen 4
Date: 2026-11-28

DATA is a folder that holds cifar10/. The network is trained once (`float`: round 0), cut to 20% of its weights and
retrained, in float and (`quantised`) by --quantised-rounds 1 from the same dense network. Both are exported by
--dense --int8, with ranges of 512 training images, and the files measured in ONNX Runtime.
"""

import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from gossamer import Cut, Retraining, Stop
from gossamer.export.exporting import export
from gossamer.export.form import FileForm
from gossamer.export.source import open_source
from gossamer.job.compress import compress
from gossamer.job.training import DenseRound, Training
from gossamer.tasks import SGD, Data, Examples, Recipe, Steps, Task
from gossamer.tasks.cifar10 import cifar10, cropped_and_flipped

sys.path.insert(0, str(Path(__file__).parent))
from cifar_10_stand_in import halved

IMAGES = 10_000
"""Of the training set."""
BLOCKS = ((24, 24, 1), (24, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1))
"""Input channels, output channels and stride of each inverted residual."""
EXPANSION = 3


class InvertedResidual(nn.Module):
    """A block of MobileNetV2 with the activation of MobileNetV3."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = inputs * EXPANSION
        self.layers = nn.Sequential(
            *(nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.Hardswish()),
            nn.Conv2d(inner, inner, 3, stride, padding=1, groups=inner, bias=False),
            *(nn.BatchNorm2d(inner), nn.Hardswish()),
            *(nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, images: Tensor) -> Tensor:
        return images + self.layers(images) if self.residual else self.layers(images)


def network() -> nn.Module:
    first, last = BLOCKS[0][0], BLOCKS[-1][1]
    return nn.Sequential(
        *(nn.Conv2d(3, first, 3, padding=1, bias=False), nn.BatchNorm2d(first), nn.Hardswish()),
        *(InvertedResidual(*block) for block in BLOCKS),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, 10)),
    )


def data(folder: Path | None) -> Data:
    found = cifar10(folder)
    train = Examples(found.train.inputs[:IMAGES], found.train.targets[:IMAGES], halved)
    others = (Examples(split.inputs, split.targets, halved) for split in (found.validation, found.test))
    return Data(train, *others)


def task() -> Task:
    return Task(
        name="depthwise",
        description="inverted residuals on 10,000 images of CIFAR-10 at 16 x 16 pixels",
        model=network,
        data=data,
        recipe=Recipe(
            epochs=8,
            batch_size=64,
            learning_rate=Steps(first=0.1, milestones=(0.5, 0.75)),
            optimizer=SGD(momentum=0.9, weight_decay=2e-4),
            augment=cropped_and_flipped,
            channels_last=True,
        ),
    )


def main(data_folder: Path, seed: int, folder: Path) -> None:
    torch.set_num_threads(1)
    for name, retraining in (("float", Retraining()), ("quantised", Retraining(quantised_rounds=1))):
        records = compress(
            task(),
            folder=folder / name,
            data_folder=data_folder,
            stop=Stop(target_sparsity=0.8),
            cut=Cut(one_shot=True),
            retraining=retraining,
            training=Training(seed=seed),
            dense=DenseRound(taken_from=folder / "float" if name == "quantised" else None),
        )
        path = folder / f"{name}.onnx"
        source = open_source(str(folder / name), data_folder=data_folder, task=f"{Path(__file__)}:task")
        exported = export(source, path, form=FileForm(dense=True, int8=True), overwrite=True)
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
