"""Says which connections matter: what is lost when a layer's weakest or strongest survivors are taken away."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn

from gossamer.explain.intervals import Interval, mean_change
from gossamer.prune.masks import Masks
from gossamer.tasks import Examples, Metric
from gossamer.tasks.sample import Sample

FRACTIONS = (0.01, 0.05, 0.1, 0.2, 0.5)
"""Shares of a layer's survivors that are removed."""

Which = Literal["weakest", "strongest"]
HOW = (
    "From one layer at a time the stated share of its kept weights, rounded up, is set to zero, those of the "
    "smallest magnitude (weakest) or of the largest (strongest), equal ones in the tensor's order; nothing is "
    "retrained. The metric is measured on the first `examples` validation examples. Interval, 95%, of its change "
    "on examples like these: for scores of 0 or 1 Agresti and Min (2005) for matched pairs, otherwise the normal "
    "approximation."
)


@dataclass(frozen=True)
class AblationPoint:
    """The metric without some of a layer's weights."""

    weight: str
    """Name of the weight tensor."""
    which: Which
    fraction: float
    """The share of the layer's survivors, that was removed."""
    removed: int
    metric: float
    change: float
    """Metric without them, less the metric with them."""
    interval: Interval
    """The interval of the change, 95%."""


@dataclass(frozen=True)
class Ablation:
    """The ablation curves of all layers."""

    metric: str
    baseline: float
    """The metric of the network as it is."""
    examples: int
    points: tuple[AblationPoint, ...]
    how: str = HOW


def ablate(
    model: nn.Module, masks: Masks, examples: Sample | Examples, metric: Metric, fractions: Sequence[float] = FRACTIONS
) -> Ablation:
    """Removes every layer's weakest and strongest survivors in turn, and measures.

    Args:
        model: in evaluation mode; is not changed.
        masks: of the prunable weights; True is kept.
        fractions: shares to remove, each in (0, 1].
    """
    model = copy.deepcopy(model)
    baseline = scores(model, examples, metric)
    points = []
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, mask in masks.items():
        weight = parameters[name].detach()
        kept = weight.clone()
        ranked = _ranked(weight, mask)
        orders: dict[Which, Tensor] = {"weakest": ranked, "strongest": ranked.flip(0)}
        for (which, order), fraction in product(orders.items(), fractions):
            # Rounded first: 0.1 * 30 is a little more than 3 in binary.
            removed = order[: math.ceil(round(fraction * len(order), 9))]
            if len(removed):
                weight.copy_(_without(kept, removed))
                after = scores(model, examples, metric)
                weight.copy_(kept)
                mean = float(after.mean())
                points.append(
                    AblationPoint(
                        name,
                        which,
                        fraction,
                        len(removed),
                        mean,
                        mean - float(baseline.mean()),
                        mean_change(baseline, after),
                    )
                )
    return Ablation(metric.name, float(baseline.mean()), len(examples), tuple(points))


def scores(model: nn.Module, examples: Sample | Examples, metric: Metric) -> Tensor:
    """The metric's score of every example, averaged where one has several; float64, shape (examples,)."""
    found = []
    with torch.no_grad():
        for batch in examples if isinstance(examples, Sample) else Sample(examples):
            score = metric.score(batch.of(model), batch.targets)
            found.append(score.double().reshape(batch.examples, -1).mean(1))
    return torch.cat(found)


def _without(weight: Tensor, positions: Tensor) -> Tensor:
    """The weight with zeros at these positions of its row-major order."""
    return weight.flatten().index_fill(0, positions, 0).reshape(weight.shape)


def _ranked(weight: Tensor, mask: Tensor) -> Tensor:
    """The positions of the kept weights in row-major order, from the smallest magnitude to the largest."""
    kept = mask.flatten().nonzero().flatten()
    return kept[weight.flatten()[kept].abs().argsort(stable=True)]
