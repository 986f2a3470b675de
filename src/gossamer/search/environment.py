"""AMC's environment: one episode walks through the network and decides layer by layer how much of it stays."""

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
Judge = Callable[[Sequence[int]], float]
"""How many of every action stay -> the metric of the network that is left, higher is better."""

FEATURES = 11
"""Index, type, inputs, outputs, stride, kernel, weights, FLOPs; share of all FLOPs removed so far, share in later layers,
previous action."""


class Environment(gymnasium.Env[Observation, NDArray[np.float32]]):
    """The environment of He et al. 2018, section 3.1 and 3.2, for any network.

    An observation describes the layer that comes next (`FEATURES` numbers, each scaled to 0 to 1 over the network's
    layers). An action in [0, 1] is the density of that layer, from the lowest allowed one to 1, moved as little as
    needed for the budget to be met (`Budget.allowed`). The reward is 0 up to the last layer; then the network that is
    left is judged. `step` returns what was really chosen under "density" and, at the end, "chosen" and "outcome".
    """

    def __init__(
        self,
        network: Compressible,
        budget: Budget,
        reward: Reward,
        judge: Judge,
        lowest_density: float,
    ) -> None:
        """
        Args:
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
        self.network = network
        self.budget = budget
        self.reward = reward
        self.judge = judge
        self.lowest = tuple(ceil(lowest_density * size) for size in network.sizes)
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
        position = len(self.chosen)
        size = self.network.sizes[position]
        wished = round((self.lowest_density + float(action[0]) * (1 - self.lowest_density)) * size)
        fewest, most = self.budget.allowed(self.network, self.chosen, self.lowest)
        number = min(max(wished, fewest), most)
        self.chosen.append(number)
        self._previous = (number / size - self.lowest_density) / max(1 - self.lowest_density, 1e-9)
        density = number / size
        if len(self.chosen) < len(self.network.actions):
            return self._observe(), 0.0, False, False, {"density": density}
        outcome = Outcome(self.judge(self.chosen), self.budget.cost(self.network.kept(self.chosen)))
        last = np.zeros(FEATURES, np.float32)
        facts = {"density": density, "chosen": tuple(self.chosen), "outcome": outcome}
        return last, self.reward.of(outcome), True, False, facts

    def action_of(self, density: float) -> float:
        """The action in [0, 1] that stands for a density."""
        return float(np.clip((density - self.lowest_density) / max(1 - self.lowest_density, 1e-9), 0, 1))

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
