"""`round.scheduler`: torch's schedulers played as the methods say, beside the rates that they set by themselves."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

import gossamer
from gossamer import Retraining
from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.loop.round import Round

T = 12
Make = Callable[[Any], LRScheduler]
Settings = list[tuple[float, Any]]
"""Learning rate and momentum of each param group."""


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4))


def two_groups(model: nn.Module, **settings: Any) -> torch.optim.Optimizer:
    """With rates of their own, as for a head and the rest."""
    first, *_, second = model.children()
    groups = [{"params": first.parameters()}, {"params": second.parameters(), "lr": 0.05}]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9, **settings)


def sequential(optimizer: Any) -> LRScheduler:
    warm = lr_scheduler.LinearLR(optimizer, 0.1, 1.0, total_iters=3)
    return lr_scheduler.SequentialLR(optimizer, [warm, lr_scheduler.CosineAnnealingLR(optimizer, T - 3)], [3])


def chained(optimizer: Any) -> Any:
    return lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(optimizer, 0.1, 4), lr_scheduler.ExponentialLR(optimizer, 0.9)], optimizer
    )


def of_transformers(optimizer: Any) -> LRScheduler:
    transformers = pytest.importorskip("transformers")
    made: LRScheduler = transformers.get_linear_schedule_with_warmup(optimizer, 2, T)
    return made


MAKES: dict[str, Make] = {
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T),
    "lambda": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / T),
    "numpy": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: np.cos(step / T)),
    "multiplicative": lambda optimizer: lr_scheduler.MultiplicativeLR(optimizer, lambda step: 0.9),
    "steps": lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [4, 8]),
    "polynomial": lambda optimizer: lr_scheduler.PolynomialLR(optimizer, T, 2.0),
    "restarts": lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 5),
    "one cycle": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, [0.4, 0.2], T),
    "cyclic": lambda optimizer: lr_scheduler.CyclicLR(optimizer, 0.01, 0.2, 3),
    "sequential": sequential,
    "chained": chained,
    "transformers": of_transformers,
}

# SequentialLR's own, of what torch does inside it.
pytestmark = pytest.mark.filterwarnings("ignore:The epoch parameter in .scheduler.step:UserWarning")


def settings(optimizer: torch.optim.Optimizer) -> Settings:
    return [(float(group["lr"]), group.get("momentum")) for group in optimizer.param_groups]


def by_itself(make: Make) -> list[Settings]:
    """What the scheduler sets by itself, in a plain loop."""
    optimizer = two_groups(small())
    scheduler = make(optimizer)
    found = []
    for _ in range(T):
        found.append(settings(optimizer))
        optimizer.step()
        scheduler.step() if len(found) < T else None
    return found


def in_rounds(make: Make, folder: Path, retraining: Retraining, **arguments: Any) -> list[list[Settings]]:
    """What it sets in each of two rounds, with one optimizer for both."""
    model = small()
    optimizer = two_groups(model)
    found = []
    for round in gossamer.rounds(
        model, folder=folder, stop=gossamer.Stop(rounds=1), retraining=retraining, state={"optimizer": optimizer}
    ):
        scheduler = round.scheduler(optimizer, make, T, **arguments)
        assert isinstance(scheduler, LRScheduler)
        found.append([])
        for _ in range(scheduler.total_steps):
            found[-1].append(settings(optimizer))
            assert scheduler.get_last_lr() == [rate for rate, _ in found[-1][-1]]
            optimizer.zero_grad()
            model(torch.randn(8, 6)).square().mean().backward()
            optimizer.step()
            scheduler.step()
        # One step more changes nothing, two are a mistake.
        assert settings(optimizer) == found[-1][-1]
        with pytest.raises(ConfigurationError, match=rf"trained for {scheduler.total_steps} optimizer steps"):
            scheduler.step()
        round.record(accuracy=0.5)
    return found


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_every_scheduler_is_played_as_it_is_in_every_round(make: Make, tmp_path: Path) -> None:
    expected = by_itself(make)
    assert len(set(map(tuple, expected))) > 1
    assert in_rounds(make, tmp_path, Retraining()) == [expected, expected]


@pytest.mark.parametrize("make", [MAKES["cosine"], MAKES["one cycle"]], ids=["cosine", "one cycle"])
@pytest.mark.parametrize(
    ("retraining", "steps"),
    [
        (Retraining("lr-rewind", rewind_steps=5), [7, 8, 9, 10, 11]),
        (Retraining("weight-rewind", rewind_to_step=8), [8, 9, 10, 11]),
        (Retraining("weight-rewind"), list(range(T))),
        (Retraining("fine-tune", rewind_steps=3), [11, 11, 11]),
        (Retraining("low-lr-weight-rewind", rewind_to_step=9), [11, 11, 11]),
        (Retraining("reinit"), list(range(T))),
    ],
    ids=lambda value: value.method if isinstance(value, Retraining) else "",
)
def test_methods_play_the_steps_that_they_are_of(
    make: Make, retraining: Retraining, steps: list[int], tmp_path: Path
) -> None:
    expected = by_itself(make)
    dense, pruned = in_rounds(make, tmp_path, retraining)
    assert dense == expected
    assert pruned == [expected[step] for step in steps]


def test_a_linear_restart_has_rates_of_its_own_in_every_group(tmp_path: Path) -> None:
    dense, pruned = in_rounds(MAKES["one cycle"], tmp_path, Retraining("linear-lr-restart"))
    highest = [max(step[group][0] for step in dense) for group in (0, 1)]
    for index, step in enumerate(pruned):
        # t = T, so that the line begins at the highest rate; the momentum that OneCycleLR moves stays.
        assert [rate for rate, _ in step] == pytest.approx([rate * (1 - index / T) for rate in highest])
        assert [momentum for _, momentum in step] == [pruned[0][0][1]] * 2


def test_one_that_is_stepped_after_epochs(tmp_path: Path) -> None:
    def make(optimizer: Any) -> LRScheduler:
        return lr_scheduler.StepLR(optimizer, 2, 0.5)

    (dense, pruned) = in_rounds(make, tmp_path, Retraining(rewind_epochs=2), steps_per_epoch=3, interval="epoch")
    assert [step[0][0] for step in dense] == [0.1] * 6 + [0.05] * 6
    assert [step[0][0] for step in pruned] == [0.05] * 6


def begun(folder: Path, **arguments: Any) -> tuple[Round, torch.optim.Optimizer]:
    model = small()
    round = next(iter(gossamer.rounds(model, folder=folder, stop=gossamer.Stop(rounds=1), **arguments)))
    return round, two_groups(model)


def test_the_state_is_plain_and_goes_on(tmp_path: Path) -> None:
    round, optimizer = begun(tmp_path)
    expected = by_itself(MAKES["one cycle"])
    scheduler = round.scheduler(optimizer, MAKES["one cycle"], T)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    file = io.BytesIO()
    torch.save([scheduler.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    other = two_groups(small())
    again = round.scheduler(other, MAKES["one cycle"], T)
    other.load_state_dict(states[1])
    again.load_state_dict(states[0])
    for step in range(5, T):
        assert settings(other) == expected[step]
        other.step()
        again.step()
    shorter = round.scheduler(two_groups(small()), MAKES["lambda"], 8)
    with pytest.raises(CheckpointError, match=r"scheduler of 12 steps does not fit this round's, which has 8"):
        shorter.load_state_dict(states[0])
    with pytest.raises(CheckpointError, match="scheduler of None steps"):
        shorter.load_state_dict(MAKES["lambda"](two_groups(small())).state_dict())


def test_the_state_of_a_numpy_schedule_is_plain_too(tmp_path: Path) -> None:
    round, optimizer = begun(tmp_path)
    state = round.scheduler(optimizer, MAKES["numpy"], T).state_dict()
    assert {type(rate) for rate in state["_last_lr"]} == {float}


def test_the_optimizer_is_left_alone(tmp_path: Path) -> None:
    """All is read off on another one: no step is counted, nothing is trained, and no setting moves."""
    round, optimizer = begun(tmp_path)
    before = [dict(group) for group in optimizer.param_groups]
    round.scheduler(optimizer, MAKES["cosine"], T)
    assert round.steps == 0
    assert not optimizer.state
    assert [{**group, "initial_lr": group["lr"]} for group in before] == optimizer.param_groups


def test_rates_that_are_tensors_stay_tensors(tmp_path: Path) -> None:
    model = small()
    rate = torch.tensor(0.1)
    optimizer = torch.optim.Adam(list(model.named_parameters()), lr=rate)
    round = next(iter(gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1))))
    scheduler = round.scheduler(optimizer, MAKES["lambda"], T)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.1 * 11 / 12)


class Greedy(LRScheduler):
    """Waits for the loss, as some of transformers' do."""

    def get_lr(self) -> list[Any]:
        return [0.1, 0.1]

    def step(self, metrics: Any = None) -> None:
        if metrics is None and self.last_epoch == 0:
            raise TypeError("missing 1 required positional argument: 'metrics'")
        super().step()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lr_scheduler.ReduceLROnPlateau, "a ReduceLROnPlateau cannot be rewound.*such as CosineAnnealingLR"),
        (Greedy, r"the Greedy that make returned cannot be stepped 12 times.*at step 1 .*metrics.*waits for a metric"),
        (
            lambda optimizer: None,
            "make returned a NoneType; expected a .*LRScheduler.*in round.schedule",
        ),
        (
            lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, 5),
            "cannot be stepped 12 times beforehand: at step 6 it says Tried to step 6 times",
        ),
    ],
)
def test_what_cannot_be_known_beforehand_is_refused(make: Any, message: str, tmp_path: Path) -> None:
    round, optimizer = begun(tmp_path)
    with pytest.raises(ConfigurationError, match=message):
        round.scheduler(optimizer, make, T)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"interval": "epoch"}, "pass steps_per_epoch"),
        ({"interval": "batch"}, "interval is 'batch'; expected 'step' or 'epoch'"),
        ({"make": 1}, "make is 1; expected a function"),
        ({"optimizer": None}, r"optimizer is None; expected a torch\.optim\.Optimizer"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    round, optimizer = begun(tmp_path)
    with pytest.raises(ConfigurationError, match=message):
        round.scheduler(**{"optimizer": optimizer, "make": MAKES["cosine"], "total_steps": T} | arguments)
