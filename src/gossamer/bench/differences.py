"""Whether an engine computes what it should: the time of another computation would mean nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gossamer.bench.engines import BothForms, EngineFailed
from gossamer.bench.engines.engine import is_exact, quantised_form
from gossamer.bench.engines.onnx_runtime import run_quantised
from gossamer.export.quantisable import is_quantised
from gossamer.export.rounding import Rounding

Outputs = Sequence[np.ndarray[Any, Any]]

LARGEST_DIFFERENCE = 1e-3
"""The largest difference of an engine that computes in 32-bit floats, relative to the largest output."""
QUANTISATION = 3.0
"""How many times the error of ONNX Runtime in int8 that of another engine may be: they round at different places, and
some have one scale where others have one for each channel."""
STEPS = 0.05
"""The largest error of outputs of a network that is quantised already: a value that is rounded to the next byte makes
others differ behind it."""
NEGLIGIBLE = 0.01
"""An error of int8 that is none, whatever ONNX Runtime's is."""


def difference(name: str, got: Outputs, expected: Outputs, subject: BothForms) -> float:
    """The largest difference of an output, relative to that output's largest value.

    Args:
        name: the engine's.
        expected: what ONNX Runtime computes in 32-bit floats.

    Raises:
        EngineFailed: it computes something else than rounding explains, in 32-bit floats or in int8.
    """
    if [a.shape for a in got] != [e.shape for e in expected]:
        raise EngineFailed(
            f"{name} gives outputs of shapes {[a.shape for a in got]}, not {[e.shape for e in expected]}"
        )
    differences = [
        float(np.abs(a.astype(np.float64) - e).max() / max(float(np.abs(e).max()), 1e-30)) if e.size else 0.0
        for a, e in zip(got, expected, strict=True)
    ]
    largest = max(differences, default=0.0)
    if is_exact(name) and is_quantised(subject.dense):
        error = _error(got, expected)
        if not error <= STEPS:
            raise EngineFailed(
                f"{name} computes something else: its outputs are off by {error:.1%}, at most {STEPS:.0%} was expected "
                f"of a quantised network; its time would mean nothing"
            )
    elif is_exact(name) and not largest <= LARGEST_DIFFERENCE and not _rounding_explains(got, expected, subject):
        raise EngineFailed(
            f"{name} computes something else: its outputs differ by {largest:.1e} of the largest, at most "
            f"{LARGEST_DIFFERENCE:.0e} was expected; its time would mean nothing"
        )
    form = quantised_form(name)
    if form is not None:
        error, usual = (_error(outputs, expected) for outputs in (got, run_quantised(subject, form)))
        if not error <= QUANTISATION * usual + NEGLIGIBLE:
            raise EngineFailed(
                f"{name} computes something else: its outputs are off by {error:.1%}, those of ONNX Runtime in int8 by "
                f"{usual:.1%}; its time would mean nothing"
            )
    return largest


def _error(got: Outputs, expected: Outputs) -> float:
    """Root mean square of the difference of all outputs, relative to that of the outputs."""
    pairs = [(a.astype(np.float64), e.astype(np.float64)) for a, e in zip(got, expected, strict=True)]
    lost = sum(float(np.square(a - e).sum()) for a, e in pairs)
    whole = sum(float(np.square(e).sum()) for _, e in pairs)
    return float(np.sqrt(lost / max(whole, 1e-30)))


def _rounding_explains(got: Outputs, expected: Outputs, subject: BothForms) -> bool:
    """Whether rounding explains a difference: outputs of which it leaves few digits, such as sums that cancel."""
    rounding = Rounding(subject.dense, [subject.inputs])
    return all(
        float(np.abs(a.astype(np.float64) - e).max(initial=0.0))
        <= rounding.allowed(index, float(np.abs(e).max(initial=0.0)), e.dtype)
        for index, (a, e) in enumerate(zip(got, expected, strict=True))
    )
