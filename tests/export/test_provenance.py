"""What a written file says to whoever opens it without gossamer."""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest
from export.onnx_graphs import network, sparse_weight
from onnx import helper

from gossamer.export.costs import Costs, EverythingSparse
from gossamer.export.exporting import export
from gossamer.export.source import open_source

node = helper.make_node

pytestmark = pytest.mark.usefixtures("native_library")


def exported(folder: Path, costs: Costs | None) -> onnx.ModelProto:
    """Of another tool's file, with sums, a pooling, a product and a branch that stays."""
    rng = np.random.default_rng(0)
    nodes = [
        node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        node("MaxPool", ["a"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p", "v"], ["c"]),
        node("Tanh", ["c"], ["t"]),
        node("Conv", ["t", "v"], ["u"]),
        node("GlobalAveragePool", ["u"], ["m"]),
        node("Flatten", ["m"], ["f"]),
        node("Gemm", ["f", "g"], ["z"], transB=1),
        node("Softmax", ["z"], ["y"]),
    ]
    constants = {
        "w": sparse_weight(rng, 16, 8, 3, 3, density=0.1),
        "v": sparse_weight(rng, 16, 16, 1, 1),
        "g": sparse_weight(rng, 70, 16, density=0.1),
    }
    model = network(nodes, {"x": ["n", 8, 10, 12]}, constants, ["y"])
    model.producer_name, model.producer_version, model.doc_string = "another tool", "1.2", "Its own words."
    model.metadata_props.add(key="labels", value="cat,dog")
    onnx.save(model, folder / "given.onnx")
    export(open_source(str(folder / "given.onnx")), folder / "written.onnx", costs=costs)
    return onnx.load(folder / "written.onnx")


@pytest.mark.parametrize("sparse", [True, False])
def test_a_file_says_what_it_is_and_what_it_needs(sparse: bool, tmp_path: Path) -> None:
    model = exported(tmp_path, EverythingSparse() if sparse else None)
    assert (model.producer_name, model.producer_version) == ("gossamer", version("gossamer"))
    assert model.doc_string.startswith("A pruned network, written by gossamer.")
    assert model.doc_string.endswith("Its own words.")
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["labels"] == "cat,dog"
    assert facts["gossamer.source"] == "another tool 1.2"
    for text in ("gossamer-runtime", "gossamer_runtime.Session", "pip install"):
        assert (text in model.doc_string) == sparse
    assert facts.get("gossamer.needs", "").startswith("gossamer-runtime ") == sparse


@pytest.mark.parametrize("sparse", [True, False])
def test_shapes_of_inner_values_can_be_read(sparse: bool, tmp_path: Path) -> None:
    """Of all but those that put a weight together; a panel's second axis is for the ops to say."""
    model = exported(tmp_path, EverythingSparse() if sparse else None)
    shapes = {
        value.name: [axis.dim_param or axis.dim_value or None for axis in value.type.tensor_type.shape.dim]
        for value in model.graph.value_info
    }
    inner = {name for made in model.graph.node for name in made.output if not made.name.endswith(".unpacked")} - {"y"}
    assert inner <= shapes.keys()
    assert all(value.type.tensor_type.elem_type == 1 for value in model.graph.value_info)
    expected = {"u": ["n", 16, 5, 6], "m": ["n", 16, 1, 1], "f": ["n", 16], "z": ["n", 70]}
    if sparse:
        panels = {"a.panel": ["n", None, 10, 12], "t.panel": ["n", None, 5, 6], "x.panel": ["n", None, 10, 12]}
        assert {name: shapes[name] for name in panels} == panels
        words = {value.name: value.doc_string for value in model.graph.value_info}
        assert words["a.panel"] == "a in panels: 16 channels"
    else:
        expected |= {"a": ["n", 16, 10, 12], "w": [16, 8, 3, 3]}
    assert {name: shapes[name] for name in expected} == expected


def test_axes_without_a_name_get_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    nodes = [
        node("Conv", ["x", "w"], ["a"], strides=[2, 2]),
        node("GlobalMaxPool", ["a"], ["m"]),
        node("Abs", ["m"], ["y"]),
    ]
    model = network(nodes, {"x": [None, 8, "h", None]}, {"w": sparse_weight(rng, 16, 8, 3, 3)}, ["y"])
    onnx.save(model, tmp_path / "given.onnx")
    export(open_source(str(tmp_path / "given.onnx")), tmp_path / "written.onnx", costs=EverythingSparse())
    written = onnx.load(tmp_path / "written.onnx")
    assert {axis.dim_param for value in written.graph.value_info for axis in value.type.tensor_type.shape.dim} == {
        "",
        "h",
    }
