"""Sizes as plain numbers while a model is traced: for code that pads by `int(images.shape[-1]) % 2`, or asks
`if features.shape[-1] > 7`. Which dimension was asked for stays in the graph."""

import contextlib
import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx, nn
from torch._subclasses import FakeTensorMode

from gossamer.model.call import Call

NO_SIZES = ("ndim", "dim", "device", "dtype")
ASKED = "asked for as a number"
"""The entry of a node's `meta` that says so: then it is in use, although no other node reads it."""


class KnownSizes:
    """What the nodes of a graph that is being made come to, without computing anything: in shapes only."""

    def __init__(self, root: nn.Module, call: Call) -> None:
        self.root = root
        self.found: dict[fx.Node, Any] = {}
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.given = iter([self.mode.from_tensor(tensor) for tensor in call.tensors()])

    def of(self, node: fx.Node) -> Any:
        """The value of a node."""
        with self.mode, torch.no_grad():
            for earlier in node.graph.nodes:
                if earlier not in self.found:
                    self.found[earlier] = self._run(earlier)
                if earlier is node:
                    break
        return self.found[node]

    def _run(self, node: fx.Node) -> Any:
        args, named = fx.node.map_arg((node.args, node.kwargs), self.found.__getitem__)
        match node.op:
            case "placeholder":
                return next(self.given)
            case "get_attr":
                owner, _, name = str(node.target).rpartition(".")
                return getattr(self.root.get_submodule(owner), name)
            case "call_module":
                return self.root.get_submodule(str(node.target))(*args, **named)
            case "call_method":
                return getattr(args[0], str(node.target))(*args[1:], **named)
        assert callable(node.target)
        return node.target(*args, **named)


class _Asked:
    """Answers as a number what Python wants to have as one."""

    node: Any
    tracer: Any
    """The `trace.Tracer` that made it."""

    def __int__(self) -> int:
        return int(self.tracer.number(self.node))

    def __index__(self) -> int:
        return int(self.tracer.number(self.node))

    def __float__(self) -> float:
        return float(self.tracer.number(self.node))

    def __len__(self) -> int:
        return int(self.tracer.length(self.node))


class SizedProxy(_Asked, fx.Proxy):
    """A value of a traced model."""

    def __getattr__(self, name: str) -> "SizedAttribute":
        return SizedAttribute(self, name)


class SizedAttribute(_Asked, fx.proxy.Attribute):
    """An attribute of such a value, `shape` for example."""


@contextlib.contextmanager
def noted(node: fx.Node) -> Iterator[None]:
    """Notes that a node's value was asked for, if nothing is raised."""
    yield
    node.meta[ASKED] = True


def agreed(node: fx.Node, known: list[KnownSizes], read: Callable[[Any], Any]) -> Any:
    """What `read` makes of a node's value, if it does not depend on the number of examples.

    Raises:
        TraceError: it does, or it cannot be told from shapes alone.
    """
    with noted(node):
        answers = [read(sizes.of(node)) for sizes in known]
        if not known or answers[0] is None or any(answer != answers[0] for answer in answers):
            raise fx.proxy.TraceError(
                f"{node} decides what is computed; expected a size, and not that of the first dimension"
            )
    return answers[0]


def only_asks_for_sizes(node: fx.Node) -> bool:
    """Whether a node asks a tensor for its sizes, or for something that they do not decide."""
    if node.target is getattr:
        return node.args[1] in ("shape", *NO_SIZES)
    return node.op == "call_method" and node.target in ("size", *NO_SIZES)


def sizes_asked_for(node: fx.Node, rank: int) -> list[int]:
    """The dimensions whose lengths matter; all of them if it cannot be told."""
    if node.target in NO_SIZES or (node.target is getattr and node.args[1] in NO_SIZES):
        return []
    if node.target == "size" and len(node.args) == 2 and isinstance(node.args[1], int):
        return [node.args[1]]
    asked: list[int] = []
    for user in node.users:
        if user.target is not operator.getitem or not isinstance(user.args[1], int | slice):
            return list(range(rank))
        if isinstance(user.args[1], int):
            # `batch, channels, height, width = features.shape` takes them all, and may use two.
            asked += [user.args[1]] if user.users or ASKED in user.meta else []
        elif any(isinstance(end, fx.Node) for end in (user.args[1].start, user.args[1].stop, user.args[1].step)):
            return list(range(rank))
        else:
            asked += range(rank)[user.args[1]]
    return asked
