"""A torch `LRScheduler` that plays a round's schedule, for trainers that take nothing else.

The user's own scheduler is run beforehand on a stand-in, an optimizer with the same param groups that trains nothing,
and what it sets is written down: the learning rate of every group and every step, and whatever else it moves (the
momentum of OneCycleLR). A round then plays those steps of it that its `Schedule` names.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau
from torch.optim.optimizer import Optimizer

from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.rewind.strategies import Schedule

Interval = Literal["step", "epoch"]
"""What the user's own scheduler is stepped after."""
Played = dict[str, list[Any]]
"""What a param group is set to: name of the setting -> its value at every step."""

INITIAL = "initial_"
"""torch's prefix for what a param group had before a scheduler moved it."""
OF_PARAMETERS = ("params", "param_names")
"""What in a param group is no setting."""


class RoundScheduler(LRScheduler):
    """Sets the learning rates of a round, step by step. Step it after every step of the optimizer.

    It keeps no function of the user, so that its `state_dict` is plain numbers. Once more than it has steps it may be
    stepped, as trainers do after the last one; the rates stay then.
    """

    total_steps: int
    """How many optimizer steps to train."""

    def __init__(self, optimizer: Optimizer, played: list[Played]) -> None:
        self._played = played
        self.total_steps = len(played[0]["lr"])
        for group, settings in zip(optimizer.param_groups, played, strict=True):
            for name in settings:
                group.setdefault(INITIAL + name, _plain(group[name]))
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """The learning rates of this step, one a param group."""
        return [settings["lr"][self._index] for settings in self._played]

    def step(self, epoch: int | None = None) -> None:
        """Goes on to the next step.

        Raises:
            ConfigurationError: the round has no such step.
        """
        following = self.last_epoch + 1 if epoch is None else epoch
        if following > self.total_steps:
            raise ConfigurationError(
                f"this round is trained for {self.total_steps} optimizer steps, and its scheduler was stepped once "
                f"more; train for scheduler.total_steps steps, and step it once after each"
            )
        super().step(epoch)
        for group, settings in zip(self.optimizer.param_groups, self._played, strict=True):
            group.update({name: values[self._index] for name, values in settings.items() if name != "lr"})

    def state_dict(self) -> dict[str, Any]:
        """Where it is, in plain numbers."""
        rates = [_plain(rate) for rate in self.get_last_lr()]
        return {
            "last_epoch": self.last_epoch,
            "total_steps": self.total_steps,
            "_step_count": self._step_count,
            "_last_lr": rates,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on from where another one of the same round was. The optimizer's own state has the rates.

        Raises:
            CheckpointError: it is of a schedule of another length, or of no such scheduler.
        """
        if state_dict.get("total_steps") != self.total_steps or not {*self.state_dict()} <= {*state_dict}:
            raise CheckpointError(
                f"the state of a scheduler of {state_dict.get('total_steps')} steps does not fit this round's, which "
                f"has {self.total_steps}; go on with the same number of steps, or begin the round anew without the "
                f"checkpoint that it comes from"
            )
        super().load_state_dict({name: state_dict[name] for name in self.state_dict()})

    @property
    def _index(self) -> int:
        return min(self.last_epoch, self.total_steps - 1)


def copies_of(scheduler: LRScheduler, optimizer: Optimizer, *kept: Any) -> Callable[[Any], Any]:
    """A function that makes a scheduler once more, for another optimizer, as `round_scheduler` asks for one: where a
    trainer makes schedulers itself.

    Args:
        scheduler: as it was made for `optimizer`, before any step.
        kept: what it refers to and is not to be copied with it, a module or a trainer.
    """

    def make(other: Any) -> Any:
        # Schedulers want to have been made for their optimizer; this one, which is not used, was.
        LambdaLR(other, lambda step: 1.0)
        for group, current in zip(other.param_groups, optimizer.param_groups, strict=True):
            group.update({name: value for name, value in current.items() if name not in OF_PARAMETERS})
        return copy.deepcopy(scheduler, {id(thing): thing for thing in kept} | {id(optimizer): other})

    return make


def round_scheduler(
    optimizer: Optimizer,
    make: Callable[[Any], Any],
    schedule: Schedule,
    interval: Interval = "step",
    steps_per_epoch: int | None = None,
) -> RoundScheduler:
    """See `gossamer.Round.scheduler`."""
    if interval not in ("step", "epoch"):
        raise ConfigurationError(f"interval is {interval!r}; expected 'step' or 'epoch', as its scheduler is stepped")
    if interval == "epoch" and steps_per_epoch is None:
        raise ConfigurationError(
            "a scheduler that is stepped after every epoch needs to be told how long one is; pass steps_per_epoch"
        )
    every = steps_per_epoch if interval == "epoch" and steps_per_epoch is not None else 1
    read = settings_by_step(optimizer, make, -(-schedule.total // every))
    return RoundScheduler(optimizer, [_played(settings, schedule, every) for settings in read])


def _played(settings: Played, schedule: Schedule, every: int) -> Played:
    rates = settings["lr"]
    played: Played = {"lr": list(schedule.rates(lambda step: rates[step // every]))}
    if schedule.follows != "linear":
        played |= {
            name: [values[step // every] for step in schedule] for name, values in settings.items() if name != "lr"
        }
    return played


def settings_by_step(optimizer: Optimizer, make: Callable[[Any], Any], steps: int) -> list[Played]:
    """What the scheduler that `make` returns sets in each param group, at every step. The optimizer is left alone.

    Returns:
        For each group the learning rates, and every other setting that is moved.

    Raises:
        ConfigurationError: it is no torch LRScheduler, or it needs more than to be stepped.
    """
    stand_in = _StandIn(optimizer)
    before = [
        {name: _plain(value) for name, value in group.items() if name not in OF_PARAMETERS}
        for group in stand_in.param_groups
    ]
    scheduler = make(stand_in)
    if not isinstance(scheduler, LRScheduler):
        raise ConfigurationError(
            f"make returned a {type(scheduler).__name__}; expected a torch.optim.lr_scheduler.LRScheduler, made for "
            f"the optimizer that make is given. One of another library trains as it is with the method lr-rewind; with "
            f"the others set the learning rate of each step by hand, for step in round.schedule(total_steps)"
        )
    if isinstance(scheduler, ReduceLROnPlateau):
        raise ConfigurationError(
            "a ReduceLROnPlateau cannot be rewound, for what it sets is not known before the training; choose a "
            "scheduler that follows the number of steps alone, such as CosineAnnealingLR or LambdaLR"
        )
    found: list[Played] = [{"lr": []} for _ in before]
    for step in range(steps):
        if step > 0:
            stand_in.step()
            _step(scheduler, step, steps)
        for group, initial, settings in zip(stand_in.param_groups, before, found, strict=True):
            for name, unmoved in initial.items():
                value = _plain(group[name])
                if name in settings:
                    settings[name].append(value)
                elif value != unmoved:
                    settings[name] = [unmoved] * step + [value]
    return found


def _step(scheduler: LRScheduler, step: int, steps: int) -> None:
    try:
        scheduler.step()
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"the {type(scheduler).__name__} that make returned cannot be stepped {steps} times beforehand: at step "
            f"{step} it says {error}. Make it for the whole schedule; one that waits for a metric, or looks at what "
            f"the optimizer has trained, cannot be rewound"
        ) from error


class _StandIn(Optimizer):
    """An optimizer with the settings of another one, as they were before any scheduler moved them, and without
    anything to train."""

    def __init__(self, other: Optimizer) -> None:
        groups = []
        for group in other.param_groups:
            settings = {name: _plain(value) for name, value in group.items() if name not in OF_PARAMETERS}
            initial = {name: settings.pop(name) for name in [*settings] if name.startswith(INITIAL)}
            settings |= {name.removeprefix(INITIAL): value for name, value in initial.items()}
            groups.append(settings | {"params": [torch.nn.Parameter(torch.zeros(()))]})
        super().__init__(groups, dict(other.defaults))

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Does nothing; schedulers want to see it called."""


def _plain(value: Any) -> Any:
    """Python's own numbers, to the bit: those of numpy cannot be read back without pickle, and tensors are changed in
    place."""
    if isinstance(value, (list, tuple)):
        return tuple(_plain(entry) for entry in value)
    if isinstance(value, Tensor):
        return value.item() if value.numel() == 1 else None
    return value.item() if isinstance(value, np.generic) else value
