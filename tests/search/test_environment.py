"""The environment of AMC: budgets that are met, actions that are clipped as by hand, channels that go together."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env as gymnasium_check
from networks_to_search import perceptron, residual
from predict.price_lists import at_random
from stable_baselines3.common.env_checker import check_env as agent_check
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gossamer import Scope, prunable_weights
from gossamer.export.from_torch import to_onnx
from gossamer.predict.network import predict
from gossamer.search import Budget, SearchError, flops, weights
from gossamer.search.budget import milliseconds
from gossamer.search.channels import Channels
from gossamer.search.compressible import Compressible, pruned
from gossamer.search.environment import FEATURES, Environment
from gossamer.search.expected_time import expected_milliseconds
from gossamer.search.fine_grained import FineGrained
from gossamer.search.layers import LayerFacts, layers_of
from gossamer.search.reward import REWARDS, Outcome
from gossamer.shrink import shrink

IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
VECTOR = torch.ones(1, 6)


def fine(model: nn.Module, example: Tensor, scope: Scope | None = None) -> FineGrained:
    return FineGrained(model, prunable_weights(model, scope), (example,))


def channels(model: nn.Module, example: Tensor = IMAGE) -> Channels:
    return Channels(model, prunable_weights(model), (example,))


def environment(
    network: Compressible,
    budget: Budget,
    *,
    judge: Callable[[Sequence[int]], float] = lambda chosen: 0.5,
    lowest: float = 0.05,
    scale: str = "clipped",
    reward: str = "accuracy",
) -> Environment:
    return Environment(network, budget, REWARDS[reward], judge, lowest, scale)


def episode(environment: Environment, actions: Sequence[float]) -> tuple[list[np.ndarray], dict[str, object], float]:
    observation, _ = environment.reset()
    observations = [observation]
    for action in actions:
        observation, reward, last, truncated, facts = environment.step(np.array([action], np.float32))
        assert not truncated
        assert last == (len(observations) == len(actions))
        assert last or reward == 0
        observations.append(observation)
    return observations, facts, reward


# --- budgets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["clipped", "rescaled"])
def test_the_budget_of_weights_is_met_exactly_in_a_thousand_random_episodes(scale: str) -> None:
    generator = np.random.default_rng(0)
    for share in (0.07, 0.3, 0.9):
        network = fine(residual(), IMAGE)
        world = environment(network, weights(network.layers, share), scale=scale)
        total = sum(layer.weights for layer in network.layers)
        for _ in range(334):
            # Extremes too: agents end there.
            actions = np.clip(generator.uniform(-0.3, 1.3, len(network.actions)), 0, 1)
            _, facts, _ = episode(world, actions.tolist())
            assert sum(facts["chosen"]) == facts["outcome"].cost == -(-total * round(share * 100) // 100)
            bounds = zip(world.lowest, facts["chosen"], network.sizes, strict=True)
            assert all(low <= number <= size for low, number, size in bounds)


@pytest.mark.parametrize("kind", ["weights", "channels"])
@pytest.mark.parametrize("scale", ["clipped", "rescaled"])
def test_the_budget_of_operations_is_met_as_nearly_as_whole_pieces_allow(kind: str, scale: str) -> None:
    generator = np.random.default_rng(1)
    network: Compressible = fine(residual(), IMAGE) if kind == "weights" else channels(residual())
    world = environment(network, flops(network.layers, 0.4), scale=scale, lowest=0.2)
    limit = world.budget.limit
    assert limit is not None
    dense = [*network.sizes]
    piece = max(
        world.budget.cost(network.kept(dense))
        - world.budget.cost(network.kept([n - (i == position) for i, n in enumerate(dense)]))
        for position in range(len(dense))
    )
    for _ in range(500 if kind == "weights" else 100):
        _, facts, _ = episode(world, generator.random(len(network.actions)).tolist())
        assert limit - piece < facts["outcome"].cost <= limit


def test_predicted_time_is_a_budget_too() -> None:
    network = fine(residual(), IMAGE)

    def predict(densities: dict[str, float]) -> float:
        return 1.0 + sum(density for density in densities.values())

    budget = milliseconds(network.layers, predict, 4.0)
    _, facts, _ = episode(environment(network, budget), [0.5] * len(network.actions))
    assert 3.99 < facts["outcome"].cost <= 4.0


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["clipped", "rescaled"])
def test_the_budget_of_predicted_time_is_kept_in_a_thousand_random_episodes(scale: str) -> None:
    """And what `gossamer predict` expects of the network that is left is the very time that was counted."""
    generator = np.random.default_rng(0)
    # What has a layout takes longer, so fewer of the thousand are of the residual network.
    for make, example, seed, share, count in (
        (residual, IMAGE, 4 if scale == "clipped" else 5, 0.5, 60),
        (perceptron, VECTOR, 1, 0.2, 440),
    ):
        model, calibration = make(), at_random(seed)
        network = fine(model, example)
        expected = expected_milliseconds(model, [layer.name for layer in network.layers], (example,), calibration)
        names = [layer.name for layer in network.layers]
        least, dense = (expected(dict.fromkeys(names, density)) for density in (0.05, 1.0))
        limit = least + share * (dense - least)
        world = environment(network, milliseconds(network.layers, expected, limit), scale=scale)
        for number in range(count):
            actions = np.clip(generator.uniform(-0.3, 1.3, len(network.actions)), 0, 1)
            _, facts, _ = episode(world, actions.tolist())
            assert facts["outcome"].cost <= limit
            if number == 0:
                with pruned(model, network.weights, network.masks(facts["chosen"])) as left:
                    prediction = predict(to_onnx(left, [example]).model, calibration)
                if prediction.layers[0].form == "stem":
                    assert 1e3 * prediction.expected <= facts["outcome"].cost * (1 + 1e-9)
                else:
                    assert 1e3 * prediction.expected == pytest.approx(facts["outcome"].cost, rel=1e-9)


class Disguised(nn.Module):
    """Layers that an exporter renames, transposes, splits or multiplies with something."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 16, 2, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.up = nn.Linear(16, 32, bias=False)
        self.down = nn.Linear(32, 16)
        self.again = nn.Linear(16, 32, bias=False)
        self.again.weight = self.up.weight
        self.classes = nn.Linear(32, 4)

    def forward(self, images: Tensor) -> Tensor:
        features = self.grouped(torch.relu(self.norm(self.patches(images))))
        tokens = features.flatten(2).mT
        tokens = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        outputs: Tensor = self.classes(self.again(self.down(torch.relu(self.up(tokens)))).mean(1))
        return outputs


@pytest.mark.slow
def test_weights_are_found_in_whatever_an_exporter_makes_of_them() -> None:
    model = Disguised().eval()
    nn.init.uniform_(model.norm.running_var, 0.5, 2)
    nn.init.uniform_(model.norm.weight, -2, -0.5)
    weights = prunable_weights(model)
    assert len(weights) == 7
    for seed in range(2):
        calibration = at_random(seed)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        expected = expected_milliseconds(model, list(weights), (IMAGE,), calibration)
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
        generator = np.random.default_rng(seed)
        masks = {name: _regular(weight, int(generator.integers(2, 9))) for name, weight in weights.items()}
        with pruned(model, weights, masks) as left:
            prediction = predict(to_onnx(left, [IMAGE]).model, calibration)
        densities = {name: float(mask.double().mean()) for name, mask in masks.items()}
        assert sorted({*densities.values()}) == pytest.approx(sorted({layer.density for layer in prediction.layers}))
        assert expected(densities) == pytest.approx(1e3 * prediction.expected, rel=1e-9)
        for name in weights:
            assert expected({**densities, name: 1.0}) >= expected(densities)


def _regular(weight: Tensor, step: int) -> Tensor:
    """Every so manieth weight stays, in the parts that the weight is split into as well."""
    mask = torch.zeros(weight.shape, dtype=torch.bool)
    rows = weight.shape[0] // 3 if weight.shape[0] == 48 else weight.shape[0]
    for start in range(0, weight.shape[0], rows):
        part = torch.zeros(mask[start : start + rows].shape, dtype=torch.bool)
        part.view(-1)[::step] = True
        mask[start : start + rows] = part
    return mask


def test_actions_are_clipped_as_by_hand() -> None:
    """60, 80 and 24 weights, a budget of half of them (82), nothing below a quarter (15, 20, 6)."""
    network = fine(perceptron(), VECTOR)
    world = environment(network, weights(network.layers, 0.5), lowest=0.25)
    assert world.lowest == (15, 20, 6)
    # 0.25 + 0.2 x 0.75 = 0.4 of 60; 0.25 + 0.5 x 0.75 = 0.625 of 80 is 50, and 82 - 24 - 6 = 52 would be allowed.
    assert episode(world, [0.2, 0.5, 0.0])[1]["chosen"] == (24, 50, 8)
    # All of the first: 60 > 82 - 26 = 56. Then there are 26 left: the least of both.
    assert episode(world, [1, 1, 1])[1]["chosen"] == (56, 20, 6)
    # Least of the first two: at least 82 - 15 - 24 = 43 of the second are needed to use the budget up.
    assert episode(world, [0, 0, 0])[1]["chosen"] == (15, 43, 24)


def test_rescaled_actions_span_what_is_allowed_in_equal_factors() -> None:
    network = fine(perceptron(), VECTOR)
    world = environment(network, weights(network.layers, 0.5), lowest=0.25, scale="rescaled")
    assert episode(world, [0, 0, 0])[1]["chosen"] == (15, 43, 24)
    assert episode(world, [1, 1, 1])[1]["chosen"] == (56, 20, 6)
    # The geometric mean of 15 and 56 is 29; of 82 - 29 - 24 = 29 and 82 - 29 - 6 = 47 it is 37.
    assert episode(world, [0.5, 0.5, 0.5])[1]["chosen"] == (29, 37, 16)


def test_without_a_limit_the_reward_weighs_the_cost() -> None:
    network = fine(perceptron(), VECTOR)
    world = environment(network, weights(network.layers, None), lowest=0.25, reward="accuracy-guaranteed")
    _, facts, reward = episode(world, [0.0, 1.0, 0.0])
    assert facts["chosen"] == (15, 80, 6)
    assert reward == pytest.approx(-0.5 * np.log(101))


def test_rewards_by_hand() -> None:
    outcome = Outcome(value=0.9, cost=1000)
    assert REWARDS["accuracy"].of(outcome) == REWARDS["retrained"].of(outcome) == 0.9
    assert REWARDS["accuracy-guaranteed"].of(outcome) == pytest.approx(-0.1 * 6.907755)


def test_the_logarithm_of_a_short_time_does_not_reward_errors() -> None:
    """A tenth of a millisecond is 100,000 nanoseconds."""
    network = fine(perceptron(), VECTOR)
    budget = milliseconds(network.layers, lambda densities: 0.1, None)
    world = environment(network, budget, reward="accuracy-guaranteed", judge=lambda chosen: 0.9)
    assert episode(world, [0.5, 0.5, 0.5])[2] == pytest.approx(-0.1 * np.log(100_000))
    assert episode(world, [0.5, 0.5, 0.5])[1]["outcome"].cost == 0.1


def test_mistakes_say_what_to_do() -> None:
    network = fine(perceptron(), VECTOR)
    with pytest.raises(SearchError, match=r"costs 41; expected at least that"):
        environment(network, weights(network.layers, 0.2), lowest=0.25)
    with pytest.raises(SearchError, match=r"every layer at its lowest density uses up: there is nothing to choose"):
        environment(network, weights(network.layers, 0.25), lowest=0.25)
    environment(network, weights(network.layers, 0.255), lowest=0.25)  # one weight more
    with pytest.raises(SearchError, match="needs a limit"):
        environment(network, weights(network.layers, None))
    with pytest.raises(SearchError, match="without a limit"):
        environment(network, weights(network.layers, 0.5), reward="accuracy-guaranteed")
    for share in (0, 1, -1, 2):
        with pytest.raises(SearchError, match="between 0 and 1"):
            flops(network.layers, share)
    for limit in (0, -1, float("nan")):
        with pytest.raises(SearchError, match="expected a number above 0"):
            milliseconds(network.layers, lambda densities: 1.0, limit)
    with pytest.raises(SearchError, match="lowest density"):
        environment(network, weights(network.layers, 0.5), lowest=0)
    with pytest.raises(SearchError, match="clipped, rescaled"):
        environment(network, weights(network.layers, 0.5), scale="odd")
    with pytest.raises(SearchError, match="already"):
        environment(network, milliseconds(network.layers, lambda densities: 1.0, 2.0))


def test_it_is_an_environment_as_gymnasium_and_the_agent_expect() -> None:
    for network in (fine(residual(), IMAGE), channels(residual())):
        world = environment(network, flops(network.layers, 0.5))
        gymnasium_check(world, skip_render_check=True)
        agent_check(world, warn=False)  # It recommends -1 to 1, to which the agent scales by itself.


# --- observations -------------------------------------------------------------------------------------------------


def test_observations_describe_the_layer_and_what_went_before() -> None:
    network = fine(residual(), IMAGE)
    world = environment(network, flops(network.layers, 0.5))
    observations, facts, _ = episode(world, [1.0] + [0.5] * (len(network.actions) - 1))
    assert all(observation.shape == (FEATURES,) for observation in observations)
    assert all(world.observation_space.contains(observation) for observation in observations)
    names = [action.name for action in network.actions]
    assert names == [f"{n}.weight" for n in ("stem", "first", "second", "third", "fourth", "shortcut", "classes")]
    table = np.array(observations[:-1])
    # Index, type (convolutions, then a linear layer), inputs (3 to 16), kernel (3 and 1).
    assert np.allclose(table[:, 0], np.arange(7) / 6)
    assert table[:, 1].tolist() == [0] * 6 + [1]
    assert np.allclose(table[:, 2], [0, 5 / 13, 9 / 13, 5 / 13, 7 / 13, 5 / 13, 1])
    assert table[:, 4].tolist() == [0, 0, 0, 1, 0, 1, 0]
    assert table[:, 5].tolist() == [1, 1, 1, 1, 1, 0, 0]
    # Nothing is removed before the second layer, since all of the first stayed; later ones removed something.
    assert table[:2, 8].tolist() == [0, 0]
    assert (np.diff(table[1:, 8]) >= 0).all()
    assert table[-1, 8] > 0.3
    assert table[-1, 9] == 0
    # The density of the layer before.
    chosen = facts["chosen"]
    assert np.allclose(table[1:, 10], [n / size for n, size in zip(chosen, network.sizes, strict=True)][:-1])


class Odd(nn.Module):
    """Layers that are no plain convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(2, 4, 3, stride=2)
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.token = nn.Linear(4, 8)
        self.classes = nn.Linear(8, 2)

    def forward(self, images: Tensor) -> Tensor:
        features = self.depthwise(self.up(images))
        outputs: Tensor = self.classes(self.token(features.flatten(2).mT)).mean(1)
        return outputs


@pytest.mark.parametrize(("model", "example"), [(residual(), IMAGE), (Odd(), torch.ones(1, 2, 5, 5))])
def test_operations_are_those_that_torch_counts(model: nn.Module, example: Tensor) -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(example)
    layers = layers_of(model, prunable_weights(model), (example,))
    assert sum(layer.flops for layer in layers) == counter.get_total_flops()


def test_attention_has_its_output_projection() -> None:
    model = nn.Sequential(nn.Linear(8, 8))
    model.attention = nn.MultiheadAttention(8, 2, batch_first=True)
    model.forward = lambda tokens: model.attention(tokens, tokens, tokens)[0]
    layers = {layer.name: layer for layer in layers_of(model, _attention(model), (torch.ones(1, 5, 8),))}
    assert {name: layer.positions for name, layer in layers.items()} == {
        "attention.in_proj_weight": 5,
        "attention.out_proj.weight": 5,
    }
    with pytest.raises(SearchError, match=r"0\.weight takes no part"):
        layers_of(model, prunable_weights(model), (torch.ones(1, 5, 8),))


def _attention(model: nn.Module) -> dict[str, nn.Parameter]:
    return prunable_weights(model, Scope(exclude=("0",)))


# --- what is pruned -----------------------------------------------------------------------------------------------


def test_the_largest_weights_of_a_layer_stay() -> None:
    model = perceptron()
    network = fine(model, VECTOR)
    masks = network.masks((7, 80, 1))
    magnitudes = model[0].weight.detach().abs()
    assert int(masks["0.weight"].sum()) == 7
    assert magnitudes[masks["0.weight"]].min() > magnitudes[~masks["0.weight"]].max()
    assert masks["2.weight"].all()
    assert masks["4.weight"].reshape(-1).nonzero().item() == model[4].weight.detach().abs().argmax()
    assert network.densities((7, 80, 1)) == {"0.weight": 7 / 60, "2.weight": 1.0, "4.weight": 1 / 24}


def test_a_trial_leaves_the_model_as_it_was() -> None:
    model = residual()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    network = fine(model, IMAGE)
    masks = network.masks([1] * 7)

    def interrupted() -> None:
        with pruned(model, network.weights, masks):
            assert int(model.first.weight.count_nonzero()) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_looking_at_a_model_leaves_it_in_training() -> None:
    model = residual().train()
    fine(model, IMAGE)
    channels(model)
    assert all(module.training for module in model.modules())
    assert int(model.stem_norm.num_batches_tracked) == 0


def test_channels_of_a_residual_sum_share_one_action() -> None:
    network = channels(residual())
    assert [(action.name, action.size) for action in network.actions] == [
        ("stem, second", 8),
        ("first", 12),
        ("third", 10),
        ("fourth, shortcut", 16),
    ]
    masks = network.masks((3, 12, 10, 5))
    rows = {name: mask.flatten(1).any(1) for name, mask in masks.items()}
    columns = {name: mask.transpose(0, 1).flatten(1).any(1) for name, mask in masks.items()}
    assert torch.equal(rows["stem.weight"], rows["second.weight"])
    assert torch.equal(rows["stem.weight"], columns["first.weight"])
    assert torch.equal(rows["stem.weight"], columns["shortcut.weight"])
    assert torch.equal(rows["fourth.weight"], rows["shortcut.weight"])
    assert torch.equal(rows["fourth.weight"], columns["classes.weight"])
    assert int(rows["stem.weight"].sum()) == 3
    assert int(rows["fourth.weight"].sum()) == 5


@pytest.mark.parametrize("chosen", [(3, 5, 10, 7), (8, 1, 1, 16), (1, 12, 4, 1)])
def test_channels_that_go_can_really_be_cut_out(chosen: tuple[int, ...]) -> None:
    """What is left of the pruned network is what an exact removal of dead units makes of it."""
    model = residual()
    network = channels(model)
    with pruned(model, network.weights, network.masks(chosen)):
        shrunk = shrink(model, torch.cat([IMAGE, -IMAGE]))
    sizes = {name: module.weight.numel() for name, module in shrunk.model.named_modules() if hasattr(module, "weight")}
    assert {f"{n}.weight": s for n, s in sizes.items() if "norm" not in n} == network.kept(chosen)
    assert network.densities(chosen)["first.weight"] == chosen[1] / 12
    assert network.densities(chosen)["classes.weight"] == 1


def test_what_is_read_with_the_largest_weights_stays() -> None:
    model = perceptron()
    network = Channels(model, prunable_weights(model), (VECTOR,))
    assert [action.name for action in network.actions] == ["0", "2"]
    masks = network.masks((1, 8))
    unit = model[2].weight.detach().abs().sum(0).argmax()
    assert masks["0.weight"].any(1).nonzero().item() == unit
    assert masks["2.weight"].any(0).nonzero().item() == unit


def test_layers_outside_the_scope_keep_their_channels() -> None:
    model = residual()
    network = Channels(model, prunable_weights(model, Scope(exclude=("second",))), (IMAGE,))
    assert [action.name for action in network.actions] == ["first", "third", "fourth, shortcut"]
    with pytest.raises(SearchError, match="search fine-grained"):
        Channels(nn.Linear(3, 3), {"weight": nn.Linear(3, 3).weight}, (torch.ones(1, 3),))


def test_layer_facts() -> None:
    facts = {layer.name: layer for layer in fine(residual(), IMAGE).layers}
    assert facts["third.weight"] == LayerFacts("third.weight", "convolution", 8, 10, 2, 3, 720, 16)
    assert facts["classes.weight"] == LayerFacts("classes.weight", "linear", 16, 4, 1, 1, 64, 1)
