"""`gossamer prune` as a user meets it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_line import Started, environment, gossamer
from safetensors.torch import save_file
from sharded import load_shards, save_shards


def source(folder: Path, size: int = 16) -> Path:
    weights = {f"layers.{index}.up.weight": torch.randn(size, size) for index in range(3)}
    return save_shards(folder / "source", {**weights, "embed_tokens.weight": torch.randn(9, 4)})


def test_a_folder_is_pruned_and_said(tmp_path: Path) -> None:
    source(tmp_path)
    finished = gossamer(tmp_path, "prune", "source", "-o", "out", "--sparsity", "0.75")
    assert finished.returncode == 0, finished.stderr
    assert "layers.*.up.weight" in finished.stdout
    assert "an embedding, by its name (--include takes it)" in " ".join(finished.stdout.split())
    assert "192 of 768 prunable weights kept, 576 are zero (sparsity 75.0000%)" in finished.stdout
    assert "nothing was retrained, which costs accuracy" in finished.stdout
    assert "gossamer.rounds(model" in finished.stdout
    assert sum(int(torch.count_nonzero(weight)) for weight in load_shards(tmp_path / "out").values()) == 192 + 36


def test_patterns_layers_and_groups(tmp_path: Path) -> None:
    source(tmp_path)
    options = [
        "--include",
        "*",
        "--include",
        "embed_tokens",
        "--exclude",
        "*.1.up",
        "--layerwise",
        "--structure",
        "2:4",
    ]
    finished = gossamer(tmp_path, "prune", "source", "-o", "out", "--sparsity", "0.5", *options)
    assert finished.returncode == 0, finished.stderr
    record = json.loads((tmp_path / "out" / "gossamer-prune.json").read_text())
    assert record["tensors"] == {
        "embed_tokens.weight": {"kept": 18, "prunable": 36},
        "layers.0.up.weight": {"kept": 128, "prunable": 256},
        "layers.2.up.weight": {"kept": 128, "prunable": 256},
    }


@pytest.mark.parametrize("options", [[], ["--layerwise"], ["--structure", "2:4", "--exclude", "*.1.up"]])
def test_the_plan_is_what_is_done_then(options: list[str], tmp_path: Path) -> None:
    source(tmp_path, 20)
    (tmp_path / "source" / "config.json").write_text("{}")
    (tmp_path / "source" / "pytorch_model.bin").write_bytes(bytes(100))
    arguments = ("prune", "source", "-o", "out", "--sparsity", "0.7", *options)
    planned = gossamer(tmp_path, *arguments, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    finished = gossamer(tmp_path, *arguments)
    assert finished.returncode == 0, finished.stderr
    record = json.loads((tmp_path / "out" / "gossamer-prune.json").read_text())
    kept, prunable = record["kept"], record["prunable"]
    assert f"{kept:,} of {prunable:,} prunable weights would be kept, {prunable - kept:,} be zero" in planned.stdout
    # To the byte, but for the notes.
    written = sum(path.stat().st_size for path in (tmp_path / "out").iterdir() if path.name != "gossamer-prune.json")
    assert f"{written:,} bytes would be written to out; nothing was" in planned.stdout
    assert "not copied" in planned.stdout
    assert "pytorch_model.bin" in planned.stdout
    table, tables = (
        [line.split() for line in one.stdout.splitlines() if line.lstrip().startswith(("layers", "embed"))]
        for one in (planned, finished)
    )
    assert len(table) >= 2
    # Where the number of a tensor's weights is known beforehand, it is the one that the command then prints.
    assert table == [
        ["?" if cell.endswith("%") and "--layerwise" not in options else cell for cell in row] for row in tables
    ]
    again = gossamer(tmp_path, *arguments, "--dry-run")
    assert again.returncode == 2
    assert "out is there already" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent", "-o", "out", "--sparsity", "0.5"], "there is no absent; expected"),
        (["source", "-o", "source", "--sparsity", "0.5"], "lies in the source"),
        (["source", "-o", "out", "--sparsity", "2"], "expected a number between 0 and 1"),
        (["source", "-o", "out", "--sparsity", "0.5", "--include", "*.nobody"], "matches no parameter"),
        (["source", "-o", "out", "--sparsity", "0.5", "--exclude", "*"], "none of 4 tensors can be pruned"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    source(tmp_path)
    refused = gossamer(tmp_path, "prune", *arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.count("\n") == 1
    assert message in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_kill_leaves_no_half_result(tmp_path: Path, number: int) -> None:
    source(tmp_path, 1500)
    arguments = ["prune", "source", "-o", "out", "--sparsity", "0.5"]
    started = Started(tmp_path, *arguments)
    while not (tmp_path / "out.tmp").exists() and started.poll() is None:
        time.sleep(0.001)
    started.send_signal(number)
    killed = started.completed()
    if killed.returncode != 0:
        assert not (tmp_path / "out").exists()
        assert (tmp_path / "out.tmp").exists() == (number == signal.SIGKILL)
    finished = gossamer(tmp_path, *arguments, *(["--overwrite"] if killed.returncode == 0 else []))
    assert finished.returncode == 0, finished.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    source(tmp_path, 400)
    refused = Started(tmp_path, "prune", "source", "-o", "out", "--sparsity", "0.5", largest_file=200_000).completed()
    assert refused.returncode == 2
    assert "cannot write out" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_memory_is_a_few_pieces_and_torch_is_not_imported(tmp_path: Path) -> None:
    """128 MB in one tensor, of which the process never holds more than a small part."""
    weight = torch.zeros(1 << 12, 1 << 14, dtype=torch.bfloat16)
    weight[::3] = 1.0
    save_file({"layer.weight": weight, "other.weight": torch.ones(8, 8)}, tmp_path / "w.safetensors")
    program = """
import re, sys
from pathlib import Path
import gossamer.cli.main, gossamer.cli.prune, gossamer.files, rich.table
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) // 1024
before = peak()
gossamer.files.prune("w.safetensors", "out", sparsity=0.5)
assert "torch" not in sys.modules
assert peak() - before < 64, (before, peak())
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment(), check=True)


def test_the_exported_onnx_file_is_taken_by_export(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    weights = [onnx.numpy_helper.from_array(torch.randn(64, 64).numpy(), name) for name in ("first", "second")]
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "first"], ["y"]),
        onnx.helper.make_node("MatMul", ["y", "second"], ["z"]),
    ]
    infos = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4, 64]) for name in ("x", "z")]
    graph = onnx.helper.make_graph(nodes, "network", infos[:1], infos[1:], weights)
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    finished = gossamer(tmp_path, "prune", "net.onnx", "-o", "out", "--sparsity", "0.9")
    assert finished.returncode == 0, finished.stderr
    assert "gossamer export out/net.onnx" in finished.stdout
    exported = gossamer(tmp_path, "export", "out/net.onnx", "-o", "sparse.onnx")
    assert exported.returncode == 0, exported.stderr
