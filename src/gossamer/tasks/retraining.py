"""How a task's network can be retrained after a cut: verified before anything is trained."""

import math
from collections.abc import Iterable

from gossamer.errors import ConfigurationError
from gossamer.rewind.strategies import DEFAULT, STRATEGIES
from gossamer.tasks.task import Recipe, Task

LEAST_LAST_RATE = 1e-3
"""A schedule that ends below this share of its highest learning rate has no last rate to fine-tune with (the paper's
ends at a hundredth)."""


def constant_rate(recipe: Recipe, method: str, given: float | None) -> float | None:
    """The learning rate of methods that retrain with a constant one; None for the others, and where it is the last one
    of the schedule.

    Raises:
        ConfigurationError: the schedule ends so near to zero that nothing would be trained, or a rate was given in
            vain.
    """
    if STRATEGIES.get(method, STRATEGIES[DEFAULT]).rates != "last":
        if given is not None:
            raise ConfigurationError(f"fine_tune_rate is {given}, but {method} replays the schedule; leave it out")
        return None
    rate = recipe.fine_tune_rate if given is None else given
    if rate is not None:
        if not (math.isfinite(rate) and rate > 0):
            raise ConfigurationError(f"fine_tune_rate is {rate}; expected a learning rate above 0, such as 0.001")
        return rate
    # A schedule at its last thousandth, as fine as any that is in use.
    last, highest = recipe.learning_rate(0.999), max(recipe.learning_rate(step / 1000) for step in range(1000))
    if last < highest * LEAST_LAST_RATE:
        raise ConfigurationError(
            f"the recipe's schedule ends at a learning rate of {last:.3g} (highest: {highest:.3g}), at which {method} "
            f"would change nothing; give fine_tune_rate, such as {highest / 100:.3g}"
        )
    return None


def check_moments(task: Task, moments: Iterable[int | None]) -> None:
    """Verifies that the weights of a network that comes trained are rewound to how it came, if they are.

    Args:
        moments: epochs or steps of the dense training to rewind to; 0 and None: its start.

    Raises:
        ConfigurationError: a moment is later than that.
    """
    if task.pretrained and any(moments):
        raise ConfigurationError(
            f"the network of {task.name} comes trained, so its weights can be rewound to how it came, not to a moment "
            f"of its training; leave out what to rewind to"
        )
