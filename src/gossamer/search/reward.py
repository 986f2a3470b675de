"""What an episode is worth to the agent. A new reward is a function and an entry below."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from gossamer.search.errors import SearchError


@dataclass(frozen=True)
class Outcome:
    """What came of an episode."""

    value: float
    """The metric of the pruned network, on images held out of training."""
    cost: float
    """In the budget's unit."""
    in_one: float = 1.0
    """Units in one of the budget's, in which a reward weighs the cost (`Budget.in_one`)."""


@dataclass(frozen=True)
class Reward:
    """A way to reward an outcome."""

    of: Callable[[Outcome], float]
    """Higher is better."""
    needs_limit: bool = True
    """Whether the budget has a limit, or else none, because the reward weighs the cost itself."""
    retrains: bool = False
    """Whether the pruned network is trained for a few steps before its metric is taken."""


def accuracy(outcome: Outcome) -> float:
    """The accuracy, for a budget that is kept in any case (He et al. 2018, section 3.3, resource-constrained)."""
    return outcome.value


def accuracy_guaranteed(outcome: Outcome) -> float:
    """-error x log(cost), which makes small what loses nothing (He et al. 2018, section 3.3, accuracy-guaranteed)."""
    return -(1 - outcome.value) * math.log(outcome.cost * outcome.in_one)


REWARDS: dict[str, Reward] = {
    "accuracy": Reward(accuracy),
    "accuracy-guaranteed": Reward(accuracy_guaranteed, needs_limit=False),
    "retrained": Reward(accuracy, retrains=True),
}


def find_reward(name: str) -> Reward:
    """The reward of this name.

    Raises:
        SearchError: there is none.
    """
    if name not in REWARDS:
        raise SearchError(f"there is no reward {name!r}; expected one of {', '.join(REWARDS)}")
    return REWARDS[name]
