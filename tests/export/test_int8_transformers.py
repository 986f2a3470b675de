"""`gossamer export --int8` of transformers that the library of that name makes: all layers sparse, the outputs kept."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from export.onnx_graphs import run_dense, run_sparse
from small_run import printed
from torch import nn

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("native_library")

VOCABULARY, TOKENS, EXAMPLES = 100, 64, 4
EAGER: dict[str, Any] = {"attn_implementation": "eager"}


def distilbert() -> nn.Module:
    configuration = transformers.DistilBertConfig(
        vocab_size=VOCABULARY, max_position_embeddings=TOKENS, n_layers=2, n_heads=2, dim=256, hidden_dim=512, **EAGER
    )
    network: nn.Module = transformers.DistilBertModel(configuration)
    return network


def gpt2() -> nn.Module:
    configuration = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=TOKENS, n_embd=256, n_layer=2, n_head=2, use_cache=False, **EAGER
    )
    network: nn.Module = transformers.GPT2LMHeadModel(configuration)
    return network


def vit() -> nn.Module:
    configuration = transformers.ViTConfig(
        image_size=64,
        patch_size=8,
        hidden_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=512,
        num_labels=4,
        **EAGER,
    )
    network: nn.Module = transformers.ViTForImageClassification(configuration)
    return network


NETWORKS = {"distilbert": distilbert, "gpt2": gpt2, "vit": vit}


def pruned(network: nn.Module) -> nn.Module:
    """With 95% zeros in every linear layer and in those that GPT-2 has for it, and biases that differ."""
    for name, parameter in network.named_parameters():
        with torch.no_grad():
            if parameter.ndim == 1 and name.endswith("bias"):
                parameter.normal_(std=0.02)
            if parameter.ndim == 2 and "embed" not in name and "wpe" not in name and "wte" not in name:
                sizes = parameter.abs()
                parameter[sizes < sizes.flatten().quantile(0.95)] = 0
    return network.eval()


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # of torch's exporter
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_transformer_runs_sparse_in_int8(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = pruned(NETWORKS[kind]())
    if kind == "vit":
        name, examples = "pixel_values", rng.normal(size=(EXAMPLES, 3, 64, 64)).astype(np.float32)
    else:
        name, examples = "input_ids", rng.integers(0, VOCABULARY, (EXAMPLES, TOKENS))
    path, ranges, out = tmp_path / "network.onnx", tmp_path / "ranges.npz", tmp_path / "int8.onnx"
    torch.onnx.export(
        network, (torch.from_numpy(examples[:1]),), path, input_names=[name], dynamo=True, external_data=False
    )
    np.savez(ranges, **{name: examples})
    output = printed("export", path, "--int8", "--ranges-from", ranges, "-o", out)
    linear = 13 if kind == "vit" else 12 if kind == "distilbert" else 9
    assert f"{linear + (kind == 'vit')} of {linear + (kind == 'vit')} layers compute in int8" in output
    written = onnx.load(out)
    assert sum(node.op_type in ("QuantisedMatMul", "DequantisedMatMul") for node in written.graph.node) >= linear - 1
    for number in range(EXAMPLES):
        feed = {name: examples[number : number + 1]}
        expected, got = run_dense(onnx.load(path), feed)[0], run_sparse(written, feed)[0]
        assert np.sqrt(np.mean((got - expected) ** 2)) < 0.05 * np.sqrt(np.mean(expected**2))
