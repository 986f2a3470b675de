"""Rounds of networks that are sharded (FSDP2, tensor parallelism, both): the masks of one process, at any number of
processes, and from a folder that others began."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from processes import succeeded

import gossamer

NETWORK = """
    import warnings
    import gossamer
    from torch import nn

    # The random numbers are others, of which these networks use none.
    warnings.filterwarnings("ignore", message=".*was trained by . processes")

    def network():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 5))

    def rounds(model, folder, last, cut):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        torch.manual_seed(1)
        inputs = torch.randn(20, 8)
        targets = inputs.sum(1, keepdim=True)

        def loss():
            return (model(inputs) - targets).square().mean()

        stop, state = gossamer.Stop(rounds=3), {"optimizer": optimizer}
        for round in gossamer.rounds(model, folder=folder, stop=stop, cut=cut, state=state):
            for _ in range(3):
                optimizer.zero_grad()
                loss().backward()
                optimizer.step()
                if round.number:
                    gossamer.check(model, optimizer)
            with torch.no_grad():
                # Leaves gathered weights in the outermost module of FSDP2.
                measured = loss()
            round.record(loss=float(measured))
            if round.number == last:
                return
"""

SHARDED = (
    NETWORK
    + """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    def sharded(kind):
        model = network()
        line = init_device_mesh("cpu", (size,))
        plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
        if kind == "tensor parallel":
            return parallelize_module(model, line, plan)
        if kind == "both":
            square = init_device_mesh("cpu", (2, size // 2), mesh_dim_names=("data", "tensor"))
            return fully_shard(parallelize_module(model, square["tensor"], plan), mesh=square["data"])
        for layer in (model[0], model[2]):
            fully_shard(layer, mesh=line)
        return fully_shard(model, mesh=line)

    kind, folder, last, structure, criterion, allocation = [*sys.argv[1:], "global"][:6]
    cut = gossamer.Cut(criterion, allocation=allocation, structure=structure)
    rounds(sharded(kind), folder, int(last), cut)
"""
)


def alone(
    folder: Path,
    last: int = 3,
    structure: str = "unstructured",
    criterion: str = "magnitude",
    allocation: str = "global",
) -> Path:
    """The same run in one process."""
    cut = f"gossamer.Cut({criterion!r}, allocation={allocation!r}, structure={structure!r})"
    program = f"{NETWORK}\n    rounds(network(), sys.argv[1], int(sys.argv[2]), {cut})"
    succeeded(folder, 1, program, folder / "alone", last)
    return folder / "alone"


def network() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 12), torch.nn.ReLU(), torch.nn.Linear(12, 5)
    )


def require_same(folder: Path, other: Path, last: int = 3) -> None:
    for number in range(last + 1):
        masks, expected = gossamer.load_masks(folder, number), gossamer.load_masks(other, number)
        assert list(masks) == list(expected)
        assert all(torch.equal(masks[name], expected[name]) for name in masks)
        models = network(), network()
        records = [
            gossamer.load_round(place, number, model) for place, model in zip((folder, other), models, strict=True)
        ]
        assert records[0].kept == records[1].kept == sum(int(mask.sum()) for mask in masks.values())
        for own, reference in zip(models[0].parameters(), models[1].parameters(), strict=True):
            # Gradients are added up in another order.
            torch.testing.assert_close(own, reference, rtol=0, atol=1e-6)


def test_fully_sharded_rounds_are_those_of_one_process_and_go_on_in_one(tmp_path: Path) -> None:
    expected = alone(tmp_path)
    folder = tmp_path / "sharded"
    succeeded(tmp_path, 2, SHARDED, "fully sharded", folder, 1, "unstructured", "magnitude")
    record = json.loads((folder / "rounds.jsonl").read_text().splitlines()[-1])
    assert {"shards-0.safetensors", "shards-1.safetensors"} <= record["sha256"].keys()
    require_same(folder, expected, 1)
    program = f"{NETWORK}\n    rounds(network(), sys.argv[1], 3, gossamer.Cut())"
    succeeded(tmp_path, 1, program, folder)
    require_same(folder, expected)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize(
    ("kind", "size"), [("fully sharded", 1), ("fully sharded", 4), ("tensor parallel", 2), ("both", 4)]
)
@pytest.mark.parametrize(
    ("structure", "criterion", "allocation"),
    [
        ("unstructured", "magnitude", "global"),
        ("3:4", "magnitude", "global"),
        ("unstructured", "random", "global"),
        ("unstructured", "magnitude", "uniform"),
        ("3:4", "magnitude", "uniform"),
    ],
)
def test_masks_are_those_of_one_process(
    kind: str, size: int, structure: str, criterion: str, allocation: str, tmp_path: Path
) -> None:
    expected = alone(tmp_path, 3, structure, criterion, allocation)
    succeeded(tmp_path, size, SHARDED, kind, tmp_path / "sharded", 3, structure, criterion, allocation)
    require_same(tmp_path / "sharded", expected)


@pytest.mark.slow
@pytest.mark.processes
def test_a_run_goes_on_at_another_number_of_processes_however_it_is_sharded(tmp_path: Path) -> None:
    expected = alone(tmp_path)
    begun = tmp_path / "begun"
    succeeded(tmp_path, 2, SHARDED, "fully sharded", begun, 1, "unstructured", "magnitude")
    for kind, size in (("both", 4), ("tensor parallel", 1), ("tensor parallel", 2), ("fully sharded", 4)):
        folder = tmp_path / f"{kind} {size}"
        shutil.copytree(begun, folder)
        succeeded(tmp_path, size, SHARDED, kind, folder, 3, "unstructured", "magnitude")
        require_same(folder, expected)
    # What began in one process goes on in several.
    shutil.rmtree(expected / "round-03")
    shutil.rmtree(expected / "round-02")
    succeeded(tmp_path, 4, SHARDED, "both", expected, 3, "unstructured", "magnitude")
    require_same(tmp_path / "both 4", expected)


@pytest.mark.slow
@pytest.mark.processes
def test_a_damaged_file_of_one_process_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    succeeded(tmp_path, 2, SHARDED, "fully sharded", folder, 1, "unstructured", "magnitude")
    path = folder / "round-01" / "shards-1.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(gossamer.CheckpointError, match=r"shards-1.safetensors is damaged: its SHA-256"):
        gossamer.load_round(folder, 1, network())
