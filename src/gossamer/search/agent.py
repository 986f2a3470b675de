"""AMC's agent: DDPG (Lillicrap et al. 2016) with the paper's settings, by stable-baselines3."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gossamer.errors import CheckpointError
from gossamer.search.environment import Environment, Observation
from gossamer.search.requirements import missing

try:
    from stable_baselines3 import DDPG
    from stable_baselines3.common.buffers import ReplayBuffer
    from stable_baselines3.common.logger import Logger
    from stable_baselines3.common.type_aliases import ReplayBufferSamples
except ImportError as error:
    raise missing(error) from error

WIDTHS = (300, 300)
ACTOR_RATE, CRITIC_RATE = 1e-4, 1e-3
TARGET_RATE = 0.01
"""tau: how fast the target networks follow."""
BATCH = 64
TRANSITIONS = 2000
"""Transitions that the replay buffer holds."""
NOISE, NOISE_DECAY = 0.5, 0.95
"""Standard deviation of the exploration in the first episode after the warm-up, and its factor an episode."""
BASELINE_RATE = 0.05
"""How fast the baseline, a moving average of the rewards, follows. The paper does not say."""


@dataclass(frozen=True)
class Transition:
    """One step of an episode."""

    observation: Observation
    action: float
    """What was really done, in [0, 1]."""
    following: Observation
    last: bool


class Agent:
    """Actor and critic, their target networks, the replay buffer and the baseline.

    The actor ends in tanh and the action is scaled to 0 to 1, which is the paper's sigmoid. The final reward of an
    episode, less the baseline, is the reward of all of its transitions; nothing is discounted.
    """

    def __init__(self, environment: Environment, seed: int) -> None:
        """The caller keeps the global random generators: making networks draws from them."""
        self._learner = _Learner(
            "MlpPolicy",
            environment,
            buffer_size=TRANSITIONS,
            batch_size=BATCH,
            tau=TARGET_RATE,
            gamma=1.0,
            replay_buffer_class=_Replay,
            policy_kwargs={"net_arch": list(WIDTHS)},
            seed=seed % 2**32,
            device="cpu",
        )
        self._learner.set_logger(Logger(None, []))
        for network, rate in ((self._learner.actor, ACTOR_RATE), (self._learner.critic, CRITIC_RATE)):
            for group in network.optimizer.param_groups:
                group["lr"] = rate

    def act(self, observation: Observation) -> float:
        """The actor's action, in [0, 1]."""
        with torch.no_grad():
            action = self._learner.actor(torch.from_numpy(observation)[None])
        return float(action.clamp(-1, 1).item() + 1) / 2

    def explore(self, observation: Observation, sigma: float, generator: np.random.Generator) -> float:
        """The actor's action with noise: a normal distribution around it, cut off at 0 and 1."""
        return truncated_normal(self.act(observation), sigma, generator)

    def remember(self, transitions: Iterable[Transition], reward: float) -> None:
        """Adds an episode, its reward written to every transition."""
        replay = self._replay
        replay.baseline = reward if np.isnan(replay.baseline) else replay.baseline
        replay.baseline += BASELINE_RATE * (reward - replay.baseline)
        for transition in transitions:
            replay.add(
                transition.observation,
                transition.following,
                np.array([2 * transition.action - 1], np.float32),
                np.array([reward]),
                np.array([transition.last]),
                [{}],
            )

    def learn(self, steps: int) -> None:
        """Updates actor and critic so many times, each from a batch of remembered transitions."""
        self._learner.train(gradient_steps=steps, batch_size=BATCH)

    def state(self) -> dict[str, Any]:
        """Everything that it has learned and remembers, as tensors, arrays and numbers."""
        replay = self._replay
        filled = replay.size()
        return {
            "policy": dict(self._learner.policy.state_dict()),
            "actor_optimizer": self._learner.actor.optimizer.state_dict(),
            "critic_optimizer": self._learner.critic.optimizer.state_dict(),
            "updates": self._learner._n_updates,
            "baseline": float(replay.baseline),
            "position": replay.pos,
            "full": replay.full,
            "replay": {name: getattr(replay, name)[:filled] for name in _ARRAYS},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state`.

        Raises:
            CheckpointError: it is not one of such an agent.
        """
        replay = self._replay
        try:
            position, full = int(state["position"]), bool(state["full"])
            filled = replay.buffer_size if full else position
            if not 0 <= position < replay.buffer_size:
                raise ValueError(f"position {position} of a buffer of {replay.buffer_size}")
            for name in _ARRAYS:
                array = getattr(replay, name)
                if state["replay"][name].shape != array[:filled].shape:
                    raise ValueError(f"{name} has shape {state['replay'][name].shape}")
                array[:filled] = state["replay"][name]
            replay.pos, replay.full, replay.baseline = position, full, float(state["baseline"])
            self._learner.policy.load_state_dict(state["policy"])
            # Copied: an optimizer would go on with the very tensors that it is given.
            self._learner.actor.optimizer.load_state_dict(copy.deepcopy(state["actor_optimizer"]))
            self._learner.critic.optimizer.load_state_dict(copy.deepcopy(state["critic_optimizer"]))
            self._learner._n_updates = int(state["updates"])
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"the saved agent does not fit this search ({error})") from error

    @property
    def _replay(self) -> "_Replay":
        replay = self._learner.replay_buffer
        assert isinstance(replay, _Replay)
        return replay


_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class _Replay(ReplayBuffer):
    """Rewards are remembered as they were, and the baseline of the day is subtracted when they are learned from."""

    baseline = float("nan")

    def _get_samples(self, batch_inds: NDArray[Any], env: Any = None) -> ReplayBufferSamples:
        samples = super()._get_samples(batch_inds, env)
        return samples._replace(rewards=samples.rewards - self.baseline)


class _Learner(DDPG):
    """Actor and critic keep the learning rates that they were given."""

    def _update_learning_rate(self, optimizers: Any) -> None:
        pass


def sigma_of(episode: int, warm_up: int) -> float:
    """The exploration's standard deviation in an episode after the warm-up."""
    return float(NOISE * NOISE_DECAY ** (episode - warm_up))


def truncated_normal(mean: float, sigma: float, generator: np.random.Generator) -> float:
    """A number from the normal distribution, drawn again until it lies in [0, 1]. `mean` lies there too."""
    while True:
        value = float(generator.normal(mean, sigma))
        if 0 <= value <= 1:
            return value
