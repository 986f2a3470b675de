"""gossamer-run: runs a model on a device, for use and for timing."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnxruntime

from gossamer_runtime.library import NativeLibraryMissing
from gossamer_runtime.session import Session

USERS_MISTAKE = 2
FATAL = 4
"""Of ONNX Runtime's levels of messages. Errors are raised; they need not be printed as well."""
NUMPY_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


class RunError(Exception):
    """A mistake that the user can mend: printed as one line, with exit code 2."""


def open_model(path: str, threads: int) -> onnxruntime.InferenceSession:
    """The session, which prints no messages of its own."""
    if not Path(path).is_file():
        raise RunError(f"{path} does not exist or is no file: expected an ONNX model")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    options.intra_op_num_threads = threads
    try:
        return Session(path, options)
    except NativeLibraryMissing as missing:
        raise RunError(str(missing)) from missing
    except Exception as error:  # ONNX Runtime's errors have no class in common
        raise RunError(
            f"ONNX Runtime cannot load {path}; if it is not a whole ONNX file, export it again: {error}"
        ) from error


def random_input(description: onnxruntime.NodeArg, rng: np.random.Generator) -> np.ndarray:
    """Normal numbers (zeros for other types) of the input's shape; 1 where an axis is dynamic."""
    shape = [axis if isinstance(axis, int) else 1 for axis in description.shape]
    dtype = NUMPY_TYPES.get(description.type)
    if dtype is None:
        raise RunError(f"input {description.name} is of type {description.type}: give it with --input")
    try:
        if np.issubdtype(dtype, np.floating):
            return rng.standard_normal(shape).astype(dtype)
        return np.zeros(shape, dtype)
    except (MemoryError, ValueError) as error:
        raise RunError(f"input {description.name} of shape {shape} cannot be made: {error}") from error


def read_array(path: str) -> np.ndarray:
    """The array of a .npy file, which may be anybody's: nothing in it is unpickled."""
    if Path(path).exists() and not Path(path).is_file():
        raise RunError(f"{path} is no regular file; expected one that numpy.save wrote")
    try:
        with Path(path).open("rb") as file:
            array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # a damaged header ends in whatever Python's tokenizer or numpy's types raise
        raise RunError(f"{path} holds no array that numpy.save wrote without pickling: {error}") from error
    return array


def check_input(array: np.ndarray, description: onnxruntime.NodeArg, path: str) -> None:
    """Compares type and shape with what the model declares, as far as it does."""
    dtype = NUMPY_TYPES.get(description.type)
    if dtype is not None and array.dtype != dtype:
        raise RunError(
            f"input {description.name} is of type {np.dtype(dtype)}, got {array.dtype} in {path}: "
            f"save array.astype(numpy.{np.dtype(dtype)})"
        )
    expected, got = description.shape, array.shape
    fits = len(expected) == len(got) and all(
        size == axis for axis, size in zip(expected, got, strict=True) if isinstance(axis, int)
    )
    if not fits:
        axes = ", ".join("any" if axis is None else str(axis) for axis in expected)
        raise RunError(f"input {description.name} has the shape [{axes}], got {list(got)} in {path}")


def read_inputs(session: onnxruntime.InferenceSession, files: list[str]) -> dict[str, np.ndarray]:
    """NAME=FILE.npy, or FILE.npy for the inputs in their order; random numbers for those that are not given."""
    descriptions = {description.name: description for description in session.get_inputs()}
    if len(files) > len(descriptions):
        raise RunError(f"the model has inputs: {', '.join(descriptions)}; got {len(files)} files for them")
    given: dict[str, np.ndarray] = {}
    for place, file in enumerate(files):
        named, _, path = file.rpartition("=")
        name = named or list(descriptions)[place]
        if name not in descriptions:
            raise RunError(f"the model has no input {name}; its inputs: {', '.join(descriptions)}")
        if name in given:
            raise RunError(f"input {name} is given twice, the second time by {path}: name every one, as NAME=FILE.npy")
        given[name] = read_array(path)
        check_input(given[name], descriptions[name], path)
    rng = np.random.default_rng(0)
    return {
        name: given[name] if name in given else random_input(description, rng)
        for name, description in descriptions.items()
    }


def run_once(session: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray]) -> list[Any]:
    """The outputs: arrays, but for a model whose outputs are no tensors."""
    try:
        outputs: list[Any] = session.run(None, inputs)
    except Exception as error:  # ONNX Runtime's errors have no class in common
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
        raise RunError(f"ONNX Runtime cannot run the model on {shapes or 'no inputs'}: {error}") from error
    return outputs


def report_output(description: onnxruntime.NodeArg, output: Any, folder: str | None) -> None:
    """Prints an output's type and shape, and writes it where a folder is given."""
    name = description.name
    if not isinstance(output, np.ndarray):
        if folder is not None:
            raise RunError(f"output {name} is of type {description.type}, which no .npy file holds: leave out --output")
        print(f"{name}: {description.type}")
        return
    print(f"{name}: {output.dtype} {list(output.shape)}")
    if folder is None:
        return
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        np.save(Path(folder) / f"{name.replace('/', '_')}.npy", output, allow_pickle=False)
    except OSError as error:
        raise RunError(f"cannot write output {name} into {folder}: {error.strerror}") from error
    except ValueError as error:
        raise RunError(f"cannot write output {name} of type {output.dtype}: {error}") from error


def time_runs(session: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray], repeats: int) -> list[float]:
    """Seconds of each run, sorted, after one that does not count."""
    session.run(None, inputs)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        session.run(None, inputs)
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)


class Arguments(argparse.ArgumentParser):
    """A parser whose errors are the program's: one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise RunError(f"{message}; gossamer-run --help lists the options")


def whole_number(most: int) -> Callable[[str], int]:
    """Reads a number from 0 to ``most``."""

    def read(text: str) -> int:
        if not text.isdecimal() or len(text) > len(str(most)) or int(text) > most:
            raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {most}, got {text!r}")
        return int(text)

    return read


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Arguments(prog="gossamer-run", description=__doc__)
    parser.add_argument("model", help="an ONNX file, sparse or not")
    parser.add_argument("--input", action="append", default=[], metavar="[NAME=]FILE.npy", help="random if left out")
    parser.add_argument("--output", metavar="FOLDER", help="write every output there as NAME.npy")
    parser.add_argument("--threads", type=whole_number(1024), default=0, help="0 leaves the choice to ONNX Runtime")
    parser.add_argument("--repeats", type=whole_number(10**9), default=20, help="timed runs")
    return parser.parse_args(arguments)


def run_model(options: argparse.Namespace) -> None:
    """Runs the model once, prints and writes its outputs, then times it."""
    start = time.perf_counter()
    session = open_model(options.model, options.threads)
    ready = time.perf_counter() - start
    inputs = read_inputs(session, options.input)
    for description, output in zip(session.get_outputs(), run_once(session, inputs), strict=True):
        report_output(description, output, options.output)
    if options.repeats > 0:
        seconds = time_runs(session, inputs, options.repeats)
        print(
            f"ready in {1e3 * ready:.0f} ms; {options.repeats} runs: median {1e3 * seconds[len(seconds) // 2]:.2f} ms, "
            f"fastest {1e3 * seconds[0]:.2f} ms, slowest {1e3 * seconds[-1]:.2f} ms"
        )


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done, 2 the user's mistake."""
    try:
        run_model(parse(arguments))
    except RunError as mistake:
        print(f"error: {' '.join(str(mistake).split())}", file=sys.stderr)
        return USERS_MISTAKE
    return 0


if __name__ == "__main__":
    sys.exit(main())
