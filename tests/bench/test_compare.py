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
from export.onnx_graphs import native_library, network
from onnx import helper, numpy_helper
from small_run import printed, refused

from gossamer.bench.engines import ENGINE_ORDER
from gossamer.bench.network import build, read
from gossamer.export.costs import EverythingSparse
from gossamer.export.rewrite import rewrite


@pytest.fixture(autouse=True)
def _native_library() -> None:
    native_library()


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


def test_damaged_files_end_in_one_line(sparse_file: Path, tmp_path: Path) -> None:
    damaged, nothing, text = (tmp_path / name for name in ("damaged.onnx", "nothing.onnx", "text.onnx"))
    damaged.write_bytes(sparse_file.read_bytes()[:-200])
    nothing.write_bytes(b"")
    text.write_text("no network\n" * 100)
    for path in (damaged, text):
        assert "is damaged or no ONNX file" in refused("bench", path)
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
