"""Values that are changed in place and then read again under their old name: nothing may be concluded about them."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

FRESH_MODULES = (nn.Linear, nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm)
FRESH_FUNCTIONS: set[Callable[..., Any]] = {torch.cat, torch.add, operator.add, operator.mul, operator.sub}
"""What returns new memory for certain. Anything else may return a view of what it was given."""


def reread_after_change(graph: fx.Graph) -> set[str]:
    """Names of the nodes whose memory an in-place operation changes while they are still to be read."""
    memory: dict[fx.Node, set[fx.Node]] = {}
    order = {node: position for position, node in enumerate(graph.nodes)}
    reread: set[str] = set()
    for node in graph.nodes:
        shared = {node}
        if not _returns_new_memory(node):
            for argument in node.all_input_nodes:
                shared |= memory[argument]
        for other in shared:
            memory[other] = memory.get(other, set()) | shared
        if _changes_in_place(node):
            earlier = [other for other in memory[node] if order[other] < order[node]]
            if any(order[user] > order[node] for other in earlier for user in other.users):
                reread |= {other.name for other in memory[node]}
    return reread


def _returns_new_memory(node: fx.Node) -> bool:
    if _changes_in_place(node):
        return False
    if node.op == "call_module":
        return isinstance(_module(node), FRESH_MODULES)
    return node.op == "call_function" and node.target in FRESH_FUNCTIONS


def _changes_in_place(node: fx.Node) -> bool:
    if node.op == "call_module":
        return getattr(_module(node), "inplace", False) is True
    if node.op not in ("call_function", "call_method"):
        return False
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    # torch.fx records `x += y` as `x + y`, and `trace` finds out where that makes a difference.
    in_place_name = name.endswith("_") and not name.endswith("__")
    return in_place_name or node.kwargs.get("inplace") is True


def _module(node: fx.Node) -> nn.Module:
    owner = node.graph.owning_module
    assert owner is not None
    return owner.get_submodule(str(node.target))
