"""`gossamer export --smallest`: weights in levels within the allowed loss, coded, in a file that ONNX Runtime runs."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export.onnx_graphs import network, run_sparse, sparse_weight
from gossamer_runtime import coding
from onnx import helper, numpy_helper
from small_run import printed, refused

from gossamer.errors import ConfigurationError
from gossamer.export.costs import MeasuredCosts
from gossamer.export.exporting import export
from gossamer.export.form import FileForm
from gossamer.export.source import open_source
from gossamer.job.compress import compress
from gossamer.job.training import Training
from gossamer.loop.records import read_records
from gossamer.loop.stop import Stop
from gossamer.prune.cut import Cut
from gossamer.reopen import open_round
from gossamer.rewind.strategies import Retraining
from gossamer.tasks import find_task

pytestmark = pytest.mark.usefixtures("native_library")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits at 20% of their weights."""
    folder = tmp_path_factory.mktemp("smallest") / "digits"
    compress(
        find_task("digits"),
        folder=folder,
        stop=Stop(target_sparsity=0.8),
        cut=Cut(per_round=0.8),
        training=Training(epochs=2),
    )
    return folder


def coded_weights(model: onnx.ModelProto) -> list[coding.Coded]:
    packed = [numpy_helper.to_array(tensor).tobytes() for tensor in model.graph.initializer]
    return [coding.decode(one) for one in packed if one[:1] == b"\x02"]


def test_a_run_in_few_bytes(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    output = printed("export", run, "--round", 1, "-o", path, "--smallest", "--max-drop", 0.02)
    printed("export", run, "--round", 1, "-o", tmp_path / "balanced.onnx")
    assert path.stat().st_size < 0.5 * (tmp_path / "balanced.onnx").stat().st_size
    written, finished = onnx.load(path), open_round(run, 1)
    for name, split in (("validation", finished.data.validation), ("test", finished.data.test)):
        inputs, targets = split.batch(slice(None))
        with torch.no_grad():
            before = float((finished.model(inputs).argmax(1) == targets).float().mean())
        (outputs,) = run_sparse(written, {written.graph.input[0].name: inputs.numpy()})
        after = float(np.mean(outputs.argmax(1) == targets.numpy()))
        assert f"accuracy on all of {name}: {before:.2%} -> {after:.2%}" in output
        if name == "validation":
            assert before - after <= 0.02 + 1e-6
    facts = {entry.key: entry.value for entry in written.metadata_props}
    told = r"accuracy: validation 0\.\d+ -> 0\.\d+, test 0\.\d+ -> 0\.\d+"
    assert set(facts) == {"gossamer"}
    assert re.fullmatch(told, facts["gossamer"])
    coded = coded_weights(written)
    assert len(coded) == 4
    # What was pruned stays zero, and the levels are few.
    kept = sum(int(mask.sum()) for mask in finished.masks.values())
    assert sum(np.count_nonzero(one.levels) for one in coded) <= kept
    assert all(np.abs(one.levels).max() <= 64 for one in coded)
    ways = re.search(
        r"as estimated: nearest ([\d,]+), rate ([\d,]+), compensated ([\d,]+), sequential ([\d,]+)", output
    )
    assert ways is not None


@pytest.fixture(scope="module")
def in_levels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits at 20% of their weights, the last round trained in one level, which is too few: most is lost."""
    folder = tmp_path_factory.mktemp("levels") / "digits"
    compress(
        find_task("digits"),
        folder=folder,
        stop=Stop(target_sparsity=0.8),
        cut=Cut(per_round=0.8),
        training=Training(epochs=3),
        retraining=Retraining(quantised_rounds=1, levels=1),
    )
    return folder


def test_a_round_in_levels_keeps_them(in_levels: Path, tmp_path: Path) -> None:
    """A loss is counted from the round before, in float. Biases are rounded too, which may cost an image or two."""
    before, last = read_records(in_levels)
    drop = (before.val or 0) - (last.val or 0)
    path = tmp_path / "small.onnx"
    output = printed("export", in_levels, "--round", 1, "-o", path, "--smallest", "--max-drop", drop + 0.02)
    assert f"--max-drop counts from round 0, the last one in float: {before.val:.2%}" in output
    sizes = {way: int(size.replace(",", "")) for way, size in re.findall(r"(\w+) (\d[\d,]*)[,;]", output)}
    assert "trained" in sizes
    for one in coded_weights(onnx.load(path)):
        assert len(np.unique(np.abs(one.levels[one.levels != 0]))) <= 1
    message = refused("export", in_levels, "--round", 1, "-o", tmp_path / "x.onnx", "--smallest", "--max-drop", 0)
    assert "counted from round 0, the last one in float" in message


def test_levels_of_a_weight_that_has_them(tmp_path: Path) -> None:
    """A file without a metric, one weight of which is whole multiples of a number already."""
    rng = np.random.default_rng(0)
    levels = (rng.integers(-5, 6, (40, 30)) * (rng.random((40, 30)) < 0.3)).astype(np.float32)
    weights = {"first": levels * np.float32(0.0859375), "second": sparse_weight(rng, 8, 40, density=0.2)}
    nodes = [
        helper.make_node("Gemm", ["x", "first"], ["h"], transB=1),
        helper.make_node("Gemm", ["h", "second"], ["y"], transB=1),
    ]
    onnx.save(network(nodes, {"x": ["n", 30]}, weights, ["y"]), tmp_path / "whole.onnx")
    output = printed("export", tmp_path / "whole.onnx", "-o", tmp_path / "small.onnx", "--smallest")
    assert "1 of 2 layers are in levels already, and keep them; the others: a step of an eighth" in output
    first = max(coded_weights(onnx.load(tmp_path / "small.onnx")), key=lambda one: one.levels.size)
    assert first.step == 0.0859375
    # Units are in another order, without those that nothing reads.
    assert set(map(tuple, first.levels.tolist())) <= set(map(tuple, levels.tolist()))
    assert len(first.levels) > len(levels) / 2


def test_without_a_loss_it_keeps_more_levels(run: Path, tmp_path: Path) -> None:
    sizes = {}
    for drop in (0, 0.05):
        path = tmp_path / f"{drop}.onnx"
        printed("export", run, "--round", 1, "-o", path, "--smallest", "--max-drop", drop)
        sizes[drop] = path.stat().st_size
    assert sizes[0.05] < sizes[0]


def test_a_file_without_a_metric(tmp_path: Path) -> None:
    """A step of an eighth of the largest weight, which is said to be unmeasured; names of inputs and outputs stay."""
    rng = np.random.default_rng(0)
    weights = {
        "first.weight": sparse_weight(rng, 40, 30, density=0.2),
        "first.bias": rng.standard_normal(40).astype(np.float32),
        "second.weight": sparse_weight(rng, 8, 40, density=0.2),
    }
    nodes = [
        helper.make_node("Gemm", ["image", "first.weight", "first.bias"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "second.weight"], ["scores"], transB=1),
    ]
    onnx.save(network(nodes, {"image": ["n", 30]}, weights, ["scores"]), tmp_path / "whole.onnx")
    output = printed("export", tmp_path / "whole.onnx", "-o", tmp_path / "small.onnx", "--smallest")
    assert "was not measured" in output
    written = onnx.load(tmp_path / "small.onnx")
    assert [value.name for value in written.graph.input] == ["image"]
    assert [value.name for value in written.graph.output] == ["scores"]
    first, second = sorted(coded_weights(written), key=lambda one: -one.levels.size)
    # Steps are the next ones of 8 digits. Units that died of it are gone, the others in another order.
    expected = {name: weights[name].astype(np.float64) for name in ("first.weight", "second.weight")}
    for found, name in ((first, "first.weight"), (second, "second.weight")):
        largest = np.abs(weights[name]).max()
        assert largest / 8 <= found.step <= largest / 8 * (1 + 2**-7)
        expected[name] = np.rint(expected[name] / found.step).astype(np.float32) * np.float32(found.step)
    alive = expected["second.weight"].any(axis=0)
    rows = sorted(map(tuple, expected["first.weight"][alive & expected["first.weight"].any(axis=1)]))
    assert sorted(map(tuple, first.dense())) == rows
    # By hand: levels times step, biases within half of the 32nd part of the largest.
    x = rng.standard_normal((3, 30)).astype(np.float32)
    (got,) = run_sparse(written, {"image": x})
    hidden = np.maximum(x @ expected["first.weight"].T + weights["first.bias"], 0)
    allowed = np.abs(weights["first.bias"]).max() / 32 * np.abs(expected["second.weight"]).sum(1)
    assert np.all(np.abs(got - hidden @ expected["second.weight"].T) <= allowed + 1e-5)


def test_what_is_refused(run: Path, tmp_path: Path) -> None:
    onnx.save(
        network([helper.make_node("Relu", ["x"], ["y"])], {"x": [1, 3]}, {}, ["y"]),
        tmp_path / "none.onnx",
    )
    assert "leave --int8 out" in refused("export", run, "--smallest", "--int8", "-o", tmp_path / "x.onnx")
    assert "leave --dense out" in refused("export", run, "--smallest", "--dense", "-o", tmp_path / "x.onnx")
    assert "no layer was found" in refused("export", tmp_path / "none.onnx", "--smallest", "-o", tmp_path / "x.onnx")
    weight = {"w": np.full((8, 8), np.nan, np.float32)}
    onnx.save(
        network([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": [1, 8]}, weight, ["y"]), tmp_path / "nan.onnx"
    )
    assert "infinite or NaN" in refused("export", tmp_path / "nan.onnx", "--smallest", "-o", tmp_path / "x.onnx")
    source, costs = open_source(str(tmp_path / "nan.onnx")), MeasuredCosts()
    with pytest.raises(ConfigurationError, match="leave --calibration out"):
        export(source, tmp_path / "x.onnx", form=FileForm(smallest=True), costs=costs)
    assert not (tmp_path / "x.onnx").exists()


def test_weights_that_are_not_coded_are_named(tmp_path: Path) -> None:
    """In the fewest bytes a weight without zeros is worth a word too: an LSTM's, and one in the branch of an If."""
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.standard_normal((1, 128, 32)).astype(np.float32),
        "r": rng.standard_normal((1, 128, 32)).astype(np.float32),
        "axis": np.int64([1]),
        "v": rng.standard_normal((32, 32)).astype(np.float32),
        "nothing": np.float32(0),
    }
    chosen = helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [None, None, 32])
    held = numpy_helper.from_array(rng.standard_normal((32, 32)).astype(np.float32), "held")
    then = helper.make_graph(
        [helper.make_node("MatMul", ["y", "held"], ["z"], name="inner")], "t", [], [chosen], [held]
    )
    otherwise = helper.make_graph([helper.make_node("Identity", ["y"], ["z"])], "e", [], [chosen])
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r"], ["h"], hidden_size=32, name="recurrent"),
        helper.make_node("Squeeze", ["h", "axis"], ["s"]),
        helper.make_node("MatMul", ["s", "v"], ["y"]),
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "nothing"], ["which"]),
        helper.make_node("If", ["which"], ["out"], then_branch=then, else_branch=otherwise),
    ]
    onnx.save(network(nodes, {"x": [5, 2, 32]}, constants, ["out"]), tmp_path / "given.onnx")
    output = printed("export", tmp_path / "given.onnx", "-o", tmp_path / "small.onnx", "--smallest")
    assert "left as they are: recurrent, recurrent: LSTM has no sparse op" in output
    assert "left as it is: inner: it is read in the body of an If, whose layers stay dense" in output
    # Without --smallest they have no zeros that could be left out.
    assert "left as" not in printed("export", tmp_path / "given.onnx", "-o", tmp_path / "balanced.onnx")


def test_a_network_in_half_precision_is_refused_with_the_reason(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["x"], ["c"], to=onnx.TensorProto.FLOAT16),
        helper.make_node("MatMul", ["c", "w"], ["h"], name="only"),
        helper.make_node("Cast", ["h"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    onnx.save(network(nodes, {"x": ["n", 64]}, {"w": weight}, ["y"]), tmp_path / "half.onnx")
    message = refused("export", tmp_path / "half.onnx", "-o", tmp_path / "small.onnx", "--smallest")
    assert "no layer was found whose weights could be coded" in message
    assert "only: its weight is of type float16" in message
