"""What takes longer of several processes: ways to train together, ranks that are killed, other numbers of ranks."""

import random
import signal
import time
from pathlib import Path

import pytest
import torch
from loop.test_ranks import LOOP, digests
from processes import over, run, start, succeeded

import gossamer

pytestmark = [pytest.mark.slow, pytest.mark.processes]

WAYS = """
    import json, warnings
    from contextlib import nullcontext
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of what it imports
        from torch.distributed.optim import ZeroRedundancyOptimizer
        from torch.distributed.algorithms.join import Join

    def static(model, optimizer):
        train(DistributedDataParallel(model, static_graph=True, gradient_as_bucket_view=True), optimizer)

    def unequal(model, optimizer):
        "Rank 1 has more batches than rank 0."
        wrapped = DistributedDataParallel(model)
        things = [wrapped, optimizer] if isinstance(optimizer, ZeroRedundancyOptimizer) else [wrapped]
        with Join(things):
            train(wrapped, optimizer, steps=4 + 3 * rank)

    def accumulated(model, optimizer):
        wrapped = DistributedDataParallel(model)
        for step in range(4):
            optimizer.zero_grad()
            for part in range(3):
                with wrapped.no_sync() if part < 2 else nullcontext():
                    wrapped(torch.randn(16, 8)).square().sum().backward()
            optimizer.step()

    def unused(model, optimizer):
        train(DistributedDataParallel(model, find_unused_parameters=True, broadcast_buffers=False), optimizer)

    def synchronised(model, optimizer):
        train(DistributedDataParallel(model, bucket_cap_mb=0.0001), optimizer)

    def adam(model):
        return torch.optim.Adam(model.parameters(), lr=0.01)

    def zero(model):
        return ZeroRedundancyOptimizer(model.parameters(), torch.optim.Adam, lr=0.01)

    def job(folder, way, make_optimizer, leave_after=None, **arguments):
        model = network(seed=rank)
        torch.manual_seed(100 + rank); random.seed(rank); np.random.seed(rank)
        optimizer = make_optimizer(model)
        arguments = {"stop": gossamer.Stop(rounds=3), **arguments}
        for round in gossamer.rounds(model, folder=folder, state={"optimizer": optimizer}, **arguments):
            way(model, optimizer)
            round.record(accuracy=torch.rand(()).item())
            if round.number == leave_after:
                return
        gossamer.check(model, *([optimizer.optim] if make_optimizer is zero else []))
"""

NAMES = ["static", "unequal", "accumulated", "unused", "synchronised"]


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("optimizer", ["adam", "zero"])
def test_ways_to_train_together(tmp_path: Path, size: int, optimizer: str) -> None:
    """DDP with small buckets, static graph, join, no_sync and unused parameters; ZeroRedundancyOptimizer; each left
    after round 1 and gone on with."""
    program = (
        LOOP
        + WAYS
        + f"""
    for way in (static, unequal, accumulated, unused, synchronised):
        job(way.__name__, way, {optimizer})
        job(way.__name__ + "-left", way, {optimizer}, leave_after=1)
        job(way.__name__ + "-left", way, {optimizer})
    """
    )
    succeeded(tmp_path, size, program)
    for name in NAMES:
        whole = digests(tmp_path / name)
        assert len(whole) == 4
        assert whole == digests(tmp_path / f"{name}-left"), name
        assert len([file for file in whole["round 3"]["sha256"] if file.startswith("state")]) == size


@pytest.mark.parametrize("size", [2, 4])
def test_as_one_process_where_the_arithmetic_allows(tmp_path: Path, size: int) -> None:
    """The same examples in every rank: gradients are sums of 2 or 4 equal numbers, divided by as many, which are exact.
    With other examples in each they are rounded in another order than in one process, and only the counts agree."""
    program = (
        LOOP
        + """
    model = network()
    for round in gossamer.rounds(model, folder=sys.argv[1], target_sparsity=0.8):
        wrapped = DistributedDataParallel(model) if size > 1 else model
        train(wrapped, torch.optim.SGD(model.parameters(), lr=0.125, momentum=0.5), all_alike=True)
        round.record(accuracy=1.0)
    """
    )
    succeeded(tmp_path, 1, program, "one")
    succeeded(tmp_path, size, program, "several")
    one, several = digests(tmp_path / "one"), digests(tmp_path / "several")
    assert one.keys() == several.keys()
    for name, record in one.items():
        assert several[name]["kept"] == record["kept"]
        for file in ("masks.safetensors", "model.safetensors"):
            assert several[name]["sha256"][file] == record["sha256"][file], (name, file)


@pytest.mark.parametrize("optimizer", ["adam", "zero"])
@pytest.mark.parametrize(("before", "after"), [(2, 1), (2, 4), (1, 2), (4, 2)])
def test_going_on_with_another_number(tmp_path: Path, before: int, after: int, optimizer: str) -> None:
    program = (
        LOOP
        + WAYS
        + f"""
    warnings.simplefilter("default")
    job("run", synchronised, {optimizer}, leave_after=1 if sys.argv[1] == "first" else None)
    """
    )
    succeeded(tmp_path, before, program, "first")
    masks = gossamer.load_masks(tmp_path / "run", 1)
    ended = run(tmp_path, after, program, "then")
    assert all(one.returncode == 0 for one in ended), ended[0].stderr
    assert f"was trained by {before} processes, and the run goes on with {after}" in ended[0].stderr
    assert all(torch.equal(mask, masks[name]) for name, mask in gossamer.load_masks(tmp_path / "run", 1).items())
    later = gossamer.load_masks(tmp_path / "run", 3)
    assert all(not bool((later[name] & ~mask).any()) for name, mask in masks.items())


@pytest.mark.parametrize("method", ["weight-rewind", "reinit", "fine-tune"])
def test_methods(tmp_path: Path, method: str) -> None:
    program = (
        LOOP
        + WAYS
        + f"""
    retraining = gossamer.Retraining({method!r}, rewind_to_step=2)
    for folder, leave_after in (("whole", None), ("left", 1), ("left", None)):
        model = network(seed=rank)
        torch.manual_seed(100 + rank); random.seed(rank); np.random.seed(rank)
        optimizer = adam(model)
        stop = gossamer.Stop(rounds=2)
        state = {{"optimizer": optimizer}}
        for round in gossamer.rounds(model, folder=folder, stop=stop, state=state, retraining=retraining):
            train(DistributedDataParallel(model), optimizer, steps=len(round.schedule(6)))
            round.record(accuracy=1.0)
            if round.number == leave_after:
                break
    """
    )
    succeeded(tmp_path, 2, program)
    assert digests(tmp_path / "whole") == digests(tmp_path / "left")
    assert len(digests(tmp_path / "whole")) == 3


def test_criteria_that_look_at_examples(tmp_path: Path) -> None:
    """Each rank has losses of its own; the masks are those of their mean."""
    program = (
        LOOP
        + """
    model = network()
    torch.manual_seed(rank)
    def losses():
        yield nn.functional.cross_entropy(model(torch.randn(64, 8)), torch.arange(64) % 4)
    cut = gossamer.Cut("taylor", losses=losses)
    for round in gossamer.rounds(model, folder="run", stop=gossamer.Stop(rounds=2), cut=cut):
        train(DistributedDataParallel(model), torch.optim.SGD(model.parameters(), lr=0.1))
        round.record(accuracy=float(rank), reduce=lambda every: {"accuracy": max(one["accuracy"] for one in every)})
    """
    )
    succeeded(tmp_path, 2, program)
    assert digests(tmp_path / "run")["round 2"]["metrics"] == {"accuracy": 1.0}


KILLED = """
    import time
    began = time.monotonic()
    model = network(seed=rank)
    torch.manual_seed(100 + rank); random.seed(rank); np.random.seed(rank)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    try:
        for round in gossamer.rounds(
            model, folder=sys.argv[1], target_sparsity=0.8, state={"optimizer": optimizer}
        ):
            train(DistributedDataParallel(model), optimizer)
            round.record(accuracy=torch.rand(()).item() + random.random() + np.random.rand())
        print(time.monotonic() - began)
    except gossamer.GossamerError as error:
        print(type(error).__name__, error, flush=True)
        os._exit(2)
    except RuntimeError as error:
        print("RuntimeError of the training", str(error).splitlines()[0])
        os._exit(3)
"""


@pytest.mark.parametrize(("size", "enough"), [(2, 12), (4, 8)])
def test_twenty_kills_of_single_ranks(tmp_path: Path, size: int, enough: int) -> None:
    """One rank is killed, at a random moment, as if its machine had failed. Nobody ends the others: they end by
    themselves, with one message; and the same command ends with the same bits."""
    moments = random.Random(size)
    duration = float(succeeded(tmp_path, size, LOOP + KILLED, "whole")[0])
    expected = digests(tmp_path / "whole")
    kills, attempt, messages = 0, 0, 0
    while kills < enough:
        attempt += 1
        folder = tmp_path / f"killed{attempt}"
        while True:
            ranks = start(tmp_path, size, LOOP + KILLED, folder.name)
            # Not while they look for each other, which is torch's own, and takes until its time is out.
            while not over(tmp_path).exists():
                time.sleep(0.01)
            time.sleep(moments.uniform(0, 0.7) * duration)
            victim = ranks[moments.randrange(size)]
            alive = victim.poll() is None
            victim.send_signal(signal.SIGKILL)
            ended = [one.completed() for one in ranks]
            codes = [one.returncode for one in ended]
            if all(code == 0 for code in codes):
                break
            kills += alive
            for one in ended:
                # The one that was killed; those that a collective of gossamer's or of the training told; those that
                # died while they looked for each other.
                assert one.returncode in (-signal.SIGKILL, 0, 1, 2, 3), one
                if one.returncode == 2:
                    assert one.stdout.startswith("RankError another process of this training is gone"), one.stdout
                    messages += 1
        assert digests(folder) == expected, f"attempt {attempt}, {kills} kills"
    print(kills, "kills", attempt, "runs", messages, "messages")
