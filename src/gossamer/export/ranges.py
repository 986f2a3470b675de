"""The ranges of a network's values on examples, as ONNX Runtime's own calibrators find them."""

import io
import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, calibrate

from gossamer.errors import ExportError, first_line
from gossamer.export.form import RANGES_BY
from gossamer.graph.messages import copied
from gossamer.graph.sessions import Feed, dense_session

Ranges = Mapping[str, tuple[float, float]]
"""Value -> the lowest and the highest number of it that int8 tells apart from those beyond."""

OBSERVED: Mapping[str, tuple[type[calibrate.CalibraterBase], Mapping[str, Any]]] = {
    "minmax": (calibrate.MinMaxCalibrater, {}),
    "percentile": (calibrate.PercentileCalibrater, {"symmetric": True, "num_bins": 2048, "percentile": 99.999}),
    # With ONNX Runtime's own 128 bins there is nothing to choose: 128 of them is what it quantises into.
    "entropy": (calibrate.EntropyCalibrater, {"num_bins": 512, "num_quantized_bins": 128}),
}
assert tuple(OBSERVED) == RANGES_BY


class Batches(CalibrationDataReader):  # type: ignore[misc]
    """Batches of examples, read once, as ONNX Runtime asks for them."""

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._left = iter(feeds)

    def get_next(self) -> dict[str, Any] | None:
        feed = next(self._left, None)
        return None if feed is None else dict(feed)


def observed_ranges(model: onnx.ModelProto, values: Collection[str], feeds: Iterable[Feed], by: str) -> Ranges:
    """The ranges of fp32 values of a network.

    Args:
        values: those that are asked for, each of type float.
        feeds: batches of examples. One is in memory at a time.
        by: `minmax` is all that was seen, `percentile` all but the outermost 0.001%, `entropy` what tells the most of
            how the numbers are distributed (Kullback and Leibler's divergence).

    Raises:
        ExportError: ONNX Runtime fails, or a value is infinite or NaN.
    """
    kind, settings = OBSERVED[by]

    class Observing(kind):  # type: ignore[misc, valid-type]
        def select_tensors_to_calibrate(self, model: onnx.ModelProto) -> tuple[set[str], dict[str, Any]]:
            _, described = super().select_tensors_to_calibrate(model)
            return set(values), described

        def create_inference_session(self) -> None:
            # As every network here runs, and without a word.
            self.infer_session = dense_session(self.model)

    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder, "model.onnx")
        try:
            onnx.save(described_as_floats(model, values), path)
            observing = Observing(path, augmented_model_path=str(Path(folder, "observed.onnx")), **settings)
            observing.augment_graph()
            observing.create_inference_session()
            for feed in feeds:
                # What was collected is put together batch by batch: several at once would all be held in memory.
                observing.collect_data(Batches([feed]))
            found = observing.compute_data()
        except Exception as error:  # onnxruntime's errors have no common class
            raise ExportError(f"ONNX Runtime cannot find the ranges of the network: {first_line(error)}") from error
    ranges = {name: _range(found[name]) for name in values}
    wrong = [name for name, ends in ranges.items() if not np.isfinite(ends).all()]
    if wrong:
        raise ExportError(
            f"the value {min(wrong)} has numbers beyond those of fp32 (infinite or NaN) on the inputs that ranges come "
            f"from, so it has no range; give others with --ranges-from, or leave the layers around it in float with "
            f"--keep-float NAME"
        )
    return ranges


def described_as_floats(model: onnx.ModelProto, values: Iterable[str]) -> onnx.ModelProto:
    """A copy that says of these values that they are of type float: ONNX infers nothing behind an op it does not
    know."""
    result = copied(model)
    graph = result.graph
    known = {value.name for value in (*graph.value_info, *graph.input, *graph.output)}
    for name in sorted(set(values) - known):
        info = graph.value_info.add(name=name)
        info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return result


@contextmanager
def quiet() -> Iterator[None]:
    """ONNX Runtime's quantisation prints its progress and warns, on the root of all loggers, of what is said here
    otherwise."""
    root, silent = logging.getLogger(), logging.NullHandler()
    # Without a handler, logging would give the program one.
    root.addHandler(silent)
    root.addFilter(_drop)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        root.removeFilter(_drop)
        root.removeHandler(silent)


def _drop(record: logging.LogRecord) -> bool:
    return False


def _range(found: Any) -> tuple[float, float]:
    low, high = (np.asarray(end, np.float32).reshape(-1) for end in found.range_value)
    return float(low[0]), float(high[0])
