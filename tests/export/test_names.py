"""Networks that already have the names which gossamer would give: nothing is found by what its name ends in."""

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from export.onnx_graphs import Array, assert_same, network, normal, run_dense, run_sparse, sparse_weight
from numpy.typing import NDArray
from onnx import TensorProto, helper

from gossamer.bench.compare import compare
from gossamer.export.costs import Costs, EverythingSparse
from gossamer.export.dense import to_dense
from gossamer.export.written import as_written

node = helper.make_node

pytestmark = pytest.mark.usefixtures("native_library")

OURS = ("a", "b", "c", "lin", "lin.packed", "v", "w", "y", "b.panel", "y.panel")
ENDINGS = (
    "biased",
    "bits",
    "compared",
    "counted",
    "dense",
    "exact",
    "flat",
    "gaps",
    "half",
    "half.2",
    "kept",
    "limit0",
    "limit1",
    "mask",
    "numbers",
    "packed",
    "panel",
    "panel.2",
    "planes",
    "shape",
    "shifted",
    "sigmoid",
    "size",
    "spaced",
    "spread",
    "step0",
    "step1",
    "sums",
    "transposed",
    "unpacked",
    "unpooled",
    "values",
    "values.half",
)
NAMES = [f"{name}.{ending}" for name in OURS for ending in ENDINGS]
NAMES += [f"gossamer.{name}" for name in ("axis", "bits", "flat", "long_gap", "one", "start", "two", "zero")]
NAMES = [name for name in NAMES if name not in OURS]


def layers(rng: np.random.Generator) -> tuple[list[onnx.NodeProto], dict[str, NDArray[np.generic]]]:
    """Convolutions with a residual and SiLU, and a linear layer."""
    nodes = [
        node("Conv", ["x", "w"], ["a"], name="first", pads=[1] * 4),
        node("Clip", ["a", "low", "high"], ["b"]),
        node("Conv", ["b", "v"], ["c"], name="second"),
        node("Add", ["c", "b"], ["d"]),
        node("Sigmoid", ["d"], ["s"]),
        node("Mul", ["d", "s"], ["y"]),
        node("GlobalAveragePool", ["b"], ["mean"]),
        node("Flatten", ["mean"], ["flat"]),
        node("Gemm", ["flat", "lin.weight", "bias"], ["z"], name="lin", transB=1),
    ]
    constants = {
        "w": sparse_weight(rng, 16, 8, 3, 3, density=0.3),
        "v": sparse_weight(rng, 128, 16, density=0.005).reshape(128, 16, 1, 1)[:16],
        "low": np.float32(-1),
        "high": np.float32(2),
        "lin.weight": sparse_weight(rng, 128, 16, density=0.01),
        "bias": normal(rng, 1, 128),
    }
    constants["v"][0, 0] = 1
    return nodes, constants


def with_names_as(how: str, rng: np.random.Generator) -> tuple[onnx.ModelProto, Mapping[str, Array]]:
    nodes, constants = layers(rng)
    feed, inputs = {"x": normal(rng, 2, 8, 5, 7)}, {"x": [2, 8, 5, 7]}
    if how == "values":
        nodes += [node("Neg", ["x"], [name]) for name in NAMES]
    elif how == "constants":
        constants |= {name: np.float32(place) for place, name in enumerate(NAMES)}
    elif how == "inputs":
        inputs |= {name: [1] for name in NAMES}
        feed |= {name: normal(rng, 1) for name in NAMES}
    elif how == "nodes":
        nodes += [node("Neg", ["x"], [f"n{place}"], name=name) for place, name in enumerate(NAMES)]
    else:
        inside = [node("Neg", ["x"], [name]) for name in NAMES]

        def branch(output: str) -> onnx.GraphProto:
            result = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
            return helper.make_graph([*inside, node("Sum", NAMES, [output])], output, [], [result])

        constants["condition"] = np.asarray(True)
        chosen = node("If", ["condition"], ["all"], then_branch=branch("then"), else_branch=branch("else"))
        return network([*nodes, chosen], inputs, constants, ["y", "z", "all"]), feed
    if how == "nodes":
        nodes.append(node("Sum", [f"n{place}" for place in range(len(NAMES))], ["all"]))
    else:
        nodes.append(node("Sum", NAMES, ["all"]))
    return network(nodes, inputs, constants, ["y", "z", "all"]), feed


@pytest.mark.parametrize("costs", [EverythingSparse(), None])
@pytest.mark.parametrize("how", ["values", "constants", "inputs", "nodes", "a subgraph"])
def test_names_that_are_there_already(how: str, costs: Costs | None) -> None:
    """Written sparse, written dense without zeros, and turned back into plain ONNX."""
    model, feed = with_names_as(how, np.random.default_rng(0))
    expected = run_dense(model, feed)
    for half in (False, True):
        written = as_written(model, costs=costs, half=half).model
        assert_same(run_sparse(written, feed), expected, tolerance=1e-3 if half else 1e-5)
        assert_same(run_dense(to_dense(written), feed), expected, tolerance=1e-3 if half else 1e-5)


@pytest.mark.parametrize("exported", [False, True])
def test_times_of_layers_whose_panels_have_other_names(exported: bool) -> None:
    """`bench --layers` of a network in which the values of the layers' usual panels are something else."""
    rng = np.random.default_rng(0)
    nodes = [
        node("Conv", ["x", "w"], ["b"], name="first", pads=[1] * 4),
        node("GlobalAveragePool", ["b"], ["b.panel"]),
        node("Conv", ["b", "v"], ["y"], name="second", pads=[1] * 4),
        node("GlobalMaxPool", ["y"], ["y.panel"]),
    ]
    constants = {name: sparse_weight(rng, 64, 64, 3, 3, density=0.02) for name in ("w", "v")}
    model = network(nodes, {"x": [1, 64, 28, 28]}, constants, ["b.panel", "y.panel"])
    if exported:
        model = as_written(model).model
    result = compare(model, [], runs=2, layers=True)
    assert [layer["name"] for layer in result["layers"]] == ["first", "second"]
    assert all(layer["milliseconds"] > 0 and layer["dense_milliseconds"] > 0 for layer in result["layers"])
