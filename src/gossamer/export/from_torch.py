"""A torch network -> ONNX, with a batch of any size and BatchNorm folded."""

import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace

import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from gossamer.errors import ExportError
from gossamer.export.calls import tensors_returned
from gossamer.export.precision import computing_in_fp32, fp32_by_default, in_fp32, precision_of
from gossamer.graph.constants import prepared
from gossamer.graph.messages import copied
from gossamer.graph.names import unused
from gossamer.model.call import Call

BATCH = "batch"
"""The name of the first axis of all inputs and outputs."""
SCOPES = "pkg.torch.onnx.name_scopes"
"""The exporter notes there which modules a node comes from."""
SPECIALIZED = "your code specialized it to be a constant"
"""So torch says in the middle of a long report."""
WEIGHTED = ("Conv", "Gemm", "MatMul")
"""Ops that carry the name of their module alone."""


@dataclass(frozen=True)
class AsOnnx:
    """A network as ONNX."""

    model: onnx.ModelProto
    modules: dict[str, str]
    """Value -> the path of the module that returns it."""
    twin: nn.Module
    """What the model was made of, in evaluation mode; it takes the tensors of the call by position."""
    names: tuple[str, ...]
    """The names of the tensors of the call, as inputs of the model."""
    notes: tuple[str, ...] = ()
    """What is not as in the network given, for people."""


def to_onnx(model: nn.Module, inputs: Sequence[Tensor] | Call) -> AsOnnx:
    """The network in evaluation mode as ONNX, its layers with the names of their modules.

    A network in half, bfloat16 or double precision is written in fp32, its inputs and outputs too; only if it does not
    run so, because it names types itself, it stays in half or double.

    Args:
        model: stays as it is. Masks of `torch.nn.utils.prune` become zeros of the weights.
        inputs: of `forward`; examples that any others of the same shape may follow. The first axis of each counts the
            examples and becomes free; if the network does not let it, all sizes stay as they are here, and `notes`
            says why.

    Raises:
        ExportError: torch cannot copy or trace the network, or an op has no counterpart in ONNX.
    """
    call = inputs if isinstance(inputs, Call) else Call(tuple(inputs))
    call = call.with_tensors([value.cpu() for value in call.tensors()])
    precision = precision_of(model)
    if precision is None:
        return _traced(model, _copied(model).cpu().eval(), call)
    whole = call.with_tensors([in_fp32(value) for value in call.tensors()])
    try:
        with fp32_by_default():
            traced = _traced(model, computing_in_fp32(_copied(model).cpu()).eval(), whole)
        note = (
            f"the network is {precision}: the file takes, computes and returns fp32"
            f"{_told_apart(_copied(model).cpu().eval(), call, traced.twin, whole)}"
        )
    except ExportError as error:
        try:
            traced = _traced(model, _copied(model).cpu().eval(), call)
        except ExportError:
            raise error from None
        note = f"the network does not run in fp32, because it names types itself; it stays {precision}"
    return replace(traced, notes=(*traced.notes, note))


def _traced(model: nn.Module, network: nn.Module, call: Call) -> AsOnnx:
    """
    Args:
        model: as it was given, for its names.
        network: a copy, which is changed.
    """
    taken: set[str] = set()
    names, tensors = [unused(name, taken, "_") for name in call.names(network)], call.tensors()
    _take_tensors(network, call)
    # The tracer takes sizes of 0 and 1 for constants.
    several = [torch.cat([value, value]) if value.dim() and len(value) == 1 else value for value in tensors]
    free = [{0: torch.export.Dim(BATCH)} if value.dim() else {} for value in several]
    notes: tuple[str, ...] = ()
    try:
        exported = _exported(network, several, names, free)
        # The exporter gives up without a word.
        fixed = _why_fixed(network, several, free) if _is_fixed(exported) else None
    except Exception as error:
        fixed = _reason(error)
    if fixed is not None:
        try:
            exported = _exported(network, tensors, names, None)
        except ExportError:
            raise
        except Exception as error:
            raise ExportError(
                f"torch cannot write a {type(model).__name__} as ONNX: {_reason(error)}. Change what it stumbles over, "
                f"or write the ONNX file in your own way and give that to gossamer export."
            ) from error
        if any(value.dim() for value in tensors):
            notes = (f"the sizes of all inputs are fixed, the number of examples too: {fixed}",)
    modules = {node.output[0]: path for node in exported.graph.node if (path := _module_of(node))}
    # Of a module's nodes the last one makes what it returns.
    returned = {path: value for value, path in modules.items()}
    paths = {value: path for path, value in returned.items()}
    return AsOnnx(prepared(_named(exported)), paths, network, tuple(names), notes)


def _take_tensors(network: nn.Module, call: Call) -> None:
    """Makes `forward` take the call's tensors by position, however its own parameters are arranged."""
    forward = network.forward

    def flat(*tensors: Tensor) -> object:
        arranged = call.with_tensors(tensors)
        return forward(*arranged.positional, **arranged.named)

    network.forward = flat


def _is_fixed(model: onnx.ModelProto) -> bool:
    """Whether the number of examples of an input is."""
    axes = [value.type.tensor_type.shape.dim for value in model.graph.input]
    return any(sizes and sizes[0].HasField("dim_value") for sizes in axes)


def _why_fixed(network: nn.Module, tensors: Sequence[Tensor], free: Sequence[Mapping[int, object]]) -> str:
    try:
        with _quiet(), torch.no_grad():
            torch.export.export(network, tuple(tensors), dynamic_shapes={"tensors": tuple(free)})
    except Exception as error:
        return _reason(error)
    return "its outputs are computed for these sizes"


def _told_apart(own: nn.Module, call: Call, twin: nn.Module, whole: Call) -> str:
    """How far the network in its own precision is from itself in fp32, for people."""
    try:
        with torch.no_grad():
            pairs = list(zip(tensors_returned(call.of(own)), tensors_returned(twin(*whole.tensors())), strict=True))
    except Exception as error:
        return f" (torch does not run it in its own precision here: {_reason(error)})"
    pairs = [(a.double(), b.double()) for a, b in pairs if a.numel()]
    difference = max((float((a - b).abs().max()) for a, b in pairs), default=0.0)
    largest = max((float(b.abs().max()) for _, b in pairs), default=0.0)
    return f"; in its own precision it differs by {difference:.3g} on the example inputs (outputs up to {largest:.3g})"


def output_names(count: int) -> list[str]:
    """The names of the graph's outputs."""
    return ["output"] if count == 1 else [f"output_{index}" for index in range(count)]


def _copied(model: nn.Module) -> nn.Module:
    """A network of its own, with the masks of `torch.nn.utils.prune` multiplied into its weights."""
    # Pruning and weight_norm leave the weight that they computed last as an attribute, which torch does not copy.
    computed = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    try:
        network = copy.deepcopy(model, {id(value): value.detach().clone() for value in computed})
    except Exception as error:
        raise ExportError(f"torch cannot copy a {type(model).__name__}: {_reason(error)}") from error
    for module in network.modules():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)
    return network


def _exported(
    network: nn.Module, tensors: Sequence[Tensor], names: Sequence[str], free: Sequence[Mapping[int, object]] | None
) -> onnx.ModelProto:
    with torch.no_grad():
        outputs = network(*tensors)
    count = len(tensors_returned(outputs))
    with _quiet():
        program = torch.onnx.export(
            network,
            tuple(tensors),
            dynamo=True,
            dynamic_shapes=None if free is None else {"tensors": tuple(free)},
            input_names=list(names),
            output_names=output_names(count),
            verbose=False,
        )
    if program is None:
        raise ExportError("torch returned no ONNX program")
    model = copied(program.model_proto)
    return model


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Nodes named for their modules, and nothing left of where the code lies on this machine."""
    taken: set[str] = set()
    for node in model.graph.node:
        path = _module_of(node)
        if node.op_type not in WEIGHTED:
            path = f"{path}/{node.op_type}" if path else node.op_type
        node.name = unused(path or node.op_type, taken, "/")
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    graph = model.graph
    for entry in (*graph.input, *graph.output, *graph.value_info, *graph.initializer, *model.functions, graph, model):
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")
    return model


def _module_of(node: onnx.NodeProto) -> str:
    """The path of the innermost module that a node comes from; empty if it is the network itself."""
    for entry in node.metadata_props:
        if entry.key == SCOPES:
            # A list of texts as Python writes it, the op itself at the end.
            scopes = json.loads(entry.value.replace("'", '"'))
            return str(scopes[-2]) if len(scopes) > 1 else ""
    return ""


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns and reports much that its user cannot act upon."""
    names = ("torch.onnx", "torch.export", "torch.fx", "torch._dynamo", "torch._guards", "onnxscript", "onnx_ir")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """The innermost cause, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    if SPECIALIZED in str(error):
        return "its forward takes the number of examples for a constant"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
