"""`gossamer size`: a ledger that adds up to the file."""

import gzip
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from export.onnx_graphs import network, sparse_weight
from onnx import helper, numpy_helper
from small_run import printed, refused, small_run


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    weights = {
        "first.weight": sparse_weight(rng, 300, 200, density=0.1),
        "first.bias": rng.standard_normal(300).astype(np.float32),
        "second.weight": sparse_weight(rng, 60, 300, density=0.5),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "first.weight", "first.bias"], ["h"], transB=1, name="first"),
        helper.make_node("Gemm", ["h", "second.weight"], ["y"], transB=1, name="second"),
    ]
    path = tmp_path / "dense.onnx"
    onnx.save(network(nodes, {"x": ["n", 200]}, weights, ["y"]), path)
    return path


def stored(path: Path) -> list[np.ndarray]:
    """The two weights."""
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    return [tensors["first.weight"], tensors["second.weight"]]


def numbers(output: str, row: str) -> list[int]:
    line = next(line for line in output.splitlines() if line.strip().startswith(row))
    return [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", line.removeprefix(row))]


@pytest.mark.parametrize("form", [[], ["--half"], ["--dense"], ["--smallest"]])
def test_the_ledger_adds_up_to_the_file(form: list[str], dense: Path, tmp_path: Path) -> None:
    path = tmp_path / "file.onnx"
    printed("export", dense, "-o", path, *form)
    output = printed("size", path)
    size = path.stat().st_size
    assert numbers(output, "all") == [size]
    rows = [row for row in output.splitlines() if re.search(r"\d", row) and ":" not in row and "all" not in row]
    assert sum(int(re.findall(r"[\d,]+$", row.strip())[0].replace(",", "")) for row in rows) == size
    weight = next(row for row in rows if re.search(r"60,000", row))
    kept = re.findall(r"[\d,]+", weight.split("60,000")[1])[0]
    if form != ["--smallest"]:
        assert kept == f"{np.count_nonzero(stored(dense)[0]):,}"


def test_other_forms_stand_beside_it(dense: Path) -> None:
    output = printed("size", dense)
    whole = len(dense.read_bytes())
    assert numbers(output, "dense, fp32:")[0] == whole
    assert numbers(output, "dense, gzip -9:")[0] == len(gzip.compress(onnx.load(dense).SerializeToString(), 9))
    # A byte instead of four for each weight, and four for each row's scale.
    assert numbers(output, "dense, int8 (computed):")[0] == whole - 3 * 78000 + 4 * 360
    # Bits of positions by hand; values are all different.
    least = float(whole)
    for weight in stored(dense):
        share = np.mean(weight != 0)
        positions = -weight.size * (share * np.log2(share) + (1 - share) * np.log2(1 - share))
        least += 4 * np.count_nonzero(weight) + positions / 8 - weight.nbytes
    assert numbers(output, "entropy of static tables (computed):")[0] == pytest.approx(least, abs=2)


def test_a_round_of_a_run_as_its_export_writes_it(tmp_path: Path) -> None:
    small_run(tmp_path / "run")
    for number in (0, 2):
        path = tmp_path / f"{number}.onnx"
        printed("export", tmp_path / "run", "--round", number, "-o", path)
        output = printed("size", tmp_path / "run", "--round", number)
        assert f"round {number} of {tmp_path / 'run'}, as gossamer export writes it:" in output.replace("\n", "")
        assert numbers(output, "all") == [path.stat().st_size]
    assert numbers(printed("size", tmp_path / "run"), "all") == numbers(output, "all")
    assert "has no round 7" in refused("size", tmp_path / "run", "--round", 7)


def test_what_is_no_network(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"no")
    assert "is no valid ONNX file" in refused("size", tmp_path / "no.onnx")
    assert "there is no file" in refused("size", tmp_path / "missing.onnx")


def test_long_names_do_not_hide_the_numbers(tmp_path: Path) -> None:
    """Converters from TensorFlow join the names of all ops that they fused."""
    name = ";".join(f"model_1/batch_normalization_{number}/FusedBatchNormV3" for number in range(9))
    weight = sparse_weight(np.random.default_rng(0), 300, 200, density=0.1)
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1, name=name)
    onnx.save(network([node], {"x": ["n", 200]}, {"w": weight}, ["y"]), tmp_path / "long.onnx")
    ledger = printed("size", tmp_path / "long.onnx")
    kept = np.count_nonzero(weight)
    assert f"60,000  {kept:,}" in ledger
    assert " 240,0" in ledger
    exported = printed("export", tmp_path / "long.onnx", "-o", tmp_path / "out.onnx")
    assert f"{kept / weight.size:.2%}" in exported
    assert "300 x 200" in exported
    for output in (ledger, exported):
        first = [line.split()[0] for line in output.splitlines() if line.strip()]
        assert name in "".join(first)
