"""A torch network -> ONNX, with a batch of any size and BatchNorm folded."""

import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass

import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils import _pytree

from gossamer.export.constants import prepared
from gossamer.export.errors import ExportError

BATCH = "batch"
"""The name of the first axis of all inputs and outputs."""
SCOPES = "pkg.torch.onnx.name_scopes"
"""The exporter notes there which modules a node comes from."""
WEIGHTED = ("Conv", "Gemm", "MatMul")
"""Ops that carry the name of their module alone."""


@dataclass(frozen=True)
class Traced:
    """A network as ONNX."""

    model: onnx.ModelProto
    modules: dict[str, str]
    """Value -> the path of the module that returns it."""


def to_onnx(model: nn.Module, inputs: Sequence[Tensor]) -> Traced:
    """The network in evaluation mode as ONNX, fp32, its layers with the names of their modules.

    Args:
        model: stays as it is. Masks of `torch.nn.utils.prune` become zeros of the weights.
        inputs: of `forward`, in order; examples that any others of the same shape may follow. Their first axis counts
            the examples and becomes free; if the network does not let it, all sizes stay as they are here.

    Raises:
        ExportError: torch cannot copy or trace the network, or an op has no counterpart in ONNX.
    """
    network = _copied(model).cpu().float().eval()
    examples = tuple(value.cpu() for value in inputs)
    # The tracer takes sizes of 0 and 1 for constants.
    several = tuple(torch.cat([value, value]) if value.dim() and len(value) == 1 else value for value in examples)
    free = [{0: torch.export.Dim(BATCH)} if value.dim() else {} for value in several]
    try:
        exported = _exported(network, several, free)
    except Exception:
        try:
            exported = _exported(network, examples, None)
        except ExportError:
            raise
        except Exception as error:
            raise ExportError(
                f"torch cannot write a {type(model).__name__} as ONNX: {_reason(error)}. Change what it stumbles over, "
                f"or write the ONNX file in your own way and give that to gossamer export."
            ) from error
    modules = {node.output[0]: path for node in exported.graph.node if (path := _module_of(node))}
    # Of a module's nodes the last one makes what it returns.
    returned = {path: value for value, path in modules.items()}
    named = prepared(_named(exported))
    return Traced(named, {value: path for path, value in returned.items()})


def tensors_returned(outputs: object) -> list[Tensor]:
    """What a network returns, in the order of the graph's outputs: dictionaries, lists and tuples laid flat.

    Raises:
        ExportError: there is something else than tensors among it.
    """
    leaves = [leaf for leaf in _pytree.tree_leaves(outputs) if leaf is not None]
    others = [type(leaf).__name__ for leaf in leaves if not isinstance(leaf, Tensor)]
    if others or not leaves:
        raise ExportError(
            f"the network returns {others[0] if others else 'nothing'}; expected tensors, alone or in tuples, lists "
            f"and dictionaries. Give gossamer export a network whose forward returns nothing else"
        )
    return leaves


def output_names(count: int) -> list[str]:
    """Of the graph's outputs."""
    return ["output"] if count == 1 else [f"output_{place}" for place in range(count)]


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
    network: nn.Module, inputs: tuple[Tensor, ...], free: list[dict[int, torch.export.Dim]] | None
) -> onnx.ModelProto:
    with torch.no_grad():
        outputs = network(*inputs)
    count = len(tensors_returned(outputs))
    with _quiet():
        program = torch.onnx.export(
            network,
            inputs,
            dynamo=True,
            dynamic_shapes=None if free is None else tuple(free),
            output_names=output_names(count),
            verbose=False,
        )
    if program is None:
        raise ExportError("torch returned no ONNX program")
    model = onnx.ModelProto()
    model.CopyFrom(program.model_proto)
    return model


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Nodes named for their modules, and nothing left of where the code lies on this machine."""
    taken: set[str] = set()
    for node in model.graph.node:
        path = _module_of(node)
        if node.op_type not in WEIGHTED:
            path = f"{path}/{node.op_type}" if path else node.op_type
        name, number = path or node.op_type, 1
        while name in taken:
            number += 1
            name = f"{path or node.op_type}/{number}"
        taken.add(name)
        node.name = name
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
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
