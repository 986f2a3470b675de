"""Killed at any moment, a run of any method ends with the bytes of one that was not: real processes, real files."""

import textwrap
from pathlib import Path

from command_line import Started

PROGRAM = """
    import json, os, random, signal, sys, time, traceback
    from pathlib import Path
    import torch
    from torch import nn
    import gossamer
    from gossamer import Retraining
    from gossamer.job.compress import compress
    from gossamer.job.training import Training
    from gossamer.tasks import SGD, Data, Examples, OneCycle, Recipe, Task

    torch.set_num_threads(1)
    torch.optim.AdamW([nn.Parameter(torch.ones(1))])

    def small():
        return nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Dropout(0.1), nn.Linear(30, 5))

    def data(folder):
        inputs = torch.randn(200, 20, generator=torch.Generator().manual_seed(0))
        return Data(*(Examples(part, part[:, :5].argmax(1)) for part in inputs.split([144, 28, 28])))

    recipe = Recipe(epochs=4, batch_size=16, learning_rate=OneCycle(peak=0.1), optimizer=SGD(), fine_tune_rate=0.01)

    def built_in(folder, **arguments):
        task = Task(name="small", description="", model=small, data=data, recipe=recipe)
        arguments = dict(training=Training(seed=5, checkpoint_seconds=0)) | arguments
        compress(task, folder=folder, stop=gossamer.Stop(target_sparsity=0.5), **arguments)

    def own_loop(folder, **arguments):
        torch.manual_seed(0)
        random.seed(0)
        model = small()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        inputs = torch.randn(64, 20)
        stop = gossamer.Stop(rounds=3)
        for round in gossamer.rounds(model, folder=folder, state={"optimizer": optimizer}, stop=stop, **arguments):
            # A loader's way: the order of its data is drawn anew from the global random numbers.
            for _ in round.replicates(lambda: inputs[torch.randperm(64)].split(16)):
                for step in round.schedule(40):
                    optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / 40)
                    batch = torch.randperm(64)[:16]
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(model(inputs[batch]), batch % 5).backward()
                    optimizer.step()
            round.record(accuracy=torch.rand(()).item())

    def in_a_process(job, folder, **arguments):
        child = os.fork()
        if child:
            return child
        try:
            job(folder, **arguments)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(4)

    def wait(child):
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def results(folder):
        "Every byte of the run, apart from the time that it took."
        found = {}
        for path in sorted(Path(folder).rglob("*")):
            if path.is_dir() or path.name in (".lock", "cost.json", "ledger.jsonl"):
                continue
            if path.suffix in (".json", ".jsonl"):
                lines = [json.loads(line) for line in path.read_text().splitlines()]
                for line in lines:
                    line.pop("seconds", None)
                    line.get("sha256", {}).pop("round.json", None)
                found[str(path.relative_to(folder))] = lines
            else:
                found[str(path.relative_to(folder))] = path.read_bytes()
        return found

    FRESH = Training(seed=5, checkpoint_seconds=0, fresh_optimizer=True)
    REWINDING = ("weight-rewind", "low-lr-weight-rewind")
    root = Path(sys.argv[1])
    moments = random.Random(2)
    kills = 0
    for name, job, arguments in [
        # Step 14 lies inside an epoch (of 9 steps), with the training saved after every one.
        ("step", built_in, dict(retraining=Retraining(method="weight-rewind", rewind_to_step=14))),
        ("reinit", built_in, dict(retraining=Retraining(method="reinit"), training=FRESH)),
        ("last", built_in, dict(retraining=Retraining(method="low-lr-weight-rewind", rewind_epochs=1))),
        ("own", own_loop, dict(retraining=Retraining(method="weight-rewind", rewind_to_step=7))),
        ("average", built_in, dict(retraining=Retraining(method="lr-rewind", replicates=3))),
        ("average-fresh", built_in, dict(retraining=Retraining("weight-rewind", replicates=2), training=FRESH)),
        ("average-own", own_loop, dict(retraining=Retraining(method="lr-rewind", replicates=3))),
    ]:
        started = time.monotonic()
        assert wait(in_a_process(job, root / name, **arguments)) == 0
        duration = time.monotonic() - started
        expected = results(root / name)
        assert len([path for path in expected if path.endswith("model.safetensors")]) == (4 if job is own_loop else 5)
        assert ("round-00/snapshot.safetensors" in expected) == (arguments["retraining"].method in REWINDING)
        assert not {"snapshot.safetensors", "replicates.safetensors", "training.safetensors"} & {*expected}
        killed = 0
        for attempt in range(50):
            while True:
                child = in_a_process(job, root / f"{name}-{attempt}", **arguments)
                time.sleep(moments.uniform(0, 0.6 * duration))
                os.kill(child, signal.SIGKILL)
                code = wait(child)
                assert code in (0, -signal.SIGKILL), code
                if code == 0:
                    break
                killed += 1
            assert results(root / f"{name}-{attempt}") == expected, f"{name}: attempt {attempt}, {killed} kills"
            if killed >= 4:
                break
        kills += killed
    print(kills)
"""


def test_killed_at_random_moments_every_method_ends_with_the_same_bytes(tmp_path: Path) -> None:
    done = Started(tmp_path, tmp_path, script=textwrap.dedent(PROGRAM)).completed()
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) >= 28
