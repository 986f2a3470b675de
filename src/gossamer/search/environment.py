"""AMC's environment: one episode walks through the network and decides layer by layer how much of it stays."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.arguments import as_written
from gossamer.search.budget import Budget
from gossamer.search.compressible import Compressible
from gossamer.search.errors import SearchError
from gossamer.search.layers import KINDS
from gossamer.search.requirements import missing
from gossamer.search.reward import Outcome, Reward

try:
    import gymnasium
except ImportError as error:
    raise missing(error) from error

Observation = NDArray[np.float32]
Score = Callable[[Sequence[int]], float]
"""How many of every action stay -> the metric of the network that is left, higher is better."""

FEATURES = 11
"""Index, type, inputs, outputs, stride, kernel, weights, FLOPs; share of all FLOPs removed so far, share in later
layers, density of the previous layer."""


@dataclass(frozen=True)
class Scale:
    """What an action in [0, 1] means. Both functions also get (fewest, most) allowed, the size, and the lowest density;
    they undo one another, but for rounding and clipping."""

    number: Callable[[float, tuple[int, int], int, float], int]
    """Action -> how many stay."""
    action: Callable[[int, tuple[int, int], int, float], float]
    """How many stay -> action."""


def _clipped(action: float, allowed: tuple[int, int], size: int, lowest: float) -> int:
    fewest, most = allowed
    return min(max(round((lowest + action * (1 - lowest)) * size), fewest), most)


def _action_of_density(number: int, allowed: tuple[int, int], size: int, lowest: float) -> float:
    return min(max((number / size - lowest) / max(1 - lowest, 1e-9), 0.0), 1.0)


def _rescaled(action: float, allowed: tuple[int, int], size: int, lowest: float) -> int:
    fewest, most = allowed
    return min(max(round(fewest * math.pow(most / fewest, action)), fewest), most)


def _action_within(number: int, allowed: tuple[int, int], size: int, lowest: float) -> float:
    fewest, most = allowed
    return math.log(number / fewest) / math.log(most / fewest) if most > fewest else 0.5


SCALES: dict[str, Scale] = {
    # The paper's: the density itself, moved as little as the budget asks. Where the budget is small, most actions for a
    # large layer are clipped to the same number, and what comes later in the network always gets the least.
    "clipped": Scale(_clipped, _action_of_density),
    # From the fewest that are allowed to the most, in equal factors: every action makes a difference.
    "rescaled": Scale(_rescaled, _action_within),
}


class Environment(gymnasium.Env[Observation, NDArray[np.float32]]):
    """The environment of He et al. 2018, section 3.1 and 3.2, for any network.

    An observation describes the layer that comes next (`FEATURES` numbers, each scaled to 0 to 1 over the network's
    layers). An action in [0, 1] says how much of it stays (`Scale`), such that the budget is met (`Budget.allowed`).
    The reward is 0 up to the last layer; then the network that is left is scored. `step` also returns the action that
    was really taken ("action") and, at the end, "chosen" and "outcome".
    """

    def __init__(
        self,
        network: Compressible,
        budget: Budget,
        reward: Reward,
        score: Score,
        lowest_density: float,
        scale: str = "clipped",
    ) -> None:
        """
        Args:
            scale: what an action means, a name in `SCALES`.
            lowest_density: of every layer, in (0, 1]; at least one weight or channel stays.

        Raises:
            SearchError: the budget cannot be kept, does not fit the reward, or the lowest density is out of range.
        """
        if not 0 < lowest_density <= 1:
            raise SearchError(f"the lowest density is {lowest_density}; expected a number above 0 and at most 1")
        if reward.needs_limit and budget.limit is None:
            raise SearchError(
                f"this reward does not weigh the cost, so the budget needs a limit; expected one such as "
                f"{budget.name}=0.5, or the reward accuracy-guaranteed"
            )
        if not reward.needs_limit and budget.limit is not None:
            raise SearchError(
                f"the reward weighs the cost itself; expected a budget without a limit ({budget.name}), or the reward "
                f"accuracy"
            )
        if scale not in SCALES:
            raise SearchError(f"there is no scale of actions {scale!r}; expected one of {', '.join(SCALES)}")
        self.network = network
        self.scale = SCALES[scale]
        self.budget = budget
        self.reward = reward
        self.score = score
        self.lowest = tuple(math.ceil(as_written(lowest_density) * size) for size in network.sizes)
        self.lowest_density = lowest_density
        budget.check(network, self.lowest)
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (FEATURES,), np.float32)
        self.action_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
        self.chosen: list[int] = []
        self._layers = _scaled(
            [
                [
                    index,
                    KINDS.index(action.layer.kind),
                    action.layer.inputs,
                    action.layer.outputs,
                    action.layer.stride,
                    action.layer.kernel,
                    action.layer.weights,
                    action.layer.flops,
                ]
                for index, action in enumerate(network.actions)
            ]
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begins an episode with the first layer; nothing in it is random."""
        super().reset(seed=seed)
        self.chosen = []
        self._previous = 1.0
        return self._observe(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Decides about one layer."""
        size = self.network.sizes[len(self.chosen)]
        allowed = self.budget.allowed(self.network, self.chosen, self.lowest)
        number = self.scale.number(float(action[0]), allowed, size, self.lowest_density)
        done = self.scale.action(number, allowed, size, self.lowest_density)
        self.chosen.append(number)
        self._previous = number / size
        if len(self.chosen) < len(self.network.actions):
            return self._observe(), 0.0, False, False, {"action": done}
        cost = self.budget.cost(self.network.kept(self.chosen))
        outcome = Outcome(self.score(self.chosen), cost, self.budget.in_one)
        last = np.zeros(FEATURES, np.float32)
        facts = {"action": done, "chosen": tuple(self.chosen), "outcome": outcome}
        return last, self.reward.of(outcome), True, False, facts

    def _observe(self) -> Observation:
        position = len(self.chosen)
        layers = self.network.layers
        dense = sum(layer.flops for layer in layers)
        kept = self.network.kept([*self.chosen, *self.network.sizes[position:]])
        left = sum(2 * layer.positions * kept[layer.name] for layer in layers)
        later = sum(action.layer.flops for action in self.network.actions[position + 1 :])
        shares = [1 - left / dense, min(later / dense, 1.0), min(max(self._previous, 0.0), 1.0)]
        return np.concatenate([self._layers[position], np.array(shares, np.float32)])


def _scaled(rows: list[list[int]]) -> NDArray[np.float32]:
    """Every column from 0 to 1; one that is the same everywhere becomes 0."""
    table = np.array(rows, np.float64)
    low, high = table.min(0), table.max(0)
    scaled: NDArray[np.float32] = ((table - low) / np.where(high > low, high - low, 1)).astype(np.float32)
    return scaled
