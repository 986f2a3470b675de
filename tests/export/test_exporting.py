"""What is verified before and after a file is written."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gossamer_runtime
import numpy as np
import onnx
import pytest
import torch
from export.onnx_graphs import network, sparse_weight
from onnx import helper, numpy_helper
from torch import Tensor

from gossamer.errors import ConfigurationError, ExportError
from gossamer.export import exporting
from gossamer.export.costs import EverythingSparse
from gossamer.export.exporting import export, save
from gossamer.export.form import FileForm
from gossamer.export.source import Source, open_source
from gossamer.export.twin import ExampleScore
from gossamer.graph.reading import read_dense
from gossamer.graph.sessions import sparse_session
from gossamer.graph.shapes import infer_shapes
from gossamer.tasks import Metric, find_task, initial_model

node = helper.make_node
RNG = np.random.default_rng(0)

pytestmark = pytest.mark.usefixtures("native_library")


@pytest.fixture
def source(tmp_path: Path) -> Source:
    constants = {"w": sparse_weight(RNG, 16, 24)}
    onnx.save(network([node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 16]}, constants, ["y"]), tmp_path / "dense.onnx")
    return open_source(str(tmp_path / "dense.onnx"))


def test_both_networks_are_scored(source: Source, tmp_path: Path) -> None:
    """Of the source, and of the file with weights in fp16."""

    def score(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs[:, 0] - targets

    feed = source.feeds[0]["x"]
    targets = [torch.ones(2), torch.ones(1), torch.ones(2)]
    scoring = ExampleScore(Metric("own", "lower", score), targets, torch.zeros(1, 24))
    scored = replace(source, scoring=scoring, feeds=({"x": feed[:2]}, {"x": feed[1:2]}, {"x": feed[:2]}))
    found = export(scored, tmp_path / "m.onnx", form=FileForm(half=True))
    rows = feed[[0, 1, 1, 0, 1]]
    weight = numpy_helper.to_array(source.dense.graph.initializer[0])[:, 0]
    assert found.metric_before == pytest.approx(float((rows @ weight).mean()) - 1, rel=1e-5)
    assert found.metric == pytest.approx(
        float((rows @ weight.astype(np.float16).astype(np.float32)).mean()) - 1, rel=1e-5
    )
    assert found.metric != found.metric_before


@pytest.mark.parametrize(("share", "fits"), [(-0.01, False), (0.0, True), (1.0, True), (1.01, False)])
def test_the_difference_of_fp16_is_a_share(share: float, fits: bool, source: Source, tmp_path: Path) -> None:
    if fits:
        assert export(source, tmp_path / "m.onnx", form=FileForm(half_difference=share)).path.exists()
    else:
        with pytest.raises(ConfigurationError, match=rf"--half-difference is {share}; expected a share from 0 to 1"):
            export(source, tmp_path / "m.onnx", form=FileForm(half_difference=share))


def test_where_it_is_written(source: Source, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"is a folder; give a file, such as .*model\.onnx"):
        export(source, tmp_path)
    with pytest.raises(ConfigurationError, match="there is no folder"):
        export(source, tmp_path / "none" / "m.onnx")
    with pytest.raises(ConfigurationError, match="is what is exported and would be lost"):
        export(source, tmp_path / "dense.onnx", overwrite=True)
    (tmp_path / "m.onnx").write_text("mine")
    with pytest.raises(ConfigurationError, match="replace it with --overwrite"):
        export(source, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_text() == "mine"
    with pytest.raises(ConfigurationError, match="leave --half out"):
        export(source, tmp_path / "other.onnx", form=FileForm(dense=True, half=True))
    export(source, tmp_path / "m.onnx", overwrite=True)
    assert onnx.load(tmp_path / "m.onnx").producer_name == "gossamer"


def test_what_is_told_of_a_file(source: Source, tmp_path: Path) -> None:
    found = export(source, tmp_path / "m.onnx", costs=EverythingSparse())
    assert [(layer.name, layer.form, layer.dense_time, layer.sparse_time) for layer in found.layers] == [
        ("w", "sparse", 1.0, 0.0)
    ]
    assert found.agreement.within
    assert (found.left, found.metric, found.metric_before, found.unvaried, found.lost) == ((), None, None, None, ())
    assert found.file_bytes == (tmp_path / "m.onnx").stat().st_size
    plain = export(source, tmp_path / "d.onnx", form=FileForm(dense=True))
    assert (plain.layers, plain.left) == ((), ())
    assert onnx.load(tmp_path / "d.onnx") == source.dense
    assert plain.file_bytes == plain.dense_bytes == found.dense_bytes


def test_a_network_that_no_file_holds(tmp_path: Path) -> None:
    class Huge:
        """Two gigabytes would have to be made."""

        def SerializeToString(self, **options: object) -> bytes:
            raise ValueError("Message onnx.ModelProto exceeds maximum protobuf size of 2GB")

    with pytest.raises(ExportError, match=r"too large for one ONNX file \(2 GiB\): .*2GB"):
        save(Huge(), tmp_path / "m.onnx")  # type: ignore[arg-type]
    assert not (tmp_path / "m.onnx").exists()


def test_a_dense_file_that_reads_back_as_something_else(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a disk does that loses bits.
    other = onnx.ModelProto()
    other.CopyFrom(source.dense)
    other.producer_name = "somebody else"
    monkeypatch.setattr(exporting, "save", lambda model, path: path.write_bytes(other.SerializeToString()) and None)
    with pytest.raises(ExportError, match="reads back as something else than was written; nothing was kept"):
        export(source, tmp_path / "m.onnx", form=FileForm(dense=True))
    assert not (tmp_path / "m.onnx").exists()


def test_without_the_native_library_no_sparse_file_is_written(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*arguments: object, **settings: object) -> None:
        raise gossamer_runtime.NativeLibraryMissing("built without a compiler")

    monkeypatch.setattr(gossamer_runtime, "Session", missing)
    with pytest.raises(ExportError, match="cannot be verified here, so none is written: built without a compiler"):
        sparse_session(source.dense.SerializeToString())


def test_a_network_too_large_to_infer_shapes_has_those_it_says(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*arguments: object, **options: object) -> None:
        raise ValueError("This protobuf of onnx model is too large (>2GiB)")

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", too_large)
    assert infer_shapes(source.dense)["x"] == ("n", 16)


@pytest.mark.parametrize("content", [b"\xff" * 10, b"garbage"])
def test_a_file_that_is_no_network(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ExportError, match=r"m\.onnx is no valid ONNX file"):
        read_dense(tmp_path / "m.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ExportError, match=r"folder\.onnx is no valid ONNX file: it is a folder"):
        read_dense(tmp_path / "folder.onnx")
    with pytest.raises(ExportError, match=r"there is no file .*none\.onnx"):
        read_dense(tmp_path / "none.onnx")


def test_what_an_onnx_file_needs_is_imported_without_torch() -> None:
    program = """
import sys
import gossamer.cli.export, gossamer.export.exporting, gossamer.export.source, gossamer.predict.network
assert 'torch' not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


TINY = """
import torch
from torch import nn
from gossamer.tasks import SGD, Data, Examples, OneCycle, Recipe, Task

def task():
    data = Data(*(Examples(torch.ones(count, 4), torch.zeros(count).long()) for count in (8, 1050, 8)))
    recipe = Recipe(1, 4, OneCycle(0.1), SGD())
    return Task("tiny", "", lambda: nn.Sequential(nn.Linear(4, 3)), lambda folder: data, recipe)
"""


def test_a_task_is_exported_with_its_first_weights(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TINY)
    found = open_source(f"{tmp_path}/mine.py:task")
    assert (found.name, found.inputs) == ("tiny, untrained", "1,000 validation examples")
    assert [len(next(iter(feed.values()))) for feed in found.feeds] == [100] * 10
    assert found.scoring is not None
    assert sum(map(len, found.scoring.targets)) == 1000
    task = find_task(f"{tmp_path}/mine.py:task")
    expected = initial_model(task, seed=0)[0].weight.detach()  # type: ignore[index]
    stored = [numpy_helper.to_array(tensor) for tensor in found.dense.graph.initializer]
    assert any(np.array_equal(weight, expected.numpy()) for weight in stored)


def test_a_task_of_gossamer_is_exported_by_its_name() -> None:
    found = open_source("digits")
    assert (found.name, found.inputs) == ("digits, untrained", "200 validation examples")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": {"x": Path("x.npy")}}, "--input says what an ONNX file is compared on"),
        ({"sizes": {"n": 3}}, "--size says what an ONNX file is compared on"),
        ({"round_number": 1}, "--round says what of a run to take, but 'digits' is no folder of a run"),
        ({"task": "a.py:b"}, "--task says what of a run to take"),
        ({"shrunk": True}, "--shrink says what of a run to take"),
    ],
)
def test_options_of_something_else(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        open_source("digits", **arguments)  # type: ignore[arg-type]


def test_what_can_be_exported(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'digit' is nothing to export: expected a run's folder"):
        open_source("digit")
    with pytest.raises(ConfigurationError, match="which need no data; leave --data out"):
        open_source(str(tmp_path / "m.onnx"), data_folder=tmp_path)
    (tmp_path / "own.py").write_text(
        "def three(): return 3\ndef pair():\n    import torch\n    return torch.nn.Linear(2, 2), 'text'\n"
    )
    with pytest.raises(ConfigurationError, match=r"the function returned int; expected a gossamer\.tasks\.Task"):
        open_source(f"{tmp_path}/own.py:three")
    with pytest.raises(ConfigurationError, match="the example inputs are str; expected a tensor"):
        open_source(f"{tmp_path}/own.py:pair")
