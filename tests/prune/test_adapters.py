"""Pruning what adapters lie beside, with the real peft."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gossamer
from gossamer import Scope
from gossamer.errors import GossamerWarning

# peft's and transformers' own.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing. is deprecated:FutureWarning")

TOLD = "prunable weights have adapters beside them"


def language_model(kind: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "gpt2":
        configuration = transformers.GPT2Config(
            vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
        )
        return transformers.GPT2LMHeadModel(configuration)
    configuration = transformers.LlamaConfig(
        vocab_size=11, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    return transformers.LlamaForCausalLM(configuration)


def adapted(kind: str, method: str = "LoraConfig", **options: Any) -> nn.Module:
    peft = pytest.importorskip("peft")
    targets = ["c_attn"] if kind == "gpt2" else ["q_proj", "v_proj"]
    configuration = getattr(peft, method)(target_modules=targets, **options)
    return peft.get_peft_model(language_model(kind), configuration)


def prune(model: nn.Module, folder: Path, scope: Scope) -> None:
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=0.01)
    tokens = torch.arange(8)[None]
    for round in gossamer.rounds(
        model, folder=folder, scope=scope, stop=gossamer.Stop(rounds=1), cut=gossamer.Cut(per_round=0.5)
    ):
        for _ in range(3):
            optimizer.zero_grad()
            model(input_ids=tokens, labels=tokens).loss.backward()
            optimizer.step()
        round.record(loss=1.0)


@pytest.mark.parametrize(
    ("kind", "method", "options"),
    [
        ("gpt2", "LoraConfig", {"r": 2, "fan_in_fan_out": True}),
        ("llama", "LoraConfig", {"r": 2}),
        ("llama", "LoraConfig", {"r": 2, "use_dora": True}),
        ("llama", "LoHaConfig", {"r": 2}),
    ],
    ids=["gpt2", "llama", "dora", "loha"],
)
def test_a_frozen_base_beside_adapters_is_told_with_how_to_merge(
    kind: str, method: str, options: dict[str, Any], tmp_path: Path
) -> None:
    model = adapted(kind, method, **options)
    with pytest.warns(
        GossamerWarning, match=rf"{TOLD}.*base_layer.*merge_and_unload.*gossamer\.enforce\(merged\)"
    ) as told:
        prune(model, tmp_path, Scope(["*.base_layer"]))
    assert len([warning for warning in told if issubclass(warning.category, GossamerWarning)]) == 1
    masks = gossamer.load_masks(tmp_path, 1)
    gossamer.check(model)
    merged = model.merge_and_unload()  # type: ignore[operator]
    name, mask = next(iter(masks.items()))
    weight = merged.get_parameter(name.removeprefix("base_model.model.").replace(".base_layer", ""))
    assert (weight[~mask] != 0).any()
    # What the warning says works.
    gossamer.enforce(merged)
    assert (weight[~mask] == 0).all()
    assert (weight[mask] != 0).all()
    gossamer.check(merged)


@pytest.mark.parametrize("number", [0, 1])
def test_adapters_that_come_and_are_merged_inside_a_round(number: int, tmp_path: Path) -> None:
    """While they are there, the weights have other names."""
    peft = pytest.importorskip("peft")
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1), cut=gossamer.Cut(per_round=0.5)):
        inside = round.number == number
        trained = peft.get_peft_model(model, peft.LoraConfig(target_modules=["0"], r=2)) if inside else model
        optimizer = torch.optim.Adam([weight for weight in trained.parameters() if weight.requires_grad], lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            trained(torch.randn(8, 6)).square().sum().backward()
            optimizer.step()
        if inside:
            trained.merge_and_unload()
            model.requires_grad_(True)
            gossamer.enforce(model)
        round.record(loss=1.0)
    gossamer.check(model)


def test_the_adapters_themselves_are_told_too_and_can_be_excluded(tmp_path: Path) -> None:
    model = adapted("llama", r=2)
    with pytest.warns(GossamerWarning, match=r"own weights are prunable too \(.*lora_A.*\): exclude=\['\*lora\*'\]"):
        gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=1))
    assert not [name for name in gossamer.prunable_weights(model, Scope(exclude=["*lora*"])) if "lora" in name]


def test_what_no_adapter_lies_beside_is_not_told(tmp_path: Path) -> None:
    gossamer.rounds(
        adapted("llama", r=2), folder=tmp_path / "others", scope=Scope(["*.mlp.*"]), stop=gossamer.Stop(rounds=1)
    )
    # It multiplies: zeros stay zero.
    multiplied = adapted("llama", "IA3Config", feedforward_modules=[])
    gossamer.rounds(multiplied, folder=tmp_path / "scales", scope=Scope(["*.base_layer"]), stop=gossamer.Stop(rounds=1))


def test_adapters_that_a_layer_owns(tmp_path: Path) -> None:
    class LoRALinear(nn.Module):
        """As torchtune has it."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4), requires_grad=False)
            self.lora_a = nn.Linear(4, 2, bias=False)
            self.lora_b = nn.Linear(2, 4, bias=False)

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs @ self.weight.T + self.lora_b(self.lora_a(inputs))

    model = nn.Sequential(LoRALinear())
    with pytest.warns(GossamerWarning, match=rf"1 {TOLD} \(0\.weight\)"):
        gossamer.rounds(model, folder=tmp_path, scope=Scope(["0.weight"]), stop=gossamer.Stop(rounds=1))
