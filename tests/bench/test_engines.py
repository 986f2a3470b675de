"""Engines in environments of their own, which no test makes: where one is there already, its engine runs.

And what keeps an engine that computes something else from being timed.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from bench.test_network import PICTURES, TOKENS
from small_run import printed, refused

from gossamer.bench.compare import both_forms
from gossamer.bench.differences import difference
from gossamer.bench.engines import EngineFailed, open_runner
from gossamer.bench.engines.deepsparse import NEEDS as DEEPSPARSE
from gossamer.bench.engines.engine import BothForms
from gossamer.bench.engines.environment import Environment
from gossamer.bench.engines.litert import NEEDS as LITERT
from gossamer.bench.engines.ncnn import NEEDS as NCNN
from gossamer.bench.engines.quantised import quantised
from gossamer.bench.network import build, read
from gossamer.graph.exact_sums import saturates

pytestmark = pytest.mark.usefixtures("native_library")


def subject(text: str, folder: Path) -> BothForms:
    return both_forms(build(read("network", text), 0.5), 1, folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("needs", "engine"),
    [
        (DEEPSPARSE, "deepsparse"),
        (DEEPSPARSE, "deepsparse-int8"),
        (NCNN, "ncnn"),
        (LITERT, "litert"),
        (LITERT, "litert-int8"),
    ],
)
def test_an_engine_whose_environment_is_there_computes_the_same(
    needs: Environment, engine: str, tmp_path: Path
) -> None:
    if not needs.is_made():
        pytest.skip(f"no environment for {needs.engine}; gossamer bench ... --against {engine} makes it")
    network = subject(PICTURES, tmp_path)
    expected = open_runner("dense", network).run()
    runner = open_runner(engine, network)
    try:
        # It raises where they differ more than its precision explains.
        assert difference(engine, runner.run(), expected, network) < 0.2
        assert runner.seconds() > 0
        assert needs.engine in runner.version
    finally:
        runner.close()


def test_an_environment_that_lacks_its_engine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    python = NCNN.folder() / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (NCNN.folder() / "ready").touch()
    lines = tmp_path / "mine.txt"
    lines.write_text(TOKENS)
    text = printed("bench", "shapes", lines, "--runs", 1, "--against", "ncnn,dense")
    assert "skipped ncnn: ncnn cannot run this network: ModuleNotFoundError: No module named 'ncnn'" in text


def test_an_engine_whose_python_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(EngineFailed, match=r"ncnn needs python3\.2 or python3\.1, and none is on the path"):
        Environment("ncnn", ((3, 2), (3, 1)), "").python()
    # A name on the path that starts nothing.
    (tmp_path / "python3.2").write_text("#!/bin/sh\nexit 127\n")
    (tmp_path / "python3.2").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineFailed, match=r"ncnn needs python3\.2, which is not on the path"):
        Environment("ncnn", ((3, 2),), "").python()


@pytest.mark.skipif(saturates(), reason="without VNNI ONNX Runtime's own int8 is off by more")
@pytest.mark.parametrize("form", ["int8", "int8-qoperator"])
def test_int8_is_judged_by_the_error_of_onnx_runtime_in_int8(form: str, tmp_path: Path) -> None:
    network = subject(PICTURES, tmp_path)
    expected = open_runner("dense", network).run()
    got = open_runner(form, network).run()
    assert 0 < difference(form, got, expected, network) < 0.2
    for wrong in (got[0] * 0.5, got[0][:, ::-1], got[0] * np.nan):
        with pytest.raises(
            EngineFailed, match=r"computes something else: its outputs are off by .*; its time would mean nothing"
        ):
            difference(form, [wrong], expected, network)


WIDE = """
image   input   64x14x14
first   conv    image   outputs=256 relu
second  conv    first   outputs=256 kernel=3 relu
third   conv    second  outputs=64 residual=image relu
average average third
"""


def test_sparse_int8_is_timed_beside_dense_int8(tmp_path: Path) -> None:
    lines, out = tmp_path / "mine.txt", tmp_path / "times.json"
    lines.write_text(WIDE)
    against = ("--density", 0.05, "--against", "gossamer-int8,int8", "--json", out)
    text = printed("bench", "shapes", lines, "--runs", 2, *against)
    result = json.loads(out.read_text())
    assert (list(result["engines"]), result["skipped"]) == (["gossamer", "gossamer-int8", "int8"], {})
    sparse, dense = result["engines"]["gossamer-int8"], result["engines"]["int8"]
    assert 0 < sparse["difference"] < 0.1
    assert sparse["int8_ratio"] == 1
    assert dense["int8_ratio"] == pytest.approx(dense["milliseconds"]["median"] / sparse["milliseconds"]["median"])
    assert "gossamer-int8 is" in text
    # A small layer without zeros is none for sparse int8.
    lines.write_text("tokens input 1x24\nonly linear tokens outputs=40 relu dense")
    text = printed("bench", "shapes", lines, "--runs", 1, *against)
    assert "skipped gossamer-int8: no layer of this network is faster on sparse int8" in text


def test_a_network_that_is_quantised_already_is_timed_as_it_is(tmp_path: Path) -> None:
    dense = build(read("network", WIDE), 0.05)
    given, out = tmp_path / "given.onnx", tmp_path / "times.json"
    quantised(both_forms(dense, 1, tmp_path), "qdq").rename(given)
    text = printed("bench", given, "--runs", 2, "--against", "dense,int8", "--json", out)
    result = json.loads(out.read_text())
    assert list(result["engines"]) == ["gossamer", "dense"]
    assert 0 <= result["engines"]["gossamer"]["difference"] < 0.05
    assert "skipped int8: this network is quantised already" in text
    network = both_forms(onnx.load(given), 1, tmp_path)
    assert any(node.op_type == "QuantisedConv" for node in network.sparse.graph.node)
    expected = open_runner("dense", network).run()
    with pytest.raises(EngineFailed, match="at most 5% was expected of a quantised network"):
        difference("gossamer", [expected[0] * 0.9], expected, network)


def test_zeros_in_blocks_can_be_timed(tmp_path: Path) -> None:
    lines = tmp_path / "mine.txt"
    lines.write_text(PICTURES)
    text = printed("bench", "shapes", lines, "--structure", "1x4", "--runs", 1, "--against", "dense")
    assert "mine.txt at 0.9 zeros (1x4): " in text
    assert "expected one of unstructured, 1x4" in refused("bench", "shapes", lines, "--structure", "2:4")
