"""`gossamer bench FILE` and `gossamer bench shapes`: engines that really run, on small networks."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bench.test_network import PICTURES
from command_line import gossamer
from export.onnx_graphs import network, run_dense, sparse_weight
from onnx import helper, numpy_helper
from small_run import printed, refused
from typer.testing import CliRunner

from gossamer.bench.compare import both_forms
from gossamer.bench.engines import ENGINE_ORDER
from gossamer.bench.network import build, read
from gossamer.cli.main import app
from gossamer.export.costs import EverythingSparse
from gossamer.export.rewrite import rewrite

pytestmark = pytest.mark.usefixtures("native_library")


@pytest.fixture
def sparse_file(tmp_path: Path) -> Path:
    """As `gossamer export` writes them."""
    path = tmp_path / "model.onnx"
    onnx.save(rewrite(build(read("pictures", PICTURES), 0.3), costs=EverythingSparse()).model, path)
    return path


def measured(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_a_file_is_measured_on_the_engines_asked_for(sparse_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "times.json"
    text = printed("bench", sparse_file, "--runs", 3, "--threads", 2, "--layers", "--json", out)
    result = measured(out)
    assert (result["threads"], result["runs"], result["skipped"]) == (2, 3, {})
    assert list(result["engines"]) == ["gossamer", "dense", "int8"]
    assert result["machine"]["processor"] in text
    for name, facts in result["engines"].items():
        times = facts["milliseconds"]
        assert 0 < times["p10"] <= times["median"] <= times["p90"]
        assert facts["ratio"] == times["median"] / result["engines"]["gossamer"]["milliseconds"]["median"]
        assert all(version in text for version in facts["version"].split(", "))
        assert name in text
    # Both compute in fp32; int8 errs, which is no reason to refuse it.
    assert result["engines"]["gossamer"]["difference"] < 1e-5
    assert result["engines"]["dense"]["difference"] == 0
    assert result["engines"]["int8"]["difference"] > 1e-5


def test_weights_and_layers_are_those_of_the_network(tmp_path: Path) -> None:
    lines, out = tmp_path / "mine.txt", tmp_path / "times.json"
    lines.write_text(
        "image input 3x32x32\n"
        "stem conv image outputs=64 kernel=3 stride=2 relu dense\n"
        "wide conv stem outputs=128 kernel=3 groups=2 relu\n"
        "average average wide\n"
        "classes linear average outputs=256 dense\n"
    )
    arguments = ("--density", 0.1, "--against", "dense", "--runs", 3, "--layers", "--json", out)
    printed("bench", "shapes", lines, *arguments)
    result = measured(out)
    model = build(read("mine", lines.read_text()), 0.1)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    wide = arrays["wide.weight"]
    dense = 64 * 3 * 9 + 256 * 128
    assert wide.size == 128 * 32 * 9
    assert result["weights"] == {"all": dense + wide.size, "kept": dense + np.count_nonzero(wide)}
    layers = {layer["shape"]: layer for layer in result["layers"]}
    assert list(layers) == ["3 x 32 x 32 -> 64, 3 x 3 / 2", "64 x 16 x 16 -> 128, 3 x 3, 2 groups", "1 x 128 -> 256"]
    layer = layers["64 x 16 x 16 -> 128, 3 x 3, 2 groups"]
    assert layer["density"] == np.count_nonzero(wide) / wide.size
    operations = 2 * wide.size * 16 * 16
    assert layer["dense_gflops"] == pytest.approx(operations / (layer["milliseconds"] * 1e-3) / 1e9)
    assert layer["gflops"] == pytest.approx(layer["density"] * layer["dense_gflops"])
    assert layer["peak_share"] == pytest.approx(layer["gflops"] / result["peak_gflops"])
    assert layer["dense_milliseconds"] > 0


def test_a_plain_file_with_zeros_is_made_sparse_first(tmp_path: Path) -> None:
    text = "image input 64x14x14\nfirst conv image outputs=256 relu\nsecond conv first outputs=64 relu"
    plain, out = tmp_path / "plain.onnx", tmp_path / "times.json"
    onnx.save(build(read("plain", text), 0.05), plain)
    shown = printed("bench", plain, "--against", "dense", "--runs", 1, "--json", out)
    assert "gossamer's ops in ONNX Runtime" in shown
    assert measured(out)["engines"]["gossamer"]["difference"] < 1e-5


def test_known_networks_need_no_file(tmp_path: Path) -> None:
    out = tmp_path / "times.json"
    text = printed("bench", "shapes", "resnet-20", "--density", 0.05, "--runs", 2, "--against", "dense", "--json", out)
    result = measured(out)
    assert "resnet-20 at 0.95 zeros" in text
    assert result["weights"]["all"] == 270_896
    # The stem, 432 weights, is dense.
    assert result["weights"]["kept"] == pytest.approx(432 + 0.05 * 270_464, rel=0.05)


def test_a_network_of_ones_own_is_measured_by_its_lines(tmp_path: Path) -> None:
    lines = tmp_path / "mine.txt"
    lines.write_text(PICTURES)
    assert "mine.txt at 0.7 zeros" in printed(
        "bench", "shapes", lines, "--density", 0.3, "--runs", 1, "--against", "dense"
    )
    lines.write_text(PICTURES.replace("outputs=6", "outputs=six"))
    assert "mine, line 8: outputs must be a whole number" in refused("bench", "shapes", lines)


def test_an_engine_that_is_not_installed_is_named_and_left_out(
    sparse_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # importing it fails, installed or not
    out = tmp_path / "times.json"
    text = printed("bench", sparse_file, "--runs", 1, "--against", "openvino,dense", "--json", out)
    assert "skipped openvino: OpenVINO is not installed: pip install openvino" in text
    result = measured(out)
    assert list(result["engines"]) == ["gossamer", "dense"]
    assert list(result["skipped"]) == ["openvino"]


def test_openvino_computes_the_same(sparse_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    out = tmp_path / "times.json"
    printed("bench", sparse_file, "--runs", 1, "--against", "openvino", "--json", out)
    assert measured(out)["engines"]["openvino"]["difference"] < 1e-3


def test_an_unknown_engine_is_refused_with_those_that_there_are(sparse_file: Path) -> None:
    message = refused("bench", sparse_file, "--against", "dense,tflite")
    assert "no engine 'tflite'" in message
    assert all(name in message for name in ENGINE_ORDER if name != "gossamer")


def test_an_engine_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    # Infinity times a pruned weight is no number where zeros are multiplied, and nothing where they are skipped.
    nodes = [
        helper.make_node("Mul", ["rows", "scale"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "weight"], ["product"], name="layer"),
        helper.make_node("IsNaN", ["product"], ["lost"]),
        helper.make_node("Cast", ["lost"], ["out"], to=onnx.TensorProto.FLOAT),
    ]
    scale = np.array([np.inf, *[1.0] * 15], np.float32)
    model = network(nodes, {"rows": [8, 16]}, {"scale": scale, "weight": np.eye(16, dtype=np.float32)}, ["out"])
    path = tmp_path / "infinite.onnx"
    onnx.save(rewrite(model, costs=EverythingSparse()).model, path)
    message = refused("bench", path, "--runs", 1)
    assert "gossamer computes something else: its outputs differ by 1.0e+00 of the largest" in message


def test_the_batch_that_is_open_is_one(tmp_path: Path) -> None:
    weight = np.eye(4, dtype=np.float32)
    nodes = [helper.make_node("MatMul", ["rows", "weight"], ["out"])]
    path = tmp_path / "open.onnx"
    onnx.save(network(nodes, {"rows": ["batch", 4]}, {"weight": weight}, ["out"]), path)
    assert "4 of 16 weights" in printed("bench", path, "--runs", 1, "--against", "dense")


def half_kept(path: Path) -> onnx.ModelProto:
    """Three linear layers that are faster dense, and so are stored without their zeros."""
    rng = np.random.default_rng(0)
    constants = {f"{place}.weight": sparse_weight(rng, 96, 96, density=0.5) for place in range(3)}
    nodes = []
    for place, source in enumerate(["rows", "active0", "active1"]):
        ends = "out" if place == 2 else f"sums{place}"
        nodes.append(helper.make_node("Gemm", [source, f"{place}.weight"], [ends], name=str(place), transB=1))
        if place < 2:
            nodes.append(helper.make_node("Relu", [ends], [f"active{place}"]))
    model = network(nodes, {"rows": ["batch", 96]}, constants, ["out"])
    onnx.save(model, path)
    return model


def test_a_file_with_stored_weights_is_compared_as_its_dense_twin(tmp_path: Path) -> None:
    plain, stored, twin = (tmp_path / name for name in ("plain.onnx", "stored.onnx", "twin.onnx"))
    model = half_kept(plain)
    printed("export", plain, "--out", stored)
    printed("export", plain, "--dense", "--out", twin)
    assert len(onnx.load(stored).graph.node) > len(model.graph.node)
    results = {}
    for path in (stored, twin):
        out = path.with_suffix(".json")
        printed("bench", path, "--runs", 1, "--against", "dense,int8", "--layers", "--json", out)
        results[path] = measured(out)
        assert results[path]["skipped"] == {}
    kept = sum(np.count_nonzero(numpy_helper.to_array(tensor)) for tensor in model.graph.initializer)
    for result in results.values():
        assert result["weights"] == {"all": 3 * 96 * 96, "kept": kept}
        assert [layer["shape"] for layer in result["layers"]] == ["1 x 96 -> 96"] * 3
        assert all(layer["milliseconds"] > 0 for layer in result["layers"])
    # Quantised from the same weights and inputs, both err alike, to the last bit.
    assert len({result["engines"]["int8"]["difference"] for result in results.values()}) == 1
    assert results[stored]["engines"]["int8"]["difference"] > 0

    subject = both_forms(onnx.load(stored), 1, tmp_path)
    assert [node.op_type for node in subject.dense.graph.node] == ["Gemm", "Relu", "Gemm", "Relu", "Gemm"]
    assert np.array_equal(run_dense(subject.dense, subject.inputs)[0], run_dense(model, subject.inputs)[0])
    # gossamer is timed on what is in the file.
    assert subject.sparse.graph.node == onnx.load(stored).graph.node


def written(model: onnx.ModelProto) -> tuple[list[onnx.NodeProto], dict[str, bytes]]:
    return list(model.graph.node), {tensor.name: tensor.SerializeToString() for tensor in model.graph.initializer}


def test_a_plain_file_is_timed_as_the_export_writes_it(tmp_path: Path) -> None:
    plain, exported = tmp_path / "plain.onnx", tmp_path / "exported.onnx"
    model = half_kept(plain)
    printed("export", plain, "--out", exported)
    subject = both_forms(model, 1, tmp_path)
    assert written(subject.sparse) == written(onnx.load(exported))
    assert written(subject.dense) == written(model)


def test_the_sizes_that_are_measured_do_not_change_what_is_written(tmp_path: Path) -> None:
    """The export does not know them; for images of 2 x 2 alone it would leave the layers dense."""
    plain, exported = tmp_path / "plain.onnx", tmp_path / "exported.onnx"
    rng = np.random.default_rng(0)
    constants = {name: sparse_weight(rng, 64, 64, 3, 3, density=0.05) for name in ("first", "second")}
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["between"], pads=[1] * 4),
        helper.make_node("Conv", ["between", "second"], ["out"], pads=[1] * 4),
    ]
    onnx.save(network(nodes, {"image": ["batch", 64, "height", "width"]}, constants, ["out"]), plain)
    printed("export", plain, "--out", exported)
    subject = both_forms(onnx.load(plain), 1, tmp_path, {"height": 2, "width": 2})
    assert written(subject.sparse) == written(onnx.load(exported))
    assert any(node.op_type == "SparseConv" for node in subject.sparse.graph.node)


def test_sizes_that_are_open_have_to_be_said(tmp_path: Path) -> None:
    path, out = tmp_path / "open.onnx", tmp_path / "times.json"
    weight = sparse_weight(np.random.default_rng(0), 8, 8, 3, 3)
    nodes = [helper.make_node("Conv", ["image", "weight"], ["out"])]
    onnx.save(network(nodes, {"image": ["batch", 8, "height", "width"]}, {"weight": weight}, ["out"]), path)
    arguments = ("bench", path, "--runs", 1, "--against", "dense", "--layers", "--json", out)
    message = refused(*arguments)
    assert "height, width" in message
    assert "--size height=NUMBER --size width=NUMBER" in message
    missing = refused(*arguments, "--size", "height=6")
    assert "open, and its time depends on them: width;" in missing
    unknown = refused(*arguments, "--size", "height=6", "--size", "width=7", "--size", "hight=6", "--size", "batch=2")
    assert "no open size 'hight', 'batch'; open are height, width" in unknown
    assert "batch is the batch, which is 1" in unknown
    for mistaken in ("height", "height=", "=3", "height=-1", "height=six", "height=1.5"):
        assert f"--size is '{mistaken}'; expected a name and a whole number" in refused(*arguments, "--size", mistaken)
    assert "says height twice" in refused(*arguments, "--size", "height=6", "--size", "height=7")
    assert "got 0 for the size height" in refused(*arguments, "--size", "height=0", "--size", "width=7")
    # Where no window fits ONNX Runtime refuses to run.
    assert "ONNX Runtime cannot run this network" in refused(*arguments, "--size", "height=2", "--size", "width=7")

    text = printed(*arguments, "--size", "height=6", "--size", "width=7")
    assert "open.onnx (height=6, width=7): " in text
    result = measured(out)
    assert result["sizes"] == {"height": 6, "width": 7}
    (layer,) = result["layers"]
    assert layer["shape"] == "8 x 6 x 7 -> 8, 3 x 3"
    operations = 2 * weight.size * 4 * 5
    assert layer["dense_gflops"] == pytest.approx(operations / (layer["milliseconds"] * 1e-3) / 1e9)


def test_numbers_are_whole_where_the_terminal_is_narrow(sparse_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "times.json"
    arguments = ["bench", str(sparse_file), "--runs", "1", "--layers", "--json", str(out)]
    text = CliRunner().invoke(app, arguments, env={"TTY_COMPATIBLE": "1", "TERM": "dumb", "COLUMNS": "80"}).output
    table = text.partition("\n")[2].split("versions:")[0]
    assert max(len(line) for line in table.splitlines()) <= 80
    result = measured(out)
    for name, facts in result["engines"].items():
        (line,) = (line for line in table.splitlines() if line.startswith(f"{name} "))
        times = facts["milliseconds"]
        assert f" {times['median']:.3f} " in line
        assert f" {times['p10']:.3f} .. {times['p90']:.3f} " in line
        assert line.endswith(f" {facts['difference']:.1e}    {facts['ready_seconds']:.2f} s")
    for layer in result["layers"]:
        (line,) = (line for line in table.splitlines() if line.startswith(f"{layer['name']} "))
        numbers = (f"{layer[key]:.3f}" for key in ("milliseconds", "dense_milliseconds"))
        assert line.replace(layer["shape"], "").split()[1:4] == [f"{layer['density']:.1%}", *numbers]


def test_damaged_files_end_in_one_line(sparse_file: Path, tmp_path: Path) -> None:
    damaged, nothing, text = (tmp_path / name for name in ("damaged.onnx", "nothing.onnx", "text.onnx"))
    damaged.write_bytes(sparse_file.read_bytes()[:-200])
    nothing.write_bytes(b"")
    text.write_text("no network\n" * 100)
    for path in (damaged, text):
        assert "is no valid ONNX file" in refused("bench", path)
    assert "holds no network" in refused("bench", nothing)
    assert "there is no file" in refused("bench", tmp_path / "absent.onnx")
    result = gossamer(tmp_path, "bench", damaged)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") <= 3


def test_a_mistyped_command_is_no_file(tmp_path: Path) -> None:
    result = gossamer(tmp_path, "bench", "shape", "resnet-20")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_rounding_that_leaves_few_digits_is_no_other_result(tmp_path: Path) -> None:
    """Of probabilities of a few millionths, which ONNX Runtime computes to 1e-7."""
    rng = np.random.default_rng(0)
    made = (("MatMul", ["x", "w"], "a"), ("Add", ["a", "b"], "s"), ("Sigmoid", ["s"], "y"))
    nodes = [helper.make_node(kind, inputs, [output]) for kind, inputs, output in made]
    weight = sparse_weight(rng, 512, 512, density=0.02) / 8
    constants = {"w": weight, "b": np.full(512, -15, np.float32)}
    onnx.save(network(nodes, {"x": ["n", 512]}, constants, ["y"]), tmp_path / "m.onnx")
    printed("bench", tmp_path / "m.onnx", "--against", "dense", "--runs", 1, "--json", tmp_path / "facts.json")
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["engines"]["gossamer"]["difference"] > 1e-3
