"""How a network is stored in its file."""

import math
from dataclasses import dataclass, fields
from pathlib import Path

from gossamer.errors import ConfigurationError

RANGES_BY = ("minmax", "percentile", "entropy")
"""The ways to find the range of a value (`gossamer.export.ranges`)."""
ACTIVATIONS = ("uint8", "int8")
AUTO = "auto"
"""Leaves those layers in float that cost most, as many as needed."""
LARGEST_DROP = 0.01
"""A point of accuracy; of a metric beyond 1, which may be in percent or a perplexity, this share of it."""


@dataclass(frozen=True)
class FileForm:
    """What is stored, and how.

    Raises:
        ConfigurationError: a value is out of range, or two contradict each other.
    """

    dense: bool = False
    """Standard ops only, zeros and all, for any ONNX runtime."""
    half: bool = False
    """Store weights as fp16: half the file. They are computed with as fp32."""
    half_arithmetic: bool = False
    """Let sparse layers multiply in fp16 where the device's processor can (64-bit ARM with ARMv8.2's fp16, such as
    Cortex-A76): twice the numbers an instruction. A sum may be off by 1.7% of the absolute values that are added; in
    the mean it is off by 0.07% of its own size. Other processors compute in fp32."""
    half_difference: float = 0.01
    """The share of an output's largest number that fp16 weights, each off by up to 0.05%, or fp16 arithmetic may
    change; else refused."""
    int8: bool = False
    """Compute the layers in int8: a quarter of the bytes. Their weights get a scale for each output channel, the values
    between them ranges that are found on examples. With --dense as plain QuantizeLinear and DequantizeLinear."""
    ranges_from: Path | None = None
    """Examples that --int8 finds ranges on: an .npz file with an array for each input by its name, the examples along
    the first axis, or a folder of such; of one input also .npy. By default 512 training examples of a run or task."""
    ranges_by: str = "minmax"
    """How --int8 finds a range: minmax, percentile (99.999%) or entropy."""
    activations: str = "uint8"
    """The type of --int8's values between layers: uint8, or int8 for a runtime that wants it. Sparse ops take both."""
    smallest: bool = False
    """The smallest file: weights in levels, as few as --max-drop allows, entropy-coded; every layer's in sparse ops,
    whether those are faster or not."""
    max_drop: float | None = None
    """The largest loss of the validation metric that --int8 or --smallest may cost, in the metric's units, such as
    0.01; else refused. By default 0.01, or 1% of a metric beyond 1."""
    keep_float: tuple[str, ...] = ()
    """A layer that --int8 leaves in float (shell pattern; repeatable); auto: those that cost most, until --max-drop is
    met."""

    def __post_init__(self) -> None:
        if not 0 <= self.half_difference <= 1:
            raise ConfigurationError(f"--half-difference is {self.half_difference}; expected a share from 0 to 1")
        if self.dense and self.half:
            raise ConfigurationError("--dense writes fp32 weights that every runtime reads; leave --half out")
        if self.smallest and (self.dense or self.half or self.int8):
            other = "--dense" if self.dense else "--half" if self.half else "--int8"
            raise ConfigurationError(f"--smallest stores weights in coded levels; leave {other} out")
        if self.half_arithmetic and (self.dense or self.int8 or self.smallest):
            other = "--dense" if self.dense else "--int8" if self.int8 else "--smallest"
            raise ConfigurationError(f"{other} and arithmetic in fp16 do not go together; leave --half-arithmetic out")
        if self.half and self.int8:
            raise ConfigurationError("--int8 stores a weight in one byte and --half in two; leave one of them out")
        for name, allowed in {"ranges_by": RANGES_BY, "activations": ACTIVATIONS}.items():
            if getattr(self, name) not in allowed:
                raise ConfigurationError(
                    f"{_option(name)} is {getattr(self, name)!r}; expected {', '.join(allowed[:-1])} or {allowed[-1]}"
                )
        if self.max_drop is not None and not (math.isfinite(self.max_drop) and self.max_drop >= 0):
            raise ConfigurationError(f"--max-drop is {self.max_drop}; expected a number of at least 0, such as 0.01")
        if AUTO in self.keep_float and len(self.keep_float) > 1:
            raise ConfigurationError("--keep-float auto chooses the layers; leave the other names out")
        if not self.int8:
            of_both = ("ranges_from", "max_drop") if self.smallest else ()
            given = [
                one.name
                for one in fields(self)
                if one.name in _OF_INT8 and one.name not in of_both and getattr(self, one.name) != one.default
            ]
            if given:
                raise ConfigurationError(f"{_option(given[0])} says how --int8 quantises; add --int8, or leave it out")


_OF_INT8 = ("ranges_from", "ranges_by", "activations", "max_drop", "keep_float")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def allowed_drop(form: FileForm, before: float) -> float:
    """By how much the metric on validation may get worse, in its own units.

    Args:
        before: the metric of the network in fp32.
    """
    return LARGEST_DROP * max(1.0, abs(before)) if form.max_drop is None else form.max_drop


SPARSE_FP32 = FileForm()
