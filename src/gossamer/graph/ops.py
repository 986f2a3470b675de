"""The ops that gossamer-runtime adds to ONNX Runtime, one table: what each reads, and what it does in ONNX's own ops.

Rewriting, its inverse (`gossamer.export.dense`), checks of layers, predicted times and docs/format.md read it; a test
compares it with the runtime's own registration (runtime/native/ort).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import onnx

from gossamer.graph.activations import ATTRIBUTES
from gossamer.graph.layer_shape import LayerShape
from gossamer.graph.terms import (
    Terms,
    byte_average_terms,
    byte_conversion_terms,
    byte_move_terms,
    byte_pool_terms,
    conversion_terms,
    edge_terms,
    panel_pool_terms,
    sparse_terms,
    stem_terms,
)

DOMAIN = "gossamer"
DOMAIN_VERSION = 1
STORED = "gossamer.stored"
"""The domain of the functions that put weights together (`gossamer.export.compress`); files bring them along."""
ARITHMETIC = "arithmetic"
"""The attribute of an op that says what its products are computed in: float32, which is what is meant without it, or
float16 where the processor has its instructions, or float16_rounded, the same numbers by any processor."""

Lies = Literal["planes", "panels", "packed", "constant", "bytes", "byte panels", "any planes", "integers", "table"]
"""How an input lies in memory: as in ONNX, in panels (docs/kernels.md), as the bytes of a sparse weight
(docs/format.md), as a constant of floats; values of uint8 as in ONNX and in panels, as in ONNX of floats, uint8 or
int8; as a constant of int32, or of 256 bytes."""
TYPES: dict[Lies, str] = {
    "planes": "float",
    "panels": "float",
    "packed": "uint8",
    "constant": "float",
    "bytes": "uint8",
    "byte panels": "uint8",
    "any planes": "undefined",
    "integers": "int32",
    "table": "uint8",
}
"""The type of an input, as the runtime names it."""


@dataclass(frozen=True)
class OpInput:
    """An input of an op."""

    what: str
    """Its shape, for people."""
    lies: Lies
    optional: bool = False


@dataclass(frozen=True)
class OpWork:
    """What an op has to do, as far as its time depends on it."""

    shape: LayerShape
    density: float = 1.0
    """Share of the weights that are not zero."""
    pooled: bool = False
    """Whether a stem takes the max pooling behind it along."""


@dataclass(frozen=True)
class Op:
    """An op of the domain `gossamer`; its output is one tensor, of floats or of bytes."""

    name: str
    inputs: tuple[OpInput, ...]
    """The activation; of a layer also its weight, its bias and, where it has four, a residual of the output's shape.
    Of a layer on bytes: its weight, scales, bias, residual and table."""
    attributes: tuple[str, ...]
    makes: Literal["planes", "panels", "bytes", "byte panels"]
    dense: str
    """The op of ONNX that computes the same on planes, before bias, residual, activation and pooling."""
    carried: tuple[str, ...]
    """Attributes that both ops have."""
    terms: Callable[[OpWork], Terms]
    """What its time is made of."""
    notes: str = ""
    """About its attributes, for people."""

    @property
    def has_weight(self) -> bool:
        return len(self.inputs) > 1

    @property
    def converts(self) -> bool:
        """Whether it does nothing but change how a value lies."""
        return self.dense == "Identity"

    @property
    def quantised(self) -> bool:
        """Whether its values are bytes."""
        return any(given.lies in ("bytes", "byte panels") for given in self.inputs) or self.makes == "byte panels"

    @property
    def makes_panels(self) -> bool:
        return self.makes in ("panels", "byte panels")

    @property
    def residual(self) -> int:
        """The index of its residual among its inputs; it may have none."""
        return next((i for i, given in enumerate(self.inputs) if given.what == "residual"), len(self.inputs))


_PANEL = OpInput("P", "panels")
_VALUE = OpInput("X `[n, c, h, w]` or `[n, c, length]`", "planes")
_IMAGE = OpInput("X `[n, c, h, w]`", "planes")
_ROWS = OpInput("X `[..., k]`", "planes")
_PACKED = "packed weight `[out, in / group, kh, kw]`"
_BIAS = OpInput("bias", "constant", optional=True)
_WINDOW = ("kernel_shape", "strides", "dilations", "pads")


def _conversion(work: OpWork) -> Terms:
    shape = work.shape
    return conversion_terms(shape.inputs, shape.height, shape.width, shape.images)


_OPS = (
    Op("ToPanel", (_VALUE,), (), "panels", "Identity", (), _conversion),
    Op("FromPanel", (_PANEL,), ("channels",), "planes", "Identity", (), _conversion),
    Op(
        "SparseConv",
        (_PANEL, OpInput(f"{_PACKED} or `[out, in / group, k]`", "packed"), _BIAS, OpInput("residual", "panels", True)),
        (*_WINDOW, "group", "output_channels", *ATTRIBUTES, ARITHMETIC),
        "panels",
        "Conv",
        (*_WINDOW, "group"),
        lambda work: sparse_terms(work.shape, work.density),
        "as ONNX's Conv, without `auto_pad`",
    ),
    Op(
        "StemConv",
        (_IMAGE, OpInput("dense weight `[out, c, kh, kw]` (float)", "constant"), _BIAS),
        ("kernel_shape", "strides", "pads", "output_channels", "max_pool", *ATTRIBUTES),
        "panels",
        "Conv",
        ("kernel_shape", "strides", "pads"),
        lambda work: stem_terms(work.shape, pooled=work.pooled),
        "the stride along columns 1 or 2; `max_pool` is 1 for 3x3, stride 2, padding 1 after the activation",
    ),
    Op(
        "PanelMaxPool",
        (_PANEL,),
        (*_WINDOW, "channels"),
        "panels",
        "MaxPool",
        _WINDOW,
        lambda work: panel_pool_terms(work.shape),
        "as ONNX's MaxPool, without `auto_pad` and `ceil_mode`",
    ),
    Op(
        "SparseMatMul",
        (_ROWS, OpInput("packed weight `[n, k]`", "packed"), _BIAS, OpInput("residual", "planes", True)),
        ("output_features", *ATTRIBUTES, ARITHMETIC),
        "planes",
        "MatMul",
        (),
        lambda work: sparse_terms(work.shape, work.density),
    ),
)
_BYTES = OpInput("P", "byte panels")
_SCALES = OpInput("scales (float, one an output channel)", "constant")
_INTEGERS = OpInput("bias (int32)", "integers", optional=True)
_TABLE = OpInput("table (256 uint8)", "table", optional=True)
_REQUANTISATION = (
    *("input_zero_point", "output_zero_point", "lower", "upper"),
    *("residual_scale", "residual_zero_point", "sum_step", "sum_lower", "sum_upper"),
)


def _byte_conversion(work: OpWork) -> Terms:
    shape = work.shape
    return byte_conversion_terms(shape.inputs, shape.height, shape.width, shape.images)


def _byte_edge(work: OpWork, *, enters: bool) -> Terms:
    return edge_terms(work.shape.values_read, enters=enters, panels=True)


def _byte_pool(work: OpWork) -> Terms:
    return byte_pool_terms(work.shape)


def _byte_average(work: OpWork) -> Terms:
    return byte_average_terms(work.shape)


def _byte_move(work: OpWork) -> Terms:
    shape = work.shape
    return byte_move_terms(shape.outputs, shape.height, shape.width, shape.images)


def _of_bytes(work: OpWork) -> Terms:
    return sparse_terms(replace(work.shape, quantised=True), work.density)


_QUANTISED = (
    Op(
        "QuantisedToPanel",
        (OpInput("X, `[n, c, h, w]` or `[n, c, length]`, of float, uint8 or int8", "any planes"),),
        ("zero_point", "scale"),
        "byte panels",
        "Identity",
        (),
        _byte_conversion,
        "`scale` is that of floats",
    ),
    Op("QuantisedFromPanel", (_BYTES,), ("channels",), "bytes", "Identity", (), _byte_conversion),
    Op(
        "DequantisedFromPanel",
        (_BYTES,),
        ("channels", "scale", "zero_point"),
        "planes",
        "Identity",
        (),
        partial(_byte_edge, enters=False),
    ),
    Op(
        "QuantisedConv",
        (
            _BYTES,
            OpInput(f"{_PACKED} or `[out, in / group, k]` (int8)", "packed"),
            _SCALES,
            _INTEGERS,
            OpInput("residual", "byte panels", optional=True),
            _TABLE,
        ),
        (*_WINDOW, "group", "output_channels", *_REQUANTISATION),
        "byte panels",
        "QLinearConv",
        (*_WINDOW, "group"),
        _of_bytes,
        "as ONNX's Conv, without `auto_pad`",
    ),
    Op(
        "QuantisedMatMul",
        (
            OpInput("X `[..., k]`", "bytes"),
            OpInput("packed weight `[n, k]` (int8)", "packed"),
            _SCALES,
            _INTEGERS,
            OpInput("residual", "bytes", optional=True),
            _TABLE,
        ),
        ("output_features", *_REQUANTISATION),
        "bytes",
        "QLinearMatMul",
        (),
        _of_bytes,
    ),
    Op(
        "DynamicMatMul",
        (
            OpInput("X `[..., k]`", "planes"),
            OpInput("packed weight `[n, k]` (int8)", "packed"),
            OpInput("weight scales", "constant"),
            _BIAS,
            OpInput("residual", "planes", optional=True),
        ),
        ("output_features", *ATTRIBUTES),
        "planes",
        "MatMul",
        (),
        _of_bytes,
    ),
    Op(
        "DequantisedMatMul",
        (
            OpInput("X `[..., k]`", "bytes"),
            OpInput("packed weight `[n, k]` (int8)", "packed"),
            OpInput("weight scales", "constant"),
            OpInput("X's scale", "planes"),
            OpInput("X's zero point", "bytes"),
            _BIAS,
            OpInput("residual", "planes", optional=True),
        ),
        ("output_features", *ATTRIBUTES),
        "planes",
        "MatMul",
        (),
        _of_bytes,
    ),
    Op(
        "QuantisedMaxPool",
        (_BYTES,),
        (*_WINDOW, "channels"),
        "byte panels",
        "MaxPool",
        _WINDOW,
        _byte_pool,
        "as `PanelMaxPool`",
    ),
    Op(
        "QuantisedAveragePool",
        (_BYTES,),
        (
            *(*_WINDOW, "channels", "input_scale", "input_zero_point"),
            *("output_scale", "output_zero_point", "count_include_pad"),
        ),
        "byte panels",
        "AveragePool",
        (*_WINDOW, "count_include_pad"),
        _byte_average,
        "as `PanelMaxPool`",
    ),
    Op(
        "QuantisedConcat",
        (OpInput("P, P, ...", "byte panels"),),
        ("channels", "input_scales", "input_zero_points", "output_scale", "output_zero_point"),
        "byte panels",
        "Concat",
        (),
        _byte_move,
        "the first three have a number for each input",
    ),
    Op(
        "QuantisedResize",
        (_BYTES,),
        ("channels", "rows", "columns"),
        "byte panels",
        "Resize",
        (),
        _byte_move,
        "whole factors, nearest neighbours",
    ),
)
OPS = {op.name: op for op in (*_OPS, *_QUANTISED)}


def op_of(node: onnx.NodeProto) -> Op | None:
    """The op of gossamer's that a node is; None for others' and for those that this version does not know."""
    return OPS.get(node.op_type) if node.domain == DOMAIN else None


def packed_inputs(node: onnx.NodeProto) -> list[str]:
    """The values that a node of gossamer's reads as packed weights."""
    op = op_of(node)
    given = zip(node.input, op.inputs, strict=False) if op is not None else ()
    return [name for name, expected in given if expected.lies == "packed" and name]


def is_sparse(model: onnx.ModelProto) -> bool:
    """Whether the model has nodes of gossamer's domain."""
    return any(node.domain == DOMAIN for node in model.graph.node)


def as_table(*, quantised: bool = False) -> str:
    """The table as Markdown, for docs/format.md.

    Args:
        quantised: of the ops whose values are bytes.
    """
    rows = [
        (
            f"`{op.name}`",
            ", ".join(f"{given.what}{'?' if given.optional else ''}" for given in op.inputs),
            "; ".join(filter(None, (", ".join(f"`{name}`" for name in op.attributes), op.notes))),
            "a change of layout" if op.converts else f"`{op.dense}`",
        )
        for op in (_QUANTISED if quantised else _OPS)
    ]
    head = "| op | inputs | attributes | on planes |\n|---|---|---|---|\n"
    return head + "".join(f"| {' | '.join(row)} |\n".replace("|  |", "| |") for row in rows)
