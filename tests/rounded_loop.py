"""A loop of one's own around rounds that are trained with rounded numbers, for int8 or in levels."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

import gossamer
from gossamer import Retraining, Stop

INPUTS = torch.randn(64, 6, generator=torch.Generator().manual_seed(5))
TARGETS = INPUTS[:, :3].argmax(1)


class Killed(Exception):
    pass


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3))


def train(model: nn.Module, steps: int = 6) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model.train()
    for _ in range(steps):
        rows = torch.randperm(64)[:32]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(INPUTS[rows]), TARGETS[rows]).backward()
        optimizer.step()


def loss(model: nn.Module) -> float:
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model.eval()(INPUTS), TARGETS))


def run(folder: Path, retraining: Retraining, rounds: int = 3) -> nn.Module:
    """Records the loss as the round is trained, and in float."""
    model = small()
    for round in gossamer.rounds(model, folder=folder, stop=Stop(rounds=rounds), retraining=retraining):
        train(model)
        measured = loss(model)
        with round.in_float():
            in_float = loss(model)
        round.record(loss=measured, float_loss=in_float)
    return model


def run_with_checkpoints(
    folder: Path, retraining: Retraining, killed_at: tuple[int, int] | None, *, lives_on: bool
) -> None:
    """Two rounds that go on inside, from what is saved after their second step.

    Args:
        killed_at: before which step of which round it is killed.
        lives_on: whether one optimizer goes through all rounds, as `state`; else each has its own.
    """
    model, checkpoint = small(), folder.with_suffix(".pt")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    state = {"optimizer": optimizer} if lives_on else None
    for round in gossamer.rounds(model, folder=folder, stop=Stop(rounds=2), retraining=retraining, state=state):
        if not lives_on:
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "round": round}
        if checkpoint.exists():
            saved = torch.load(checkpoint, weights_only=True)
            if saved["round"]["round"] == round.number:
                for name, part in parts.items():
                    part.load_state_dict(saved[name])
                torch.set_rng_state(saved["random"])
        model.train()
        for step, rate in enumerate(round.schedule(6).rates(lambda step: 0.1 / (step + 1))):
            if step < round.steps:
                continue
            if killed_at == (round.number, step):
                raise Killed
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(INPUTS + torch.randn(64, 6)), TARGETS).backward()
            optimizer.step()
            if step == 1:
                states = {name: part.state_dict() for name, part in parts.items()}
                torch.save(states | {"random": torch.get_rng_state()}, checkpoint)
        round.record(loss=loss(model))


def state_of_round(folder: Path, retraining: Retraining, loaded: Any = None) -> Any:
    """The state of round 1 before it is trained, or after it has loaded another one."""
    model = small()
    torch.manual_seed(2)
    for round in gossamer.rounds(model, folder=folder, stop=Stop(rounds=1), retraining=retraining):
        if round.number > 0:
            if loaded is not None:
                round.load_state_dict(loaded)
            return round.state_dict()
        train(model)
        round.record(loss=1.0)


def retrained_as_it_is(folder: Path, retraining: Retraining) -> tuple[dict[str, Any], dict[str, Any]]:
    """A network that was pruned in float and is only trained again; the masks before and after."""
    model = run(folder / "float", Retraining())
    masks = gossamer.load_masks(folder / "float", -1)
    target = 1 - sum(int(mask.sum()) for mask in masks.values()) / 108
    cut = gossamer.Cut(one_shot=True)
    for round in gossamer.rounds(
        model, folder=folder / "again", target_sparsity=target, cut=cut, retraining=retraining
    ):
        if round.number > 0:
            train(model)
        round.record(loss=loss(model), untrained=round.number == 0)
    return dict(masks), dict(gossamer.load_masks(folder / "again", -1))


def require_same_before(folder: Path, retraining: Retraining) -> None:
    """Runs in `with` and `without` such rounds, whose rounds before the last are to be the same."""
    run(folder / "with", retraining)
    run(folder / "without", Retraining())
    for number in range(3):
        one, other = (
            load_file(folder / name / f"round-0{number}" / "model.safetensors") for name in ("with", "without")
        )
        assert all(torch.equal(one[key], other[key]) for key in other)
