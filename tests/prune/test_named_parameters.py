"""Parameters of one's own layers, made prunable by a pattern."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flat import of_rounds
from torch import Tensor, nn

import gossamer
from gossamer import Scope, prunable_weights
from gossamer.errors import ConfigurationError, GossamerWarning, NothingToPruneError


def names(model: nn.Module, *include: str, **scope: Any) -> list[str]:
    return list(prunable_weights(model, Scope(include, **scope)))


class Experts(nn.Module):
    """Four matrices in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(4, 5, 3))
        self.bias = nn.Parameter(torch.randn(4))
        self.gate = nn.Linear(3, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.einsum("be,eoi,bi->bo", self.gate(inputs).softmax(1), self.up, inputs) + self.bias.sum()


class Network(nn.Module):
    """A matrix of its own, a layer of its own, and layers of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(6, 3))
        self.experts = Experts()
        self.norm = nn.LayerNorm([2, 5])
        self.head = nn.Linear(5, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(torch.relu(self.experts(inputs @ self.w)))


OWN = ["w", "experts.up"]


def test_a_pattern_makes_what_a_module_owns_prunable() -> None:
    model = Network()
    assert names(model, "w") == ["w"]
    assert names(model, "w", "experts.*") == ["w", "experts.up", "experts.gate.weight"]
    assert names(model, "experts") == ["experts.up"]
    assert names(model, "*.up", "head") == ["experts.up", "head.weight"]
    assert names(model, "*", "w") == ["w", "experts.gate.weight", "head.weight"]
    assert names(model, "w", "experts.*", exclude=["*.gate"]) == OWN
    assert prunable_weights(model, Scope(("w",)))["w"] is model.w


def test_without_a_pattern_only_layers_are() -> None:
    assert list(prunable_weights(Network())) == ["experts.gate.weight", "head.weight"]
    assert names(Network(), "*") == ["experts.gate.weight", "head.weight"]


def test_a_pattern_for_nothing_that_can_be_pruned_is_refused_with_the_reason() -> None:
    model = Network()
    model.temperature = nn.Parameter(torch.tensor(1.0))
    model.scale = nn.Parameter(torch.ones(3))
    model.empty = nn.Parameter(torch.zeros(0, 3))
    for pattern, reason in {
        "experts.bias": r"experts\.bias \(a bias or normalisation of Experts\)",
        "norm": r"norm\.weight \(a bias or normalisation of LayerNorm\)",
        "*.bias": r"experts\.bias \(a bias[^)]*\), experts\.gate\.bias \(a bias",
        "temperature": r"temperature \(a single number\)",
        "scale": r"scale \(1 axis\)",
        "empty": r"empty \(no numbers\)",
    }.items():
        with pytest.raises(NothingToPruneError, match=f"matches nothing that can be pruned: .*{reason}"):
            names(model, pattern, "head")
    # A weight and its bias, a matrix of the model and the norm beside it: what can be is, and the rest stays out.
    assert names(model, "head*", "[wn]*") == ["w", "head.weight"]


def test_numbers_that_cannot_be_pruned_are_refused() -> None:
    model = Network()
    model.packed = nn.Parameter(torch.zeros(3, 3, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(ConfigurationError, match=r"packed holds torch\.uint8; expected a real floating-point type"):
        names(model, "packed", "w")
    assert names(model, "w") == ["w"]
    model.later = nn.parameter.UninitializedParameter()
    with pytest.raises(ConfigurationError, match="later has no shape yet"):
        names(model, "later")
    assert names(model, "w") == ["w"]


def test_patterns_on_ordinary_layers_mean_what_they_did() -> None:
    model = nn.ModuleDict(
        {
            "encoder": nn.ModuleDict(
                {
                    "embedding": nn.Embedding(7, 4),
                    "attention": nn.MultiheadAttention(4, 2, add_bias_kv=True),
                    "norm": nn.LayerNorm([4, 4]),
                    "lstm": nn.LSTM(4, 4),
                }
            ),
            "head": nn.Linear(4, 7),
        }
    )
    layers = ["attention.in_proj_weight", "attention.out_proj.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0"]
    assert names(model, "encoder.*") == [f"encoder.{name}" for name in layers]
    assert names(model, "encoder.*", "head.*", embeddings=True)[0] == "encoder.embedding.weight"
    # A pattern for the table alone is taken at its word.
    assert names(model, "*.embedding", "head") == ["encoder.embedding.weight", "head.weight"]


def test_biases_stay_out_however_many_axes_they_have() -> None:
    transformers = pytest.importorskip("transformers")
    configuration = transformers.GptOssConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
        head_dim=8,
    )
    model = transformers.GptOssForCausalLM(configuration)
    path = "model.layers.0.mlp.experts"
    assert model.get_parameter(f"{path}.down_proj_bias").dim() == 2
    assert names(model, "*.experts") == [f"{path}.gate_up_proj", f"{path}.down_proj"]
    with pytest.raises(NothingToPruneError, match=r"down_proj_bias \(a bias or normalisation of GptOssExperts\)"):
        names(model, "*.down_proj_bias")


def test_parameters_beside_those_of_a_known_layer() -> None:
    class Adapted(nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 3)
            self.extra = nn.Parameter(torch.ones(3, 2))

    assert names(nn.Sequential(Adapted()), "0") == ["0.weight", "0.extra"]
    assert names(nn.Sequential(Adapted()), "*") == ["0.weight"]


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64])
def test_masks_are_those_of_one_ranking_over_all(kind: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Network().to(kind)
    scope = Scope(["w", "experts.*"])
    for round in gossamer.rounds(
        model, folder=tmp_path, scope=scope, stop=gossamer.Stop(rounds=1), cut=gossamer.Cut(per_round=0.5)
    ):
        if round.number == 0:
            before = {name: weight.detach().clone() for name, weight in prunable_weights(model, scope).items()}
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3 if round.number else 0.0, momentum=0.9)
        for _ in range(2):
            model(torch.randn(8, 3 * 2, dtype=kind)).square().sum().backward()
            optimizer.step()
        round.record(loss=1.0, untrained=round.number == 0)
    sizes = np.concatenate([weight.double().abs().numpy().ravel() for weight in before.values()])
    kept = np.zeros(len(sizes), bool)
    kept[np.argsort(-sizes, kind="stable")[: (len(sizes) + 1) // 2]] = True
    found = gossamer.load_masks(tmp_path, 1)
    assert list(found) == [*OWN, "experts.gate.weight"]
    assert np.array_equal(np.concatenate([mask.numpy().ravel() for mask in found.values()]), kept)
    gossamer.check(model)
    assert all(torch.equal(model.get_parameter(name) != 0, mask) for name, mask in found.items())


def cut(model: nn.Module, folder: Path, include: list[str], **options: Any) -> dict[str, Tensor]:
    for _ in gossamer.rounds(
        model, folder=folder, scope=Scope(include), **of_rounds(rounds=1, per_round=0.5, **options)
    ):
        pass
    return gossamer.load_masks(folder, 1)


def test_the_first_axis_counts_rows(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = Network()
    for name, mask in cut(model, tmp_path / "c", OWN, structure="channels", allocation="uniform").items():
        # Two of four experts, three of six rows: those of the largest means.
        weight = prunable_weights(model, Scope(OWN))[name]
        assert torch.equal(mask, mask.flatten(1)[:, :1].reshape(-1, *(1,) * (mask.dim() - 1)).expand(mask.shape))
        assert mask.flatten(1).any(1).sum() == weight.shape[0] // 2
    original = {name: weight.detach().clone() for name, weight in prunable_weights(model, Scope(OWN)).items()}
    assert all((original[name] != 0).flatten(1).any(1).sum() > 0 for name in original)


def test_groups_lie_along_the_second_axis(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = nn.ParameterDict({"matrix": torch.randn(6, 8), "stack": torch.randn(4, 8, 3)})
    masks = cut(model, tmp_path, ["*ri*", "stack"], structure="2:4")
    assert (masks["matrix"].reshape(6, 2, 4).sum(2) == 2).all()
    assert (masks["stack"].reshape(4, 2, 4, 3).sum(2) == 2).all()


def test_densities_by_shape_are_those_of_the_formula(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = nn.ParameterDict({"matrix": torch.randn(400, 60), "stack": torch.randn(10, 20, 30)})
    masks = cut(model, tmp_path, ["matrix", "stack"], allocation="erk", criterion="lamp")
    scale = (400 * 60 + 10 * 20 * 30) / 2 / (400 + 60 + 10 + 20 + 30)
    assert int(masks["stack"].sum()) == round(scale * 60)
    assert int(masks["matrix"].sum()) == round(scale * 460)


def test_a_run_resumes_with_the_same_bits(tmp_path: Path) -> None:
    def run(folder: Path, *stops: int) -> dict[str, Tensor]:
        for stop in (*stops, 9):
            torch.manual_seed(0)
            model = Network()
            for round in gossamer.rounds(model, folder=folder, scope=Scope(["*", *OWN]), stop=gossamer.Stop(rounds=2)):
                if round.number == stop:
                    break
                optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
                for _ in range(3):
                    optimizer.zero_grad()
                    model(torch.randn(8, 6)).square().sum().backward()
                    optimizer.step()
                round.record(loss=1.0)
        return dict(model.state_dict())

    whole, in_parts = run(tmp_path / "whole"), run(tmp_path / "parts", 1, 2)
    assert all(torch.equal(whole[name], in_parts[name]) for name in whole)
    assert int((whole["w"] == 0).sum() + (whole["experts.up"] == 0).sum()) > 0


def test_most_of_a_network_outside_the_scope_is_told_once(tmp_path: Path) -> None:
    model = nn.ModuleDict({"table": nn.Embedding(50, 4), "own": Network()})
    with pytest.warns(GossamerWarning) as told:
        gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1))
    (message,) = [str(warning.message) for warning in told]
    prunable = 12 + 10
    assert f"{prunable} of {sum(p.numel() for p in model.parameters())} parameters are prunable, and 278 are" in message
    assert "table.weight (200), own.experts.up (60), own.w (18)" in message
    # Said by the user: nothing is told.
    gossamer.rounds(model, folder=tmp_path, scope=Scope(["own.head"]), stop=gossamer.Stop(rounds=1))
    gossamer.rounds(model, folder=tmp_path, scope=Scope(exclude=["table"]), stop=gossamer.Stop(rounds=1))
    gossamer.rounds(model, folder=tmp_path, scope=Scope(["*", "own.w", "*.up", "table"]), stop=gossamer.Stop(rounds=1))


# --- public networks ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixtral() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    configuration = transformers.MixtralConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=4,
    )
    model: nn.Module = transformers.MixtralForCausalLM(configuration)
    return model


def test_the_experts_of_mixtral(mixtral: nn.Module, tmp_path: Path) -> None:
    path = "model.layers.0.mlp.experts"
    assert names(mixtral, "*.experts") == [f"{path}.gate_up_proj", f"{path}.down_proj"]
    assert f"{path}.down_proj" in names(mixtral, "model.layers.*")
    # Most of the network: prunable without a pattern, as the matrices of a ModuleList would be; the router is not.
    assert [name for name in names(mixtral, "*") if "mlp" in name] == [f"{path}.gate_up_proj", f"{path}.down_proj"]
    gossamer.rounds(mixtral, folder=tmp_path, stop=gossamer.Stop(rounds=1))
    masks = cut(mixtral, tmp_path, ["*.experts"])
    assert sum(int(mask.sum()) for mask in masks.values()) == (4 * 64 * 16 + 4 * 16 * 32) // 2
    tokens = torch.arange(8)[None]
    mixtral(input_ids=tokens, labels=tokens).loss.backward()
    gossamer.check(mixtral)


def test_stacked_experts_have_no_rows(mixtral: nn.Module, tmp_path: Path) -> None:
    for structure in ("2:4", "1x4", "channels"):
        with pytest.raises(ConfigurationError, match=r"gate_up_proj \(MixtralExperts\) has no one dimension of inputs"):
            gossamer.rounds(
                mixtral,
                folder=tmp_path,
                scope=Scope(["*.experts"]),
                stop=gossamer.Stop(rounds=1),
                cut=gossamer.Cut(structure=structure),
            )


def test_the_positions_of_gpt2_by_their_name() -> None:
    transformers = pytest.importorskip("transformers")
    configuration = transformers.GPT2Config(vocab_size=11, n_positions=8, n_embd=4, n_layer=1, n_head=2)
    model = transformers.GPT2LMHeadModel(configuration)
    assert names(model, "*.wpe", "*.c_fc") == ["transformer.wpe.weight", "transformer.h.0.mlp.c_fc.weight"]
    assert "transformer.wpe.weight" not in names(model, "transformer.*")
