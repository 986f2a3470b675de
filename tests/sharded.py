"""Networks as folders of safetensors shards, and what pruning them in memory gives."""

import json
from collections.abc import Mapping
from fractions import Fraction
from math import ceil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gossamer.prune.allocate import apportion, uniform
from gossamer.prune.structure import find_structure

BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def save_shards(folder: Path, tensors: Mapping[str, Tensor], number: int = 2) -> Path:
    """Writes the tensors, one after the other, to as many files, with an index."""
    folder.mkdir(parents=True)
    names = list(tensors)
    index = {}
    for shard in range(number):
        file = f"model-{shard + 1:05d}-of-{number:05d}.safetensors"
        inside = {name: tensors[name].contiguous() for name in names[shard::number]}
        save_file(inside, folder / file, metadata={"format": "pt", "of": "a test"})
        index.update(dict.fromkeys(inside, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder


def load_shards(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def pruned_in_memory(
    weights: Mapping[str, Tensor], sparsity: float, structure: str = "unstructured", layerwise: bool = False
) -> dict[str, Tensor]:
    """The weights with zeros, by what rounds use. Outputs first."""
    sizes = {name: weight.numel() for name, weight in weights.items()}
    kept = ceil(sum(sizes.values()) * (1 - Fraction(str(sparsity))))
    there = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    keep = find_structure(structure).keep
    masks = {}
    if layerwise:
        counts = apportion(uniform({name: weight.shape for name, weight in weights.items()}, kept), sizes, kept)
        for name, weight in weights.items():
            masks |= keep({name: weight}, counts[name], {name: there[name]})
    else:
        masks = keep(weights, kept, there)
    return {name: torch.where(masks[name], weight, torch.zeros_like(weight)) for name, weight in weights.items()}


def same_bits(first: Tensor, second: Tensor) -> bool:
    kind = BITS[first.element_size()]
    return first.dtype == second.dtype and torch.equal(first.contiguous().view(kind), second.contiguous().view(kind))
