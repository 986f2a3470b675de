"""`gossamer export` says what it did, and loses no file."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from export.onnx_graphs import assert_same, network, ops, run_dense, run_sparse, sparse_weight
from onnx import helper
from small_run import printed, refused

node = helper.make_node
RNG = np.random.default_rng(0)

pytestmark = pytest.mark.usefixtures("native_library")


def save(path: Path, *nodes: onnx.NodeProto, **constants: np.ndarray) -> onnx.ModelProto:
    model = network(nodes, {"x": ["n", 32, 64]}, constants, ["y"])
    onnx.save(model, path)
    return model


def test_layers_are_counted_and_what_is_left_is_named(tmp_path: Path) -> None:
    half = sparse_weight(RNG, 64, 64).astype(np.float16)
    nodes = [
        node("MatMul", ["x", "large"], ["a"], name="[bold]first[/italic]"),
        node("MatMul", ["a", "full"], ["b"], name="second"),
        node("Cast", ["b"], ["h"], to=onnx.TensorProto.FLOAT16),
        node("MatMul", ["h", "half"], ["i"], name="third"),
        node("MatMul", ["i", "half"], ["j"], name="fourth"),
        node("MatMul", ["j", "other"], ["k"], name="fifth"),
        node("Cast", ["k"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    dense = save(
        tmp_path / "dense.onnx",
        *nodes,
        large=sparse_weight(RNG, 64, 512, density=0.02),
        full=RNG.standard_normal((512, 64)).astype(np.float32),
        half=half,
        other=half.copy(),
    )
    output = printed("export", tmp_path / "dense.onnx", "-o", tmp_path / "m.onnx")
    assert "[bold]first[/italic]" in output
    assert "1 of 2 layers run sparse, the others as dense ones" in output
    share = f"{np.mean(half == 0):.0%}"
    expected = f"left as they are: third ({share} zeros), fifth ({share} zeros): its weight is of type float16"
    assert expected in output
    feed = {"x": RNG.standard_normal((2, 32, 64)).astype(np.float32)}
    assert_same(run_sparse(onnx.load(tmp_path / "m.onnx"), feed), run_dense(dense, feed), tolerance=1e-3)


def test_a_network_without_layers(tmp_path: Path) -> None:
    save(tmp_path / "dense.onnx", node("Relu", ["x"], ["y"]))
    output = printed("export", tmp_path / "dense.onnx", "-o", tmp_path / "m.onnx")
    assert "no layer was found that could run sparse" in output
    assert "any ONNX runtime runs it" in output
    output = printed("export", tmp_path / "dense.onnx", "-o", tmp_path / "d.onnx", "--dense")
    assert "no layer" not in output
    assert "ONNX's own ops alone" in output


@pytest.mark.parametrize("zeros", [0.0, 0.95])
def test_a_file_that_is_larger_than_the_given_one_says_so(zeros: float, tmp_path: Path) -> None:
    """Weights as bytes times a scale, as some packages store them, are multiplied as fp32."""
    weight = np.where(RNG.random((64, 512)) < zeros, 0, RNG.integers(1, 127, (64, 512))).astype(np.int8)
    nodes = [
        node("Cast", ["bytes"], ["whole"], to=onnx.TensorProto.FLOAT),
        node("Mul", ["whole", "scale"], ["w"]),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    save(tmp_path / "dense.onnx", *nodes, bytes=weight, scale=np.asarray(0.01, np.float32))
    output = printed("export", tmp_path / "dense.onnx", "-o", tmp_path / "m.onnx")
    given = (tmp_path / "dense.onnx").stat().st_size
    assert (f"larger than what was given, {given:,} bytes" in output) == (zeros == 0)


def test_a_file_without_sparse_ops_is_exported_again(tmp_path: Path) -> None:
    """Its weights are put together by nodes; with other costs they are sparse layers like any others."""
    weight = sparse_weight(RNG, 64, 96, density=0.6)
    dense = save(tmp_path / "dense.onnx", node("MatMul", ["x", "w"], ["y"], name="layer"), w=weight)
    printed("export", tmp_path / "dense.onnx", "-o", tmp_path / "once.onnx")
    once = onnx.load(tmp_path / "once.onnx")
    assert ops(once) == []
    assert ops(once, "gossamer.stored") == ["FromBitmask"]
    output = printed("export", tmp_path / "once.onnx", "-o", tmp_path / "twice.onnx")
    assert "0 of 1 layers run sparse" in output
    feed = {"x": RNG.standard_normal((2, 32, 64)).astype(np.float32)}
    assert_same(run_sparse(onnx.load(tmp_path / "twice.onnx"), feed), run_dense(dense, feed))


@pytest.mark.parametrize("out", ["dense.onnx", "./folder/../dense.onnx", "linked.onnx"])
def test_the_source_is_not_written_over(out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    save(Path("dense.onnx"), node("Relu", ["x"], ["y"]))
    Path("linked.onnx").symlink_to("dense.onnx")
    before = Path("dense.onnx").read_bytes()
    assert "would be lost" in refused("export", "dense.onnx", "-o", out, "--overwrite")
    assert Path("dense.onnx").read_bytes() == before


def test_a_script_is_not_written_over(tmp_path: Path) -> None:
    script = tmp_path / "own.py"
    script.write_text("import torch\n\ndef made():\n    return torch.nn.Linear(4, 4), torch.randn(4, 4)\n")
    before = script.read_text()
    assert "would be lost" in refused("export", f"{script}:made", "-o", script, "--overwrite")
    assert script.read_text() == before


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    save(tmp_path / "dense.onnx", node("Relu", ["x"], ["y"]))
    (tmp_path / "folder").mkdir()
    message = refused("export", tmp_path / "dense.onnx", "-o", tmp_path / "folder", "--overwrite")
    assert "is a folder" in message
    assert "round" not in message
    assert list((tmp_path / "folder").iterdir()) == []
