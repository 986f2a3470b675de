"""The search: episodes of the environment, from which the agent learns; saved, so that it can be resumed."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from gossamer import randomness
from gossamer.errors import CheckpointError, TrainingDivergedError
from gossamer.loop.configuration import Configuration
from gossamer.loop.opening import make_folder
from gossamer.model.wrappers import unwrap
from gossamer.prune.prunable import prunable_weights
from gossamer.prune.scope import Scope
from gossamer.randomness import derived_seed
from gossamer.search.agent import Agent, Transition, sigma_of
from gossamer.search.budget import Budget
from gossamer.search.channels import Channels
from gossamer.search.compressible import Compressible, pruned
from gossamer.search.environment import Environment
from gossamer.search.errors import SearchError
from gossamer.search.fine_grained import FineGrained
from gossamer.search.layers import LayerFacts
from gossamer.search.policy import Policy
from gossamer.search.reward import find_reward
from gossamer.search.settings import SearchSettings
from gossamer.storage import state as states
from gossamer.storage.files import absolute, locked, write_file, write_text
from gossamer.storage.typed import read_as

Masks = Mapping[str, Tensor]

STATE = "search.safetensors"
EPISODES = "episodes.jsonl"

COMPRESSIBLE: dict[str, Callable[[nn.Module, Mapping[str, nn.Parameter], tuple[Tensor, ...]], Compressible]] = {
    "weights": FineGrained,
    "channels": Channels,
}
LOWEST = {"weights": 0.01, "channels": 0.2}
"""Lowest densities. The paper's is 0.2; with single weights that leaves out what pruning is known to reach."""


@dataclass(frozen=True)
class Episode:
    """A finished episode."""

    number: int
    reward: float
    value: float
    cost: float
    chosen: tuple[int, ...]
    """How many every action keeps."""
    seconds: float


class SearchCallback(Protocol):
    """Is called at the moments of a search."""

    def started(self, network: Compressible, budget: Budget, done: int, episodes: int) -> None: ...

    def episode_finished(self, episode: Episode, best: Episode) -> None: ...

    def ended(self, episodes: Sequence[Episode]) -> None:
        """All episodes, those of interrupted calls too."""


class _Silent:
    """Tells nobody."""

    def started(self, network: Compressible, budget: Budget, done: int, episodes: int) -> None:
        pass

    def episode_finished(self, episode: Episode, best: Episode) -> None:
        pass

    def ended(self, episodes: Sequence[Episode]) -> None:
        pass


def search(
    model: nn.Module,
    *,
    example: Tensor | tuple[Tensor, ...],
    score: Callable[[nn.Module], float],
    budget: Callable[[Sequence[LayerFacts]], Budget],
    folder: str | Path,
    how: SearchSettings | None = None,
    retrain: Callable[[nn.Module, Masks], nn.Module] | None = None,
    scope: Scope | None = None,
    settings: Mapping[str, Any] | None = None,
    callback: SearchCallback | None = None,
) -> Policy:
    """Looks for the densities of the layers with which a trained network, pruned without retraining, is best.

        policy = search(model, example=inputs[:1], score=lambda model: accuracy(model, validation),
                        budget=lambda layers: weights(layers, 0.1), folder="policy.search")

    Args:
        model: trained; it is pruned on trial and left as it was.
        example: the arguments of the forward pass for one example.
        score: the metric of a model, higher is better; for the reward "accuracy-guaranteed" an accuracy, 0 to 1. On
            data held out of training: an agent that sees the test data has been tuned to them.
        budget: from the layers to what the network may cost (`gossamer.search.weights`, `flops`,
            `gossamer.search.budget.milliseconds`).
        folder: where the state of the search is kept; the same call continues, with the same bits.
        how: what the agent decides, its reward, and for how long it learns: `gossamer.search.SearchSettings`.
        retrain: for the reward "retrained": trains the pruned model for a short while, keeping its masks, and returns
            the one to score. It must leave the model that it is given as it was (train a copy).
        scope: which weights are prunable; by default those of every convolution and linear layer.
        settings: anything else that decides the result (plain values); recorded, and compared on resuming.
        callback: who is told how far the search is.

    Returns:
        The best episode's densities.

    Raises:
        SearchError: an argument does not fit.
        ConfigurationError: the folder holds another search.
        CheckpointError: the folder is damaged.

    Source: He et al. 2018 (AMC), section 3.
    """
    how, told = how or SearchSettings(), callback or _Silent()
    found_reward = find_reward(how.reward)
    if found_reward.retrains != (retrain is not None):
        raise SearchError(
            f"the reward {how.reward!r} {'needs' if found_reward.retrains else 'does not use'} retrain; expected "
            f"retrain= with the reward 'retrained' and only with it"
        )
    if how.actions not in COMPRESSIBLE:
        raise SearchError(f"there are no actions {how.actions!r}; expected one of {', '.join(COMPRESSIBLE)}")
    model = unwrap(model)
    weights = prunable_weights(model, scope)
    network = COMPRESSIBLE[how.actions](model, weights, example if isinstance(example, tuple) else (example,))
    limit = budget(network.layers)
    lowest = LOWEST[how.actions] if how.lowest_density is None else how.lowest_density

    def value_of(chosen: Sequence[int]) -> float:
        masks = network.masks(chosen)
        with pruned(model, weights, masks):
            value = float(score(model if retrain is None else retrain(model, masks)))
        if not math.isfinite(value):
            raise TrainingDivergedError(f"the metric of a pruned network is {value}; expected a finite number")
        return value

    environment = Environment(network, limit, found_reward, value_of, lowest, how.scale)
    folder = absolute(folder)
    make_folder(folder)
    with locked(folder):
        run = _Search(environment, folder, how.seed, how.warm_up)
        run.open(_configuration(model, network, limit, how, lowest, settings or {}))
        told.started(network, limit, len(run.episodes), how.episodes)
        while len(run.episodes) < how.episodes:
            told.episode_finished(run.play(), run.best)
            if len(run.episodes) == how.episodes or run.seconds_since_save >= how.checkpoint_seconds:
                run.save()
        told.ended(run.episodes)
        return _policy(network, limit, how.actions, run.best)


def _configuration(
    model: nn.Module,
    network: Compressible,
    limit: Budget,
    how: SearchSettings,
    lowest: float,
    settings: Mapping[str, Any],
) -> Configuration:
    return Configuration(
        {
            "search": {
                "actions": how.actions,
                "reward": how.reward,
                "budget": limit.name,
                "limit": limit.limit,
                "lowest_density": lowest,
                "scale": how.scale,
                "warm_up": how.warm_up,
                "seed": how.seed,
            },
            "model": {
                "class": type(model).__name__,
                "sizes": {action.name: action.size for action in network.actions},
            },
            "settings": dict(settings),
        }
    )


class _Search:
    """An agent in its environment, and the folder that both are kept in."""

    def __init__(self, environment: Environment, folder: Path, seed: int, warm_up: int) -> None:
        self.environment = environment
        self.folder = folder
        self.seed = seed
        self.warm_up = warm_up
        self.episodes: list[Episode] = []
        with randomness.seeded(derived_seed(seed, "agent")):
            self.agent = Agent(environment, derived_seed(seed, "agent"))
        self._last_save = time.monotonic()

    @property
    def best(self) -> Episode:
        """The first of those with the highest reward."""
        return max(self.episodes, key=lambda episode: episode.reward)

    def open(self, configuration: Configuration) -> None:
        """Begins, or goes on where the folder's search was saved last."""
        path = self.folder / STATE
        if not path.exists():
            configuration.write(self.folder)
            return
        configuration.refuse_other(self.folder)
        state = states.load_entries(path)
        try:
            self.agent.load_state(state["agent"])
            self.episodes = [read_as(Episode, record) for record in state["episodes"]]
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError, CheckpointError) as error:
            raise CheckpointError(f"{path} does not fit this search ({error}); start in a new folder") from error

    def play(self) -> Episode:
        """One episode, and what is learned from it. Its random numbers depend on the seed and its number alone."""
        number, started = len(self.episodes), time.monotonic()
        with randomness.seeded(derived_seed(self.seed, "episode", number)):
            generator = np.random.default_rng(derived_seed(self.seed, "actions", number))
            transitions: list[Transition] = []
            observation, _ = self.environment.reset()
            last = False
            while not last:
                if number < self.warm_up:
                    action = float(generator.random())
                else:
                    action = self.agent.explore(observation, sigma_of(number, self.warm_up), generator)
                following, reward, last, _, facts = self.environment.step(np.array([action], np.float32))
                transitions.append(Transition(observation, facts["action"], following, last))
                observation = following
            self.agent.remember(transitions, reward)
            if number >= self.warm_up:
                self.agent.learn(len(transitions))
        outcome = facts["outcome"]
        seconds = time.monotonic() - started
        self.episodes.append(Episode(number, reward, outcome.value, outcome.cost, facts["chosen"], seconds))
        return self.episodes[-1]

    @property
    def seconds_since_save(self) -> float:
        return time.monotonic() - self._last_save

    def save(self) -> None:
        """Writes the state."""
        records = [asdict(episode) for episode in self.episodes]
        state = {"agent": self.agent.state(), "episodes": records}
        write_file(self.folder / STATE, lambda path: states.save(path, state))
        write_text(self.folder / EPISODES, "".join(json.dumps(record) + "\n" for record in records))
        self._last_save = time.monotonic()


def _policy(network: Compressible, budget: Budget, actions: str, best: Episode) -> Policy:
    return Policy(
        densities=network.densities(best.chosen),
        actions=actions,
        episode=best.number,
        reward=best.reward,
        value=best.value,
        cost=float(best.cost),
        budget=budget.name,
        kept=network.kept(best.chosen),
        chosen=best.chosen,
    )
