"""Devices whose prices come along, and the choice between fp32, fp16 and int8 by prices."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from export.onnx_graphs import network
from onnx import helper
from predict.price_lists import by_op, price_list
from small_run import printed, refused

from gossamer.bench.engines import BothForms
from gossamer.bench.engines.quantised import quantised
from gossamer.bench.network import build, read
from gossamer.errors import ConfigurationError
from gossamer.export.exporting import export
from gossamer.export.form import FileForm
from gossamer.export.source import open_source
from gossamer.graph.inputs import random_inputs
from gossamer.predict.calibration import read_calibration, write_calibration
from gossamer.predict.devices import DEVICES, device_calibration
from gossamer.predict.network import CalibratedCosts, predict

CHAIN = """
image   input 32x12x12
first   conv  image   outputs=48 kernel=3 relu
second  conv  first   outputs=64 relu
third   conv  second  outputs=32 kernel=3 relu
pooled  average third
classes linear pooled outputs=10 dense
"""


@pytest.mark.parametrize("name", DEVICES)
def test_a_devices_prices_are_modelled_and_of_all_arithmetics(name: str) -> None:
    found = device_calibration(name)
    assert found.threads == 1
    assert found.modelled is not None
    assert found.prices_half
    kinds = {kind.rpartition(" ")[0] for kind in found.prices}
    assert {"sparse", "dense", "fp16 sparse", "int8 sparse", "int8 dense"} <= kinds


def test_a_device_without_prices_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="--device is 'toaster'; expected raspberry-pi-5"):
        device_calibration("toaster")


def test_what_is_modelled_stays_so_in_a_file(tmp_path: Path) -> None:
    calibration = replace(by_op(1e-3, 2e-3), modelled="by hand")
    write_calibration(tmp_path / "c.toml", calibration)
    assert read_calibration(tmp_path / "c.toml") == calibration
    text = (tmp_path / "c.toml").read_text()
    (tmp_path / "c.toml").write_text(text.replace('modelled = "by hand"', "modelled = 3"))
    with pytest.raises(ConfigurationError, match="3 says of no model"):
        read_calibration(tmp_path / "c.toml")


def test_layers_take_fp16_where_that_is_cheaper() -> None:
    prices = by_op(sparse=1e-3, dense=4e-3)
    halves = {
        "fp16 sparse kxk": {"op": 0.4e-3},
        "fp16 sparse 1x1": {"op": 3e-3},
        "fp16 sparse 1x1, narrow": {"op": 3e-3},
    }
    with_halves = price_list({**prices.prices, **halves})
    model = build(read("chain", CHAIN), 0.3)
    whole = predict(model, with_halves)
    found = predict(model, with_halves, half_arithmetic=True)
    assert whole.expected - found.expected == pytest.approx(2 * 0.6e-3)
    assert [round(1e3 * layer.sparse, 3) for layer in found.layers] == [0.4, 1.0, 0.4, 1.0]
    # Without prices of fp16 nothing is expected of it.
    assert predict(model, prices, half_arithmetic=True).expected == predict(model, prices).expected
    # 8 weights of an output or input channel are the least: at 2% the 3 x 3 layers keep fewer.
    few = build(read("chain", CHAIN), 0.02)
    assert predict(few, with_halves, half_arithmetic=True).expected == predict(few, with_halves).expected


@pytest.mark.usefixtures("native_library")
def test_the_export_marks_those_layers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {name: np.where(rng.random((64, 64)) < 0.5, rng.normal(size=(64, 64)), 0) for name in ("v", "w")}
    weights["v"][:, 8:] = 0  # 512 x 0.5 weights of 64 columns are fewer than 8 of each
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "v"], ["y"])]
    graph = network(nodes, {"x": [16, 64]}, {name: one.astype(np.float32) for name, one in weights.items()}, ["y"])
    onnx.save(graph, tmp_path / "dense.onnx")
    source = open_source(str(tmp_path / "dense.onnx"))
    prices = by_op(sparse=1e-3, dense=4e-3).prices
    for half, marked in ((0.5e-3, ["h"]), (2e-3, [])):
        calibration = price_list({**prices, "fp16 sparse product": {"op": half}})
        path = tmp_path / f"{half}.onnx"
        export(source, path, form=FileForm(half_arithmetic=True), costs=CalibratedCosts(calibration, True))
        nodes = [node for node in onnx.load(path).graph.node if node.op_type == "SparseMatMul"]
        assert len(nodes) == 2
        assert [node.output[0] for node in nodes for one in node.attribute if one.name == "arithmetic"] == marked


def test_blocks_are_expected_as_a_network_that_has_them(tmp_path: Path) -> None:
    terms = {"op": 1e-5, "multiply-add vector": 1e-7}
    kinds = {f"int8 {kind}": terms for kind in ("sparse kxk", "sparse 1x1", "sparse 1x1, narrow")}
    prices = price_list({**by_op(1e-3, 2e-3).prices, **kinds})
    single, in_blocks = (build(read("chain", CHAIN), 0.25, structure=one) for one in ("unstructured", "1x4"))
    folders = [tmp_path / "single", tmp_path / "blocks"]
    of_bytes = []
    for folder, model in zip(folders, (single, in_blocks), strict=True):
        folder.mkdir()
        subject = BothForms(model, model, random_inputs(model), 1, folder)
        of_bytes.append(onnx.load(quantised(subject, "export")))
    expected = predict(of_bytes[0], prices, blocks=True).expected
    assert expected == pytest.approx(predict(of_bytes[1], prices).expected, rel=0.05)
    assert expected < 0.8 * predict(of_bytes[0], prices).expected


def test_the_command_expects_all_forms(tmp_path: Path) -> None:
    out = tmp_path / "expected.json"
    text = printed("predict", "resnet-20", "--density", 0.2, "--device", "raspberry-pi-5", "--json", out)
    assert "Cortex-A76" in text
    assert "modelled, not measured" in text
    facts = json.loads(out.read_text())
    forms = facts["forms_milliseconds"]
    assert list(forms) == [
        "dense fp32",
        "sparse fp32",
        "sparse fp16",
        "dense int8",
        "sparse int8",
        "sparse int8, were its zeros in blocks of 1x4",
    ]
    assert forms["sparse fp32"] == pytest.approx(facts["milliseconds"])
    assert forms["sparse fp16"] <= forms["sparse fp32"] < forms["dense fp32"]
    assert forms["sparse int8, were its zeros in blocks of 1x4"] <= forms["sparse int8"] <= forms["dense int8"]
    for name, milliseconds in forms.items():
        assert f"{name}: {milliseconds:.2f} ms" in text


def test_two_sources_of_prices_are_refused(tmp_path: Path) -> None:
    write_calibration(tmp_path / "c.toml", by_op(1e-3, 2e-3))
    both = ("--calibration", tmp_path / "c.toml", "--device", "raspberry-pi-5")
    assert "leave one of them out" in refused("predict", "resnet-20", "--density", 0.2, *both)
