"""Networks that ONNX Runtime's own tool quantises to something else, or not at all, and what is written of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from export.onnx_graphs import Array, network, normal, run_dense, run_sparse, sparse_weight
from onnx import helper

from gossamer.errors import ExportError
from gossamer.export.costs import EverythingSparse
from gossamer.export.exporting import export
from gossamer.export.form import FileForm
from gossamer.export.source import open_source

pytestmark = pytest.mark.usefixtures("native_library")
node = helper.make_node


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def require_close(
    folder: Path, nodes: Sequence[onnx.NodeProto], constants: dict[str, Any], x: Array, most: float = 0.05
) -> None:
    """Requires that both int8 files are as near to the network in fp32 as int8 allows, in root mean squares."""
    model = network(nodes, {"x": ["n", *x.shape[1:]]}, constants, ["y"], opset=17)
    onnx.save(model, folder / "fp32.onnx")
    np.savez(folder / "examples.npz", x=x)
    (expected,) = run_dense(model, {"x": x})
    for dense in (True, False):
        form = FileForm(int8=True, dense=dense, ranges_from=folder / "examples.npz")
        costs = None if dense else EverythingSparse()
        export(open_source(str(folder / "fp32.onnx")), folder / "int8.onnx", form=form, costs=costs, overwrite=True)
        (got,) = (run_dense if dense else run_sparse)(onnx.load(folder / "int8.onnx"), {"x": x})
        assert np.sqrt(np.mean((got - expected) ** 2)) < most * expected.std(), "dense" if dense else "sparse"


def pixels(rng: np.random.Generator, *sizes: int) -> Array:
    return sparse_weight(rng, *sizes, 1, 1)


FUNCTIONS = {
    "none": [],
    "relu": None,
    "clip": [0, 1],
    "clip above": ["", 0.5],
    "far clip": [0.5, 2.0],
    "low": [-3.0, -0.5],
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("kind", ["conv", "product"])
def test_a_function_before_an_addition(kind: str, function: str, rng: np.random.Generator, tmp_path: Path) -> None:
    """ONNX Runtime takes it out, as the bytes behind it say the same; a sparse layer adds before it makes bytes."""
    bounds = FUNCTIONS[function]
    constants: dict[str, Any] = {f"bound_{i}": np.float32(b) for i, b in enumerate(bounds or []) if b != ""}
    names = ["" if bound == "" else f"bound_{index}" for index, bound in enumerate(bounds or [])]
    op = "Relu" if bounds is None else "Clip"
    between = [] if function == "none" else [node(op, ["g", *names], ["s"], name="function")]
    added = "g" if function == "none" else "s"
    if kind == "conv":
        layers = [node("Conv", ["x", "a"], ["f"]), node("Relu", ["f"], ["r"]), node("Conv", ["r", "b"], ["g"])]
        last = node("Conv", ["t", "c"], ["y"])
        constants |= {"a": pixels(rng, 32, 16), "b": pixels(rng, 32, 32), "c": pixels(rng, 8, 32)}
        x = normal(rng, 64, 16, 6, 6)
    else:
        layers = [
            *[node("MatMul", ["x", "a"], ["f"]), node("Relu", ["f"], ["r"]), node("MatMul", ["r", "b"], ["h"])],
            node("Add", ["h", "bias"], ["g"]),
        ]
        last = node("MatMul", ["t", "c"], ["y"])
        constants |= {
            name: sparse_weight(rng, *size) for name, size in {"a": (16, 32), "b": (32, 32), "c": (32, 8)}.items()
        }
        constants["bias"] = normal(rng, 32)
        x = normal(rng, 64, 6, 16)
    require_close(tmp_path, [*layers, *between, node("Add", [added, "r"], ["t"]), last], constants, x)


@pytest.mark.parametrize("bounds", [(0.5, 2.0), (-3.0, -0.5), (-1.0, 1.0)])
def test_a_clip_whose_bounds_do_not_hold_zero(
    bounds: tuple[float, float], rng: np.random.Generator, tmp_path: Path
) -> None:
    """The range of bytes does, so the clip has to stay."""
    nodes = [
        node("Gemm", ["x", "a"], ["h"]),
        node("Clip", ["h", "low", "high"], ["q"], name="clip"),
        node("Gemm", ["q", "b"], ["y"]),
    ]
    ends = {"low": np.float32(bounds[0]), "high": np.float32(bounds[1])}
    require_close(tmp_path, nodes, {"a": normal(rng, 16, 16), "b": normal(rng, 16, 8), **ends}, normal(rng, 64, 16))


def test_functions_behind_one_another(rng: np.random.Generator, tmp_path: Path) -> None:
    nodes = [
        *[node("Gemm", ["x", "a"], ["h"]), node("Relu", ["h"], ["r"]), node("Clip", ["r", "", "one"], ["s"])],
        *[node("Clip", ["s", "quarter", ""], ["t"]), node("Gemm", ["t", "b"], ["y"])],
    ]
    bounds = {"quarter": np.float32(0.25), "one": np.float32(1)}
    require_close(tmp_path, nodes, {"a": normal(rng, 16, 16), "b": normal(rng, 16, 8), **bounds}, normal(rng, 64, 16))


@pytest.mark.parametrize("op", ["Resize", "Reshape", "Slice"])
def test_sizes_that_the_network_computes(op: str, rng: np.random.Generator, tmp_path: Path) -> None:
    """As timm's mobilevitv2 does: they are whole numbers, no values that have a range."""
    sizes = [
        *[node("Shape", ["x"], ["all"]), node("Slice", ["all", "zero", "two"], ["first"])],
        node("Concat", ["first", "rest"], ["sizes"], axis=0),
    ]
    shaping = {
        "Resize": node("Resize", ["r", "", "", "sizes"], ["s"]),
        "Reshape": node("Reshape", ["r", "sizes"], ["s"]),
        "Slice": node("Slice", ["r", "starts", "sizes"], ["s"]),
    }[op]
    rest = {"Resize": [12, 12], "Reshape": [4, 9], "Slice": [4, 5]}[op]
    nodes = [
        *[*sizes, node("Conv", ["x", "a"], ["f"]), node("Relu", ["f"], ["r"]), shaping],
        node("Conv", ["s", "b"], ["y"]),
    ]
    indices = {"zero": [0], "two": [2], "rest": rest, "starts": [0, 0, 1, 0]}
    constants = {"a": pixels(rng, 16, 16), "b": pixels(rng, 16, 16)}
    constants |= {name: np.array(numbers, np.int64) for name, numbers in indices.items()}
    require_close(tmp_path, nodes, constants, normal(rng, 64, 16, 6, 6))


def test_layers_that_share_a_bias(rng: np.random.Generator, tmp_path: Path) -> None:
    """Each quantises it in units of its own sums."""
    nodes = [
        node("Gemm", ["x", "a", "b"], ["c"]),
        node("MatMul", ["c", "w"], ["m"]),
        node("Add", ["m", "b"], ["y"]),
    ]
    constants = {"a": sparse_weight(rng, 6, 32), "b": normal(rng, 32), "w": sparse_weight(rng, 32, 32)}
    require_close(tmp_path, nodes, constants, normal(rng, 64, 6))


@pytest.mark.parametrize("kind", ["Gemm", "MatMul"])
def test_layers_that_share_a_weight_with_empty_channels(kind: str, rng: np.random.Generator, tmp_path: Path) -> None:
    """The scale of an empty channel is what its bias asks for, and the biases differ."""
    weight = sparse_weight(rng, 16, 16)
    weight[:, :5] = 0
    biases = {"b": normal(rng, 16), "c": normal(rng, 16) * np.float32(1e-3)}
    if kind == "Gemm":
        nodes = [node("Gemm", ["x", "w", "b"], ["g"]), node("Gemm", ["g", "w", "c"], ["y"])]
    else:
        nodes = [
            *[node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "b"], ["g"])],
            *[node("MatMul", ["g", "w"], ["k"]), node("Add", ["k", "c"], ["y"])],
        ]
    require_close(tmp_path, nodes, {"w": weight, **biases}, normal(rng, 64, 16))


@pytest.mark.parametrize("shape", [(), (1,), (8,), (1, 8), (1, 1, 8)])
def test_biases_of_any_shape_behind_a_product(shape: tuple[int, ...], rng: np.random.Generator, tmp_path: Path) -> None:
    weight = normal(rng, 16, 8) / np.float32(100)
    weight[:, :6] = 0
    nodes = [
        *[node("MatMul", ["x", "a"], ["h"]), node("Add", ["h", "b"], ["s"]), node("Relu", ["s"], ["t"])],
        node("MatMul", ["t", "c"], ["y"]),
    ]
    constants = {"a": weight, "b": np.full(shape, 0.3, np.float32), "c": normal(rng, 8, 8)}
    require_close(tmp_path, nodes, constants, normal(rng, 64, 6, 16) * np.float32(20))


@pytest.mark.parametrize("shape", [(), (1,), (8,), (1, 8)])
@pytest.mark.parametrize("factor", [1.0, 2.0, 0.0])
def test_biases_of_any_shape_and_factor_of_a_gemm(
    factor: float, shape: tuple[int, ...], rng: np.random.Generator, tmp_path: Path
) -> None:
    nodes = [node("Gemm", ["x", "w", "b"], ["y"], beta=factor)]
    constants = {"w": sparse_weight(rng, 16, 8), "b": np.asarray(rng.normal(size=shape), np.float32)}
    require_close(tmp_path, nodes, constants, normal(rng, 64, 16))


POOLS: dict[str, tuple[list[onnx.NodeProto], tuple[int, ...]]] = {
    "a mean behind a pooling that ONNX and ONNX Runtime round up differently": (
        [
            node("MaxPool", ["r"], ["m"], kernel_shape=[1, 2], strides=[3, 2], ceil_mode=1),
            node("Conv", ["m", "b"], ["d"]),
            node("GlobalAveragePool", ["d"], ["p"]),
        ],
        (5, 3),
    ),
    "a window larger than the image": (
        [node("AveragePool", ["r"], ["p"], kernel_shape=[4, 4], strides=[3, 2])],
        (2, 7),
    ),
    "a maximum over a window larger than the image": (
        [node("MaxPool", ["r"], ["p"], kernel_shape=[4, 4], strides=[3, 2])],
        (2, 7),
    ),
    "an average that is rounded up and counts padding": (
        [node("AveragePool", ["r"], ["p"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, count_include_pad=1)],
        (10, 12),
    ),
}


@pytest.mark.parametrize("name", POOLS)
def test_odd_poolings(name: str, rng: np.random.Generator, tmp_path: Path) -> None:
    pools, sizes = POOLS[name]
    nodes = [node("Conv", ["x", "a"], ["c"]), node("Relu", ["c"], ["r"]), *pools, node("Conv", ["p", "e"], ["y"])]
    constants = {"a": pixels(rng, 32, 16), "b": pixels(rng, 32, 32), "e": pixels(rng, 8, 32)}
    require_close(tmp_path, nodes, constants, normal(rng, 64, 16, *sizes))


def test_a_network_that_int8_leaves_nothing_of_is_not_written(rng: np.random.Generator, tmp_path: Path) -> None:
    """Where no metric tells what it costs, outputs do."""
    nodes = [node("Gemm", ["x", "a"], ["h"]), node("Gemm", ["h", "b"], ["y"])]
    first, second = normal(rng, 8, 8), normal(rng, 8, 8)
    first[:, 0] *= 1e5
    second[0] = 0
    model = network(nodes, {"x": ["n", 8]}, {"a": first, "b": second}, ["y"])
    onnx.save(model, tmp_path / "fp32.onnx")
    np.savez(tmp_path / "examples.npz", x=normal(rng, 64, 8))
    form = FileForm(int8=True, dense=True, ranges_from=tmp_path / "examples.npz")
    with pytest.raises(ExportError, match=r"differ from those in fp32 by \d+% of them .*--keep-float"):
        export(open_source(str(tmp_path / "fp32.onnx")), tmp_path / "int8.onnx", form=form)
    assert not (tmp_path / "int8.onnx").exists()
