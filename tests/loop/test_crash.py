"""Real processes, killed at random moments or without room on the disk: what comes out is the same to the last byte."""

import sys
import textwrap
from pathlib import Path

import pytest
from command_line import Started

PROGRAM = """
    import json, os, random, resource, signal, sys, time, traceback
    from pathlib import Path
    import numpy as np
    import torch
    from torch import nn
    import gossamer
    from gossamer.errors import CheckpointError

    torch.set_num_threads(1)
    # What torch imports late, it imports here once and not in every process.
    torch.optim.AdamW([nn.Parameter(torch.ones(1))])

    def job(folder):
        "The user's script: it draws from every global generator, and its optimizer lives across rounds."
        torch.manual_seed(0); random.seed(0); np.random.seed(0)
        model = nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Dropout(0.1), nn.Linear(30, 5))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        data = torch.randn(64, 20)
        for round in gossamer.rounds(model, target_sparsity=0.8, folder=folder, state={"optimizer": optimizer}):
            for batch in torch.randperm(64).split(16):
                optimizer.zero_grad()
                noise = random.random() * torch.from_numpy(np.random.rand(len(batch), 20)).float()
                nn.functional.cross_entropy(model(data[batch] + noise), batch % 5).backward()
                optimizer.step()
            round.record(accuracy=torch.rand(()).item())

    def in_a_process(folder, limit=None):
        "Starts the job in a process of its own; it ends with 0, or with 3 if it was refused by one clear error."
        child = os.fork()
        if child:
            return child
        try:
            if limit is not None:
                # A file that would grow beyond it is refused by the system, as on a full disk.
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            job(folder)
            os._exit(0)
        except CheckpointError as error:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            Path(f"{folder}.error").write_text(str(error))
            os._exit(3)
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
            if path.name in ("round.json", "rounds.jsonl"):
                lines = [json.loads(line) for line in path.read_text().splitlines()]
                for line in lines:
                    del line["seconds"], line["sha256"]["round.json"]
                found[str(path.relative_to(folder))] = lines
            else:
                found[str(path.relative_to(folder))] = path.read_bytes()
        return found

    root = Path(sys.argv[1])
    started = time.monotonic()
    assert wait(in_a_process(root / "whole")) == 0
    duration = time.monotonic() - started
    expected = results(root / "whole")
    assert len([name for name in expected if name.endswith("model.safetensors")]) == 9, list(expected)
"""

KILLED = """
    moments = random.Random(1)
    kills = attempt = 0
    interrupted = set()
    while kills < 20:
        attempt += 1
        folder = root / f"killed{attempt}"
        while True:
            child = in_a_process(folder)
            time.sleep(moments.uniform(0, 0.7 * duration))
            how = moments.choice([signal.SIGKILL, signal.SIGTERM])
            os.kill(child, how)
            code = wait(child)
            assert code in (0, -how), code
            if code == 0:
                break
            kills += 1
            interrupted.add(len(list(folder.glob("round-??"))))
        assert results(folder) == expected, f"attempt {attempt}, {kills} kills"
    # They hit many different rounds.
    assert len(interrupted) >= 5, interrupted
    print(kills)
"""

LOCKED = """
    folder = root / "locked"
    entered, ready = os.pipe()
    child = os.fork()
    if child == 0:
        for round in gossamer.rounds(nn.Linear(2, 2), folder=folder, stop=gossamer.Stop(rounds=2)):
            os.write(ready, b"x")
            time.sleep(600)
    os.read(entered, 1)
    try:
        list(gossamer.rounds(nn.Linear(2, 2), folder=folder, stop=gossamer.Stop(rounds=2)))
    except gossamer.GossamerError as error:
        assert "in use by another process" in str(error), error
    else:
        raise AssertionError("two processes in one folder")
    os.kill(child, signal.SIGKILL)
    wait(child)
    print(len(list(gossamer.rounds(nn.Linear(2, 2), folder=folder, stop=gossamer.Stop(rounds=2)))))
"""

FULL = """
    # From the first file to the largest one: each limit stops the run at another file.
    refused = 0
    folder = root / "full"
    for limit in (0, 10, 300, 1500, 2500, 4000, 6000, 20_000):
        code = wait(in_a_process(folder, limit))
        assert code == 3, (limit, code)
        error = (root / "full.error").read_text()
        assert "cannot write" in error and str(folder) in error and "run the same command again" in error, error
        left = [path.name for path in folder.rglob("*.tmp")]
        assert not left, left
        refused += 1
        # Where there is room, it gets somewhat further.
        child = in_a_process(folder)
        time.sleep(0.15 * duration)
        os.kill(child, signal.SIGKILL)
        if wait(child) == 0:
            break
    assert wait(in_a_process(folder)) == 0
    assert results(folder) == expected
    print(refused)
"""


def run(program: str, folder: Path) -> int:
    script = textwrap.dedent(PROGRAM) + textwrap.dedent(program)
    done = Started(folder, folder, script=script).completed()
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stdout)


def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    assert run(KILLED, tmp_path) >= 20


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of a file as Linux does")
def test_without_room_on_the_disk_it_says_so_and_later_continues(tmp_path: Path) -> None:
    assert run(FULL, tmp_path) >= 3


def test_a_folder_in_use_is_refused_until_its_process_is_gone(tmp_path: Path) -> None:
    assert run(LOCKED, tmp_path) == 3
