"""What an engine is: something that opens a network and runs it, once and timed."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx

from gossamer.errors import ConfigurationError, GossamerError


class EngineFailed(GossamerError):
    """An engine is not installed, or cannot run this network."""


@dataclass(frozen=True)
class BothForms:
    """A network on its way through the engines, in both forms, with the inputs that all of them are given."""

    dense: onnx.ModelProto
    """Plain ONNX, zeros included."""
    sparse: onnx.ModelProto
    """The network with gossamer's ops."""
    inputs: dict[str, np.ndarray[Any, Any]]
    threads: int
    folder: Path
    """A folder for files on the way; the caller removes it."""


class Runner(Protocol):
    """A network made ready by one engine."""

    version: str

    def run(self) -> list[np.ndarray[Any, Any]]:
        """The outputs, in the network's order."""

    def seconds(self) -> float:
        """Time of one run."""

    def close(self) -> None:
        """Gives back what it holds."""


@dataclass(frozen=True)
class _Engine:
    what: str
    place: str
    """module:function, imported when the engine is opened, so that what is not asked for need not be installed."""
    exact: bool
    """Whether it computes in 32-bit floats, so that its outputs must agree with the reference."""


_ENGINES = {
    "gossamer": _Engine("gossamer's ops in ONNX Runtime, fp32", "onnx_runtime:open_gossamer", True),
    "dense": _Engine("ONNX Runtime, fp32", "onnx_runtime:open_dense", True),
    "int8": _Engine("ONNX Runtime, int8 (QDQ, static)", "onnx_runtime:open_int8", False),
    "deepsparse": _Engine("DeepSparse 1.8.0, fp32", "deepsparse:open_deepsparse", True),
    "openvino": _Engine("OpenVINO, fp32", "openvino:open_float32", True),
    "openvino-bf16": _Engine("OpenVINO, bfloat16", "openvino:open_bfloat16", False),
}
ENGINE_ORDER = tuple(_ENGINES)


def engine_names(text: str) -> tuple[str, ...]:
    """The engines named in `text`, separated by commas, without repetitions.

    Raises:
        ConfigurationError: there is no such engine; the message names those that there are.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    known = [name for name in _ENGINES if name != "gossamer"]
    for name in names:
        if name not in known:
            raise ConfigurationError(
                f"there is no engine {name!r} to compare with; expected some of {', '.join(known)}"
            )
    return names


def description(name: str) -> str:
    """What the engine is, in words."""
    return _ENGINES[name].what


def is_exact(name: str) -> bool:
    """Whether the engine computes in 32-bit floats throughout."""
    return _ENGINES[name].exact


def open_runner(name: str, subject: BothForms) -> Runner:
    """Opens the network in an engine.

    Raises:
        EngineFailed: it is not installed, or cannot run this network; the message says why.
    """
    module, _, function = _ENGINES[name].place.partition(":")
    runner: Runner = getattr(import_module(f"gossamer.bench.engines.{module}"), function)(subject)
    return runner
