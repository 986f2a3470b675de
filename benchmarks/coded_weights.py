"""Coded weights of exported files beside what nncodec and xz take for the same levels: bytes, headers counted in all.

Command: python benchmarks/coded_weights.py --nncodec PYTHON FILE [FILE ...]
n: one number a file and coder; bytes do not vary
Hardware: any
Date: 2026-11-29, docs/results/coded-weights.jsonl (the lines of that date)

FILE is one that `gossamer export --smallest` wrote. nncodec 2.1.3 gets the levels of weights and biases in one file, as
multiples of 2^-8, which is a step that it has; they must come back the same. Its options for parameters and rows are on
and off, layers as they are and turned; the fewest bytes count. PYTHON is that of an environment with nncodec
(benchmarks/coded_by_nncodec.py runs in it).
"""

import argparse
import json
import lzma
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from gossamer_runtime import coding
from gossamer_runtime.coding.coded import VERSION
from numpy.typing import NDArray
from onnx import numpy_helper

Levels = dict[str, NDArray[np.int32]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--nncodec", required=True, help="the interpreter of its environment")
    arguments = parser.parse_args()
    for path in arguments.files:
        packed = coded_weights(path)
        levels = levels_of(packed)
        row = {
            "file": path.name,
            "kept": sum(int(np.count_nonzero(one)) for name, one in levels.items() if not name.endswith(".bias")),
            "gossamer": sum(map(len, packed.values())),
            "nncodec": nncodec_bytes(levels, arguments.nncodec),
            "xz": len(
                lzma.compress(b"".join(in_bytes(one) for one in levels.values()), preset=9 | lzma.PRESET_EXTREME)
            ),
        }
        print(json.dumps(row))


def coded_weights(path: Path) -> dict[str, bytes]:
    constants = {one.name: numpy_helper.to_array(one).tobytes() for one in onnx.load(path).graph.initializer}
    return {name: packed for name, packed in constants.items() if packed[:1] == bytes([VERSION])}


def levels_of(packed: dict[str, bytes]) -> Levels:
    """The levels of every weight, and of its bias."""
    found: Levels = {}
    for name, stream in packed.items():
        coded = coding.decode(stream)
        found[name] = coded.levels
        if coded.bias is not None:
            found[f"{name}.bias"] = coded.bias.levels
    return found


def in_bytes(levels: NDArray[np.int32]) -> bytes:
    """One byte a number, or two where it needs them."""
    narrow: Any = np.int8 if np.abs(levels).max(initial=0) <= np.iinfo(np.int8).max else np.int16
    return levels.astype(narrow).tobytes()


def nncodec_bytes(levels: Levels, python: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "levels.npz"
        np.savez(given, **levels)  # type: ignore[arg-type]
        script = Path(__file__).with_name("coded_by_nncodec.py")
        done = subprocess.run(
            [python, str(script), str(given)], capture_output=True, text=True, cwd=folder, check=False
        )
    if done.returncode:
        sys.exit(f"nncodec failed: {done.stderr.strip().splitlines()[-1:]}")
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
