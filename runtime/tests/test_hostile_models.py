"""Models of somebody else that declare far more than they hold. Each must end in an error, without much memory."""

import json
import re
import subprocess
import sys
import zlib
from pathlib import Path

import gossamer_runtime
import numpy as np
import pytest
from gossamer_runtime import weights
from onnx import TensorProto, helper, numpy_helper

try:
    gossamer_runtime.library_path()
except gossamer_runtime.NativeLibraryMissing as missing:
    pytest.skip(str(missing), allow_module_level=True)

# Address space for creating any of the sessions, in bytes: ONNX Runtime alone reserves about half of it.
MEMORY = 3 << 30

# Creates a session from each file of a folder and prints what came of it.
CHILD = """
import json, resource, sys
from pathlib import Path
import gossamer_runtime
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
for file in sorted(Path(sys.argv[1]).glob("*.onnx")):
    try:
        gossamer_runtime.Session(str(file), threads=2)
        outcome = "created"
    except Exception as problem:
        outcome = str(problem)
    print(json.dumps([file.stem, outcome]), flush=True)
"""


def one_node(name: str, shape: list[int] | None, constants: dict[str, np.ndarray], **attributes: object) -> bytes:
    """A model of one node on x, whose shape is `shape`, and constants. What has no elements is left out ("")."""
    given = [key if value.size else "" for key, value in constants.items()]
    node = helper.make_node(
        name, ["x" if shape is None or shape else "", *given], ["y"], domain="gossamer", **attributes
    )
    graph = helper.make_graph(
        [node],
        "hostile",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, key) for key, value in constants.items() if value.size],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("gossamer", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


def packed(*shape: int) -> np.ndarray:
    """The bytes of a weight without nonzeros: any shape, a few dozen bytes."""
    # Gaps instead of a bitmask, and none of them.
    header = weights.HEADER.pack(weights.MAGIC, weights.VERSION, weights.GAPS, 0, len(shape), 0, 0)
    body = header + np.array(shape, "<u4").tobytes()
    return np.frombuffer(body + zlib.crc32(body).to_bytes(4, "little"), np.uint8)


def convolution(shape: list[int] | None, weight: tuple[int, ...], **attributes: object) -> bytes:
    axes = weight[2:]
    attributes = {"output_channels": weight[0], "kernel_shape": list(axes), **attributes}
    return one_node("SparseConv", shape, {"w": packed(*weight)}, **attributes)


def stem(shape: list[int] | None, **attributes: object) -> bytes:
    attributes = {"output_channels": 4, "kernel_shape": [3, 3], **attributes}
    return one_node("StemConv", shape, {"w": np.ones((4, 3, 3, 3), np.float32)}, **attributes)


def pooling(shape: list[int] | None, **attributes: object) -> bytes:
    return one_node("PanelMaxPool", shape, {}, **{"kernel_shape": [3, 3], "channels": 4, **attributes})


NOTHING = np.zeros(0, np.uint8)
HOSTILE = {
    "an image of 2^40 pixels": (convolution([1, 4, 2**20, 2**20], (6, 4, 3, 3), pads=[1] * 4), "too large"),
    "an image of 2^32 pixels": (convolution([1, 4, 2**16, 2**16], (6, 4, 1, 1)), "too large"),
    "a sequence of 2^40": (convolution([1, 4, 2**40], (6, 4, 3)), "2\\^24"),
    "too many numbers": (convolution([1, 2**20, 2**10, 2**10], (6, 2**20, 1, 1)), "too large"),
    "padding into many pixels": (convolution([1, 4, 7, 7], (6, 4, 1, 1), pads=[2**15] * 4), "too large"),
    "padding beyond limits": (convolution([1, 4, 7, 7], (6, 4, 1, 1), pads=[2**20] * 4), "padding"),
    "a narrow image under a tall kernel": (
        convolution([1, 1, 2**24, 4], (1, 1, 16000, 1), pads=[0] * 4),
        "plan would take|256 KiB",
    ),
    "a wide stride over many tiles": (
        convolution([1, 1, 8192, 8192], (1, 1, 7, 7), dilations=[97, 89], strides=[1, 1]),
        "plan would take|256 KiB",
    ),
    "a kernel of 2^28 positions": (convolution([1, 1, 7, 7], (1, 1, 2**14, 2**14), pads=[2**13] * 4), "2\\^14"),
    "many kernel columns": (convolution([1, 1, 7, 7], (1, 1, 1, 2**24), pads=[0, 2**16] * 2), "2\\^14"),
    "dilation over padding": (
        convolution([1, 1, 7, 7], (1, 1, 2, 2), pads=[2**15] * 4, dilations=[2**15, 2**15]),
        "256 KiB|too large",
    ),
    "rows without nonzeros": (convolution([1, 4, 56, 56], (2**22, 4, 1, 1)), "256 MiB|too large"),
    # The storage channels of a panel of 2^24 channels of this size.
    "channels without nonzeros": (convolution([1, 2**24 + 1, 4, 4], (1, 2**24, 3, 3), pads=[1] * 4), "^created$"),
    "groups without nonzeros": (
        convolution([1, 2**22, 14, 14], (2**21, 2, 3, 3), group=2**21, pads=[1] * 4),
        "256 MiB|blocks",
    ),
    "more elements than a weight may have": (convolution([1, 4, 7, 7], (2**22, 2**24, 1, 1)), "shape is too large"),
    "a depthwise kernel without nonzeros": (
        convolution([1, 2**20, 7, 7], (2**20, 1, 9, 9), group=2**20, pads=[4] * 4),
        "2\\^24 weights",
    ),
    "a depthwise convolution of many tiles": (
        convolution([1, 4, 2**24, 4], (4, 1, 99, 1), group=4, dilations=[77, 1], pads=[0] * 4),
        "plan would take|4 MiB",
    ),
    "a product without nonzeros": (one_node("SparseMatMul", [8, 4], {"w": packed(2**22, 4)}), "256 MiB"),
    "a product of many columns": (one_node("SparseMatMul", [8, 2**30], {"w": packed(2, 2**30)}), "2\\^24|blocks"),
    "features beyond limits": (
        one_node("SparseMatMul", [8, 4], {"w": packed(2, 4)}, output_features=2**60),
        "output_features",
    ),
    "a stem of 2^40 pixels": (stem([1, 3, 2**20, 2**20]), "too large"),
    "a stem padded": (stem([1, 3, 8, 8], pads=[2**16] * 4), "too large"),
    "a stem of a long row": (stem([1, 3, 2, 2**24], pads=[1] * 4), "256 MiB"),
    "a stem of no channels": (
        one_node("StemConv", [1, 3, 8, 8], {"w": np.ones((4, 3, 1, 1), np.float32)}, output_channels=2**62),
        "shape|2\\^24",
    ),
    "pooling of 2^40 pixels": (pooling([1, 4, 2**20, 2**20]), "too large"),
    "pooling padded": (pooling([1, 4, 2**13, 2**13], pads=[2] * 4), "too large"),
    "pooling padded by more than its kernel": (pooling([1, 4, 8, 8], pads=[2**16] * 4), "pads must be smaller"),
    "pooling of a large kernel": (pooling([1, 4, 8, 8], kernel_shape=[2**10] * 2, pads=[2**10] * 4), "2\\^14"),
    "to panels from 2^40 pixels": (one_node("ToPanel", [1, 4, 2**20, 2**20], {}), "too large"),
    "to panels from 2^62 channels": (one_node("ToPanel", [1, 2**62, 2, 2], {}), "2\\^24"),
    "from panels to 2^62 channels": (one_node("FromPanel", [1, 4, 2, 2], {}, channels=2**62), "2\\^24"),
    "from panels of 2^40 pixels": (one_node("FromPanel", [1, 4, 2**20, 2**20], {}, channels=4), "too large"),
    "a convolution of no weight": (
        one_node("SparseConv", [1, 4, 7, 7], {"w": NOTHING}, output_channels=6, kernel_shape=[1, 1]),
        "empty string",
    ),
    "a convolution of no input": (convolution([], (6, 4, 1, 1)), "empty string"),
    "a product of no input": (one_node("SparseMatMul", [], {"w": packed(6, 4)}), "empty string"),
    "a pooling of no input": (pooling([]), "empty string"),
    "a product of no weight": (one_node("SparseMatMul", [8, 4], {"w": NOTHING}), "empty string"),
    "a stem of no weight": (
        one_node("StemConv", [1, 3, 8, 8], {"w": NOTHING}, output_channels=6, kernel_shape=[1, 1]),
        "empty string",
    ),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What became of each model in a process of little memory, which must outlive them all."""
    folder = tmp_path_factory.mktemp("hostile")
    names = {f"{number:03}": name for number, name in enumerate(HOSTILE)}
    for number, name in names.items():
        (folder / f"{number}.onnx").write_bytes(HOSTILE[name][0])
    source = Path(gossamer_runtime.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(source)!r}){CHILD}", folder, str(MEMORY)],
        capture_output=True,
        text=True,
        timeout=300,  # against a plan that never ends; all of them together take two seconds
    )
    got = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    assert done.returncode == 0, f"ended by {done.returncode} after {len(got)} models: {done.stderr[-2000:]}"
    return {names[number]: outcome for number, outcome in got.items()}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_model_that_declares_too_much_is_an_error(name: str, outcomes: dict[str, str]) -> None:
    assert re.search(HOSTILE[name][1], outcomes[name])
