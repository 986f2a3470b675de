"""Run as `python sharding.py FOLDER RANK RANKS`: what gossamer says to models that FSDP1 made pieces of, which are no
tensors with axes; and to sharded ones of what cannot be done with them."""

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import Shard, distribute_tensor

import gossamer
from gossamer import Cut, Retraining, Scope

MASKS = {"0.weight": torch.ones(16, 8, dtype=torch.bool)}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def main(folder: Path, rank: int, ranks: int) -> None:
    warnings.simplefilter("ignore")
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks)
    mesh = init_device_mesh("cpu", (ranks,))
    mine = folder
    plain = network()
    list(gossamer.rounds(plain, folder=mine / "plain", stop=gossamer.Stop(rounds=1)))

    def first_version(use_orig_params: bool) -> nn.Module:
        return FullyShardedDataParallel(network(), device_id=torch.device("cpu"), use_orig_params=use_orig_params)

    def second_version() -> nn.Module:
        model = network()
        fully_shard(model[0], mesh=mesh)
        return model

    models: dict[str, Callable[[], nn.Module]] = {
        "FSDP1": lambda: first_version(True),
        "FSDP1, flat": lambda: first_version(False),
        "FSDP1, a part": lambda: nn.Sequential(first_version(True), nn.Linear(4, 4)),
    }
    said: dict[str, dict[str, str]] = {}
    for kind, make in models.items():
        calls: dict[str, Callable[[nn.Module], object]] = {
            "prunable_weights": gossamer.prunable_weights,
            "rounds": lambda model: gossamer.rounds(model, folder=mine / "new", stop=gossamer.Stop(rounds=1)),
            "rounds of the rest": lambda model: gossamer.rounds(
                model, folder=mine / "new", scope=Scope(exclude=["0.*"]), stop=gossamer.Stop(rounds=1)
            ),
            "load_round": lambda model: gossamer.load_round(mine / "plain", -1, model),
            "check": lambda model: gossamer.check(model, masks=MASKS),
        }
        said[kind] = {}
        for name, call in calls.items():
            try:
                call(make())
                said[kind][name] = "nothing"
            except gossamer.GossamerError as error:
                said[kind][name] = str(error)
    asked: dict[str, dict[str, Any]] = {
        "taylor": {"cut": Cut("taylor", losses=list)},
        "lamp": {"cut": Cut("lamp")},
        "channels": {"cut": Cut(structure="channels")},
        "1x4": {"cut": Cut(structure="1x4")},
        "replicates": {"retraining": Retraining(replicates=2)},
        "weight-rewind": {"retraining": Retraining("weight-rewind")},
        "quantised": {"retraining": Retraining(quantised_rounds=1)},
    }
    said["FSDP2"] = {}
    for name, arguments in asked.items():
        try:
            gossamer.rounds(second_version(), folder=mine / "new", stop=gossamer.Stop(rounds=1), **arguments)
        except gossamer.GossamerError as error:
            said["FSDP2"][name] = str(error)
    inputs = nn.Sequential(nn.Linear(2 * ranks, 4))
    placed = distribute_tensor(inputs[0].weight.detach(), mesh, [Shard(1)])
    inputs[0].weight = nn.Parameter(placed)
    try:
        # Of one process the groups are whole.
        cut = Cut(structure="2:4" if ranks > 1 else "1x4")
        gossamer.rounds(inputs, folder=mine / "new", stop=gossamer.Stop(target_sparsity=0.5), cut=cut)
    except gossamer.GossamerError as error:
        said["FSDP2"][cut.structure] = str(error)
    assert not (mine / "new").exists()
    (folder / f"said-{rank}.json").write_text(json.dumps(said))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
