"""Traces a model to its graph, by torch.fx: what the forward pass calls, in order, and the shapes that come out."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from gossamer.shrink.errors import ShrinkError

Examples = Tensor | Sequence[Tensor]
"""Example inputs: the only argument of the forward pass, or all of them. The first dimension counts examples."""


@dataclass(frozen=True)
class Traced:
    """A model's graph, with the shape of every tensor that it computes for the example inputs."""

    module: fx.GraphModule
    shapes: dict[str, tuple[int, ...]]
    """Node's name -> whole shape; a node that is no tensor has none."""
    output: Tensor
    """What the model itself returns for the example inputs."""


def as_arguments(examples: Examples) -> tuple[Tensor, ...]:
    """The example inputs as positional arguments.

    Raises:
        ShrinkError: they are no tensors.
    """
    arguments = (examples,) if isinstance(examples, Tensor) else tuple(examples)
    if not arguments or not all(isinstance(argument, Tensor) and argument.dim() for argument in arguments):
        raise ShrinkError(
            f"the example inputs are {[type(argument).__name__ for argument in arguments]}; expected a tensor, or a "
            f"sequence of the forward pass's positional arguments, whose first dimension counts examples"
        )
    if any(argument.numel() == 0 for argument in arguments):
        raise ShrinkError(
            f"the example inputs have the shapes {[tuple(argument.shape) for argument in arguments]}; expected at "
            f"least one example, on which the two networks are compared"
        )
    return arguments


def trace(model: nn.Module, examples: tuple[Tensor, ...]) -> Traced:
    """Traces the model, which has to be in evaluation mode. A submodule that cannot be traced is left as one piece.

    Raises:
        ShrinkError: the model's own forward pass cannot be traced, or the trace computes something else.
    """
    module = trace_graph(model, len(examples))
    with torch.no_grad():
        expected = model(*(example.clone() for example in examples))
        recorder = _ShapeRecorder(module)
        got = recorder.run(*(example.clone() for example in examples), *_left_out(model, len(examples)).values())
    if not isinstance(expected, Tensor):
        raise ShrinkError(f"{_name(model)} returns a {type(expected).__name__}; expected a tensor")
    if not torch.allclose(got, expected, rtol=1e-4, atol=1e-5):
        raise ShrinkError(
            f"{_name(model)} computes something else than its torch.fx trace; its forward pass does what a trace "
            f"cannot hold (random numbers, a value changed in place that is read again). Rewrite that part."
        )
    return Traced(module, recorder.shapes, expected)


def trace_graph(model: nn.Module, arguments: int) -> fx.GraphModule:
    """The model's graph for so many positional arguments; others take their defaults.

    Raises:
        ShrinkError: the model's own forward pass cannot be traced.
    """
    whole: set[str] = set()
    while True:
        tracer = _Tracer(whole)
        try:
            return fx.GraphModule(model, tracer.trace(model, concrete_args=_left_out(model, arguments)))
        except Exception as error:
            if not tracer.inside:
                reason = " ".join(str(error).split())[:300]
                raise ShrinkError(
                    f"{_name(model)} cannot be traced with torch.fx ({type(error).__name__}: {reason}); expected a "
                    f"forward pass whose steps do not depend on the values. Move the part that does into a submodule: "
                    f"a submodule that cannot be traced is left as it is."
                ) from error
            whole.add(tracer.inside[-1])


class _Tracer(fx.Tracer):
    """Remembers in which submodule tracing failed, and steps over those that failed before."""

    def __init__(self, whole: set[str]) -> None:
        super().__init__()
        self.whole = whole
        self.inside: list[str] = []

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self.whole or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        self.inside.append(self.path_of_module(m))
        result = super().call_module(m, forward, args, kwargs)
        # Not in a `finally`: after a failure it says where.
        self.inside.pop()
        return result


class _ShapeRecorder(fx.Interpreter):
    """Runs the graph and notes the shape of every tensor."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n.name] = tuple(result.shape)
        return result


def _left_out(model: nn.Module, given: int) -> dict[str, Any]:
    """The forward pass's further arguments, with their defaults."""
    parameters = list(inspect.signature(model.forward).parameters.values())[given:]
    return {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.default is not inspect.Parameter.empty
    }


def _name(model: nn.Module) -> str:
    return type(model).__name__
