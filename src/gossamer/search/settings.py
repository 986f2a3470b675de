"""How a search is done, and by what a network is scored."""

from dataclasses import dataclass
from pathlib import Path

from gossamer.arguments import whole_number
from gossamer.options import as_option
from gossamer.search.errors import SearchError


@dataclass(frozen=True)
class SearchSettings:
    """The agent's task: what it decides, what it is rewarded for, and for how long it learns.

    Raises:
        SearchError: a value is out of range.

    Source: He et al. 2018 (AMC), section 3.
    """

    actions: str = "weights"
    """weights: a density for every layer; channels: for every group of coupled channels."""
    reward: str = "accuracy"
    """accuracy, accuracy-guaranteed (an accuracy between 0 and 1, and no limit) or retrained."""
    episodes: int = 800
    """How many networks are tried; as many as the paper's by default."""
    warm_up: int = 100
    """The first episodes, at random: actions are drawn evenly from [0, 1]."""
    lowest_density: float | None = None
    """The lowest density of every layer; 0.01 by default, 0.2 (the paper's) for channels."""
    scale: str = "clipped"
    """What an action means: clipped (the paper's) or rescaled (better where the budget is small)."""
    seed: int = 0
    """Same seed, same bits on the CPU."""
    checkpoint_seconds: float = 10.0
    """Least time between two saves. Random numbers are derived from the seed and the episode, so a later resumption
    point changes no bit."""

    def __post_init__(self) -> None:
        for name in ("episodes", "warm_up", "seed"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name)))
        if self.episodes < 1 or not self.warm_up >= 0:
            raise SearchError(
                f"got {self.episodes} episodes, {self.warm_up} of warm-up; expected at least one, and no fewer than 0"
            )


@dataclass(frozen=True)
class Scoring:
    """How a pruned network is scored by the command.

    Raises:
        SearchError: a value is out of range.
    """

    examples: int | None = None
    """Validation examples that score a network; all by default."""
    retrain_steps: int = 50
    """For --reward retrained: steps before a network is scored."""

    def __post_init__(self) -> None:
        for option, number in (("--examples", self.examples), ("--retrain-steps", self.retrain_steps)):
            if number is not None and whole_number(option, number) < 1:
                raise SearchError(f"{option} is {number}; expected at least 1")


@dataclass(frozen=True)
class PriceList:
    """The prices by which milliseconds are predicted.

    Raises:
        SearchError: there are no threads.
    """

    threads: int | None = None
    """For milliseconds: threads of the calibration; 1 by default."""
    calibration: Path | None = as_option(None, kind=Path)
    """For milliseconds: the file of `gossamer bench calibrate`; its usual place by default."""

    def __post_init__(self) -> None:
        if self.threads is not None and whole_number("threads", self.threads) < 1:
            raise SearchError(f"got {self.threads} threads; expected at least 1")
