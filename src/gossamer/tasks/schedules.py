"""Learning-rate schedules as functions of the progress of the training time: 0 at the first step, 1 past the last."""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Steps:
    """Constant, and multiplied by `factor` at each milestone (He et al., 2016)."""

    first: float
    milestones: tuple[float, ...]
    """Progress, between 0 and 1, from which on each cut holds."""
    factor: float = 0.1

    def __call__(self, progress: float) -> float:
        # A step that lies exactly on a milestone must be past it although progress is a rounded quotient.
        passed = sum(progress >= milestone - 1e-9 for milestone in self.milestones)
        return self.first * self.factor**passed


@dataclass(frozen=True)
class Linear:
    """Straight down from `peak` to `last`."""

    peak: float
    last: float = 0.0

    def __call__(self, progress: float) -> float:
        return self.peak + (self.last - self.peak) * min(progress, 1.0)


@dataclass(frozen=True)
class WarmUp:
    """Another schedule, whose first share is replaced by a straight line up from zero to it (Goyal et al., 2017)."""

    then: Callable[[float], float]
    share: float
    """Of the training time, that the way up takes."""

    def __call__(self, progress: float) -> float:
        if progress < self.share:
            return self.then(self.share) * progress / self.share
        return self.then(progress)


@dataclass(frozen=True)
class OneCycle:
    """Straight up from `first` to `peak`, then down to `last` along half a cosine (Smith and Topin, 2018)."""

    peak: float
    warm_up: float = 0.2
    """The share of the training time that the way up takes."""
    first: float = 0.0
    last: float = 0.0

    def __call__(self, progress: float) -> float:
        if progress < self.warm_up:
            return self.first + (self.peak - self.first) * progress / self.warm_up
        descent = (progress - self.warm_up) / (1 - self.warm_up)
        return self.last + (self.peak - self.last) * (1 + math.cos(math.pi * min(descent, 1.0))) / 2
