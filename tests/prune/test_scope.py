"""Which weights are prunable, layer by layer and name by name."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import prune as torch_prune

import gossamer
from gossamer import Scope, prunable_weights
from gossamer.errors import ConfigurationError, NothingToPruneError
from gossamer.prune.prunable import aliases, count_parameters


def names(model: nn.Module, **scope: object) -> list[str]:
    return list(prunable_weights(model, Scope(**scope)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(2, 3, 3),
        nn.Conv2d(2, 3, 1),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv3d(2, 3, 2),
        nn.ConvTranspose1d(2, 3, 3),
        nn.ConvTranspose2d(2, 3, 3),
        nn.ConvTranspose3d(2, 3, 3),
        nn.Linear(2, 3),
        nn.Bilinear(2, 3, 4),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_the_weight_of_a_layer_is_prunable_and_its_bias_is_not(layer: nn.Module) -> None:
    weights = prunable_weights(nn.Sequential(OrderedDict(layer=layer)))
    assert list(weights) == ["layer.weight"]
    assert weights["layer.weight"] is layer.weight


def test_a_model_that_is_one_layer() -> None:
    assert names(nn.Linear(2, 3)) == ["weight"]


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm1d(4),
        nn.BatchNorm2d(4),
        nn.LayerNorm(4),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4, affine=True),
        nn.RMSNorm(4),
        nn.PReLU(4),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_normalisation_is_never_prunable(layer: nn.Module) -> None:
    assert names(nn.Sequential(nn.Linear(4, 4), layer)) == ["0.weight"]
    with pytest.raises(NothingToPruneError):
        prunable_weights(layer)


def test_embeddings_on_request_only() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.EmbeddingBag(5, 4), nn.Linear(4, 2))
    assert names(model) == ["2.weight"]
    assert names(model, embeddings=True) == ["0.weight", "1.weight", "2.weight"]


def test_multihead_attention() -> None:
    assert names(nn.MultiheadAttention(4, 2, add_bias_kv=True)) == ["in_proj_weight", "out_proj.weight"]
    assert names(nn.MultiheadAttention(4, 2, kdim=3, vdim=5)) == [
        "q_proj_weight",
        "k_proj_weight",
        "v_proj_weight",
        "out_proj.weight",
    ]


def test_a_transformer_layer() -> None:
    assert names(nn.TransformerEncoderLayer(4, 2, 8)) == [
        "self_attn.in_proj_weight",
        "self_attn.out_proj.weight",
        "linear1.weight",
        "linear2.weight",
    ]


def test_recurrent_layers_and_cells() -> None:
    assert names(nn.LSTM(3, 4, bidirectional=True, proj_size=2)) == [
        "weight_ih_l0",
        "weight_hh_l0",
        "weight_hr_l0",
        "weight_ih_l0_reverse",
        "weight_hh_l0_reverse",
        "weight_hr_l0_reverse",
    ]
    assert names(nn.GRU(3, 4, num_layers=2)) == ["weight_ih_l0", "weight_hh_l0", "weight_ih_l1", "weight_hh_l1"]
    assert names(nn.LSTMCell(3, 4)) == ["weight_ih", "weight_hh"]


def test_the_linear_layer_of_transformers_gpt2() -> None:
    transformers = pytest.importorskip("transformers")
    configuration = transformers.GPT2Config(vocab_size=11, n_positions=8, n_embd=4, n_layer=1, n_head=2)
    model = transformers.GPT2LMHeadModel(configuration)
    block = [
        "transformer.h.0.attn.c_attn.weight",
        "transformer.h.0.attn.c_proj.weight",
        "transformer.h.0.mlp.c_fc.weight",
        "transformer.h.0.mlp.c_proj.weight",
    ]
    # The head is a Linear, tied with the embedding, so its weight is prunable under the embedding's name.
    assert names(model) == ["transformer.wte.weight", *block]
    assert names(model, exclude=["lm_head"]) == block
    assert names(model, embeddings=True, exclude=["*.wte"]) == ["transformer.wpe.weight", *block]


def test_a_class_of_that_name_from_elsewhere_is_no_linear_layer() -> None:
    class Conv1D(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 2))

    with pytest.raises(NothingToPruneError):
        prunable_weights(Conv1D())


def test_a_subclass_of_a_layer_is_that_layer() -> None:
    class Scaled(nn.Linear):
        pass

    assert names(Scaled(2, 2)) == ["weight"]


def test_a_head_tied_with_an_embedding_is_counted_once_under_its_first_name() -> None:
    model = nn.ModuleDict({"embedding": nn.Embedding(5, 4), "head": nn.Linear(4, 5, bias=False)})
    model["head"].weight = model["embedding"].weight
    assert names(model) == ["embedding.weight"]
    assert names(model, embeddings=True) == ["embedding.weight"]
    assert count_parameters(model) == 20
    with pytest.raises(NothingToPruneError):
        names(model, exclude=["head.weight"])
    assert names(model, include=["head"]) == ["embedding.weight"]


def test_parameters_that_share_memory_as_different_objects_are_one_weight() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = nn.Parameter(model[0].weight.data)
    assert names(model) == ["0.weight"]
    assert count_parameters(model) == 16 + 4 + 4
    (shared,) = aliases(model, prunable_weights(model)).values()
    assert [id(parameter) for parameter in shared] == [id(model[0].weight), id(model[1].weight)]


def test_a_layer_used_twice_is_counted_once() -> None:
    layer = nn.Linear(3, 3)
    assert names(nn.Sequential(layer, nn.ReLU(), layer)) == ["0.weight"]


def test_include_and_exclude_match_weights_and_layers() -> None:
    model = nn.ModuleDict(
        {"body": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "Head": nn.Linear(2, 2), "head": nn.Linear(2, 2)}
    )
    assert names(model, include=["body.*"]) == ["body.0.weight", "body.1.weight"]
    assert names(model, include=["body.0", "Head.weight"]) == ["body.0.weight", "Head.weight"]
    assert names(model, exclude=["head"]) == ["body.0.weight", "body.1.weight", "Head.weight"]
    assert names(model, exclude=["[Hh]ead"]) == ["body.0.weight", "body.1.weight"]
    assert names(model, include=["body.?.weight"], exclude=["*.1.*"]) == ["body.0.weight"]


@pytest.mark.parametrize("field", ["include", "exclude"])
def test_a_pattern_that_matches_nothing_is_a_mistake(field: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{field} pattern 'encoder\.\*' matches no parameter.*0\.weight"):
        prunable_weights(nn.Sequential(nn.Linear(2, 2)), Scope(**{field: ("encoder.*",)}))


@pytest.mark.parametrize("patterns", ["head", [1], [None]])
def test_patterns_must_be_a_list_of_names(patterns: object) -> None:
    with pytest.raises(ConfigurationError, match="expected a list of name patterns"):
        Scope(exclude=patterns)  # type: ignore[arg-type]


def test_nothing_left_to_prune_is_an_error_that_says_why() -> None:
    with pytest.raises(NothingToPruneError, match=r"Sequential has no prunable weights.*exclude=\['\*'\]"):
        prunable_weights(nn.Sequential(nn.Linear(2, 2)), Scope(exclude=("*",)))
    with pytest.raises(NothingToPruneError, match="embeddings=False"):
        prunable_weights(nn.Sequential(nn.Embedding(2, 2), nn.LayerNorm(2)))
    with pytest.raises(NothingToPruneError):
        prunable_weights(nn.ReLU())


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_layer_without_weights_is_nothing_to_prune() -> None:
    with pytest.raises(NothingToPruneError):
        prunable_weights(nn.Linear(0, 3))
    assert names(nn.Sequential(nn.Linear(0, 3), nn.Linear(3, 2))) == ["1.weight"]


def test_a_lazy_layer_must_be_shaped_first() -> None:
    model = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2))
    with pytest.raises(ConfigurationError, match=r"0\.weight has no shape yet.*Run one batch"):
        prunable_weights(model)
    model(torch.zeros(1, 5))
    assert names(model) == ["0.weight", "1.weight"]


def test_a_parametrized_weight_is_refused_and_may_be_excluded() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    parametrizations.weight_norm(model[0])
    with pytest.raises(ConfigurationError, match=r"0\.weight is computed by a parametrization"):
        prunable_weights(model)
    assert names(model, exclude=["0", "0.parametrizations.*"]) == ["1.weight"]
    assert names(model, include=["1"]) == ["1.weight"]
    parametrize.remove_parametrizations(model[0], "weight")
    assert names(model) == ["0.weight", "1.weight"]


def test_a_weight_computed_in_a_forward_hook_is_refused_and_may_be_excluded() -> None:
    from torch.nn.utils import prune as torch_prune

    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    torch_prune.l1_unstructured(model[0], "weight", amount=0.5)
    with pytest.raises(ConfigurationError, match=r"0\.weight is computed"):
        prunable_weights(model)
    assert names(model, include=["1"]) == ["1.weight"]
    torch_prune.remove(model[0], "weight")
    assert names(model) == ["0.weight", "1.weight"]


@pytest.mark.filterwarnings("ignore:Complex modules are a new feature")
def test_complex_weights_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"weight holds torch\.complex64"):
        prunable_weights(nn.Linear(2, 2, dtype=torch.complex64))


def test_frozen_weights_are_prunable() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    assert names(model) == ["0.weight", "1.weight"]


def test_frozen_weights_are_left_alone_on_request(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Embedding(3, 4))
    model[0].requires_grad_(False)
    scope = Scope(trainable_only=True)
    assert list(prunable_weights(model, scope)) == ["1.weight"]
    before = model[0].weight.detach().clone()
    for _ in range(2):
        # The second time it is there: the choice is a part of the configuration.
        for round in gossamer.rounds(
            model, folder=tmp_path, scope=scope, stop=gossamer.Stop(rounds=1), cut=gossamer.Cut(per_round=0.5)
        ):
            round.record(loss=1.0, untrained=True)
    assert torch.equal(model[0].weight, before)
    assert int((model[1].weight == 0).sum()) == 8
    with pytest.raises(
        ConfigurationError, match=r"scope\.trainable_only: the folder's run has True, this one has noth"
    ):
        gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1), scope=Scope(include=["1"])).__next__()
    assert Scope.from_tables(scope.to_tables()) == scope
    assert Scope.from_tables(Scope().to_tables()) == Scope()
    assert "trainable_only" not in Scope().to_tables()["scope"]  # As in folders of before.
    # A weight is frozen if all of its layers are.
    model[1].weight = nn.Parameter(model[0].weight.data)
    assert list(prunable_weights(model, scope)) == ["0.weight"]
    model.requires_grad_(False)
    with pytest.raises(NothingToPruneError, match="embeddings=False, trainable_only=True; expected"):
        prunable_weights(model, scope)


def test_wrapped_models_keep_the_plain_names() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    for wrapped in (
        torch.compile(model, backend="eager"),
        nn.DataParallel(model),
        torch.compile(nn.DataParallel(model), backend="eager"),
        nn.DataParallel(torch.compile(model, backend="eager")),
    ):
        weights = gossamer.prunable_weights(wrapped)
        assert list(weights) == ["0.weight"]
        assert weights["0.weight"] is model[0].weight
        assert count_parameters(wrapped) == 6


def test_a_module_that_calls_an_attribute_module_is_not_unwrapped() -> None:
    class Owner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 2)

    assert names(Owner()) == ["module.weight"]


def test_a_weight_tied_to_the_transpose_of_another_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 4, bias=False))
    model[1].weight = nn.Parameter(model[0].weight.data.t())
    with pytest.raises(ConfigurationError, match=r"0\.weight and 1\.weight share memory"):
        prunable_weights(model)
    assert list(prunable_weights(model, Scope(exclude=("1",)))) == ["0.weight"]


def test_weights_that_lie_side_by_side_in_one_block_of_memory_are_apart() -> None:
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(4, 3, bias=False))
    block = torch.randn(6, 4)
    model[0].weight, model[1].weight = nn.Parameter(block[:3]), nn.Parameter(block[3:])
    assert list(prunable_weights(model)) == ["0.weight", "1.weight"]


COMPUTED = {
    "parametrizations.weight_norm": (parametrizations.weight_norm, "parametrize.remove_parametrizations"),
    "parametrizations.spectral_norm": (parametrizations.spectral_norm, "parametrize.remove_parametrizations"),
    "parametrizations.orthogonal": (parametrizations.orthogonal, "parametrize.remove_parametrizations"),
    "weight_norm": (nn.utils.weight_norm, "utils.remove_weight_norm"),
    "spectral_norm": (nn.utils.spectral_norm, "utils.remove_spectral_norm"),
    "prune": (lambda layer: torch_prune.identity(layer, "weight"), "utils.prune.remove"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", COMPUTED)
@pytest.mark.parametrize("bias", [True, False])
def test_the_name_that_the_refusal_gives_can_be_excluded(bias: bool, kind: str, tmp_path: Path) -> None:
    compute, ended_by = COMPUTED[kind]
    model = nn.Sequential(nn.Linear(3, 3, bias=bias), nn.Linear(3, 2))
    compute(model[0])
    for include in (["*"], ["0", "1"], ["?.weight"]):
        with pytest.raises(
            ConfigurationError, match=rf"{ended_by}\), or leave the layer alone: exclude=\['0\.weight'\]"
        ):
            names(model, include=include)
        assert names(model, include=include, exclude=["0.weight"]) == ["1.weight"]
        assert names(model, include=include, exclude=["0"]) == ["1.weight"]
    # What it is computed from is no weight either.
    with pytest.raises(ConfigurationError, match="computes a weight from it"):
        names(model, include=["0.*_*" if "." not in kind else "0.parametrizations.*", "1"])
    for round in gossamer.rounds(
        model, folder=tmp_path, scope=Scope(exclude=["0.weight"]), stop=gossamer.Stop(rounds=1)
    ):
        model(torch.ones(1, 3)).sum().backward()
        round.record(loss=1.0, untrained=True)
    gossamer.check(model)


def test_going_on_from_the_masks_of_torch(tmp_path: Path) -> None:
    """After `remove` its zeros are the smallest weights: they are the first that are cut, if they are not trained."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 5))
    torch_prune.global_unstructured(
        [(model[0], "weight"), (model[1], "weight")], torch_prune.L1Unstructured, amount=0.25
    )
    with pytest.raises(ConfigurationError, match=r"0\.weight is computed.*torch\.nn\.utils\.prune\.remove"):
        gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1))
    for layer in model:
        torch_prune.remove(layer, "weight")
    zeros = {name: (weight == 0).numpy() for name, weight in prunable_weights(model).items()}
    assert sum(int(zero.sum()) for zero in zeros.values()) == 22
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1), cut=gossamer.Cut(per_round=0.5)):
        round.record(loss=1.0, untrained=True)
    for name, mask in gossamer.load_masks(tmp_path, 1).items():
        assert not mask.numpy()[zeros[name]].any()
    assert sum(int((weight == 0).sum()) for weight in prunable_weights(model).values()) == 44


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
def test_a_recurrent_weight_that_is_computed_is_refused() -> None:
    model = nn.LSTM(3, 4)
    nn.utils.weight_norm(model, "weight_hh_l0")
    with pytest.raises(ConfigurationError, match="weight_hh_l0 is computed"):
        names(model)
    assert names(model, exclude=["weight_hh_l0"]) == ["weight_ih_l0"]


def test_a_computed_bias_is_no_weight_that_a_pattern_could_mean() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    parametrize.register_parametrization(model[0], "bias", nn.Identity())
    assert list(prunable_weights(model, Scope(include=["*.weight", "0.bias"]))) == ["0.weight", "1.weight"]
