"""gossamer-run: runs a model on a device, for use and for timing."""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

from gossamer_runtime.session import Session

NUMPY_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


def random_input(description: onnxruntime.NodeArg, rng: np.random.Generator) -> np.ndarray:
    """Normal numbers (zeros for other types) of the input's shape; 1 where an axis is dynamic."""
    shape = [axis if isinstance(axis, int) else 1 for axis in description.shape]
    dtype = NUMPY_TYPES.get(description.type)
    if dtype is None:
        raise SystemExit(f"input {description.name} is of type {description.type}: give it with --input")
    if np.issubdtype(dtype, np.floating):
        return rng.standard_normal(shape).astype(dtype)
    return np.zeros(shape, dtype)


def read_inputs(session: onnxruntime.InferenceSession, files: list[str]) -> dict[str, np.ndarray]:
    """NAME=FILE.npy, or FILE.npy for the inputs in their order; random numbers for those that are not given."""
    descriptions = session.get_inputs()
    names = [description.name for description in descriptions]
    given: dict[str, np.ndarray] = {}
    for place, file in enumerate(files):
        name, _, path = file.rpartition("=")
        if not name:
            if place >= len(names):
                raise SystemExit(f"the model has {len(names)} inputs, got {len(files)}")
            name = names[place]
        elif name not in names:
            raise SystemExit(f"the model has no input {name}; its inputs: {', '.join(names)}")
        given[name] = np.load(path, allow_pickle=False)
    rng = np.random.default_rng(0)
    return {d.name: given[d.name] if d.name in given else random_input(d, rng) for d in descriptions}


def time_runs(session: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray], repeats: int) -> list[float]:
    """Seconds of each run, sorted, after one that does not count."""
    session.run(None, inputs)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        session.run(None, inputs)
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gossamer-run", description=__doc__)
    parser.add_argument("model", help="an ONNX file, sparse or not")
    parser.add_argument("--input", action="append", default=[], metavar="[NAME=]FILE.npy", help="random if left out")
    parser.add_argument("--output", metavar="FOLDER", help="write every output there as NAME.npy")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves the choice to ONNX Runtime")
    parser.add_argument("--repeats", type=int, default=20, help="timed runs")
    options = parser.parse_args(arguments)

    start = time.perf_counter()
    session = Session(options.model, threads=options.threads)
    ready = time.perf_counter() - start
    inputs = read_inputs(session, options.input)
    outputs = session.run(None, inputs)
    for description, output in zip(session.get_outputs(), outputs, strict=True):
        print(f"{description.name}: {output.dtype} {list(output.shape)}")
        if options.output:
            folder = Path(options.output)
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{description.name.replace('/', '_')}.npy", output)
    if options.repeats > 0:
        seconds = time_runs(session, inputs, options.repeats)
        print(
            f"ready in {1e3 * ready:.0f} ms; {options.repeats} runs: median {1e3 * seconds[len(seconds) // 2]:.2f} ms, "
            f"fastest {1e3 * seconds[0]:.2f} ms, slowest {1e3 * seconds[-1]:.2f} ms"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
