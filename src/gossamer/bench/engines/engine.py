"""What an engine is: something that opens a network and runs it, once and timed."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
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
    exact: bool = False
    """Whether it computes in 32-bit floats, so that its outputs must agree with the reference."""
    quantised: str | None = None
    """If it computes in int8: the form (`quantised`) whose result by ONNX Runtime its own is judged by."""


_ENGINES = {
    "gossamer": _Engine("gossamer's ops in ONNX Runtime, fp32", "onnx_runtime:open_gossamer", exact=True),
    "gossamer-int8": _Engine(
        "gossamer's ops in ONNX Runtime, int8", "onnx_runtime:open_gossamer_int8", quantised="export"
    ),
    "dense": _Engine("ONNX Runtime, fp32", "onnx_runtime:open_dense", exact=True),
    "int8": _Engine("ONNX Runtime, int8 (QDQ, static)", "onnx_runtime:open_int8", quantised="qdq"),
    "int8-qoperator": _Engine(
        "ONNX Runtime, int8 (QOperator, static)", "onnx_runtime:open_int8_qoperator", quantised="qoperator"
    ),
    "deepsparse": _Engine("DeepSparse 1.8.0, fp32", "deepsparse:open_deepsparse", exact=True),
    "deepsparse-int8": _Engine(
        "DeepSparse 1.8.0, sparse int8", "deepsparse:open_deepsparse_int8", quantised="deepsparse-int8"
    ),
    "openvino": _Engine("OpenVINO, fp32", "openvino:open_float32", exact=True),
    "openvino-bf16": _Engine("OpenVINO, bfloat16", "openvino:open_bfloat16"),
    "ncnn": _Engine("ncnn, fp32", "ncnn:open_ncnn", exact=True),
    "litert": _Engine("LiteRT (XNNPACK), fp32", "litert:open_litert", exact=True),
    "litert-int8": _Engine("LiteRT (XNNPACK), int8 (static)", "litert:open_litert_int8", quantised="qdq"),
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


def quantised_form(name: str) -> str | None:
    """If it computes in int8: the form whose result by ONNX Runtime its own is judged by."""
    return _ENGINES[name].quantised


def make_environment(name: str) -> None:
    """Makes the environment that the engine has of its own, if it has one and it is not there yet.

    Raises:
        EngineFailed: it cannot be made.
    """
    needs = getattr(_module(name), "NEEDS", None)
    if needs is not None:
        needs.python()


def open_runner(name: str, subject: BothForms) -> Runner:
    """Opens the network in an engine.

    Raises:
        EngineFailed: it is not installed, or cannot run this network; the message says why.
    """
    runner: Runner = getattr(_module(name), _ENGINES[name].place.partition(":")[2])(subject)
    return runner


def _module(name: str) -> ModuleType:
    return import_module(f"gossamer.bench.engines.{_ENGINES[name].place.partition(':')[0]}")
