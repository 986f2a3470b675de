"""`gossamer bench select`: global selection on ResNet-50's weights against torch's own pruning."""

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from gossamer.bench.measure import interleaved, machine, memory_mib, reset_peak_memory, spread
from gossamer.prune.select import keep_largest

SHARE_PRUNED = 0.2
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LAYOUTS = ("contiguous", "channels_last", "non-contiguous")


class OneWeight(nn.Module):
    """A module with one weight, which is all that pruning looks at."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_parameter("weight", nn.Parameter(weight))


def resnet_50_shapes() -> list[tuple[int, ...]]:
    """The weights of ResNet-50 (He et al. 2016, table 1): 53 convolutions and the classifier, 25,502,912 in all."""
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7)]
    channels = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            shapes += [(width, channels, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)]
            if block == 0:
                shapes.append((4 * width, channels, 1, 1))
            channels = 4 * width
    return [*shapes, (1000, channels)]


def run(runs: int = 5, device: str = "cpu") -> dict[str, Any]:
    """Times both on the same weights, in turn, and measures each one's memory in a process of its own.

    Returns:
        `speedup` (torch's median / ours), `seconds`, `torch_seconds`, `extra_mib` and `torch_extra_mib` (peak resident
        memory during the call beyond what was there before and the masks that it leaves; on the CPU only), and our
        seconds for every type and layout.
    """
    layers = _layers(device)
    kept = _kept(layers)
    weights = {str(index): layer.weight for index, layer in enumerate(layers)}
    seconds = interleaved(
        {
            "gossamer": _waiting(lambda: keep_largest(weights, kept), device),
            "torch": _waiting(lambda: _torch_prune(layers), device),
        },
        runs,
        after=lambda: _undo(layers),
    )
    ours, theirs = spread(seconds["gossamer"]), spread(seconds["torch"])
    result: dict[str, Any] = {
        "what": "global magnitude pruning of 20% of ResNet-50's weights",
        "weights": sum(weight.numel() for weight in weights.values()),
        "runs": runs,
        "device": device,
        "speedup": theirs["median"] / ours["median"],
        "seconds": ours["median"],
        "torch_seconds": theirs["median"],
        "seconds_spread": ours,
        "torch_seconds_spread": theirs,
        "seconds_by_type": _by_type(runs, device),
    }
    if device == "cpu" and sys.platform == "linux":
        result["extra_mib"] = _memory_in_own_process("gossamer")
        result["torch_extra_mib"] = _memory_in_own_process("torch")
    return {**result, "machine": machine()}


def extra_memory_mib(who: str) -> float:
    """Peak resident memory of one call beyond what was there before and the masks; to be called in a new process."""
    layers = _layers("cpu")
    count = sum(layer.weight.numel() for layer in layers)
    # A small call first, so that what the code itself needs (lazy imports, threads) is there before.
    if who == "gossamer":
        keep_largest({"warm": torch.ones(1000)}, 800)
    else:
        _torch_prune([OneWeight(torch.ones(1000))])
    weights = {str(index): layer.weight for index, layer in enumerate(layers)}
    gc.collect()
    reset_peak_memory()
    before, _ = memory_mib()
    if who == "gossamer":
        left = keep_largest(weights, _kept(layers))
        mask_bytes = sum(mask.numel() for mask in left.values())
    else:
        _torch_prune(layers)
        mask_bytes = 4 * count
    return memory_mib()[1] - before - mask_bytes / 2**20


def _memory_in_own_process(who: str) -> float:
    answer = subprocess.run(
        [sys.executable, "-P", "-m", "gossamer.bench.select", who], capture_output=True, text=True, check=True
    )
    return float(json.loads(answer.stdout))


def _layers(device: str) -> list[OneWeight]:
    generator = torch.Generator().manual_seed(0)
    return [OneWeight((torch.randn(shape, generator=generator) * 0.02).to(device)) for shape in resnet_50_shapes()]


def _kept(layers: list[OneWeight]) -> int:
    count = sum(layer.weight.numel() for layer in layers)
    return count - round(count * SHARE_PRUNED)


def _torch_prune(layers: list[OneWeight]) -> None:
    parameters = [(layer, "weight") for layer in layers]
    prune.global_unstructured(parameters, prune.L1Unstructured, amount=SHARE_PRUNED)


def _undo(layers: list[OneWeight]) -> None:
    """Gives layers that torch pruned their plain, unpruned weights back."""
    for layer in layers:
        if prune.is_pruned(layer):
            original = layer.get_parameter("weight_orig").detach()
            prune.remove(layer, "weight")
            layer.weight.data = original


def _by_type(runs: int, device: str) -> dict[str, float]:
    """Median seconds for each type in each layout."""
    actions: dict[str, Callable[[], object]] = {}
    for type_name, kind in TYPES.items():
        for layout in LAYOUTS:
            weights = {
                str(index): _laid_out(layer.weight.detach().to(kind), layout)
                for index, layer in enumerate(_layers(device))
            }
            kept = sum(weight.numel() for weight in weights.values()) * 4 // 5
            actions[f"{type_name} {layout}"] = _waiting(_selection(weights, kept), device)
    return {name: spread(values)["median"] for name, values in interleaved(actions, runs).items()}


def _selection(weights: dict[str, Tensor], kept: int) -> Callable[[], object]:
    return lambda: keep_largest(weights, kept)


def _laid_out(weight: Tensor, layout: str) -> Tensor:
    if layout == "channels_last" and weight.dim() == 4:
        return weight.contiguous(memory_format=torch.channels_last)
    if layout == "non-contiguous":
        return torch.stack([weight, weight], dim=-1)[..., 0]
    return weight


def _waiting(action: Callable[[], object], device: str) -> Callable[[], object]:
    """The action, and on a GPU the wait for its end."""

    def waiting() -> None:
        action()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()

    return waiting


if __name__ == "__main__":
    print(json.dumps(extra_memory_mib(sys.argv[1])))
