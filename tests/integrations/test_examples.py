"""The examples with trainers, as processes: one that goes through, and one that is killed inside a round."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import Started
from safetensors.numpy import load_file

import gossamer
from gossamer.loop.records import read_ledger, read_records

EXAMPLES = Path(__file__).parents[2] / "examples"
ROUNDS = 5
"""The dense one among them."""


def started(folder: Path, trainer: str) -> Started:
    program = (EXAMPLES / f"{trainer}_digits.py").read_text(encoding="utf-8")
    return Started(folder, "run", script=program)


@pytest.mark.slow
@pytest.mark.parametrize(("trainer", "checkpoint"), [("lightning", "resume.ckpt"), ("accelerate", "2")])
def test_killed_inside_a_round_an_example_ends_with_the_same_bits(
    trainer: str, checkpoint: str, tmp_path: Path
) -> None:
    pytest.importorskip(trainer)
    pytest.importorskip("sklearn")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    finished = started(whole, trainer).completed()
    assert finished.returncode == 0, finished.stderr
    going = started(killed, trainer)
    awaited = killed / "run" / "trainer" / "round-02" / checkpoint
    while not awaited.exists():
        assert going.poll() is None, "it ended before it could be killed"
        time.sleep(0.001)
    going.send_signal(signal.SIGKILL)
    assert going.wait() == -signal.SIGKILL
    assert len(read_records(killed / "run")) == 2
    again = started(killed, trainer).completed()
    assert again.returncode == 0, again.stderr
    records = read_records(whole / "run")
    assert [record.metrics for record in read_records(killed / "run")] == [record.metrics for record in records]
    assert [cost.steps for cost in read_ledger(killed / "run")] == [110] * ROUNDS
    for number, record in enumerate(records):
        name = f"round-{number:02d}/model.safetensors"
        expected, found = load_file(whole / "run" / name), load_file(killed / "run" / name)
        assert all(expected[key].tobytes() == found[key].tobytes() for key in expected | found)
        # Zeros as a plain count has them, of what is prunable: 16 * 9, 32 * 16 * 9 and 512 * 10 weights.
        weights = [values for key, values in found.items() if key.endswith("weight") and values.ndim > 1]
        assert sum(values.size for values in weights) == 144 + 4608 + 5120
        kept = sum(int(np.count_nonzero(values)) for values in weights)
        assert kept == record.kept == -(-9872 // 2**number)
    # The dense one knows the digits, and so does the one with a sixteenth of the weights.
    assert min(record.val or 0 for record in records) > 0.85
    assert gossamer.load_masks(killed / "run", -1).keys() == gossamer.load_masks(whole / "run", -1).keys()
