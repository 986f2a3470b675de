"""What a round does between the cut and the next: which weights it begins with, and with which learning rates.

Every strategy of Renda, Frankle and Carbin (2020) is an answer to these two questions, for a retraining that begins
after the first k of the T steps of the schedule and lasts for t = T - k.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex, overload

from gossamer.arguments import as_whole_number, require_kind, whole_number
from gossamer.errors import ConfigurationError

Weights = Literal["stay", "rewound", "new"]
"""The weights that survived the cut stay, go back to what they were after k steps of the dense training, or are drawn
anew."""
Rates = Literal["replayed", "last", "linear"]
"""The schedule is replayed from step k on, its last learning rate is kept, or a straight line leads from a share of its
highest one to zero."""
Unit = Literal["steps", "epochs"]


@dataclass(frozen=True)
class Strategy:
    """One way of retraining."""

    weights: Weights
    rates: Rates


DEFAULT = "lr-rewind"

STRATEGIES: dict[str, Strategy] = {
    "lr-rewind": Strategy("stay", "replayed"),
    # With k = 0 the lottery ticket of Frankle and Carbin (2019).
    "weight-rewind": Strategy("rewound", "replayed"),
    "fine-tune": Strategy("stay", "last"),
    # Controls: is it the mask alone? Is it the learning rate or the weights?
    "reinit": Strategy("new", "replayed"),
    "low-lr-weight-rewind": Strategy("rewound", "last"),
    # Zimmer, Spiegel and Pokutta (ICLR 2023), "adaptive linear learning rate restarting".
    "linear-lr-restart": Strategy("stay", "linear"),
}

REWINDABLE = ("optimizer", "statistics")
"""What may go back with the weights: the state of the optimizers among `state`, and the model's buffers (BatchNorm's
running statistics)."""


@dataclass(frozen=True)
class Span:
    """A stretch of a training."""

    count: int
    unit: Unit

    def __post_init__(self) -> None:
        count = as_whole_number(self.count)
        if count is None or count < 0:
            raise ConfigurationError(f"got {self.count!r} {self.unit} to rewind; expected a whole number, 0 or more")
        object.__setattr__(self, "count", count)

    def __str__(self) -> str:
        return f"{self.count} {self.unit}"

    def steps(self, steps_per_epoch: int | None) -> int:
        """The same in optimizer steps.

        Raises:
            ConfigurationError: it is in epochs, and how many steps an epoch has was not said.
        """
        if self.unit == "steps" or self.count == 0:
            return self.count
        if steps_per_epoch is None:
            raise ConfigurationError(
                f"how many steps {self} are is not known; pass round.schedule(total_steps, steps_per_epoch)"
            )
        return self.count * steps_per_epoch


START = Span(0, "steps")


@dataclass(frozen=True)
class Retraining:
    """A strategy, with how far it rewinds. `start` (k) or `length` (t = T - k) may be given; neither: k = 0, t = T."""

    method: str = DEFAULT
    start: Span | None = None
    length: Span | None = None
    rewound: tuple[str, ...] | None = None
    """Of `REWINDABLE`, what goes back with the weights. None: all of it, as in the paper's code."""
    replicates: int = 1
    """How many times every round after the dense one is trained, from one start, to be averaged."""

    def __post_init__(self) -> None:
        expected = "a whole number, 1 (no averaging) or more"
        object.__setattr__(self, "replicates", whole_number("replicates", self.replicates, expected))
        if self.replicates < 1:
            raise ConfigurationError(f"replicates is {self.replicates}; expected {expected}")
        require_kind("method", self.method, str, f"one of {', '.join(STRATEGIES)}")
        if self.method not in STRATEGIES:
            raise ConfigurationError(f"there is no method {self.method!r}; expected one of {', '.join(STRATEGIES)}")
        if self.start is not None and self.length is not None:
            raise ConfigurationError(
                f"got both where to rewind to ({self.start}) and how long to retrain ({self.length}); give one of them"
            )
        if self.length is not None and self.length.count < 1:
            raise ConfigurationError(f"got {self.length} of retraining; expected at least 1")
        if self.rewound is not None and self.strategy.weights == "stay":
            raise ConfigurationError(
                f"rewound is {list(self.rewound)}, but with {self.method} the weights stay and nothing goes back; "
                f"leave it out"
            )
        for name in self.rewound or ():
            require_kind("what to rewind", name, str, f"some of {', '.join(REWINDABLE)}")
        unknown = sorted({*(self.rewound or ())} - {*REWINDABLE})
        if unknown:
            raise ConfigurationError(f"cannot rewind {unknown[0]!r}; expected some of {', '.join(REWINDABLE)}, or none")

    @property
    def strategy(self) -> Strategy:
        return STRATEGIES[self.method]

    @property
    def rewinds(self) -> tuple[str, ...]:
        """What goes back with the weights."""
        if self.strategy.weights == "stay":
            return ()
        return tuple(name for name in REWINDABLE if self.rewound is None or name in self.rewound)

    @property
    def plain(self) -> bool:
        """Whether a loop that trains as it did in the dense round does the right thing."""
        return self.strategy.rates == "replayed" and self.length is None and not (self.start and self.start.count)

    @property
    def moment(self) -> str | None:
        """What a snapshot to rewind to is called; None if no weights are rewound."""
        if self.strategy.weights != "rewound":
            return None
        start = self.start if self.start is not None and self.start.count else START
        return str(start if self.length is None else self.length)

    @property
    def first_known(self) -> int | None:
        """k, if it is known without the schedule's length."""
        start = self.start or START
        return None if self.length is not None or (start.unit == "epochs" and start.count) else start.count

    def first(self, total: int, steps_per_epoch: int | None) -> int:
        """k: the step of the schedule, 0 <= k < total, that the retraining begins with.

        Raises:
            ConfigurationError: it lies outside the schedule.
        """
        if self.length is None:
            first = (self.start or START).steps(steps_per_epoch)
            if first >= total:
                raise ConfigurationError(
                    f"cannot rewind to {self.start}: the schedule ends after {total} steps; rewind to an earlier point"
                )
            return first
        first = total - self.length.steps(steps_per_epoch)
        if first < 0:
            raise ConfigurationError(
                f"cannot retrain for {self.length}: the whole schedule has {total} steps; retrain for at most these"
            )
        return first

    def described(self) -> dict[str, Any]:
        """For the configuration of a run; what is not set is left out of it."""
        everything = self.rewinds == REWINDABLE or self.strategy.weights == "stay"
        return {
            "retraining": self.method,
            "rewind_to": None if self.start is None or self.start.count == 0 else str(self.start),
            "retrain_for": None if self.length is None else str(self.length),
            "rewound": None if everything else list(self.rewinds),
            "replicates": None if self.replicates == 1 else self.replicates,
        }


@dataclass(frozen=True)
class Schedule(Sequence[int]):
    """For each step of a round, the step of the user's schedule whose learning rate it takes.

    The dense round of a schedule of 5 steps is 0, 1, 2, 3, 4; learning-rate rewinding for t = 2 is 3, 4; fine-tuning
    for t = 2 is 4, 4.
    """

    total: int
    """T: the steps of the whole schedule."""
    first: int = 0
    """k: the steps that are left out at its beginning."""
    follows: Rates = "replayed"
    scale: float = 1.0
    """For "linear": the share of the highest learning rate that the line begins at."""

    def __len__(self) -> int:
        return self.total - self.first

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> list[int]: ...

    def __getitem__(self, index: int | slice) -> int | list[int]:
        if self.follows == "linear":
            raise ConfigurationError(
                "linear-lr-restart follows no step of the schedule; take the learning rates themselves: "
                "round.schedule(total).rates(rate)"
            )
        steps = range(self.first, self.total)
        if isinstance(index, slice):
            return [self._followed(step) for step in steps[index]]
        return self._followed(steps[index])

    def rates(self, rate: Callable[[int], float]) -> "LearningRates":
        """The learning rate of each step of the round.

        Args:
            rate: the user's schedule: step (0 <= step < total) -> learning rate.
        """
        if self.follows == "linear":
            highest = max(rate(step) for step in range(self.total))
            return LearningRates(self.scale * highest * (1 - step / len(self)) for step in range(len(self)))
        return LearningRates(rate(step) for step in self)

    def _followed(self, step: int) -> int:
        return self.total - 1 if self.follows == "last" else step


class LearningRates(list[float]):
    """Learning rates by step. After the last step torch's schedulers ask for one more, with which nothing is trained;
    it is the last one."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> float: ...

    @overload
    def __getitem__(self, index: slice) -> list[float]: ...

    def __getitem__(self, index: SupportsIndex | slice) -> float | list[float]:
        if isinstance(index, slice):
            return super().__getitem__(index)
        place = operator.index(index)
        return super().__getitem__(place - 1 if place == len(self) else place)


def restart_scale(norm_before: float, norm_removed: float, share_removed: float, share_of_time: float) -> float:
    """The share of the highest learning rate that a linear restart begins at: the more the cut changed, and the longer
    the retraining, the higher.

    max(|W - W'| / (|W| sqrt(s)), t / T) for a cut of the share s of the weights W that leaves W'. With the smallest
    magnitudes cut the first is at most 1.

    Source: Zimmer, Spiegel, Pokutta, "How I Learned to Stop Worrying and Love Retraining", ICLR 2023, section 3.2.
    """
    of_cut = norm_removed / (norm_before * share_removed**0.5) if norm_before and share_removed else 0.0
    return max(min(of_cut, 1.0), share_of_time)
