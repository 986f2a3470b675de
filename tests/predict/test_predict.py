"""Calibrations in files, what they make of networks, and the commands that use them."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import gossamer
from export.onnx_graphs import network, ops, sparse_weight
from onnx import helper
from pooled_network import POOLED
from predict.price_lists import by_op, price_list
from small_run import printed, refused, small_run
from typer.testing import CliRunner

from gossamer.bench.engines import BothForms
from gossamer.bench.engines.onnx_runtime import SessionRunner
from gossamer.bench.engines.quantised import quantised
from gossamer.bench.network import build, find_network, read
from gossamer.cli.main import app
from gossamer.errors import ConfigurationError
from gossamer.export.rewrite import rewrite
from gossamer.graph.inputs import random_inputs
from gossamer.graph.layer_shape import LayerShape
from gossamer.graph.terms import Terms
from gossamer.predict import calibrate as calibrating
from gossamer.predict.calibrate import calibrate, deviation_of
from gossamer.predict.calibration import Calibration, Deviation, default_path, read_calibration, write_calibration
from gossamer.predict.network import CalibratedCosts, predict
from gossamer.predict.prices import Observation

CHAIN = """
image   input 32x12x12
first   conv  image   outputs=48 kernel=3 relu
second  conv  first   outputs=64 relu
third   conv  second  outputs=32 kernel=3 relu
pooled  average third
classes linear pooled outputs=10 dense
"""


def file_of(folder: Path, calibration: Calibration) -> Path:
    path = folder / "calibration.toml"
    write_calibration(path, calibration)
    return path


# --- the file -----------------------------------------------------------------------------------------------------


def test_a_calibration_is_read_as_it_was_written(tmp_path: Path) -> None:
    prices = {"sparse 1x1, narrow": {"op": 1.25e-6, "multiply-add vector": 3.1e-10}, "other Softmax": {"op": 0.0}}
    written = Calibration(3, prices, {"processor": 'a "quoted" one', "torch": "2.13"})
    path = tmp_path / "deep" / "calibration.toml"
    write_calibration(path, written)
    assert read_calibration(path) == written


def test_a_deviation_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = replace(by_op(1e-3, 2e-3), deviation=Deviation(0.03, 0.125, "deep-28 at 10%, sparse"))
    path = file_of(tmp_path, written)
    assert read_calibration(path) == written
    content = path.read_text()
    for pattern in ("median = [^\n]+", "largest = [^\n]+", "network = [^\n]+"):
        for replacement in ("", "nothing = 1"):
            path.write_text(re.sub(pattern, replacement, content))
            with pytest.raises(ConfigurationError, match="is no calibration"):
                read_calibration(path)
    path.write_text(re.sub("largest = [^\n]+", "largest = inf", content))
    with pytest.raises(ConfigurationError, match="is no calibration"):
        read_calibration(path)


def test_a_deviation_is_of_the_fitted_times_from_the_measured_ones() -> None:
    prices = price_list({"dense kxk": {"op": 1e-3}, "conversion": {"float": 1e-6}})
    two, five = (Terms("dense kxk", {"op": number}) for number in (2, 5))
    changed = Terms("conversion", {"float": 500})
    wholes = {
        # Expected: 2.5, 5 and 7 ms.
        "quick": Observation((two, changed), 2.0e-3),
        "exact": Observation((five,), 5.0e-3),
        "slow": Observation((two, five), 8.0e-3),
    }
    found = deviation_of(prices, wholes)
    assert (found.network, found.largest) == ("quick", pytest.approx(0.25))
    assert found.median == pytest.approx(0.125)


def test_the_usual_place_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_path(1) == tmp_path / "gossamer" / "calibration-1-thread.toml"
    assert default_path(4) == tmp_path / "gossamer" / "calibration-4-threads.toml"


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (r"version = 5", "version = 1"),
        (r"version = 5", ""),
        (r"threads = 1", "threads = 0"),
        (r"threads = 1", 'threads = "1"'),
        (r"op = [^\n]+", "op = -1e-6"),
        (r"op = [^\n]+", "op = nan"),
        (r"op = [^\n]+", "op = true"),
        (r"op = [^\n]+", "op = [1e-6]"),
        (r"op = [^\n]+", "op = 1e9"),
        (r"op = [^\n]+", "op = "),
        (r"(?s)\[prices.*", ""),
        (r"(?s)\[machine\].*?\n\n", "machine = 3\n"),
        (r"(?s).*", "\x00"),
        (r"(?s).*", "a = " + 10_000 * "["),
        (r"(?s)$", '\n[deviation]\nnetwork = "a"\nmedian = 0.1\nlargest = 1' + 400 * "0"),
    ],
)
def test_a_damaged_calibration_is_refused(tmp_path: Path, pattern: str, replacement: str) -> None:
    path = file_of(tmp_path, by_op(1e-3, 2e-3))
    content = path.read_text()
    damaged = re.sub(pattern, replacement, content, count=1)
    assert damaged != content
    path.write_text(damaged)
    with pytest.raises(ConfigurationError, match=r"is no calibration .*; make it anew: gossamer bench calibrate"):
        read_calibration(path)


def test_without_a_calibration_the_command_says_how_to_make_one(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    result = gossamer(tmp_path, "predict", "resnet-20", "--density", 0.1, "--calibration", missing)
    assert result.returncode == 2
    assert "gossamer bench calibrate" in result.stderr
    assert "Traceback" not in result.stderr
    assert "there is no calibration" in refused("export", "digits", "--calibration", missing)


@pytest.mark.usefixtures("native_library")
def test_a_calibration_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The real specimens take a minute.
    monkeypatch.setattr(calibrating, "specimens", lambda: [read("small", CHAIN)])
    path = tmp_path / "calibration.toml"
    text = printed("bench", "calibrate", "--runs", 3, "--out", path)
    measured = read_calibration(path)
    assert measured.threads == 1
    assert measured.deviation is not None
    assert 0 <= measured.deviation.median <= measured.deviation.largest
    told = f"{measured.deviation.median:.1%} (median) and {measured.deviation.largest:.1%} (largest: small at "
    assert told in text.replace("\n", " ")
    assert {"sparse 1x1", "sparse kxk", "dense 1x1", "dense kxk", "dense vector", "conversion"} <= set(measured.prices)
    assert {"int8 sparse 1x1", "int8 sparse kxk", "int8 dense 1x1", "int8 dense kxk"} <= set(measured.prices)
    assert all(price >= 0 for prices in measured.prices.values() for price in prices.values())
    assert any(price > 0 for price in measured.prices["dense kxk"].values())
    assert predict(build(read("chain", CHAIN), 0.1), measured).expected > 0


@pytest.mark.slow
@pytest.mark.usefixtures("native_library")
def test_what_lies_between_layers_is_measured_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrating, "specimens", lambda: [read("pooled", POOLED)])
    missing = {"stem", "max pooling of panels", "conversion", "other MaxPool", "dense of an image"}
    # The fit of a few short runs may leave a small price at zero; of several calibrations none does so for long.
    for _ in range(5):
        prices = calibrate(runs=3).prices
        missing = {kind for kind in missing if not sum(prices[kind].values()) > 0}
        if not missing:
            return
    pytest.fail(f"no price for {missing}")


@pytest.mark.slow
@pytest.mark.usefixtures("native_library")
def test_a_calibration_tells_what_it_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrating, "specimens", lambda: [read("small", CHAIN)])
    told: list[str] = []
    assert calibrate(runs=3, progress=told.append).machine["processor"]
    names = [f"small at {density}%" for density in (5, 10, 20, 50)]
    assert told[:4] == [f"building {name}" for name in names]
    timed = [
        other for name in names for other in (name, f"{name}, int8") if other == name or "20%" in name or " 5%" in name
    ]
    rounds = [f"{name}, round {number} of 3" for number in (1, 2, 3) for name in timed]
    assert told[4:22] == rounds
    # A network that took longer than its prices say, which depends on what else the machine does, is measured again.
    assert set(told[22:]) <= {f"{name}, again" for name in timed}


SESSIONS_OF_A_ROUND = 8
"""Of whole networks: one specimen sparse at four densities, quantised at two, and once dense of each."""


def disturbed(monkeypatch: pytest.MonkeyPatch, which: Callable[[int], bool]) -> None:
    """As if another program took the processor while some of the whole networks are timed.

    Args:
        which: of a session's number, in the order in which they are timed.
    """
    monkeypatch.setattr(calibrating, "specimens", lambda: [read("small", CHAIN)])
    usual, sessions = SessionRunner.seconds, list[SessionRunner]()

    def seconds(self: SessionRunner) -> float:
        if self not in sessions:
            sessions.append(self)
        return usual(self) * (20 if which(sessions.index(self)) else 1)

    monkeypatch.setattr(SessionRunner, "seconds", seconds)


@pytest.mark.slow
@pytest.mark.usefixtures("native_library")
def test_a_disturbance_of_one_round_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    disturbed(monkeypatch, lambda session: session < SESSIONS_OF_A_ROUND)
    found = calibrate(runs=3)
    assert found.deviation is not None
    # All networks would be missed by 95%.
    assert found.deviation.largest < 0.7


@pytest.mark.slow
@pytest.mark.usefixtures("native_library")
def test_a_disturbance_of_all_rounds_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = 3 * SESSIONS_OF_A_ROUND
    disturbed(monkeypatch, lambda session: session < rounds and session % SESSIONS_OF_A_ROUND == 0)
    told: list[str] = []
    found = calibrate(runs=3, progress=told.append)
    assert "small at 5%, again" in told
    assert found.deviation is not None
    # The first network would be missed by 95%.
    assert found.deviation.largest < 0.7


@pytest.mark.slow
@pytest.mark.usefixtures("native_library")
def test_a_disturbed_measurement_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Only what is doubtful is measured again: sparse at 5%, where the dense form is timed too.
    rounds = 3 * SESSIONS_OF_A_ROUND
    disturbed(monkeypatch, lambda session: session >= rounds or session % SESSIONS_OF_A_ROUND == 0)
    path = tmp_path / "calibration.toml"
    text = printed("bench", "calibrate", "--runs", 3, "--out", path)
    assert "warning: these prices miss the measured time of small at 5%, sparse by " in text
    deviation = read_calibration(path).deviation
    assert deviation is not None
    assert deviation.largest > 0.25


def test_predictions_by_a_disturbed_calibration_are_told(tmp_path: Path) -> None:
    for threads, largest, told in ((1, 0.25, False), (1, 0.26, True), (2, 0.35, False), (2, 0.36, True)):
        deviation = Deviation(0.03, largest, "vectors at 5%, dense")
        path = file_of(tmp_path, replace(by_op(1e-3, 2e-3), threads=threads, deviation=deviation))
        text = printed("predict", "resnet-20", "--density", 0.1, "--calibration", path)
        assert ("warning" in text) == told
        assert (f"measured time of vectors at 5%, dense by {largest:.0%}" in text) == told


def test_a_quantised_network_is_predicted_layer_by_layer(tmp_path: Path) -> None:
    """In either form, as bytes take of floats where no quantised specimen was measured; which is told."""
    dense = build(read("chain", CHAIN), 0.1)
    subject = BothForms(dense, dense, random_inputs(dense), 1, tmp_path)
    for form in ("export", "qdq", "qoperator"):
        found = predict(onnx.load(quantised(subject, form)), by_op(1e-3, 2e-3))
        assert [layer.name for layer in found.layers] == ["first", "second", "third", "classes"]
        assert all(layer.quantised for layer in found.layers)
        assert "int8 sparse kxk" in found.guessed
        # 1 ms an op, and a little for every number that becomes a byte.
        for layer in found.layers:
            assert layer.dense == pytest.approx(2e-3)
            assert layer.sparse == pytest.approx(1e-3, rel=0.01)
        assert found.dense == pytest.approx(8e-3 + found.other_dense)
        prices = by_op(1e-3, 2e-3).prices
        kinds = ("kxk", "1x1", "vector")
        own = {f"int8 {what} {kind}": {"op": ms * 1e-3} for what, ms in (("sparse", 3), ("dense", 1)) for kind in kinds}
        again = predict(onnx.load(quantised(subject, form)), price_list({**prices, **own}))
        assert {layer.form for layer in again.layers} == {"dense"}
        assert again.expected == pytest.approx(again.dense)
        assert not any(kind.startswith("int8 sparse") for kind in again.guessed)


# --- break-even ---------------------------------------------------------------------------------------------------


def test_break_even_is_where_the_lines_cross() -> None:
    shape = LayerShape("linear", 512, 100)
    # Sparse: 2 us + 1 ns for each of 51,200 d kept weights; dense: 27.6 us. They cross at d = 0.5.
    costs = CalibratedCosts(
        price_list({"sparse vector": {"op": 2e-6, "kept weight": 1e-9}, "dense vector": {"op": 27.6e-6}})
    )
    assert costs.break_even(shape) == pytest.approx(0.5, abs=1e-6)
    assert costs.sparse(shape, 0.49) < costs.dense(shape) < costs.sparse(shape, 0.51)


def test_break_even_of_layers_that_never_or_always_win() -> None:
    shape = LayerShape("linear", 512, 100)
    assert CalibratedCosts(by_op(sparse=2e-3, dense=1e-3)).break_even(shape) == 0
    assert CalibratedCosts(by_op(sparse=1e-3, dense=1e-3)).break_even(shape) == 0
    assert CalibratedCosts(by_op(sparse=1e-3, dense=2e-3)).break_even(shape) == 1


# --- networks -----------------------------------------------------------------------------------------------------


def test_a_networks_time_is_the_sum_of_what_it_runs() -> None:
    prices = by_op(sparse=1e-3, dense=4e-3, conversion=0.1e-3)
    others = {"other GlobalAveragePool": {"op": 0.3e-3}, "other Flatten": {"op": 0.2e-3}}
    expected = predict(build(read("chain", CHAIN), 0.2), replace(prices, prices={**prices.prices, **others}))
    # All four layers are cheaper sparse, by price: also the last, though it keeps all its weights.
    assert [layer.form for layer in expected.layers] == ["sparse"] * 4
    assert [layer.name for layer in expected.layers] == ["first", "second", "third", "classes"]
    # The image becomes panels before the first layer, and the last convolution's panels become planes.
    assert expected.conversions == pytest.approx(2 * 0.1e-3)
    assert expected.other == expected.other_dense == pytest.approx(0.5e-3)
    assert expected.expected == pytest.approx(4 * 1e-3 + 0.2e-3 + 0.5e-3)
    assert expected.dense == pytest.approx(4 * 4e-3 + 0.5e-3)


def test_stems_and_poolings_on_panels_are_in_the_sum() -> None:
    prices = by_op(sparse=1e-3, dense=4e-3, conversion=0.1e-3).prices
    others = {
        "other GlobalAveragePool": {"op": 0.3e-3},
        "other MaxPool": {"op": 2e-3},
        "other Flatten": {"op": 0.0},
        "max pooling of panels": {"op": 0.2e-3},
        "stem": {"op": 0.7e-3},
    }
    expected = predict(build(read("pooled", POOLED), 0.2), price_list({**prices, **others}))
    assert [layer.form for layer in expected.layers] == ["stem", "sparse", "sparse"]
    # The stem reads the image as it is and takes its pooling along.
    assert expected.conversions == pytest.approx(0.1e-3)
    assert expected.other == pytest.approx(0.3e-3 + 0.2e-3)
    assert expected.expected == pytest.approx(0.7e-3 + 2 * 1e-3 + 0.1e-3 + 0.5e-3)
    assert expected.dense == pytest.approx(3 * 4e-3 + 2 * 2e-3 + 0.3e-3)


def test_where_sparse_is_dear_a_network_is_expected_to_stay_dense() -> None:
    expected = predict(build(read("chain", CHAIN), 0.2), by_op(sparse=2e-3, dense=1e-3))
    assert {layer.form for layer in expected.layers} == {"dense"}
    assert expected.conversions == 0
    assert expected.expected == expected.dense


def test_conversions_that_cost_more_than_a_layer_saves_are_left_out() -> None:
    lone = build(read("lone", "image input 32x12x12\nonly conv image outputs=48 kernel=3"), 0.2)
    assert [layer.form for layer in predict(lone, by_op(1e-3, 2e-3, conversion=0.4e-3)).layers] == ["sparse"]
    assert [layer.form for layer in predict(lone, by_op(1e-3, 2e-3, conversion=0.6e-3)).layers] == ["dense"]


def test_what_is_predicted_is_what_the_export_makes() -> None:
    calibration = by_op(1e-3, 2e-3, conversion=0.4e-3)
    model = build(find_network("resnet-20"), 0.1)
    rewritten = rewrite(model, costs=CalibratedCosts(calibration))
    expected = predict(model, calibration)
    assert [layer.form for layer in expected.layers] == [layer.form for layer in rewritten.layers]
    assert expected.conversions == pytest.approx(0.4e-3 * sum("Panel" in kind for kind in ops(rewritten.model)))


# --- the commands -------------------------------------------------------------------------------------------------


def test_a_known_network_is_predicted(tmp_path: Path) -> None:
    path, out = file_of(tmp_path, by_op(1e-3, 2e-3)), tmp_path / "expected.json"
    text = printed("predict", "resnet-20", "--density", 0.1, "--calibration", path, "--json", out)
    assert "by the calibration of made up" in text
    facts = json.loads(out.read_text())
    # 19 convolutions, two of which are joined by projections, and the classifier.
    assert len(facts["layers"]) == 22
    assert {layer["runs"] for layer in facts["layers"]} == {"sparse"}
    assert {layer["break_even_density"] for layer in facts["layers"]} == {1}
    total = sum(layer["sparse_milliseconds"] for layer in facts["layers"])
    assert total == pytest.approx(22)
    beyond = facts["milliseconds"] - total
    assert beyond == pytest.approx(facts["conversions_milliseconds"] + facts["other_milliseconds"])


def test_ops_without_a_price_are_named_as_guesses(tmp_path: Path) -> None:
    """Once each, whatever their number; those with a price, and layers, are not among them."""
    rng = np.random.default_rng(0)
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["a"]),
        *(onnx.helper.make_node("DepthToSpace", ["a"], [f"d{number}"], blocksize=2) for number in range(2)),
        onnx.helper.make_node("Add", ["d0", "d1"], ["s"]),
        onnx.helper.make_node("Softmax", ["s"], ["y"], axis=1),
    ]
    weight = onnx.numpy_helper.from_array(rng.standard_normal((8, 8, 1, 1)).astype(np.float32), "w")
    values = [onnx.helper.make_tensor_value_info(n, 1, s) for n, s in (("x", [1, 8, 6, 6]), ("y", None))]
    graph = onnx.helper.make_graph(nodes, "guesses", values[:1], values[1:], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "guesses.onnx")
    prices = by_op(1e-3, 2e-3)
    without = {kind: price for kind, price in prices.prices.items() if kind not in ("other DepthToSpace", "other Add")}
    path, out = (
        file_of(tmp_path, replace(prices, prices={**without, "other Softmax": {"op": 1e-3}})),
        tmp_path / "o.json",
    )
    text = printed("predict", tmp_path / "guesses.onnx", "--calibration", path, "--json", out)
    assert "guessed, because the calibration has no price of them: Add, DepthToSpace\n" in text
    assert json.loads(out.read_text())["guessed"] == ["Add", "DepthToSpace"]


def test_an_onnx_file_is_predicted_sparse_or_not(tmp_path: Path) -> None:
    path = file_of(tmp_path, by_op(1e-3, 2e-3))
    model = build(read("chain", CHAIN), 0.2)
    plain, sparse = tmp_path / "plain.onnx", tmp_path / "sparse.onnx"
    onnx.save(model, plain)
    onnx.save(rewrite(model, costs=CalibratedCosts(by_op(1e-3, 2e-3))).model, sparse)
    expected = []
    for file in (plain, sparse):
        out = file.with_suffix(".json")
        printed("predict", file, "--calibration", path, "--json", out)
        expected.append(json.loads(out.read_text()))
    assert [layer["runs"] for layer in expected[0]["layers"]] == ["sparse"] * 4
    shapes, densities = ([[layer[key] for layer in e["layers"]] for e in expected] for key in ("shape", "density"))
    assert shapes[0] == shapes[1]
    assert densities[0] == densities[1]


@pytest.mark.usefixtures("native_library")
def test_a_file_with_stored_weights_is_predicted_as_its_dense_twin(tmp_path: Path) -> None:
    prices = file_of(tmp_path, by_op(sparse=2e-3, dense=1e-3))
    plain, stored, twin = (tmp_path / name for name in ("plain.onnx", "stored.onnx", "twin.onnx"))
    onnx.save(build(read("chain", CHAIN), 0.5), plain)
    printed("export", plain, "--calibration", prices, "--out", stored)
    printed("export", plain, "--dense", "--out", twin)
    assert len(onnx.load(stored).graph.node) > len(onnx.load(twin).graph.node)
    facts = []
    for file in (stored, twin):
        printed("predict", file, "--calibration", prices, "--json", file.with_suffix(".json"))
        facts.append(json.loads(file.with_suffix(".json").read_text()))
    assert facts[0] == facts[1]
    # Four layers of 1 ms, as made up; the other nodes have no price.
    assert sum(layer["dense_milliseconds"] for layer in facts[0]["layers"]) == pytest.approx(4)


def test_sizes_that_are_open_have_to_be_said(tmp_path: Path) -> None:
    prices = {"dense kxk": {"multiply-add": 1e-9}, "sparse kxk, copied": {"op": 0.5}, "conversion": {"op": 0.0}}
    path, file, out = file_of(tmp_path, price_list(prices)), tmp_path / "open.onnx", tmp_path / "expected.json"
    weight = sparse_weight(np.random.default_rng(0), 32, 16, 3, 3)
    nodes = [helper.make_node("Conv", ["image", "weight"], ["out"])]
    onnx.save(network(nodes, {"image": ["batch", 16, "height", "width"]}, {"weight": weight}, ["out"]), file)
    arguments = ("predict", file, "--calibration", path, "--json", out)
    assert "--size height=NUMBER --size width=NUMBER" in refused(*arguments)
    assert "no open size 'depth'; open are height, width" in refused(*arguments, "--size", "depth=3")
    assert "has no output" in refused(*arguments, "--size", "height=2", "--size", "width=9")
    printed(*arguments, "--size", "height=7", "--size", "width=9")
    facts = json.loads(out.read_text())
    assert facts["sizes"] == {"height": 7, "width": 9}
    assert facts["milliseconds"] == pytest.approx(1e3 * 1e-9 * weight.size * 5 * 7)


@pytest.mark.usefixtures("native_library")
def test_a_run_is_predicted_and_exported_by_the_same_prices(tmp_path: Path) -> None:
    run = tmp_path / "run"
    small_run(run)
    for name, calibration, form in (
        ("cheap", by_op(sparse=1e-4, dense=1e-3), "sparse"),
        ("dear", by_op(sparse=1e-3, dense=1e-4), "dense"),
    ):
        path = file_of(tmp_path, calibration)
        facts, exported = tmp_path / f"{name}.json", tmp_path / f"{name}.onnx"
        printed("predict", run, "--round", -1, "--calibration", path, "--json", facts)
        layers = json.loads(facts.read_text())["layers"]
        assert {layer["runs"] for layer in layers} == {form}
        assert any(layer["density"] < 0.1 for layer in layers)
        printed("export", run, "--round", -1, "--calibration", path, "--out", exported)
        sparse_ops = [kind for kind in ops(onnx.load(exported)) if kind.startswith("Sparse")]
        assert len(sparse_ops) == (len(layers) if form == "sparse" else 0)


def test_threads_that_are_not_those_of_the_calibration_are_refused(tmp_path: Path) -> None:
    path = file_of(tmp_path, replace(by_op(1e-3, 2e-3), threads=3))
    arguments = ("predict", "resnet-20", "--density", 0.1, "--calibration", path)
    for right in ((), ("--threads", 3)):
        assert "3 threads" in printed(*arguments, *right)
    for command in (arguments, ("bench", "predictions", "--calibration", path)):
        message = refused(*command, "--threads", 4)
        assert f"--threads is 4, but {path} was measured with 3" in message
        assert "gossamer bench calibrate --threads 4" in message


def test_a_missing_file_is_told_before_a_missing_calibration(tmp_path: Path) -> None:
    missing = refused("predict", tmp_path / "missing.onnx", "--calibration", tmp_path / "none.toml")
    assert f"there is no file {tmp_path / 'missing.onnx'}" in missing


def test_numbers_are_whole_where_the_terminal_is_narrow(tmp_path: Path) -> None:
    path, file, out = file_of(tmp_path, by_op(0.1234, 0.1235)), tmp_path / "model.onnx", tmp_path / "expected.json"
    onnx.save(build(read("chain", CHAIN.replace("second", f"second_{'x' * 40}")), 0.2), file)
    terminal = {"TTY_COMPATIBLE": "1", "TERM": "dumb", "COLUMNS": "80"}
    arguments = [str(word) for word in ("predict", file, "--calibration", path, "--json", out)]
    text = CliRunner().invoke(app, arguments, env=terminal).output
    table = text.split("expected:")[0]
    assert max(len(line) for line in table.splitlines()) <= 80
    assert re.search("second_x+…", table)
    layers = json.loads(out.read_text())["layers"]
    for layer, line in zip(layers, table.splitlines()[2:], strict=True):
        assert line.split()[1:] == [f"{layer['density']:.1%}", "123.500", "123.400", "100%", "sparse"]


def test_what_cannot_be_predicted_is_refused(tmp_path: Path) -> None:
    path = file_of(tmp_path, by_op(1e-3, 2e-3))
    assert "expected more than 0" in refused("predict", "resnet-20", "--density", 0, "--calibration", path)
    assert "there is no network 'resnet-21'" in refused("predict", "resnet-21", "--density", 0.1, "--calibration", path)
    assert "nothing to export" in refused("predict", "resnet-50", "--calibration", path)
    without = refused("predict", "resnet-50", "--calibration", path)
    assert "a network of `gossamer bench shapes`" in without
    assert "--density 0.1" in without
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(np.random.default_rng(0).bytes(1000))
    assert "is no valid ONNX file" in refused("predict", damaged, "--calibration", path)
