"""Folders of Hugging Face: the layers are those of the network, and what comes out is loaded as what went in."""

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sharded import BITS, same_bits
from torch import nn

import gossamer
from gossamer.errors import ConfigurationError
from gossamer.files import prune
from gossamer.prune.choose import choose
from gossamer.prune.masks import full

transformers = pytest.importorskip("transformers")

LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {"n_layer": 2, "n_embd": 32, "n_head": 4, "vocab_size": 100, "bos_token_id": 0, "eos_token_id": 1}
ENCODER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
BERT = {**ENCODER, "vocab_size": 100}
QWEN_MOE = {"num_experts": 12, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 100}
VIT = {**ENCODER, "image_size": 32, "patch_size": 8}
MIXTURES = ("mixtral", "qwen-moe")

NETWORKS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2)),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)),
    "mixtral": lambda: transformers.MixtralForCausalLM(transformers.MixtralConfig(num_local_experts=11, **LLAMA)),
    "qwen-moe": lambda: transformers.Qwen2MoeForCausalLM(transformers.Qwen2MoeConfig(**QWEN_MOE, **LLAMA)),
    "t5": lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(**T5)),
    "vit": lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**VIT)),
    "bert": lambda: transformers.BertForSequenceClassification(transformers.BertConfig(**BERT)),
}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def saved(folder: Path, name: str, kind: torch.dtype = torch.bfloat16, shard: str = "20KB") -> Any:
    model = NETWORKS[name]().to(kind)
    model.save_pretrained(folder, max_shard_size=shard)
    return model


def pruned_model(model: Any, sparsity: float, structure: str = "unstructured", **scope: Any) -> Any:
    """Pruned in memory, as a round prunes it."""
    weights = gossamer.prunable_weights(model, gossamer.Scope(**scope))
    kept = ceil(sum(weight.numel() for weight in weights.values()) * (1 - Fraction(str(sparsity))))
    masks = choose(gossamer.Cut(structure=structure), model, weights, kept, full(weights), round_number=1)
    with torch.no_grad():
        for name, weight in weights.items():
            weight.view(BITS[weight.element_size()]).mul_(masks[name])
    return model


def assert_same(found: nn.Module, expected: nn.Module) -> None:
    parameters = dict(found.named_parameters(remove_duplicate=False))
    for name, parameter in expected.named_parameters(remove_duplicate=False):
        assert same_bits(parameters[name].detach(), parameter.detach()), name


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("structure", ["unstructured", "2:4"])
def test_a_network_loads_as_it_was_pruned_in_memory(tmp_path: Path, name: str, structure: str) -> None:
    """GPT-2's weights have their inputs first and a head that is tied; bfloat16 has many equal weights."""
    model = saved(tmp_path / "source", name)
    assert len(list((tmp_path / "source").glob("*.safetensors"))) > 1
    exclude = ["*.experts"] if name in MIXTURES and structure == "2:4" else []
    pruned = prune(
        tmp_path / "source",
        tmp_path / "out",
        sparsity=0.6,
        structure=structure,
        scope=gossamer.Scope(exclude=[*exclude]),
    )
    loaded = type(model).from_pretrained(tmp_path / "out")
    assert_same(loaded, pruned_model(model, 0.6, structure, exclude=[*exclude]))
    assert pruned.known_by == f"the layers of {type(model).__name__}"


def test_everything_beside_the_weights_is_kept(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    model = saved(source, "llama")
    (source / "tokenizer.json").write_text("{}")
    (source / "inner").mkdir()
    (source / "inner" / "notes.txt").write_bytes(b"\x00notes")
    (source / "pytorch_model.bin").write_bytes(b"pickled")
    (source / ".cache").mkdir()
    (source / ".cache" / "mark").write_text("of a download")
    pruned = prune(source, out, sparsity=0.5)
    assert pruned.left_behind == ("pytorch_model.bin",)
    names = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert written == names - {"pytorch_model.bin", ".cache/mark"} | {"gossamer-prune.json"}
    for name in sorted(written - {"gossamer-prune.json"}):
        before, after = (source / name).read_bytes(), (out / name).read_bytes()
        assert len(before) == len(after)
        # Headers too: names, types, order and metadata.
        start = 8 + int.from_bytes(before[:8], "little") if name.endswith(".safetensors") else len(before)
        assert before[:start] == after[:start]
    assert type(model).from_pretrained(out).config.to_dict().keys() == model.config.to_dict().keys()


def test_links_of_the_cache_become_files(tmp_path: Path) -> None:
    """The hub's cache holds blobs, and links to them."""
    saved(tmp_path / "saved", "llama")
    snapshot, blobs = tmp_path / "hub" / "snapshots" / "abc", tmp_path / "hub" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted((tmp_path / "saved").iterdir())):
        shutil.copyfile(file, blobs / str(number))
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / str(number))
    prune(snapshot, tmp_path / "out", sparsity=0.5)
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
    transformers.LlamaForCausalLM.from_pretrained(tmp_path / "out")


def test_links_to_elsewhere_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "source", "llama")
    (tmp_path / "secret").write_text("of the user")
    (tmp_path / "source" / "notes.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(ConfigurationError, match="outside of the folder"):
        prune(tmp_path / "source", tmp_path / "out", sparsity=0.5)


def test_a_base_model_in_the_folder_of_its_head(tmp_path: Path) -> None:
    """Files whose names lack the prefix of the network that config.json names."""
    model = saved(tmp_path / "source", "gpt2", shard="1GB")
    file = tmp_path / "source" / "model.safetensors"
    save_file({name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}, file)
    prune(tmp_path / "source", tmp_path / "out", sparsity=0.6)
    loaded = type(model).from_pretrained(tmp_path / "out")
    assert_same(loaded, pruned_model(model, 0.6))


def test_a_tied_weight_that_is_stored_twice_gets_its_zeros_twice(tmp_path: Path) -> None:
    model = saved(tmp_path / "source", "gpt2", shard="1GB")
    file = tmp_path / "source" / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "lm_head.weight": tensors["transformer.wte.weight"].clone()}, file)
    pruned = prune(tmp_path / "source", tmp_path / "out", sparsity=0.6)
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert same_bits(found["lm_head.weight"], found["transformer.wte.weight"])
    assert_same(type(model).from_pretrained(tmp_path / "out"), pruned_model(model, 0.6))
    assert pruned.prunable == sum(weight.numel() for weight in gossamer.prunable_weights(model).values())


def test_patterns_are_for_names_of_the_files_and_of_the_network(tmp_path: Path) -> None:
    model = saved(tmp_path / "source", "mixtral")
    both = gossamer.Scope(include=("*.w1", "*.mlp.experts.down_proj", "model.embed_tokens"))
    pruned = prune(tmp_path / "source", tmp_path / "out", sparsity=0.5, scope=both)
    kinds = {tensor.name.split(".")[-2] for tensor in pruned.tensors}
    assert kinds == {"w1", "w2", "embed_tokens"}
    assert type(model).from_pretrained(tmp_path / "out").num_parameters() == model.num_parameters()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"architectures": ["NobodysModel"]}, "transformers has no NobodysModel"),
        ({"architectures": ["pipeline"]}, "transformers has no pipeline"),
        ({"architectures": None}, "config.json names no architecture"),
        ({"num_hidden_layers": 10**9}, "config.json asks for 1,000,000,000 layers"),
        ({"hidden_size": "many"}, "LlamaForCausalLM cannot be built"),
    ],
)
def test_an_unknown_network_is_pruned_by_names_and_shapes(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    saved(tmp_path / "source", "llama")
    path = tmp_path / "source" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    pruned = prune(tmp_path / "source", tmp_path / "out", sparsity=0.5)
    assert pruned.known_by.startswith(f"their names and shapes: {why}")
    left = {one.stored.name: one.reason for one in pruned.left}
    assert left["model.embed_tokens.weight"] == "an embedding, by its name (--include takes it)"
    assert left["lm_head.weight"] == "the output layer, by its name (--include takes it)"
    assert {tensor.name.split(".")[-2] for tensor in pruned.tensors} == {
        *(f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down"))
    }


def test_a_quantised_network_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "source", "llama")
    path = tmp_path / "source" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(ConfigurationError, match=r"is quantised \(gptq\)"):
        prune(tmp_path / "source", tmp_path / "out", sparsity=0.5)


def test_stacked_experts_have_no_axis_for_groups(tmp_path: Path) -> None:
    configuration = transformers.GptOssConfig(num_local_experts=2, head_dim=8, **LLAMA)
    transformers.GptOssForCausalLM(configuration).to(torch.bfloat16).save_pretrained(tmp_path / "source")
    with pytest.raises(ConfigurationError, match=r"experts.* has no one axis of inputs"):
        prune(tmp_path / "source", tmp_path / "out", sparsity=0.5, structure="2:4")
    pruned = prune(tmp_path / "source", tmp_path / "out", sparsity=0.5)
    assert any("experts" in tensor.name for tensor in pruned.tensors)


def test_what_a_network_computes_from_others_stays_as_it_is(tmp_path: Path) -> None:
    """Wav2Vec2 has a convolution whose weight is computed of a direction and a length."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    convolutions = {"conv_dim": (8, 8), "conv_kernel": (3, 3), "conv_stride": (2, 2), "num_feat_extract_layers": 2}
    positions = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    configuration = transformers.Wav2Vec2Config(**sizes, **convolutions, **positions)
    model = transformers.Wav2Vec2Model(configuration)
    model.save_pretrained(tmp_path / "source")
    pruned = prune(tmp_path / "source", tmp_path / "out", sparsity=0.5)
    left = {one.stored.name: one.reason for one in pruned.left if "pos_conv_embed" in one.stored.name}
    assert {reason for name, reason in left.items() if "bias" not in name} == {"the network computes a weight from it"}
    assert any("conv_layers" in tensor.name for tensor in pruned.tensors)
    type(model).from_pretrained(tmp_path / "out")


def test_rounds_go_on_from_the_result(tmp_path: Path) -> None:
    saved(tmp_path / "source", "llama", torch.float32)
    prune(tmp_path / "source", tmp_path / "out", sparsity=0.5)
    model = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "out")
    for round in gossamer.rounds(model, folder=tmp_path / "run", target_sparsity=0.6, cut=gossamer.Cut(one_shot=True)):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        model(input_ids=torch.ones(1, 4, dtype=torch.long), labels=torch.ones(1, 4, dtype=torch.long)).loss.backward()
        optimizer.step()
        round.record(loss=1.0)
    gossamer.check(model)
