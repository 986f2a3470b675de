"""The network in int8, in each of the forms that engines take."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime import quantization

from gossamer.bench.engines.engine import BothForms, EngineFailed
from gossamer.bench.engines.older_ops import in_opset
from gossamer.export.quantisable import is_quantised
from gossamer.export.quantise import quantised_by_minmax
from gossamer.export.ranges import Batches, quiet

CALIBRATION_EXAMPLES = 8
Array = np.ndarray[Any, Any]

STATIC: Mapping[str, Mapping[str, Any]] = {
    "qdq": {"quant_format": quantization.QuantFormat.QDQ, "per_channel": True},
    "qoperator": {"quant_format": quantization.QuantFormat.QOperator, "per_channel": True},
    # As DeepSparse was seen to run nearly all of ResNet-50 by kernels of its own; of other forms, such as QDQ or opset
    # 17, it ran 0.3%, and left the rest to its own ONNX Runtime without a word.
    "deepsparse-int8": {
        "quant_format": quantization.QuantFormat.QOperator,
        "per_channel": False,
        "op_types_to_quantize": ["Conv", "MatMul"],
        "extra_options": {"MatMulConstBOnly": True},
    },
}
"""Form -> what ONNX Runtime's static quantisation is told; weights are int8, activations uint8."""
DEEPSPARSE_OPSET, DEEPSPARSE_IR = 11, 7


def quantised(subject: BothForms, form: str) -> Path:
    """A file of the dense form in int8, ranges of seeded inputs; written once for each form.

    Args:
        form: by ONNX Runtime's own tool `qdq` or `qoperator`, with a scale for each output channel, or
            `deepsparse-int8` (QOperator of convolutions and of products with constant weights, one scale for a weight,
            in opset 11); or `export`, the plain file of `gossamer export --dense --int8`.

    Raises:
        EngineFailed: it cannot be quantised.
    """
    path = subject.folder / f"{form}.onnx"
    if path.exists():
        return path
    if is_quantised(subject.dense):
        raise EngineFailed("this network is quantised already; the engines dense and gossamer run it as it is")
    write = _write_as_exported if form == "export" else _write_static
    try:
        write(subject, form, path)
    except Exception as error:  # of any kind: an attribute that is missing, a shape that is not known
        path.unlink(missing_ok=True)
        raise EngineFailed(f"this network cannot be quantised: {error}") from error
    return path


def _write_static(subject: BothForms, form: str, path: Path) -> None:
    given = subject.folder / f"{form}-given.onnx"
    old = form == "deepsparse-int8"
    onnx.save(in_opset(subject.dense, DEEPSPARSE_OPSET, DEEPSPARSE_IR) if old else subject.dense, given)
    with quiet():
        quantization.quantize_static(
            given,
            path,
            Batches(examples(subject)),
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            **STATIC[form],
        )
    given.unlink()


def _write_as_exported(subject: BothForms, form: str, path: Path) -> None:
    onnx.save(quantised_by_minmax(subject.dense, examples(subject)), path)


def examples(subject: BothForms) -> Iterator[dict[str, Array]]:
    """The measured inputs, and others drawn like them."""
    yield subject.inputs
    rng = np.random.default_rng(1)
    for _ in range(CALIBRATION_EXAMPLES - 1):
        yield {
            name: rng.standard_normal(value.shape).astype(value.dtype) if value.dtype.kind == "f" else value
            for name, value in subject.inputs.items()
        }
