"""One run by several processes: the same masks as one process, one folder, and differences that are named."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import succeeded

import gossamer

LOOP = """
    import random
    import numpy as np
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel
    import gossamer

    def network(seed=0):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))

    def train(model, optimizer, steps=6, all_alike=False):
        "Each rank its own examples, unless they are to be all alike; in numbers whose sums are exact."
        for step in range(steps):
            inputs = torch.randn(16, 8) if not all_alike else torch.linspace(-1, 1, 128).view(16, 8).roll(step, 0)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), torch.arange(16) % 4).backward()
            optimizer.step()
"""


def digests(folder: Path) -> dict[str, Any]:
    """What a run's rounds are, apart from the time that they took."""
    found: dict[str, Any] = {}
    for line in (folder / "rounds.jsonl").read_text().splitlines():
        record = json.loads(line)
        del record["seconds"], record["sha256"]["round.json"]
        found[f"round {record['round']}"] = record
    return found


def test_two_ranks_make_one_run_and_go_on_with_the_same_bits(tmp_path: Path) -> None:
    """Buckets, a network that differs at first, BatchNorm, random numbers and metrics of each rank's own."""
    program = (
        LOOP
        + """
    def job(folder, leave_after=None):
        model = network(seed=rank)
        torch.manual_seed(100 + rank); random.seed(rank); np.random.seed(rank)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        seen = []
        state = {"optimizer": optimizer}
        for round in gossamer.rounds(model, folder=folder, stop=gossamer.Stop(rounds=3), state=state):
            train(DistributedDataParallel(model, bucket_cap_mb=0.0001), optimizer)
            measured = torch.rand(()).item() + random.random() + np.random.rand()
            record = round.record(accuracy=measured, **({"only_first": 1.0} if rank == 0 else {}))
            if round.number == leave_after:
                return
            seen.append((measured, record.val))
        gossamer.check(model)
        return model, seen

    model, seen = job("whole")
    job("killed", leave_after=1)
    job("killed")
    import json
    print(json.dumps([seen, [value.tolist() for value in model.state_dict().values()]]))
    """
    )
    (first, first_state), (second, second_state) = map(json.loads, succeeded(tmp_path, 2, program))
    assert first_state == second_state, "BatchNorm's statistics included"
    assert digests(tmp_path / "whole") == digests(tmp_path / "killed")
    assert [of_round[0] for of_round in first] != [of_round[0] for of_round in second]
    for (mine, recorded), (other, also) in zip(first, second, strict=True):
        assert recorded == also
        assert recorded == (mine + other) / 2
    record = digests(tmp_path / "whole")["round 3"]
    assert sorted(record["sha256"]) == [
        "masks.safetensors", "model.safetensors", "state-1.safetensors", "state.safetensors",
    ]  # fmt: skip
    assert record["metrics"]["only_first"] == 1.0


def test_differences_are_named(tmp_path: Path) -> None:
    program = (
        LOOP
        + """
    def attempt(folder, **arguments):
        try:
            model = network()
            for round in gossamer.rounds(model, folder=folder, stop=gossamer.Stop(rounds=1), **arguments):
                yield round, model
        except gossamer.GossamerError as error:
            print(type(error).__name__, error)

    for round, model in attempt(f"folder-{rank}"):
        pass
    for round, model in attempt("settings", settings={"rate": 0.1 * (rank + 1)}):
        pass
    for round, model in attempt("weights"):
        try:
            train(model, torch.optim.SGD(model.parameters(), lr=0.1 + rank))
            round.record()
        except gossamer.GossamerError as error:
            print(type(error).__name__, error)
            break
    for round, model in attempt("nan"):
        try:
            train(DistributedDataParallel(model), torch.optim.SGD(model.parameters(), lr=0.1))
            round.record(loss="much" if rank == 1 else 1.0)
        except gossamer.GossamerError as error:
            print(type(error).__name__, error)
            break
    """
    )
    first, second = (text.splitlines() for text in succeeded(tmp_path, 2, program))
    for lines in (first, second):
        assert "rank 1 was given the folder" in lines[0]
        assert "folder-1" in lines[0]
        assert "folder-0" in lines[0]
        assert "rank 1 has others than rank 0 (settings.rate)" in lines[1]
        assert "round 0 was trained to differ" in lines[2]
        assert "rank 1" in lines[2]
        assert "0.weight" in lines[2]
    assert first[3].startswith("ConfigurationError rank 1: ")
    assert not list(tmp_path.glob("*/round-*"))


def test_processes_that_do_not_know_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(gossamer.ConfigurationError, match=r"init_process_group"):
        gossamer.rounds(torch.nn.Linear(2, 2), folder=tmp_path / "run", target_sparsity=0.5)
    assert not (tmp_path / "run").exists()
