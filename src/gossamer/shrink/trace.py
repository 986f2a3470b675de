"""Traces a model to its graph, by torch.fx: what the forward pass calls, in order, and the shapes that come out."""

import copy
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from gossamer.model.call import Call
from gossamer.shrink.arguments import Examples, as_call, twice
from gossamer.shrink.errors import ShrinkError
from gossamer.shrink.outputs import same, tensors_of
from gossamer.shrink.sizes import KnownSizes, SizedProxy, agreed

HARMLESS = {name for name in dir(object) if name != "__getattribute__"} | {
    *("__module__", "__annotations__", "__doc__", "__dict__", "__weakref__", "extra_repr", "reset_parameters"),
}
"""What a class may have of its own without computing something else."""


@dataclass(frozen=True)
class Traced:
    """A model's graph, with the shape of every tensor that it computes for the example inputs."""

    module: fx.GraphModule
    model: nn.Module
    """What was traced."""
    shapes: dict[str, tuple[int, ...]]
    """Node's name -> whole shape; a node that is no tensor has none."""
    numbers: dict[str, int]
    """Node's name -> the number that it comes to for these inputs, for those that are sizes."""
    outputs: tuple[Tensor, ...]
    """The tensors that the model itself returns for the example inputs, wherever in what it returns."""


def trace(model: nn.Module, examples: Examples) -> Traced:
    """Traces the model, which has to be in evaluation mode. A submodule that cannot be traced is left as one piece.

    Raises:
        ShrinkError: the model's own forward pass cannot be traced, or the trace computes something else.
    """
    call = as_call(examples)
    module = trace_graph(model, call)
    with torch.no_grad():
        expected = tensors_of(call.of_copies(model), type(model).__name__)
        recorder = _ValueRecorder(module)
        got = tensors_of(recorder.run(*(tensor.clone() for tensor in call.tensors())), type(model).__name__)
    if any(bool(tensor.isnan().any()) for tensor in expected):
        raise ShrinkError(
            f"{_name(model)} returns NaN for the example inputs, with which nothing can be compared; expected inputs, "
            f"and weights, that it computes numbers with"
        )
    if not same(expected, got):
        raise ShrinkError(
            f"{_name(model)} computes something else than its torch.fx trace; its forward pass does what a trace "
            f"cannot hold (random numbers, a value changed in place that is read again). Rewrite that part."
        )
    return Traced(module, model, recorder.shapes, recorder.numbers, tuple(expected))


def trace_graph(model: nn.Module, call: Call) -> fx.GraphModule:
    """The model's graph for this call; other arguments take their defaults.

    Raises:
        ShrinkError: the model's own forward pass cannot be traced.
    """
    whole: set[str] = set()
    while True:
        tracer = Tracer(whole, call)
        # A forward pass may keep what it computed (YOLO's heads keep their anchors), which are no tensors here.
        traced = copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
        try:
            return _of_graph(model, traced, tracer.trace(traced))
        except Exception as error:
            if not tracer.inside:
                reason = " ".join(str(error).split())[:300]
                raise ShrinkError(
                    f"{_name(model)} cannot be traced with torch.fx ({type(error).__name__}: {reason}); expected a "
                    f"forward pass whose steps do not depend on the values. Move the part that does into a submodule: "
                    f"a submodule that cannot be traced is left as it is."
                ) from error
            whole.add(tracer.inside[-1])


def _of_graph(model: nn.Module, traced: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """The graph with the model's own modules and tensors, and with the constants that tracing found."""
    held: dict[str, Any] = {}
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            name = str(node.target)
            constant = node.op == "get_attr" and name in vars(traced) and not hasattr(model, name)
            held[name] = operator.attrgetter(name)(traced if constant else model)
    return fx.GraphModule(held, graph, class_name=_name(model))


class Tracer(fx.Tracer):
    """Remembers in which submodule tracing failed, steps over those that failed before, and knows sizes."""

    def __init__(self, whole: set[str], call: Call) -> None:
        super().__init__()
        self.whole = whole
        self.call = call
        self.inside: list[str] = []
        self.known: list[KnownSizes] = []
        self.evaluating = False

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        """The tensors that are given, and no others: what takes its default is no part of the graph. (torch's own makes
        a value of each parameter, and cannot call a forward pass behind a wrapper that takes `*args`.)"""
        root: Any = self.root
        given = [self.create_proxy("placeholder", name, (), {}) for name in self.call.names(root)]

        def forward(*tensors: Any) -> Any:
            call = self.call.with_tensors(tensors)
            return root_fn(root, *call.positional, **call.named)

        return forward, given

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = module_qualified_name in self.whole or torch_class(m) is not None
        return known or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if self.evaluating:
            return forward(*args, **kwargs)
        self.inside.append(self.path_of_module(m))
        result = super().call_module(m, forward, args, kwargs)
        # Not in a `finally`: after a failure it says where.
        self.inside.pop()
        return result

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: Any) -> Any:
        return attr_val if self.evaluating else super().getattr(attr, attr_val, parameter_proxy_cache)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return SizedProxy(node, self)

    def to_bool(self, obj: fx.Proxy) -> bool:
        return bool(self._agreed(obj.node, _as_number))

    def iter(self, obj: Any) -> Iterator[fx.Proxy]:
        return iter([obj[index] for index in range(self.length(obj.node))])

    def number(self, node: fx.Node) -> int | float:
        """What a node that holds a size, or arithmetic with sizes, comes to."""
        return self._agreed(node, _as_number)  # type: ignore[no-any-return]

    def length(self, node: fx.Node) -> int:
        """How many entries a node's value has."""
        return self._agreed(node, _length)  # type: ignore[no-any-return]

    def _agreed(self, node: fx.Node, read: Callable[[Any], Any]) -> Any:
        assert isinstance(self.root, nn.Module)
        self.evaluating = True
        try:
            if not self.known:
                # Twice as many examples, too: what differs then depends on their number.
                self.known = [KnownSizes(self.root, call) for call in (self.call, twice(self.call))]
            return agreed(node, self.known, read)
        finally:
            self.evaluating = False


def torch_class(module: nn.Module) -> type[nn.Module] | None:
    """The class of torch.nn that a module is of, or that it computes as: a class derived from it may have another
    `__init__`, but nothing else that is torch's."""
    mine = list(type(module).__mro__)
    torch_s = next(kind for kind in mine if kind.__module__.startswith("torch.nn."))
    if torch_s in (nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict):
        return None
    own = {name for kind in mine[: mine.index(torch_s)] for name in vars(kind)}
    overridden = own & (set(dir(torch_s)) | {"__call__", "__getattr__"}) - HARMLESS
    return None if overridden else torch_s


def _as_number(value: Any) -> Any:
    return value if isinstance(value, bool | int | float) else None


def _length(value: Any) -> int | None:
    return len(value) if isinstance(value, Tensor | tuple | list) else None


class _ValueRecorder(fx.Interpreter):
    """Runs the graph and notes the shape of every tensor, and every whole number."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.numbers: dict[str, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n.name] = tuple(result.shape)
        elif isinstance(result, int):
            self.numbers[n.name] = result
        return result


def _name(model: nn.Module) -> str:
    return type(model).__name__
