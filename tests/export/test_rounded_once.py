"""What gossamer quantised itself is rounded once behind an addition; what others did, as they meant it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export.onnx_graphs import Array, network, normal, run_dense, run_sparse, sparse_weight
from export.quantised_networks import SPARSE, AllSparse, quantised
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from gossamer.errors import ExportError
from gossamer.export.exporting import export
from gossamer.export.form import FileForm
from gossamer.export.rewrite import rewrite
from gossamer.export.source import open_source
from gossamer.export.twin import SplitScore
from gossamer.graph.graph import attributes_of
from gossamer.graph.layer_shape import LayerShape
from gossamer.graph.sessions import Feed
from gossamer.tasks import Metric

pytestmark = pytest.mark.usefixtures("native_library")
node = helper.make_node
Bytes = NDArray[np.uint8]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def block(rng: np.random.Generator) -> onnx.ModelProto:
    """A residual block between two layers, all of 1 x 1 pixels."""
    nodes = [
        node("Conv", ["x", "a"], ["first"], name="a"),
        node("Relu", ["first"], ["r"]),
        node("Conv", ["r", "b"], ["second"], name="b"),
        node("Add", ["second", "r"], ["sum"]),
        node("Relu", ["sum"], ["s"]),
        node("Conv", ["s", "c"], ["y"], name="c"),
    ]
    shapes = {"a": (32, 16), "b": (32, 32), "c": (8, 32)}
    weights = {name: sparse_weight(rng, *shape, 1, 1) for name, shape in shapes.items()}
    return network(nodes, {"x": ["n", 16, 6, 6]}, weights, ["y"], opset=17)


def product(weight: Array, value: Array) -> Array:
    return np.einsum("oc,nchw->nohw", weight[:, :, 0, 0], value)


def in_bytes(value: Array, low: float, high: float) -> tuple[Array, np.float32, int]:
    scale = np.float32((high - low) / 255)
    zero = round(-low / (high - low) * 255)
    return np.clip(np.round(value / scale) + zero, 0, 255), scale, zero


def test_a_residual_block_by_hand(rng: np.random.Generator, tmp_path: Path) -> None:
    """The sums of the second layer, whole numbers, become floats, and bytes only when the residual is added."""
    model = block(rng)
    examples, x = normal(rng, 200, 16, 6, 6), normal(rng, 20, 16, 6, 6)
    onnx.save(model, tmp_path / "fp32.onnx")
    np.savez(tmp_path / "examples.npz", x=examples)
    form = FileForm(int8=True, ranges_from=tmp_path / "examples.npz")
    found = export(open_source(str(tmp_path / "fp32.onnx")), tmp_path / "int8.onnx", form=form, costs=SPARSE)
    written = onnx.load(tmp_path / "int8.onnx")
    (adding,) = [entry for entry in written.graph.node if "residual_scale" in attributes_of(entry)]
    assert adding.name == "b"
    assert "sum_step" not in attributes_of(adding)
    assert found.same_bytes is not None
    assert found.same_bytes > 0.999

    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    steps = {name: np.abs(weight).max(axis=(1, 2, 3)) / np.float32(127) for name, weight in weights.items()}
    whole = {name: np.round(weight / steps[name][:, None, None, None]) for name, weight in weights.items()}
    relu = np.maximum(product(weights["a"], examples), 0)
    second = product(weights["b"], relu)
    total = np.maximum(second + relu, 0)

    def sums(name: str, value: Array, low: float, high: float) -> Array:
        given, scale, zero = in_bytes(value, low, high)
        return product(whole[name], given - zero) * (steps[name] * scale)[:, None, None]

    def of(value: Array, low: float, high: float) -> Array:
        given, scale, zero = in_bytes(value, low, high)
        return np.asarray((given - zero) * scale)

    r = of(np.maximum(sums("a", x, examples.min(), examples.max()), 0), 0, relu.max())
    added = sums("b", r, 0, relu.max())
    y = product(weights["c"], total)
    (got,) = run_sparse(written, {"x": x})

    def same(added: Array) -> float:
        """The share of outputs that are those of these sums."""
        result = of(np.maximum(added + r, 0), 0, total.max())
        given, scale, _ = in_bytes(sums("c", result, 0, total.max()), y.min(), y.max())
        return float(np.mean(np.abs(got / scale - (given - in_bytes(y, y.min(), y.max())[2])) < 0.5))

    assert same(added) > 0.99
    assert same(of(added, second.min(), second.max())) < 0.9


class SquareIsDense(AllSparse):
    """All layers sparse but the one that adds."""

    def sparse(self, shape: LayerShape, density: float) -> float:
        return 10.0 if shape.inputs == shape.outputs else 0.0


def test_a_layer_that_stays_dense_keeps_its_bytes(rng: np.random.Generator, tmp_path: Path) -> None:
    """ONNX Runtime has no op on bytes that makes floats: without them it would compute the layer in fp32."""
    onnx.save(block(rng), tmp_path / "fp32.onnx")
    np.savez(tmp_path / "examples.npz", x=normal(rng, 200, 16, 6, 6))
    form = FileForm(int8=True, ranges_from=tmp_path / "examples.npz")
    export(open_source(str(tmp_path / "fp32.onnx")), tmp_path / "int8.onnx", form=form, costs=SquareIsDense())
    written = onnx.load(tmp_path / "int8.onnx")
    (dense,) = [entry for entry in written.graph.node if entry.name == "b"]
    assert dense.op_type == "Conv"
    (behind,) = [entry for entry in written.graph.node if dense.output[0] in entry.input]
    assert behind.op_type == "QuantizeLinear"


def test_the_file_itself_has_to_be_within_the_allowed_loss(tmp_path: Path) -> None:
    """It is rounded at other places than the plain form that the layers were chosen by, for the worse now and then."""
    form = FileForm(int8=True, ranges_from=tmp_path / "examples.npz", max_drop=1.0)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        model, x = block(rng), normal(rng, 40, 16, 6, 6)
        onnx.save(model, tmp_path / "fp32.onnx")
        np.savez(tmp_path / "examples.npz", x=normal(rng, 100, 16, 6, 6))
        targets = run_dense(model, {"x": x})[0].argmax(1)

        def batches(x: Array = x, targets: NDArray[np.int64] = targets) -> Iterator[tuple[Feed, torch.Tensor]]:
            yield {"x": x}, torch.from_numpy(targets)

        score = SplitScore(Metric(), batches, torch.zeros(1, 8, 6, 6))
        source = replace(open_source(str(tmp_path / "fp32.onnx")), splits={"validation": score}, feeds=({"x": x},))
        losses = {}
        for dense in (True, False):
            kind = replace(form, dense=dense)
            costs = None if dense else SPARSE
            found = export(source, tmp_path / "int8.onnx", form=kind, costs=costs, overwrite=True).quantised
            assert found is not None
            losses[dense] = found.scores["validation"].before - found.scores["validation"].after
        if losses[False] > losses[True] > 0:
            break
    assert losses[False] > losses[True] > 0
    with pytest.raises(ExportError, match=r"in int8 with sparse ops the accuracy .*which without them it does not"):
        export(source, tmp_path / "none.onnx", form=replace(form, max_drop=losses[True]), costs=SPARSE)
    assert not (tmp_path / "none.onnx").exists()


def test_networks_of_others_keep_their_bytes(rng: np.random.Generator, tmp_path: Path) -> None:
    rewritten = rewrite(quantised(block(rng), [4, 16, 6, 6], tmp_path), costs=SPARSE)
    (adding,) = [entry for entry in rewritten.model.graph.node if "residual_scale" in attributes_of(entry)]
    assert attributes_of(adding)["sum_step"] > 0
