"""`gossamer bench enforce`: what it costs to keep zeros zero (ResNet-20, batches of 128 images of CIFAR-10's size)."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from gossamer.bench.measure import interleaved, machine, spread
from gossamer.prune import masks as masks_of
from gossamer.prune.attach import mask_of
from gossamer.prune.enforce import attach_masks, enforce
from gossamer.prune.prunable import prunable_weights
from gossamer.prune.select import keep_largest
from gossamer.tasks import find_task, initial_model, processor

TASK = "resnet-20"
KEPT_SHARE = 0.2
BATCH = 128


def run(runs: int = 30) -> dict[str, Any]:
    """Times training steps of two copies of the network in turn, one of them with masks attached.

    Returns:
        `overhead` (median of the paired differences / plain median), `plain_seconds`, `masked_seconds` (medians), and
        `hooks_share`: the time of the hooks' own work, measured by itself, as a share of the plain step.
    """
    processor.keep_freed_memory()
    plain, masked = _model(), _model()
    weights = prunable_weights(masked)
    masks = keep_largest(weights, int(KEPT_SHARE * masks_of.count_prunable(masks_of.full(weights))))
    attach_masks(masked, weights, masks)
    steps = {"plain": _step(plain), "masked": _step(masked)}
    seconds = interleaved(steps, runs, warmups=3)
    differences = [
        with_masks - without for with_masks, without in zip(seconds["masked"], seconds["plain"], strict=True)
    ]
    plain_spread, masked_spread = spread(seconds["plain"]), spread(seconds["masked"])
    hooks = _hooks_seconds(masked, weights)
    return {
        "what": f"training step of {TASK}, batch {BATCH}, with masks at {KEPT_SHARE:.0%} density against without",
        "runs": runs,
        "overhead": spread(differences)["median"] / plain_spread["median"],
        "plain_seconds": plain_spread["median"],
        "masked_seconds": masked_spread["median"],
        "plain_spread": plain_spread,
        "masked_spread": masked_spread,
        "hooks_seconds": hooks,
        "hooks_share": hooks / plain_spread["median"],
        "machine": machine(),
    }


def _model() -> nn.Module:
    return initial_model(find_task(TASK), seed=0)


def _step(model: nn.Module) -> Callable[[], None]:
    recipe = find_task(TASK).recipe
    optimizer = recipe.optimizer(model)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(BATCH, 3, 32, 32, generator=generator).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(0, 10, (BATCH,), generator=generator)
    bfloat16 = processor.precision(recipe) == "bfloat16"

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            outputs = model(inputs)
        F.cross_entropy(outputs.float(), targets).backward()
        optimizer.step()

    return step


def _hooks_seconds(model: nn.Module, weights: Mapping[str, nn.Parameter], repetitions: int = 100) -> float:
    """Seconds a step that the hooks themselves take, without the noise of the passes around it: the gradient hook of
    every weight, and what follows an optimizer's step (weights, gradients, slots)."""
    attached = [(mask, weight) for weight in weights.values() if (mask := mask_of(weight)) is not None]
    started = time.perf_counter()
    for _ in range(repetitions):
        for mask, weight in attached:
            mask(weight)
        enforce(model)
    return (time.perf_counter() - started) / repetitions
