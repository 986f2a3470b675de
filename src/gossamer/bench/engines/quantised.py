"""The network in int8, as ONNX Runtime's static quantisation writes it, in each of the forms that engines take."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime import quantization

from gossamer.bench.engines.engine import BothForms, EngineFailed
from gossamer.bench.engines.older_ops import in_opset

CALIBRATION_EXAMPLES = 8
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Form:
    quantisation: dict[str, Any]
    """Of `quantize_static`; weights are int8, activations uint8."""
    older: Callable[[onnx.ModelProto], onnx.ModelProto] = lambda model: model
    """What is quantised."""


_FORMS = {
    "qdq": _Form({"quant_format": quantization.QuantFormat.QDQ, "per_channel": True}),
    "qoperator": _Form({"quant_format": quantization.QuantFormat.QOperator, "per_channel": True}),
    # As DeepSparse was seen to run nearly all of ResNet-50 by kernels of its own; of other forms, such as QDQ or opset
    # 17, it ran 0.3%, and left the rest to its own ONNX Runtime without a word.
    "deepsparse-int8": _Form(
        {
            "quant_format": quantization.QuantFormat.QOperator,
            "per_channel": False,
            "op_types_to_quantize": ["Conv", "MatMul"],
            "extra_options": {"MatMulConstBOnly": True},
        },
        lambda model: in_opset(model, 11, 7),
    ),
}


def quantised(subject: BothForms, form: str) -> Path:
    """A file of the dense form in int8, ranges of seeded inputs; written once for each form.

    Args:
        form: `qdq` or `qoperator`, with a scale for each output channel, or `deepsparse-int8` (QOperator of
            convolutions and of products with constant weights, one scale for a weight, in opset 11).

    Raises:
        EngineFailed: ONNX Runtime cannot quantise it.
    """
    path = subject.folder / f"{form}.onnx"
    if path.exists():
        return path
    chosen = _FORMS[form]
    given = subject.folder / f"{form}-given.onnx"
    onnx.save(chosen.older(subject.dense), given)
    # It recommends a preparation that would not change these networks, and tells which weights get a single scale.
    logging.getLogger().addFilter(_is_error)
    try:
        quantization.quantize_static(
            given,
            path,
            _Reader(subject),
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            **chosen.quantisation,
        )
    except Exception as error:  # of any kind: an attribute that is missing, a shape that is not known
        path.unlink(missing_ok=True)
        raise EngineFailed(f"ONNX Runtime cannot quantise this network: {error}") from error
    finally:
        logging.getLogger().removeFilter(_is_error)
        given.unlink(missing_ok=True)
    return path


def examples(subject: BothForms) -> Iterator[dict[str, Array]]:
    """The measured inputs, and others drawn like them."""
    yield subject.inputs
    rng = np.random.default_rng(1)
    for _ in range(CALIBRATION_EXAMPLES - 1):
        yield {
            name: rng.standard_normal(value.shape).astype(value.dtype) if value.dtype.kind == "f" else value
            for name, value in subject.inputs.items()
        }


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, subject: BothForms) -> None:
        self._examples = examples(subject)

    def get_next(self) -> dict[str, Array] | None:
        return next(self._examples, None)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
