"""The smallest file of ResNet-20 at 10.7% of its weights, the network that docs/results keeps.

Command: OMP_NUM_THREADS=1 gossamer export benchmarks/smallest_resnet_20.py:task --data DATA --smallest \\
    --max-drop 0.003 -o FILE (and 0.002), then gossamer size FILE
n: 1 network (seed 0 of benchmarks/resnet_20_forty_epochs.py)
Hardware: 2 cores of an Intel Xeon (Emerald Rapids)
Date: 2026-11-30, docs/results/smallest-resnet-20.txt
"""

import lzma
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load
from torch import nn

from gossamer.tasks import Task, find_task

HERE = Path(__file__).resolve().parent
WEIGHTS = HERE.parent / "docs/results/resnet-20-10.7-percent.safetensors.xz"


def task() -> Task:
    """The task that the network was trained on, with what it had become."""
    trained = find_task(f"{HERE / 'resnet_20_forty_epochs.py'}:task")

    def model() -> nn.Module:
        network = trained.model()
        network.load_state_dict(load(lzma.decompress(WEIGHTS.read_bytes())))
        return network

    return replace(trained, name="resnet-20-at-10.7-percent", description="ResNet-20, pruned", model=model)
