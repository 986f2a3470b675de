"""A sparse model of a few bytes: python small_model.py MODEL.onnx writes it."""

import sys
from pathlib import Path

import numpy as np
from gossamer_runtime import weights
from onnx import TensorProto, helper, numpy_helper


def small_model() -> bytes:
    """ToPanel, one 3x3 SparseConv of 8 channels with Relu, FromPanel; images of 8 x 14 x 14."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((8, 8, 3, 3)).astype(np.float32)
    weight[rng.random(weight.shape) >= 0.2] = 0
    constants = {"w": np.frombuffer(weights.encode(weight), np.uint8), "b": np.zeros(8, np.float32)}
    attributes = {"output_channels": 8, "kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "activation": "relu"}
    graph = helper.make_graph(
        [
            helper.make_node("ToPanel", ["x"], ["px"], domain="gossamer"),
            helper.make_node("SparseConv", ["px", "w", "b"], ["py"], domain="gossamer", **attributes),
            helper.make_node("FromPanel", ["py"], ["y"], domain="gossamer", channels=8),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 14, 14])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("gossamer", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(small_model())
