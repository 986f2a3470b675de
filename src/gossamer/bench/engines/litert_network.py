"""A network in LiteRT (TensorFlow Lite), in an environment of its own (`worker`). Images have their channels last."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import __version__ as version
from ai_edge_litert.interpreter import Interpreter

IMAGES = 4
"""The axes of a batch of images."""


class Network:
    """A network that onnx2tf converted, quantised if asked for, and its inputs."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.version = "LiteRT " + version
        with np.load(request["inputs"], allow_pickle=False) as arrays:
            inputs = {name: channels_last(arrays[name]) for name in arrays.files}
        converted = convert(Path(request["model"]), [name for name, array in inputs.items() if array.ndim != IMAGES])
        if request["examples"]:
            with np.load(request["examples"], allow_pickle=False) as arrays:
                examples = {name: [channels_last(example) for example in arrays[name]] for name in arrays.files}
            converted = quantise(converted, examples)
        self.interpreter = Interpreter(str(converted), num_threads=request["threads"])
        self.interpreter.allocate_tensors()
        self.places = self.interpreter.get_output_details()
        for place in self.interpreter.get_input_details():
            self.interpreter.set_tensor(place["index"], inputs[place["name"]])

    def outputs(self) -> list[np.ndarray[Any, Any]]:
        self.once()
        return [channels_first(self.interpreter.get_tensor(place["index"])) for place in self.places]

    def once(self) -> None:
        self.interpreter.invoke()


def channels_last(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Images as LiteRT has them."""
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if array.ndim == IMAGES else array


def channels_first(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Images as ONNX has them."""
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2)) if array.ndim == IMAGES else array


def convert(model: Path, kept: list[str]) -> Path:
    """The network in LiteRT's format. `kept`: inputs that keep their axes."""
    folder = model.with_suffix("")
    command = [sys.executable, "-I", "-m", "onnx2tf", "-i", str(model), "-o", str(folder), "-v", "error"]
    done = subprocess.run(
        [*command, *(["-kat", *kept] if kept else [])], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        lines = done.stdout.strip().splitlines()
        raise RuntimeError(f"onnx2tf cannot convert it: {lines[-1] if lines else 'it said nothing'}")
    return folder / f"{model.stem}_float32.tflite"


def quantise(model: Path, examples: dict[str, list[np.ndarray[Any, Any]]]) -> Path:
    """The network in int8, by LiteRT's own tool: weights for each output channel, ranges of the examples; inputs and
    outputs stay floats, as in the other engines."""
    from litert_quantizer import algorithm_manager, qtyping, quantizer, recipe

    tool = quantizer.Quantizer(str(model), recipe.static_wi8_ai8())
    for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        tool.update_quantization_recipe(
            regex=".*", operation_name=end, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE
        )
    signature, names = next(iter(Interpreter(str(model)).get_signature_list().items()))
    count = len(next(iter(examples.values())))
    ranges = tool.calibrate({signature: [{name: examples[name][i] for name in names["inputs"]} for i in range(count)]})
    quantised = model.with_name("int8.tflite")
    tool.quantize(ranges).export_model(str(quantised), overwrite=True)
    return quantised


open_network = Network
