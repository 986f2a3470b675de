"""`gossamer export --dense --int8` of runs: what is measured, printed and recorded."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from export.onnx_graphs import run_dense, run_sparse
from onnx import numpy_helper
from small_run import printed, refused

from gossamer.job.compress import compress
from gossamer.job.training import Training
from gossamer.loop.folder import load_ranges
from gossamer.loop.stop import Stop
from gossamer.prune.cut import Cut
from gossamer.reopen import FinishedRound, open_round
from gossamer.rewind.strategies import Retraining
from gossamer.tasks import find_task
from gossamer.tasks.task import Examples

pytestmark = pytest.mark.usefixtures("native_library")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits at 20% and at 4% of their weights, the latter trained for int8."""
    folder = tmp_path_factory.mktemp("int8") / "digits"
    compress(
        find_task("digits"),
        folder=folder,
        stop=Stop(target_sparsity=0.96),
        cut=Cut(per_round=0.8),
        retraining=Retraining(quantised_rounds=1),
        training=Training(epochs=2),
    )
    return folder


def accuracy(model: onnx.ModelProto, split: Examples) -> str:
    inputs, targets = split.batch(slice(None))
    (outputs,) = run_dense(model, {model.graph.input[0].name: inputs.numpy()})
    return f"{np.mean(outputs.argmax(1) == targets.numpy()):.2%}"


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray[Any, Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def opened(run: Path, number: int) -> FinishedRound:
    return open_round(run, number)


def test_the_metric_before_and_after_is_told_and_recorded(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    output = printed("export", run, "--round", 1, "-o", path, "--dense", "--int8")
    written, finished = onnx.load(path), opened(run, 1)
    for name, split in (("validation", finished.data.validation), ("test", finished.data.test)):
        inputs, targets = split.batch(slice(None))
        with torch.no_grad():
            before = f"{float((finished.model(inputs).argmax(1) == targets).float().mean()):.2%}"
        assert f"accuracy on all of {name}: {before} -> {accuracy(written, split)}" in output
    assert "4 of 4 layers compute in int8, ranges by minmax of 512 training examples;" in output
    facts = {entry.key: entry.value for entry in written.metadata_props}
    assert facts["gossamer.int8.ranges"] == "minmax of 512 training examples"
    assert facts["gossamer.int8.layers"] == "4"
    assert "gossamer.int8.validation.accuracy" in facts
    assert facts["gossamer.int8.test.accuracy"].count(" -> ") == 1
    weights = {name.removesuffix(".weight"): mask for name, mask in finished.masks.items()}
    stored = constants(written)
    for name, mask in weights.items():
        kept = stored[f"{name}.weight_quantized"]
        assert kept.dtype == np.int8
        assert not kept[~mask.numpy()].any()


def test_ranges_that_a_round_was_trained_with(run: Path, tmp_path: Path) -> None:
    output = printed("export", run, "--round", 2, "-o", tmp_path / "int8.onnx", "--dense", "--int8")
    assert "minmax of 512 training examples, inputs of 4 layers as trained" in output
    stored = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "int8.onnx").graph.initializer
    }
    scales = {float(value) for name, value in stored.items() if name.endswith("_scale") and value.ndim == 0}
    for found in load_ranges(run, 2).values():
        expected = (max(found.high, 0) - min(found.low, 0)) / 255
        assert any(np.isclose(scale, expected, rtol=1e-5) for scale in scales)
    inputs, _ = opened(run, 2).data.train.batch(slice(0, 100))
    np.savez(tmp_path / "own.npz", input=inputs)
    options = ("--dense", "--int8", "--ranges-from", tmp_path / "own.npz", "--ranges-by", "percentile", "--overwrite")
    output = printed("export", run, "--round", 2, "-o", tmp_path / "int8.onnx", *options)
    assert f"percentile of 100 examples of {tmp_path / 'own.npz'};" in " ".join(output.split()).replace("/ ", "/")


def test_ranges_never_come_from_validation_or_test(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With training examples of zeros every range of the input is empty, whatever the other splits hold."""
    task = find_task("digits")
    data = task.data(None)
    blank = Examples(torch.zeros_like(data.train.inputs), data.train.targets, data.train.prepare)
    monkeypatch.setattr("gossamer.reopen.load_data", lambda *arguments: type(data)(blank, data.validation, data.test))
    options = ("--dense", "--int8", "--max-drop", "1")
    printed("export", run, "--round", 0, "-o", tmp_path / "int8.onnx", *options)
    stored = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "int8.onnx").graph.initializer
    }
    assert float(stored["input_scale"]) == pytest.approx(1.0)


def test_a_loss_is_refused(run: Path, tmp_path: Path) -> None:
    inputs, _ = opened(run, 0).data.train.batch(slice(0, 1))
    np.savez(tmp_path / "dark.npz", input=inputs * 1e-3)
    options = ("--dense", "--int8", "--ranges-from", tmp_path / "dark.npz")
    message = refused("export", run, "--round", 0, "-o", tmp_path / "int8.onnx", *options)
    assert "may get worse by 0.01 (--max-drop). Nothing was written. The layers that cost most: " in message
    assert not (tmp_path / "int8.onnx").exists()


def test_sparse_ops_on_bytes(run: Path, tmp_path: Path) -> None:
    """The file computes what the plain one computes, within a step, and holds no zero of its sparse weights."""
    plain, path = tmp_path / "plain.onnx", tmp_path / "int8.onnx"
    printed("export", run, "--round", 2, "-o", plain, "--dense", "--int8", "--max-drop", "1")
    output = printed("export", run, "--round", 2, "-o", path, "--int8", "--max-drop", "1")
    written, finished = onnx.load(path), opened(run, 2)
    kinds = {entry.op_type for entry in written.graph.node if entry.domain == "gossamer"}
    assert {"QuantisedConv", "DequantisedMatMul"} & kinds
    inputs, targets = finished.data.test.batch(slice(None))
    feed = {written.graph.input[0].name: inputs.numpy()}
    (got,), (expected,) = run_sparse(written, feed), run_dense(onnx.load(plain), feed)
    step = float(np.ptp(expected)) / 255
    assert np.abs(got - expected).max() <= 2 * step
    share = f"{np.mean(got.argmax(1) == targets.numpy()):.2%}"
    assert re.search(rf"accuracy on all of test: [0-9.]+% -> {share}", output)
    made = "of the floats that quantised ops make, " if "DequantisedMatMul" in kinds else "of what quantised ops make, "
    assert made in output
    assert "it runs with gossamer_runtime.Session" in output
    assert path.stat().st_size < plain.stat().st_size
    facts = {entry.key: entry.value for entry in written.metadata_props}
    assert facts["gossamer.int8.layers"] == "4"
    assert facts["gossamer.needs"].startswith("gossamer-runtime")
    assert f"{float(facts['gossamer.int8.test.accuracy'].split()[-1]):.2%}" == share
