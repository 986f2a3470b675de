"""Parameters that are replaced while masks are attached to them: inside a round, and in a model of one's own."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

import gossamer
from gossamer.errors import ConfigurationError, PrunedWeightError
from gossamer.prune.enforce import detach_masks

Prune = Callable[..., dict[str, Tensor]]


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def train(model: nn.Module, steps: int = 3, optimizer: torch.optim.Optimizer | None = None) -> None:
    dtype = next(model.parameters()).dtype
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(steps):
        inputs = torch.randn(16, 6, dtype=dtype)
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), inputs[:, :3].argmax(1)).backward()
        optimizer.step()


def pruned_weights_left(model: nn.Module, masks: dict[str, Tensor]) -> int:
    """How many weights are not zero though the masks say so, without gossamer."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return sum(int((parameters[name].detach()[~mask] != 0).sum()) for name, mask in masks.items())


@pytest.fixture
def swapping() -> Iterator[None]:
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


@pytest.fixture
def overwriting() -> Iterator[None]:
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    yield
    torch.__future__.set_overwrite_module_params_on_conversion(False)


def new_parameter(model: nn.Sequential) -> None:
    model[0].weight = nn.Parameter(torch.randn(8, 6))


def assigned(model: nn.Sequential) -> None:
    model.load_state_dict(network().state_dict(), assign=True)


def new_layer(model: nn.Sequential) -> None:
    model[2] = nn.Linear(8, 3)


def new_data(model: nn.Sequential) -> None:
    model[0].weight.data = torch.randn(8, 6)


def merged(model: nn.Sequential) -> None:
    """As an adapter of low rank is merged: the base layer is put back with a sum in it."""
    base, delta = model[0], torch.randn(8, 2) @ torch.randn(2, 6)
    model[0] = nn.Linear(6, 8)
    model[0].weight = nn.Parameter(base.weight.detach() + delta)


REPLACEMENTS = [new_parameter, assigned, new_layer, new_data, merged]


@pytest.mark.parametrize("replace", REPLACEMENTS, ids=lambda replace: replace.__name__)
def test_what_replaces_a_parameter_inside_a_round_is_held(
    replace: Callable[[nn.Sequential], None], tmp_path: Path
) -> None:
    model = network()
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=2)):
        train(model)
        replace(model)
        if round.number > 0:
            assert pruned_weights_left(model, dict(round.masks)) > 0
            with pytest.raises(PrunedWeightError, match=r"weight is .*a pruned position"):
                gossamer.check(model)
        train(model)
        if round.number > 0:
            assert pruned_weights_left(model, dict(round.masks)) == 0
            gossamer.check(model)
        round.record(accuracy=0.5)
    stored = load_file(tmp_path / "round-02" / "model.safetensors")
    assert sum(int(stored[name].count_nonzero()) for name in round.masks) == round.kept
    train(model)
    assert pruned_weights_left(model, dict(round.masks)) == 0


@pytest.mark.parametrize("replace", REPLACEMENTS, ids=lambda replace: replace.__name__)
@pytest.mark.parametrize("mend", ["enforce", "by hand"])
def test_a_round_can_be_recorded_again_after_mending(
    replace: Callable[[nn.Sequential], None], mend: str, tmp_path: Path
) -> None:
    model = network()
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=2)):
        train(model)
        if round.number == 1:
            replace(model)
            for _ in range(2):
                with pytest.raises(PrunedWeightError, match=r"weight is .*a pruned position"):
                    round.record(accuracy=0.5)
            if mend == "enforce":
                gossamer.enforce(model)
            else:
                with torch.no_grad():
                    for name, mask in round.masks.items():
                        model.get_parameter(name).mul_(mask)
        assert round.record(accuracy=0.5).round == round.number
    assert pruned_weights_left(model, dict(round.masks)) == 0
    gossamer.check(model)


def test_the_optimizer_of_the_replaced_parameter_goes_on(tmp_path: Path) -> None:
    """It trains a parameter that is in no model any longer; the new one is held all the same."""
    model = network()
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1)):
        train(model)
        if round.number == 1:
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            new_parameter(model)
            train(model, 1, optimizer)
            gossamer.check(model)
            assert pruned_weights_left(model, dict(round.masks)) == 0
        round.record()


def test_another_model_s_training_is_not_stopped_for_it(tmp_path: Path) -> None:
    """The loop was left in the middle, and its iterator is still referred to."""
    model, other = nn.Linear(6, 3, bias=False), nn.Linear(6, 3)
    next(rounds := gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1)))
    train(model)
    next(rounds)
    model.weight = nn.Parameter(torch.randn(4, 6))
    train(other)
    with pytest.raises(ConfigurationError, match=r"of shape \(4, 6\)"):
        train(model)


def test_a_tied_weight_that_is_untied_is_held_on_both_sides(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1)):
        train(model)
        if round.number == 1:
            model[2].weight = nn.Parameter(torch.randn(6, 6))
            train(model)
            for layer in (model[0], model[2]):
                assert not layer.weight.detach()[~round.masks["0.weight"]].any()
            with pytest.raises(ConfigurationError, match=r"0\.weight and 2\.weight were one .* and are apart now"):
                round.record()
            model[0].weight = model[2].weight
        round.record()


@pytest.mark.parametrize("number", [0, 1])
def test_a_parameter_of_another_shape_is_said_at_the_first_step(number: int, tmp_path: Path) -> None:
    """Embeddings that are resized for more tokens, for example."""
    model = nn.Sequential(nn.Embedding(10, 6), nn.Linear(6, 3))
    for round in gossamer.rounds(
        model, folder=tmp_path, scope=gossamer.Scope(embeddings=True), stop=gossamer.Stop(rounds=1)
    ):
        before = model[0]
        if round.number == number:
            model[0] = nn.Embedding(12, 6)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(torch.arange(10)).square().sum().backward()
        if round.number == number:
            with pytest.raises(ConfigurationError, match=r"0\.weight .*of shape \(12, 6\), and was of shape \(10, 6\)"):
                optimizer.step()
            model[0] = before
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            model(torch.arange(10)).square().sum().backward()
        optimizer.step()
        round.record(accuracy=0.5)


@pytest.mark.filterwarnings("ignore:.*torch_dtype.*")
def test_an_adapter_around_a_layer_and_its_merging(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = network()
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1)):
        train(model)
        if round.number == 1:
            settings = peft.LoraConfig(r=2, target_modules=["0"], init_lora_weights=False)
            adapted = peft.get_peft_model(model, settings)
            train(adapted)
            # The layer below the adapter is another name's now, and its zeros stay.
            gossamer.check(model)
            adapted.merge_and_unload()
            assert pruned_weights_left(model, dict(round.masks)) > 0
            with pytest.raises(PrunedWeightError, match=r"^0\.weight is .*a pruned position"):
                round.record()
            gossamer.enforce(model)
        round.record()


# --- conversions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("convert", [nn.Module.double, nn.Module.bfloat16], ids=["double", "bfloat16"])
@pytest.mark.parametrize("how", ["in place", "swapping", "overwriting"])
def test_a_model_is_converted_inside_a_round(
    convert: Callable[[nn.Module], nn.Module], how: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if how != "in place":
        request.getfixturevalue(how)
    model = network()
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=2)):
        train(model)
        convert(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
        for step in range(3):
            train(model, 1, optimizer)
            if round.number > 0 and step > 0:
                # By a hook of its own, before a step: clipping by norm sees what it should.
                model.zero_grad()
                inputs = torch.randn(4, 6, dtype=model[0].weight.dtype)
                model(inputs).square().sum().backward()
                for name, mask in round.masks.items():
                    assert not model.get_parameter(name).grad[~mask].any()
        if round.number > 0:
            assert pruned_weights_left(model, dict(round.masks)) == 0
        model.float()
        train(model)
        round.record(accuracy=0.5)
    gossamer.check(model)
    assert sum(int(model.get_parameter(name).count_nonzero()) for name in round.masks) == round.kept


@pytest.mark.parametrize("how", ["swapping", "overwriting"])
def test_a_pruned_model_is_converted_without_a_round(how: str, prune: Prune, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(how)
    model = network()
    masks = prune(model, 0.5)
    # A pass between them leaves something of torch at the parameters.
    train(model)
    model.double()
    assert model[0].weight.dtype == torch.float64
    train(model)
    assert pruned_weights_left(model, masks) == 0
    gossamer.check(model)


@pytest.mark.usefixtures("swapping")
def test_state_is_loaded_by_swapping(prune: Prune) -> None:
    model = network()
    masks = prune(model, 0.5)
    model.load_state_dict(copy.deepcopy(model.state_dict()))
    train(model)
    assert pruned_weights_left(model, masks) == 0
    gossamer.check(model)


# --- outside of rounds a model is its owner's -------------------------------------------------------------------------


def test_a_new_head_is_dense(prune: Prune) -> None:
    model = network()
    masks = prune(model, 0.5)
    for outputs in (3, 5):
        model[2] = nn.Linear(8, outputs)
        train(model)
        assert int((model[2].weight == 0).sum()) == 0
        gossamer.check(model)
    assert pruned_weights_left(model, {"0.weight": masks["0.weight"]}) == 0


def test_the_same_weights_assigned_stay_pruned(prune: Prune) -> None:
    model = network()
    masks = prune(model, 0.5)
    model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    gossamer.check(model)
    train(model)
    assert pruned_weights_left(model, masks) == 0


def test_a_model_that_was_replaced_in_part_begins_a_new_run_dense(tmp_path: Path) -> None:
    model = network()
    for round in gossamer.rounds(model, folder=tmp_path / "first", stop=gossamer.Stop(rounds=1)):
        train(model)
        if round.number == 1:
            new_parameter(model)
            gossamer.enforce(model)
    model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    round = next(iter(gossamer.rounds(model, folder=tmp_path / "second", stop=gossamer.Stop(rounds=1))))
    train(model)
    assert int((model[0].weight == 0).sum()) == 0
    round.record()


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.other.weight = self.one.weight

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.other(self.one(inputs).tanh()))
        return outputs


def test_letting_go_of_a_weight_lets_go_of_all_its_names_and_of_no_other(tmp_path: Path) -> None:
    """As a round is dense again in which the model was replaced in part."""
    model = Tied()
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1), cut=gossamer.Cut(per_round=0.5)):
        if round.number == 1:
            model.one.weight = nn.Parameter(torch.randn(6, 6))
            model.other.weight = model.one.weight
            detach_masks([model.one.weight])
            # It is not followed any longer; the head, which nobody let go, is.
            model.head.weight = nn.Parameter(torch.randn(3, 6))
            train(model)
            assert not (model.one.weight == 0).any()
            assert pruned_weights_left(model, {"head.weight": round.masks["head.weight"]}) == 0
            break
        train(model)


def test_what_is_replaced_beside_the_optimizer_s_own_parameters_is_held_at_its_next_step(tmp_path: Path) -> None:
    model = network()
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1), cut=gossamer.Cut(per_round=0.5)):
        train(model)
        if round.number == 1:
            optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
            train(model, 2, optimizer)
            model[2].weight = nn.Parameter(torch.randn(3, 8))
            assert pruned_weights_left(model, dict(round.masks)) > 0
            train(model, 1, optimizer)
            assert pruned_weights_left(model, dict(round.masks)) == 0
        round.record()
