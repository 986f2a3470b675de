"""A loop of one's own that saves checkpoints inside its rounds, killed there, beside one that went through."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.optim.lr_scheduler import LinearLR

import gossamer
from gossamer import Retraining
from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.loop.records import read_ledger

STEPS = 12


class Killed(Exception):
    pass


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Dropout(0.1), nn.Linear(10, 4))


def run(folder: Path, retraining: Retraining, killed_at: dict[int, int] | None = None) -> None:
    """Two rounds with a checkpoint every 5 steps.

    Args:
        killed_at: round -> the step after which it is killed.
    """
    model, checkpoint = small(), folder.with_suffix(".pt")
    stop = gossamer.Stop(rounds=1)
    for round in gossamer.rounds(model, folder=folder, stop=stop, retraining=retraining):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        scheduler = round.scheduler(optimizer, lambda given: LinearLR(given, 1, 0.1, STEPS), STEPS)
        parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "round": round}
        if checkpoint.exists():
            saved = torch.load(checkpoint, weights_only=True)
            try:
                for name, part in reversed(parts.items()):
                    part.load_state_dict(saved[name])
                torch.set_rng_state(saved["random"])
            except CheckpointError:
                assert saved["round"]["round"] != round.number
        for step in range(round.steps, scheduler.total_steps):
            if (killed_at or {}).get(round.number) == step:
                raise Killed
            optimizer.zero_grad()
            model(torch.randn(8, 6)).square().mean().backward()
            optimizer.step()
            scheduler.step()
            if (step + 1) % 5 == 0:
                states = {name: part.state_dict() for name, part in parts.items()}
                torch.save(states | {"random": torch.get_rng_state()}, checkpoint)
        round.record(loss=0.5)


@pytest.mark.parametrize(
    "retraining",
    [
        Retraining(),
        Retraining("weight-rewind"),
        Retraining("weight-rewind", rewind_to_step=3),
        Retraining("weight-rewind", rewind_steps=2),
        Retraining("linear-lr-restart"),
    ],
    ids=str,
)
def test_a_round_goes_on_from_a_checkpoint_inside_it(retraining: Retraining, tmp_path: Path) -> None:
    run(tmp_path / "whole", retraining)
    for killed_at in ({0: 7}, {1: 7}, {}):
        # A round of two steps has no such moment.
        with suppress(Killed):
            run(tmp_path / "killed", retraining, killed_at)
            assert killed_at != {0: 7}
    for number in (0, 1):
        name = f"round-0{number}/model.safetensors"
        found, expected = load_file(tmp_path / "killed" / name), load_file(tmp_path / "whole" / name)
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    steps, expected_steps = ([cost.steps for cost in read_ledger(tmp_path / name)] for name in ("killed", "whole"))
    assert steps == expected_steps


def test_a_checkpoint_of_another_cut_is_refused(tmp_path: Path) -> None:
    states: list[Any] = []
    for seed in (1, 2):
        model = small()
        for round in gossamer.rounds(model, folder=tmp_path / str(seed), stop=gossamer.Stop(rounds=1)):
            states.append(round.state_dict())
            if seed == 2:
                # In the dense round the checkpoint brings the weights, whatever they were at first.
                number = round.number
                if number == 0:
                    round.load_state_dict(states[0] | {"steps": 4})
                    assert round.steps == 4
                else:
                    with pytest.raises(CheckpointError, match="or that began with other weights; begin the round anew"):
                        round.load_state_dict(states[1])
                with pytest.raises(CheckpointError, match=f"of round {1 - number} is not one of this round {number}"):
                    round.load_state_dict(states[1 - number])
                broken = {name: value for name, value in states[-1].items() if name != "steps"}
                with pytest.raises(CheckpointError, match=r"no state of a round \(KeyError"):
                    round.load_state_dict(broken)
            with torch.no_grad():
                model[0].weight.add_(0.01 * seed).mul_(round.masks["0.weight"])
            round.record(loss=0.5)


def test_replicates_are_resumed_one_by_one(tmp_path: Path) -> None:
    retraining = Retraining(replicates=2)
    for round in gossamer.rounds(small(), folder=tmp_path, stop=gossamer.Stop(rounds=1), retraining=retraining):
        if round.number == 1:
            with pytest.raises(ConfigurationError, match="round 1 has 2 replicates, and goes on after"):
                round.state_dict()
            break
        round.record(loss=0.5, untrained=True)
