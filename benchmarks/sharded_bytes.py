"""What gossamer hands to torch's collectives, a process and round, when the weights are sharded (FSDP2).

Command: python benchmarks/sharded_bytes.py >> docs/results/sharded-bytes.jsonl
n: 1; nothing in it is left to chance
Hardware: any, nothing is timed; 1, 2 and 4 processes over gloo on one CPU
Date: 2026-11-29

Networks of several sizes, with masses of equal weights, are cut twice by `gossamer.rounds`, each time to 80%; nothing
is trained. Every call of `gossamer.ranks.group`, through which all that gossamer sends goes, is counted: the bytes of
the tensor that the process hands to `all_reduce`, `all_gather` or, if it sends, `broadcast`.

A line is a network and a number of processes: weights, layers, type, allocation if not global, the most bytes that
a process handed over in the selection alone (half of the weights) and in a round (from one `record` to the next), and a
digest of the last masks, equal for all numbers of processes.
"""

import hashlib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import gossamer
from gossamer.prune.choose import choose
from gossamer.prune.masks import full
from gossamer.ranks import group
from gossamer.ranks.group import current

PROCESSES = (1, 2, 4)
NETWORKS = [
    (4, 64, "float32", "global"),
    (4, 512, "float32", "global"),
    (64, 64, "bfloat16", "global"),
    (4, 512, "bfloat16", "global"),
    (64, 64, "float32", "uniform"),
    (64, 64, "bfloat16", "uniform"),
    (512, 16, "bfloat16", "uniform"),
]
"""Layers, inputs and outputs of each, type, allocation."""


class Counted:
    """torch.distributed, with the bytes that this process hands over counted."""

    def __init__(self) -> None:
        self.bytes = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(distributed, name)
        return self._counting(found) if name in ("all_reduce", "all_gather", "broadcast") else found

    def _counting(self, collective: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            sent = arguments[1] if collective is distributed.all_gather else arguments[0]
            if collective is not distributed.broadcast or distributed.get_rank() == arguments[1]:
                self.bytes += sent.numel() * sent.element_size()
            return collective(*arguments)

        return counted


def network(layers: int, width: int, kind: str) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter * 16 * width**0.5).round() / 16)
    return model.to(getattr(torch, kind))


def measure(rank: int, size: int, folder: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    counted: Any = Counted()
    group.distributed = counted
    mesh = init_device_mesh("cpu", (size,))
    for layers, width, kind, allocation in NETWORKS:
        model = network(layers, width, kind)
        for layer in model:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        weights = gossamer.prunable_weights(model)
        number = sum(weight.numel() for weight in weights.values())
        counted.bytes = 0
        cut = gossamer.Cut(allocation=allocation)
        if allocation == "global":
            gossamer.keep_largest(weights, number // 2)
        else:
            choose(cut, model, weights, number // 2, full(weights), round_number=1)
        selection = counted.bytes
        place, rounds = Path(folder) / f"{layers}-{width}-{kind}-{allocation}", []
        for round in gossamer.rounds(model, folder=place, stop=gossamer.Stop(rounds=2), cut=cut):
            round.record(untrained=True, loss=0.0)
            rounds.append(counted.bytes)
        of_rounds = [after - before for before, after in pairwise(rounds)]
        most = max(max(one) for one in current().gather([selection, *of_rounds]))
        largest = max(one[0] for one in current().gather([selection]))
        if rank == 0:
            masks = gossamer.load_masks(place, -1)
            digest = hashlib.sha256(b"".join(mask.numpy().tobytes() for mask in masks.values())).hexdigest()
            line = {"processes": size, "weights": number, "layers": layers, "type": kind}
            line |= {} if allocation == "global" else {"allocation": allocation}
            line |= {"selection_bytes": largest, "round_bytes": most, "masks": digest[:16]}
            print(json.dumps(line), flush=True)
    group.distributed = distributed
    distributed.destroy_process_group()


def main() -> None:
    for size in PROCESSES:
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(measure, (size, folder), size)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
