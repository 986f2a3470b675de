"""A network in ncnn, in ncnn's own environment (`worker`). It has no axis for the batch, which is 1."""

import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import ncnn
import numpy as np

TYPES = {"float32": "f32", "float64": "f64", "int32": "i32", "int64": "i64", "bool": "bool"}
HALVES = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage")


class Network:
    """A network that pnnx converted, and its inputs."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.version = "ncnn " + ncnn.__version__
        with np.load(request["inputs"], allow_pickle=False) as arrays:
            inputs = [arrays[name] for name in request["input_names"]]
        converted = convert(Path(request["model"]), inputs)
        self.net = ncnn.Net()
        self.net.opt.num_threads = request["threads"]
        for option in HALVES:
            setattr(self.net.opt, option, False)
        for load, suffix in ((self.net.load_param, "param"), (self.net.load_model, "bin")):
            if load(f"{converted}.{suffix}") != 0:
                raise RuntimeError(f"cannot load what pnnx made of it ({suffix})")
        # Kept, for what ncnn is given points to their memory.
        self.arrays = [np.ascontiguousarray(array[0]) for array in inputs]
        self.inputs = [ncnn.Mat(array) for array in self.arrays]

    def outputs(self) -> list[np.ndarray[Any, Any]]:
        return [np.array(output)[np.newaxis] for output in self.once()]

    def once(self) -> list[Any]:
        with self.net.create_extractor() as extractor:
            for index, mat in enumerate(self.inputs):
                extractor.input(f"in{index}", mat)
            found = [extractor.extract(name) for name in sorted(self.net.output_names(), key=_number)]
        if any(status != 0 for status, _ in found):
            raise RuntimeError("it could not compute every output")
        return [output for _, output in found]


def convert(model: Path, inputs: list[np.ndarray[Any, Any]]) -> Path:
    """The network in ncnn's format: the files returned, with the suffixes .param and .bin."""
    # It is a program; as a Python package it would need torch.
    package = importlib.util.find_spec("pnnx")
    assert package is not None
    assert package.origin is not None
    shapes = ",".join(f"[{','.join(map(str, array.shape))}]{TYPES[array.dtype.name]}" for array in inputs)
    command = [str(Path(package.origin).parent / "pnnx"), model.name, f"inputshape={shapes}", "fp16=0"]
    done = subprocess.run(command, cwd=model.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    converted = model.parent / f"{model.stem}.ncnn"
    if done.returncode != 0 or not converted.with_suffix(".ncnn.param").exists():
        lines = done.stdout.strip().splitlines()
        raise RuntimeError(f"pnnx cannot convert it: {lines[-1] if lines else 'it said nothing'}")
    return converted


def _number(name: str) -> int:
    return int(name.removeprefix("out"))


open_network = Network
