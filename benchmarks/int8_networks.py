"""Whole networks in every form that could be shipped: whether int8 as exported is ever slower than ONNX Runtime's own.

Command: taskset -c 0 python benchmarks/int8_networks.py [NETWORK ...] --json docs/results/int8-networks.jsonl
n: TURNS turns of all forms of a network, at least SECONDS of each
Hardware: one thread of 2 cores of AMD Zen 5 (shared, quiet)
Date: 2026-11-28
"""

from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import nn

TORCHVISION_OPS = ("nms", "qnms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")


@cache
def torchvision_models() -> ModuleType:
    # A wheel for another build of torch lacks its own ops; classifiers need none of them.
    for op in TORCHVISION_OPS:
        torch.library.define(f"torchvision::{op}", "(Tensor x) -> Tensor")
    return import_module("torchvision.models")


def pruned(model: nn.Module, density: float) -> nn.Module:
    """The network with the smallest weights of every layer zero, but for depthwise and first convolutions."""
    torch.manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                weight = module.weight
                if isinstance(module, nn.Conv2d) and (module.groups > 1 or module.in_channels <= 4):
                    continue
                kept = max(1, round(density * weight.numel()))
                threshold = weight.abs().flatten().kthvalue(weight.numel() - kept + 1).values
                weight.mul_(weight.abs() >= threshold)
    return model
