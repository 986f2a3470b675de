"""The search: the agent's settings and memory, what it learns, resuming, and the command line."""

import json
import signal
import time
import tomllib
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Started
from command_line import gossamer as gossamer_command
from networks_to_search import perceptron, residual
from predict.price_lists import at_random
from small_run import printed, refused
from torch import Tensor, nn

import gossamer
from gossamer.errors import CheckpointError, ConfigurationError, TrainingDivergedError
from gossamer.job.compress import compress
from gossamer.job.training import Training
from gossamer.loop.stop import Stop
from gossamer.predict.calibration import write_calibration
from gossamer.prune.densities import read_densities
from gossamer.search import Policy, SearchError, SearchSettings, flops, search, weights
from gossamer.search.agent import Agent, Transition, sigma_of, truncated_normal
from gossamer.search.environment import Environment
from gossamer.search.fine_grained import FineGrained
from gossamer.search.reward import REWARDS
from gossamer.tasks import find_task

VECTOR = torch.ones(1, 6)


def world() -> Environment:
    model = perceptron()
    network = FineGrained(model, gossamer.prunable_weights(model), (VECTOR,))
    return Environment(network, weights(network.layers, 0.5), REWARDS["accuracy"], lambda chosen: 0.5, 0.05)


# --- the agent ----------------------------------------------------------------------------------------------------


def test_settings_are_those_of_the_paper() -> None:
    learner = Agent(world(), seed=0)._learner
    widths = [layer.out_features for layer in learner.actor.mu if isinstance(layer, nn.Linear)]
    assert widths == [300, 300, 1]
    critic = [layer.out_features for layer in learner.critic.q_networks[0] if isinstance(layer, nn.Linear)]
    assert critic == [300, 300, 1]
    assert len(learner.critic.q_networks) == 1
    assert (learner.gamma, learner.tau, learner.batch_size) == (1.0, 0.01, 64)
    agent = Agent(world(), seed=0)
    observation = np.full(11, 0.5, np.float32)
    agent.remember([Transition(observation, 0.5, observation, True)] * 3, reward=1.0)
    agent.learn(2)
    for network, rate in ((agent._learner.actor, 1e-4), (agent._learner.critic, 1e-3)):
        assert isinstance(network.optimizer, torch.optim.Adam)
        assert [group["lr"] for group in network.optimizer.param_groups] == [rate]


def test_every_transition_gets_the_final_reward_less_the_baseline() -> None:
    agent = Agent(world(), seed=0)
    observation = np.zeros(11, np.float32)
    episode = [Transition(observation, 0.25, observation, False), Transition(observation, 0.5, observation, True)]
    agent.remember(episode, reward=0.8)
    replay = agent._replay
    assert replay.rewards[:2, 0].tolist() == pytest.approx([0.8, 0.8])
    assert replay.actions[:2, 0, 0].tolist() == [-0.5, 0.0]
    assert replay.dones[:2, 0].tolist() == [0, 1]
    # The first reward is the first baseline; then 5% of the way to every new one: 0.8 + 0.05 x 0.2 = 0.81.
    assert replay.sample(8).rewards.abs().max() < 1e-6
    agent.remember(episode, reward=1.0)
    learned_from = replay.sample(64).rewards
    assert learned_from.min().item() == pytest.approx(-0.01, abs=1e-6)
    assert learned_from.max().item() == pytest.approx(0.19, abs=1e-6)


def test_noise_is_a_normal_distribution_cut_off_at_the_bounds() -> None:
    generator = np.random.default_rng(0)
    drawn = np.array([truncated_normal(0.9, 0.3, generator) for _ in range(4000)])
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    # The same by throwing away what lies outside.
    normal = np.random.default_rng(1).normal(0.9, 0.3, 100_000)
    expected = normal[(normal >= 0) & (normal <= 1)]
    assert abs(drawn.mean() - expected.mean()) < 0.02
    assert abs(drawn.std() - expected.std()) < 0.02
    assert sigma_of(100, warm_up=100) == 0.5
    assert sigma_of(102, warm_up=100) == pytest.approx(0.5 * 0.95**2)


def test_an_agent_comes_back_to_the_bit() -> None:
    observations = np.random.default_rng(0).random((30, 11)).astype(np.float32)
    first, second = Agent(world(), seed=0), Agent(world(), seed=1)
    for row in range(0, 28, 2):
        step = Transition(observations[row], 0.1 * (row % 10), observations[row + 1], row % 4 == 0)
        first.remember([step], reward=row / 30)
    first.learn(3)
    second.load_state(first.state())
    for agent in (first, second):
        torch.manual_seed(0)
        np.random.seed(0)
        agent.learn(5)
    assert first.act(observations[0]) == second.act(observations[0])
    broken = first.state()
    broken["replay"]["rewards"] = broken["replay"]["rewards"][:3]
    with pytest.raises(CheckpointError, match="does not fit"):
        second.load_state(broken)


# --- the search ---------------------------------------------------------------------------------------------------


class Interrupted(Exception):
    pass


class Watch:
    """Interrupts after an episode, if one is named."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.seen: list[Any] = []

    def started(self, network: Any, budget: Any, done: int, episodes: int) -> None:
        self.done = done

    def episode_finished(self, episode: Any, best: Any) -> None:
        self.seen.append(episode)
        if episode.number == self.stop_after:
            raise Interrupted

    def ended(self, episodes: Any) -> None:
        self.all = list(episodes)


def third_layer_matters(model: nn.Module) -> float:
    """Best with all of the last layer."""
    return float((model[4].weight != 0).float().mean())


def found(folder: Path, watch: Watch | None = None, **changes: Any) -> Policy:
    arguments: dict[str, Any] = {
        "example": VECTOR,
        "score": third_layer_matters,
        "budget": lambda layers: weights(layers, 0.5),
        "folder": folder,
        "episodes": 14,
        "warm_up": 5,
        "seed": 3,
        "checkpoint_seconds": 0,
        "callback": watch,
    }
    arguments = {**arguments, **changes}
    own = {one.name: arguments.pop(one.name) for one in fields(SearchSettings) if one.name in arguments}
    return search(perceptron(), how=SearchSettings(**own), **arguments)


def lines(folder: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    for record in records:
        record.pop("seconds")
    return records


@pytest.mark.parametrize("stop_after", [0, 4, 9])
def test_an_interrupted_search_goes_on_to_the_same_policy(stop_after: int, tmp_path: Path) -> None:
    expected = found(tmp_path / "whole")
    watch = Watch(stop_after)
    with pytest.raises(Interrupted):
        found(tmp_path / "parts", watch)
    # What was not saved yet is played again.
    again = Watch()
    assert found(tmp_path / "parts", again) == expected
    assert again.done == stop_after
    assert len(again.seen) == 14 - stop_after
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")
    # A finished search is only read; more episodes go on from it.
    nothing = Watch()
    assert found(tmp_path / "parts", nothing) == expected
    assert nothing.seen == []
    more = Watch()
    found(tmp_path / "parts", more, episodes=16)
    assert len(more.seen) == 2
    # Whoever played them.
    assert [(len(watch.all), [episode.number for episode in watch.all]) for watch in (again, nothing, more)] == [
        (count, list(range(count))) for count in (14, 14, 16)
    ]


def test_the_agent_learns(tmp_path: Path) -> None:
    """The value is the density of the last layer, which the paper's clipping leaves to the first two to decide."""
    watch = Watch()
    policy = found(tmp_path, watch, episodes=100, warm_up=30)
    values = [episode.value for episode in watch.seen]
    assert np.mean(values[-20:]) > np.mean(values[:30]) + 0.2
    assert policy.value == max(values)
    assert sum(policy.kept.values()) == policy.cost == 82


def test_the_model_stays_as_it_was_and_files_hold_no_pickle(tmp_path: Path) -> None:
    model = residual()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    example = torch.ones(1, 3, 8, 8)
    policy = search(
        model,
        example=example,
        score=lambda pruned: -float(pruned(example).detach().square().mean()),
        budget=lambda layers: flops(layers, 0.5),
        folder=tmp_path / "search",
        how=SearchSettings(actions="channels", episodes=4, warm_up=2),
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert policy.structure == "channels"
    assert {path.name for path in (tmp_path / "search").iterdir()} == {
        ".lock",
        "config.toml",
        "episodes.jsonl",
        "search.safetensors",
    }
    content = (tmp_path / "search" / "search.safetensors").read_bytes()
    assert b"PK\x03\x04" not in content[:64]
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert set(header) > {"__metadata__"}


def test_another_search_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    found(tmp_path)
    for changes in ({"seed": 4}, {"budget": lambda layers: weights(layers, 0.6)}, {"settings": {"examples": 3}}):
        with pytest.raises(ConfigurationError, match="another configuration"):
            found(tmp_path, **changes)
    content = bytearray((tmp_path / "search.safetensors").read_bytes())
    content[-9] ^= 1
    (tmp_path / "search.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        found(tmp_path)


def test_mistakes_say_what_to_do(tmp_path: Path) -> None:
    for changes, message in (
        ({"reward": "speed"}, "expected one of accuracy, accuracy-guaranteed, retrained"),
        ({"reward": "retrained"}, "needs retrain"),
        ({"retrain": lambda model, masks: model}, "does not use retrain"),
        ({"actions": "neurons"}, "expected one of weights, channels"),
        ({"episodes": 0}, "at least one"),
    ):
        with pytest.raises(SearchError, match=message):
            found(tmp_path / "none", **changes)
    with pytest.raises(TrainingDivergedError, match="metric of a pruned network is nan"):
        found(tmp_path / "nan", score=lambda model: float("nan"))


def test_retraining_is_judged_and_leaves_no_trace(tmp_path: Path) -> None:
    """The retrained copy is better than the pruned network by what it is trained to."""
    seen: list[tuple[float, float]] = []

    def score(model: nn.Module) -> float:
        return -float(model(VECTOR).detach().square().sum())

    def retrain(model: nn.Module, masks: dict[str, Tensor]) -> nn.Module:
        copy = perceptron()
        copy.load_state_dict(model.state_dict())
        for parameter in copy.parameters():
            parameter.data.mul_(0.1)
        seen.append((score(model), score(copy)))
        return copy

    policy = found(tmp_path, score=score, reward="retrained", retrain=retrain, episodes=3)
    assert policy.value == max(after for _, after in seen)
    assert all(after > before for before, after in seen)


# --- the command --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits, trained for three epochs."""
    folder: Path = tmp_path_factory.mktemp("run") / "digits"
    compress(find_task("digits"), folder=folder, stop=Stop(rounds=1), training=Training(epochs=3))
    return folder


SEARCH: Sequence[object] = ("--episodes", 12, "--warm-up", 4, "--examples", 100)


def test_a_policy_goes_from_search_to_compress(run: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    text = printed("search", run, "--budget", "weights=0.2", "-o", policy, *SEARCH)
    assert "4 actions an episode, 12 episodes; budget: weights of at most 4,484" in text
    assert "global magnitude, not retrained" in text
    written = tomllib.loads(policy.read_text())
    assert written["search"]["cost"] == 4484
    densities = read_densities(policy)
    printed("compress", "digits", "--epochs", 1, "--per-round", 0.8, "--allocation", policy, "--out", tmp_path / "run")
    masks = gossamer.load_masks(tmp_path / "run", -1)
    assert sum(int(mask.sum()) for mask in masks.values()) == 4484
    for name, mask in masks.items():
        assert int(mask.sum()) == round(densities.of[name] * mask.numel())


def test_a_search_in_which_no_network_is_better_than_another_says_so(run: Path, tmp_path: Path) -> None:
    options = ("--budget", "weights=0.9", "--episodes", 3, "-o", tmp_path / "policy.toml")
    undecided = "every network that was tried has the same accuracy"
    assert f"{undecided}, 0.00%: there was nothing to learn from" in printed("search", run, *options, "--examples", 1)
    # All episodes count, whoever played them.
    assert f"{undecided}, 0.00%" in printed("search", run, *options, "--examples", 1)
    other = ("--budget", "weights=0.2", "-o", tmp_path / "other.toml")
    assert undecided not in printed("search", run, *SEARCH, *other)
    assert undecided not in printed("search", run, *SEARCH, *other, "--episodes", 13)


def test_channels_go_from_search_to_compress(run: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    printed("search", run, "--budget", "flops=0.4", "--actions", "channels", "-o", policy, *SEARCH)
    assert tomllib.loads(policy.read_text())["structure"] == "channels"
    common = ("compress", "digits", "--epochs", 1, "--per-round", 0.9, "--allocation", policy)
    printed(*common, "--structure", "channels", "--out", tmp_path / "run")
    for name, mask in gossamer.load_masks(tmp_path / "run", -1).items():
        rows = mask.flatten(1)
        assert all(row.all() or not row.any() for row in rows)
        assert int(rows.any(1).sum()) == round(read_densities(policy).of[name] * len(mask))


@pytest.mark.parametrize("reward", ["accuracy-guaranteed", "retrained"])
def test_other_rewards(reward: str, run: Path, tmp_path: Path) -> None:
    budget = "flops" if reward == "accuracy-guaranteed" else "flops=0.3"
    options = ("--episodes", 3, "--warm-up", 1, "--reward", reward, "--retrain-steps", 3)
    text = printed("search", run, "--budget", budget, "-o", tmp_path / "policy.toml", *options)
    assert "written to" in text


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("calibration") / "made-up.toml"
    write_calibration(path, at_random(1))
    return path


def predicted(folder: Path, *arguments: object) -> dict[str, Any]:
    """What `gossamer predict` expects."""
    finished = gossamer_command(folder, "predict", *arguments, "--json", "expected.json")
    assert finished.returncode == 0, finished.stderr
    facts: dict[str, Any] = json.loads((folder / "expected.json").read_text())
    return facts


@pytest.mark.slow
def test_milliseconds_go_from_search_to_compress_to_predict(run: Path, calibration: Path, tmp_path: Path) -> None:
    dense = predicted(tmp_path, run, "--round", 0, "--calibration", calibration)["milliseconds"]
    limit = round(0.8 * dense, 6)
    arguments = ("search", run, "--budget", f"milliseconds={limit}", "--calibration", calibration, *SEARCH)
    finished = gossamer_command(tmp_path, *arguments, "-o", "policy.toml")
    assert finished.returncode == 0, finished.stderr
    assert f"budget: milliseconds of at most {limit}" in finished.stdout
    cost = tomllib.loads((tmp_path / "policy.toml").read_text())["search"]["cost"]
    assert cost <= limit
    compressed = ("compress", "digits", "--epochs", 1, "--per-round", 0.99, "--allocation", "policy.toml")
    finished = gossamer_command(tmp_path, *compressed, "--out", "run")
    assert finished.returncode == 0, finished.stderr
    facts = predicted(tmp_path, "run", "--round", -1, "--calibration", calibration)
    assert facts["layers"][0]["runs"] != "stem"
    assert facts["milliseconds"] == pytest.approx(cost, rel=1e-6)


@pytest.mark.slow
def test_another_calibration_is_another_search(run: Path, calibration: Path, tmp_path: Path) -> None:
    options = ("--episodes", 2, "--warm-up", 1, "--examples", 50, "-o", tmp_path / "policy.toml")
    arguments = ("search", run, "--budget", "milliseconds", "--reward", "accuracy-guaranteed", *options)
    text = printed(*arguments, "--calibration", calibration)
    assert "budget: milliseconds" in text
    # The same prices in another file are the same search.
    copied = tmp_path / "copied.toml"
    copied.write_bytes(calibration.read_bytes())
    printed(*arguments, "--calibration", copied)
    write_calibration(copied, at_random(2))
    message = refused(*arguments, "--calibration", copied)
    assert "another configuration" in message
    assert "settings.calibration.prices" in message
    write_calibration(copied, replace(at_random(1), threads=2))
    assert "settings.calibration.threads: the folder's run has 1, this one has 2" in refused(
        *arguments, "--calibration", copied
    )


def test_a_gpu_that_is_not_there_is_refused(run: Path, tmp_path: Path) -> None:
    common = ("search", run, "--budget", "weights=0.2", "-o", tmp_path / "policy.toml", *SEARCH)
    assert "expected 'cpu' or 'cuda'" in refused(*common, "--device", "abacus")
    if not torch.cuda.is_available():
        assert "torch sees no GPU here; use --device cpu" in refused(*common, "--device", "cuda")
    assert not (tmp_path / "policy.search").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
@pytest.mark.parametrize("actions", ["weights", "channels"])
def test_a_search_on_a_gpu_keeps_the_budget(actions: str, run: Path, tmp_path: Path) -> None:
    options = ("--actions", actions, "--device", "cuda", "-o", tmp_path / "policy.toml")
    printed("search", run, "--budget", "flops=0.5", *options, *SEARCH)
    assert tomllib.loads((tmp_path / "policy.search" / "config.toml").read_text())["settings"]["device"] == "cuda"


def test_a_killed_search_continues(run: Path, tmp_path: Path) -> None:
    arguments = ("search", run, "--budget", "weights=0.2", "--checkpoint-seconds", 0, *SEARCH)
    process = Started(tmp_path, *arguments, "-o", "killed.toml")
    episodes = tmp_path / "killed.search" / "episodes.jsonl"
    deadline = time.monotonic() + 200
    while not (episodes.exists() and episodes.read_text().count("\n") >= 3):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed.toml").exists()
    printed(*arguments, "-o", tmp_path / "killed.toml")
    printed(*arguments, "-o", tmp_path / "whole.toml")
    assert (tmp_path / "killed.toml").read_bytes() == (tmp_path / "whole.toml").read_bytes()


def test_the_scope_is_the_runs_own(tmp_path: Path) -> None:
    compress(
        find_task("digits"),
        folder=tmp_path / "run",
        scope=gossamer.Scope(exclude=("classes",)),
        stop=Stop(rounds=1),
        training=Training(epochs=1),
    )
    policy = tmp_path / "policy.toml"
    options = ("--episodes", 2, "--warm-up", 1, "--examples", 50, "-o", policy)
    printed("search", tmp_path / "run", "--budget", "weights=0.3", *options)
    assert list(read_densities(policy).of) == ["conv_1.weight", "conv_2.weight", "hidden.weight"]
    printed(
        "search",
        tmp_path / "run",
        "--budget",
        "flops=0.5",
        "--include",
        "conv_*",
        "-o",
        tmp_path / "b.toml",
        *options[:-2],
    )
    assert list(read_densities(tmp_path / "b.toml").of) == ["conv_1.weight", "conv_2.weight"]


def test_a_trained_task_of_ones_own_is_searched(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import dataclasses\nfrom gossamer.tasks import find_task\n"
        "def task():\n    return dataclasses.replace(find_task('digits'), name='mine')\n"
    )
    options = ("--episodes", 2, "--warm-up", 1, "--examples", 50, "-o", tmp_path / "policy.toml")
    printed("search", f"{tmp_path}/mine.py:task", "--budget", "weights=0.3", *options)
    assert len(read_densities(tmp_path / "policy.toml").of) == 4


def test_mistakes_on_the_command_line(run: Path, calibration: Path, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "policy.toml")
    time = ("--calibration", calibration)
    for arguments, message in (
        (("digits", "--budget", "weights=0.1"), "Train a built-in task first"),
        ((run, "--budget", "money=3"), "expected weights=SHARE or flops=SHARE"),
        ((run, "--budget", "weights=x"), "expected weights=SHARE"),
        ((run, "--budget", "milliseconds=soon", *time), "milliseconds=NUMBER"),
        ((run, "--budget", "milliseconds=", *time), "milliseconds=NUMBER"),
        ((run, "--budget", "milliseconds=0", *time), "expected a number above 0"),
        ((run, "--budget", "milliseconds=1e-6", *time), "Lower the lowest density"),
        ((run, "--budget", "milliseconds=1e6", *time), "the dense network costs"),
        ((run, "--budget", "milliseconds", *time), "needs a limit"),
        ((run, "--budget", "milliseconds=1", "--calibration", tmp_path / "none"), "gossamer bench calibrate"),
        ((run, "--budget", "milliseconds=1", *time, "--actions", "channels"), "--budget flops=SHARE for channels"),
        ((run, "--budget", "weights=0.1", *time), "--calibration says by what prices"),
        ((run, "--budget", "flops=0.1", "--threads", 2), "--threads says by what prices"),
        ((run, "--budget", "weights"), "needs a limit"),
        ((run, "--budget", "weights=0.001"), "Lower the lowest density"),
        ((run, "--budget", "weights=0.1", "--reward", "fame"), "there is no reward"),
        ((run, "--budget", "weights=0.1", "--actions", "rows"), "there are no actions"),
    ):
        assert message in refused("search", *arguments, *out)
    assert not (tmp_path / "policy.toml").exists()
