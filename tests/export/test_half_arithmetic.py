"""Files whose sparse layers multiply in fp16 where the processor can."""

from dataclasses import replace
from pathlib import Path

import gossamer_runtime
import numpy as np
import onnx
import pytest
import torch
from export.onnx_graphs import network
from onnx import helper
from torch import Tensor

from gossamer.errors import ConfigurationError, ExportError
from gossamer.export.costs import EverythingSparse
from gossamer.export.exporting import export
from gossamer.export.form import FileForm
from gossamer.export.half_arithmetic import ROUNDED_HALF, with_arithmetic
from gossamer.export.source import Source, open_source
from gossamer.export.twin import ExampleScore
from gossamer.tasks import Metric

pytestmark = pytest.mark.usefixtures("native_library")
IN_HALF = FileForm(half_arithmetic=True)
NONZEROS = 32


@pytest.fixture
def weight() -> np.ndarray:
    """[64, 24], half zeros in each column."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(64, 24)).astype(np.float32)
    for column in range(24):
        weight[rng.permutation(64)[:NONZEROS], column] = 0
    return weight


@pytest.fixture
def source(weight: np.ndarray, tmp_path: Path) -> Source:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    onnx.save(network(nodes, {"x": ["n", 64]}, {"w": weight}, ["y"]), tmp_path / "dense.onnx")
    return open_source(str(tmp_path / "dense.onnx"))


def arithmetics(path: Path) -> list[bytes]:
    nodes = onnx.load(path).graph.node
    return [one.s for node in nodes for one in node.attribute if one.name == "arithmetic"]


def test_the_file_asks_for_it_and_what_it_gives_is_scored(source: Source, weight: np.ndarray, tmp_path: Path) -> None:
    def score(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs[:, 0] - targets

    rows = source.feeds[0]["x"][:2]
    scoring = ExampleScore(Metric("own", "lower", score), [torch.zeros(2)], torch.zeros(1, 24))
    scored = replace(source, scoring=scoring, feeds=({"x": rows},))
    path = tmp_path / "m.onnx"
    found = export(scored, path, form=IN_HALF, costs=EverythingSparse())
    assert arithmetics(path) == [b"float16"]
    exact = rows.astype(np.float64) @ weight
    rounded = onnx.load(path)
    rounded.graph.node[0].attribute[-1].s = ROUNDED_HALF.encode()
    (got,) = gossamer_runtime.Session(rounded.SerializeToString()).run(None, {"x": rows})
    assert found.metric == pytest.approx(float(got[:, 0].mean()), rel=1e-6)
    assert found.metric != found.metric_before
    # Two roundings and chains of 32, whatever is added; and more than fp32's error.
    error = np.abs(got - exact)
    assert (error <= 34 / 2048 * (np.abs(rows).astype(np.float64) @ np.abs(weight))).all()
    assert error.max() > 1e-4


def test_inputs_that_are_read_by_few_weights_stay_in_fp32(weight: np.ndarray, tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    x = np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32)
    for kept, same in ((21, True), (22, False)):
        few = weight.copy()
        for column in few.T:
            column[np.flatnonzero(column)[kept:]] = 0
        onnx.save(network(nodes, {"x": [5, 64]}, {"w": few}, ["y"]), tmp_path / "few.onnx")
        form = tmp_path / "few-sparse.onnx"
        export(open_source(str(tmp_path / "few.onnx")), form, costs=EverythingSparse(), overwrite=True)
        model = onnx.load(form)
        outputs = [
            gossamer_runtime.Session(one.SerializeToString()).run(None, {"x": x})[0]
            for one in (model, with_arithmetic(model, ROUNDED_HALF))
        ]
        assert np.array_equal(*outputs) == same


def test_what_moves_the_outputs_too_far_is_refused(source: Source, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"products in fp16 \(--half-arithmetic\) .* --half-difference \(here 0\)"):
        export(source, tmp_path / "m.onnx", form=replace(IN_HALF, half_difference=0), costs=EverythingSparse())
    huge = replace(source, feeds=({"x": np.full((2, 64), 1e6, np.float32)},))
    with pytest.raises(ExportError, match="what is beyond 65504 becomes infinite"):
        export(huge, tmp_path / "m.onnx", form=IN_HALF, costs=EverythingSparse())
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize("other", ["dense", "int8", "smallest"])
def test_what_it_does_not_go_together_with(other: str) -> None:
    with pytest.raises(ConfigurationError, match=f"--{other} and arithmetic in fp16"):
        FileForm(half_arithmetic=True, **{other: True})


def test_an_arithmetic_that_is_not_known(source: Source, tmp_path: Path) -> None:
    export(source, tmp_path / "m.onnx", costs=EverythingSparse())
    model = with_arithmetic(onnx.load(tmp_path / "m.onnx"), "float12")
    with pytest.raises(Exception, match="unknown arithmetic 'float12'; known: float32, float16, float16_rounded"):
        gossamer_runtime.Session(model.SerializeToString())
