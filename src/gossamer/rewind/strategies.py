"""What a round does between the cut and the next: which weights it begins with, and with which learning rates.

Every strategy of Renda, Frankle and Carbin (2020) is an answer to these two questions, for a retraining that begins
after the first k of the T steps of the schedule and lasts for t = T - k.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, SupportsIndex, overload

from gossamer.arguments import as_whole_number, require_function, require_kind, whole_number
from gossamer.errors import ConfigurationError
from gossamer.options import as_option, joined, names

Weights = Literal["stay", "rewound", "new"]
"""The weights that survived the cut stay, go back to what they were after k steps of the dense training, or are drawn
anew."""
Rates = Literal["replayed", "last", "linear"]
"""The schedule is replayed from step k on, its last learning rate is kept, or a straight line leads from a share of its
highest one to zero."""
Unit = Literal["steps", "epochs"]
MOST_LEVELS = 127
"""On either side of zero, as int8 has."""


@dataclass(frozen=True)
class Strategy:
    """One way of retraining."""

    weights: Weights
    rates: Rates


DEFAULT = "lr-rewind"
TABLE = "method"
"""The table of a run's configuration in which these settings stand."""

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
        """The stretch in optimizer steps.

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
    """How every round after the dense one is trained: a method, and how far it rewinds.

    At most one of the four `rewind_...` may be given: t, how long to retrain, or k = T - t, where to begin. By default
    all of the schedule, T, is replayed. For k > 0 the weights to rewind to are kept by counting the optimizer's steps
    in the dense round. All methods but "lr-rewind", "weight-rewind" and "reinit" over the whole schedule need
    `round.schedule`; more than one replicate needs `round.replicates`.

    Raises:
        ConfigurationError: there is no such method, a value is out of range, or two of them contradict each other.

    Source: Renda, Frankle, Carbin 2020, section 2, and the code of the paper: everything that is rewound.
    """

    method: str = DEFAULT
    """lr-rewind (weights stay, the schedule is replayed), weight-rewind (weights and schedule go back to step k of the
    dense round; k = 0: the lottery ticket), fine-tune (weights stay, at the last learning rate), reinit (new random
    weights, a control), low-lr-weight-rewind (weights go back, at the last rate; a control) or linear-lr-restart
    (weights stay, the rate falls on a line from a share of its highest value)."""
    rewind_epochs: int | None = None
    """Retrain for so many epochs: the schedule restarts that long before its end."""
    rewind_steps: int | None = None
    """Instead: retrain for so many optimizer steps."""
    rewind_to_epoch: int | None = as_option(None, name="rewind_to", kind=int)
    """Instead: the epoch to rewind to; 0, the start, by default."""
    rewind_to_step: int | None = None
    """Instead: the step to rewind to."""
    rewound: tuple[str, ...] | None = as_option(None, read=names, written=joined)
    """What goes back with the weights: optimizer (state of the torch optimizers), statistics (the buffers, such as
    BatchNorm's), both (optimizer,statistics; the default, as in the paper's code) or none."""
    replicates: int = 1
    """Train every round after the dense one so many times and go on with the average of the weights (Zimmer 2024)."""
    quantised_rounds: int = 0
    """Train the last so many rounds for int8, with weights and inputs rounded as export --int8 has them; with --levels
    in few levels instead."""
    levels: int | None = None
    """With --quantised-rounds: for export --smallest, with every layer's weights in so many integer levels on either
    side of zero (3 to 8 are usual). What rounds to zero leaves the mask when the round ends."""
    fresh_model: Callable[[], Any] | None = as_option(None, hidden=True)
    """For "reinit": makes a newly initialised model; by default the layers' `reset_parameters`."""

    def __post_init__(self) -> None:
        require_function("fresh_model", self.fresh_model, "a function that makes a newly initialised model")
        expected = "a whole number, 1 (no averaging) or more"
        object.__setattr__(self, "replicates", whole_number("replicates", self.replicates, expected))
        if self.replicates < 1:
            raise ConfigurationError(f"replicates is {self.replicates}; expected {expected}")
        self._check_quantised_rounds()
        require_kind("method", self.method, str, f"one of {', '.join(STRATEGIES)}")
        if self.method not in STRATEGIES:
            raise ConfigurationError(f"there is no method {self.method!r}; expected one of {', '.join(STRATEGIES)}")
        given = [span for span in (*self._lengths(), *self._starts()) if span is not None]
        for field in ("rewind_epochs", "rewind_steps", "rewind_to_epoch", "rewind_to_step"):
            # Python's numbers: those of numpy and torch are no settings that can be written or hashed.
            object.__setattr__(self, field, as_whole_number(getattr(self, field)))
        if len(given) > 1:
            raise ConfigurationError(
                f"got {' and '.join(map(str, given))} to rewind; give only one of rewind_steps, rewind_epochs, "
                f"rewind_to_step and rewind_to_epoch"
            )
        if self.length is not None and self.length.count < 1:
            raise ConfigurationError(f"got {self.length} of retraining; expected at least 1")
        self._check_rewound()

    def _check_quantised_rounds(self) -> None:
        expected = "a whole number, 0 (none) or more"
        object.__setattr__(self, "quantised_rounds", whole_number("quantised_rounds", self.quantised_rounds, expected))
        if self.quantised_rounds < 0:
            raise ConfigurationError(f"quantised_rounds is {self.quantised_rounds}; expected {expected}")
        if self.quantised_rounds and self.replicates > 1:
            raise ConfigurationError(
                f"got replicates={self.replicates} and quantised_rounds={self.quantised_rounds}; expected one of them: "
                f"the average of several networks was trained with the ranges and levels of none"
            )
        if self.levels is None:
            return
        expected = f"a whole number from 1 to {MOST_LEVELS}"
        object.__setattr__(self, "levels", whole_number("levels", self.levels, expected))
        if not 1 <= self.levels <= MOST_LEVELS:
            raise ConfigurationError(f"levels is {self.levels}; expected {expected}")
        if not self.quantised_rounds:
            raise ConfigurationError(
                f"got levels={self.levels} and no quantised_rounds; expected quantised_rounds=1 or more too: so "
                f"many of the last rounds are trained in levels"
            )

    def _check_rewound(self) -> None:
        listed = (list, tuple, set, frozenset, NoneType)
        require_kind("rewound", self.rewound, listed, f"a list of {' and '.join(REWINDABLE)}, or of one of them")
        if self.rewound is None:
            return
        object.__setattr__(self, "rewound", tuple(self.rewound))
        if self.strategy.weights == "stay":
            raise ConfigurationError(
                f"rewound is {list(self.rewound)}, but with {self.method} the weights stay and nothing goes back; "
                f"leave it out"
            )
        for name in self.rewound:
            require_kind("what to rewind", name, str, f"some of {', '.join(REWINDABLE)}")
        unknown = sorted({*self.rewound} - {*REWINDABLE})
        if unknown:
            raise ConfigurationError(f"cannot rewind {unknown[0]!r}; expected some of {', '.join(REWINDABLE)}, or none")

    def _lengths(self) -> "tuple[Span | None, Span | None]":
        return _span(self.rewind_steps, "steps"), _span(self.rewind_epochs, "epochs")

    def _starts(self) -> "tuple[Span | None, Span | None]":
        return _span(self.rewind_to_step, "steps"), _span(self.rewind_to_epoch, "epochs")

    @property
    def length(self) -> "Span | None":
        """t, if that was given."""
        steps, epochs = self._lengths()
        return steps or epochs

    @property
    def start(self) -> "Span | None":
        """k, if that was given."""
        steps, epochs = self._starts()
        return steps or epochs

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

    def to_tables(self) -> dict[str, dict[str, Any]]:
        """Returns the tables of a run's configuration, by name. What is None is left out there."""
        everything = self.rewinds == REWINDABLE or self.strategy.weights == "stay"
        return {
            TABLE: {
                "retraining": self.method,
                "rewind_to": None if self.start is None or self.start.count == 0 else str(self.start),
                "retrain_for": None if self.length is None else str(self.length),
                "rewound": None if everything else list(self.rewinds),
                "replicates": None if self.replicates == 1 else self.replicates,
                "quantised_rounds": self.quantised_rounds or None,
                "levels": self.levels,
            }
        }

    @classmethod
    def from_tables(cls, tables: Mapping[str, Mapping[str, Any]]) -> "Retraining":
        """The opposite.

        Raises:
            ConfigurationError: a value is out of range.
        """
        found = tables.get(TABLE, {})
        spans: dict[str, Any] = {}
        for stored, field in (("retrain_for", "rewind_{}"), ("rewind_to", "rewind_to_{}")):
            if stored in found:
                count, _, unit = str(found[stored]).partition(" ")
                if not count.isdecimal() or unit not in ("steps", "epochs"):
                    raise ConfigurationError(f"{stored} is {found[stored]!r}; expected such as '3 epochs'")
                spans[field.format(unit if stored == "retrain_for" else unit[:-1])] = int(count)
        rest = {
            "rewound": found.get("rewound"),
            "replicates": found.get("replicates", 1),
            "quantised_rounds": found.get("quantised_rounds", 0),
            "levels": found.get("levels"),
        }
        return cls(found.get("retraining", DEFAULT), **rest, **spans)


def _span(count: int | None, unit: Unit) -> "Span | None":
    return None if count is None else Span(count, unit)


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
        number = operator.index(index)
        return super().__getitem__(number - 1 if number == len(self) else number)


def restart_scale(norm_before: float, norm_removed: float, share_removed: float, share_of_time: float) -> float:
    """The share of the highest learning rate that a linear restart begins at: the more the cut changed, and the longer
    the retraining, the higher.

    max(|W - W'| / (|W| sqrt(s)), t / T) for a cut of the share s of the weights W that leaves W'. With the smallest
    magnitudes cut the first is at most 1.

    Source: Zimmer, Spiegel, Pokutta, "How I Learned to Stop Worrying and Love Retraining", ICLR 2023, section 3.2.
    """
    of_cut = norm_removed / (norm_before * share_removed**0.5) if norm_before and share_removed else 0.0
    return max(min(of_cut, 1.0), share_of_time)
