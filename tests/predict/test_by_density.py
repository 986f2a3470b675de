"""Expected times by density: those of `predict`, and of the layout that a minimum cut finds."""

from itertools import product

import numpy as np
import pytest
from predict.price_lists import at_random, by_op, price_list

from gossamer.bench.network import build, find_network, read
from gossamer.errors import ConfigurationError
from gossamer.graph.layers import Layer
from gossamer.graph.layout import Unit, choose_panels
from gossamer.predict.by_density import ExpectedTime
from gossamer.predict.network import predict
from gossamer.predict.variable_elimination import WIDEST, VariableElimination

POOLED = """
image   input   3x32x32
stem    conv    image   outputs=32 kernel=3 relu
pooled  maxpool stem    kernel=3 stride=2 padding=1
narrow  conv    pooled  outputs=16 kernel=3 relu
smaller maxpool narrow  kernel=2 stride=2 padding=0
wide    conv    smaller outputs=64 relu
back    conv    wide    outputs=16 residual=smaller relu
average average back
classes linear  average outputs=10
"""
NETWORKS = {"pooled": read("pooled", POOLED), "resnet-20": find_network("resnet-20")}


def of_itself(layer: Layer) -> dict[str, float]:
    """Names are kept by networks that are ONNX from the start."""
    return {layer.name: 1.0}


def time_of(units: list[Unit], outside: list[str], conversions: dict[str, float], panels: set[int]) -> float:
    """What a choice costs, counted as the export's nodes are."""
    total = sum(unit.panel_time if place in panels else unit.plane_time for place, unit in enumerate(units))
    maker = {unit.output: place for place, unit in enumerate(units)}
    for value, time in conversions.items():
        made = maker.get(value) in panels
        read = [place in panels for place, unit in enumerate(units) if value in unit.inputs]
        total += time * (any(there != made for there in read) or (made and value in outside))
    return total


# --- the cheapest layout ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_the_least_time_is_that_of_every_choice_tried_out(seed: int) -> None:
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, 9))
    values = ["image", *(f"value {place}" for place in range(count))]
    units = []
    for place in range(count):
        inputs = generator.choice(values[: place + 1], int(generator.integers(0, 3)))
        times = generator.random(2).tolist()
        units.append(Unit(tuple(dict.fromkeys(map(str, inputs))), f"value {place}", *times))
    outside = [value for value in values if generator.random() < 0.3]
    conversions = {value: float(0.3 * generator.random()) for value in values}
    choices = [{place for place, on in enumerate(layout) if on} for layout in product((0, 1), repeat=count)]
    expected = min(time_of(units, outside, conversions, panels) for panels in choices)
    least = VariableElimination(units, outside, conversions)([(unit.plane_time, unit.panel_time) for unit in units])
    assert least == pytest.approx(expected, rel=1e-12)
    cut = choose_panels(units, outside, conversions)
    assert time_of(units, outside, conversions, cut) == pytest.approx(expected, rel=1e-9)


def test_a_network_that_branches_too_widely_is_refused() -> None:
    def readers(count: int) -> list[Unit]:
        return [Unit(("image",), f"branch {place}", 0.0, 0.0) for place in range(count)]

    # One conversion of the image for all of its readers, who save half of its time each.
    least = VariableElimination(readers(WIDEST), [], {"image": 1.0})
    assert least([(0.5, 0.0)] * WIDEST) == 1
    assert least([(0.5, 0.0)] + [(0.0, 0.5)] * (WIDEST - 1)) == 0.5
    with pytest.raises(ConfigurationError, match="search with a budget of flops"):
        VariableElimination(readers(WIDEST + 1), [], {"image": 1.0})
    # Each value has two readers only, but nobody can be left out before all the others are known.
    names = [f"value {place}" for place in range(WIDEST + 2)]
    made = [Unit((), name, 0.0, 0.0) for name in names]
    pairs = [Unit((one, other), f"{one}, {other}", 0.0, 0.0) for one in names for other in names if one < other]
    with pytest.raises(ConfigurationError, match="branches too widely"):
        VariableElimination([*made, *pairs], [], dict.fromkeys(names, 1.0))


# --- networks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_times_are_those_of_a_prediction(name: str) -> None:
    exact = set()
    for seed in range(6):
        calibration = at_random(seed)
        expected = ExpectedTime(build(NETWORKS[name], 0.99), calibration, of_itself)
        for density in (0.02, 0.3, 0.8):
            prediction = predict(build(NETWORKS[name], density), calibration)
            found = expected({layer.name: layer.density for layer in prediction.layers})
            if prediction.layers[0].form == "stem":
                assert found >= prediction.expected * (1 - 1e-9)
            else:
                assert found == pytest.approx(prediction.expected, rel=1e-9)
                exact.update(layer.form for layer in prediction.layers)
    assert exact == {"sparse", "dense"}


@pytest.mark.parametrize("name", NETWORKS)
def test_times_never_fall_when_more_is_kept(name: str) -> None:
    generator = np.random.default_rng(0)
    for seed in range(6):
        expected = ExpectedTime(build(NETWORKS[name], 0.99), at_random(seed), of_itself)
        names = [layer.name for layer in predict(build(NETWORKS[name], 0.5), at_random(seed)).layers]
        for _ in range(60):
            few = generator.random(len(names)) ** generator.choice([0.05, 1, 4])
            more = np.where(generator.random(len(names)) < 0.3, few + (1 - few) * generator.random(len(names)), few)
            times = [expected(dict(zip(names, densities.tolist(), strict=True))) for densities in (few, more)]
            assert times[0] <= times[1]


def test_a_first_layer_that_would_be_faster_with_more_weights_is_at_its_dearest() -> None:
    """With nine tenths of its weights it can become a stem, which saves the change of layout behind it."""
    network = read("led", "image input 3x32x32\nfirst conv image outputs=32 kernel=3\nwide conv first outputs=64")
    prices = by_op(sparse=1e-3, dense=9e-3, conversion=1e-3).prices
    calibration = price_list({**prices, "dense of an image": {"op": 2e-3}, "sparse kxk": {"op": 3e-3}})
    expected = ExpectedTime(build(network, 1.0), calibration, of_itself)
    predictions = [predict(build(network, density), calibration) for density in (0.5, 0.85, 0.95, 1.0)]
    assert [prediction.layers[0].form for prediction in predictions] == ["dense", "dense", "stem", "stem"]
    assert predictions[2].expected < predictions[1].expected
    for prediction in predictions:
        found = expected({layer.name: layer.density for layer in prediction.layers})
        # Dense, a change of layout, sparse, and back: 2 + 1 + 1 + 1 ms, however much is kept.
        assert found == pytest.approx(5e-3, rel=1e-9)


def test_what_is_not_asked_about_stays_as_it_is() -> None:
    model, calibration = build(NETWORKS["resnet-20"], 0.2), at_random(3)
    prediction = predict(model, calibration)
    expected = ExpectedTime(model, calibration, lambda layer: {})
    assert expected({}) == pytest.approx(prediction.expected, rel=1e-9)
    half = ExpectedTime(model, calibration, lambda layer: {"a": 0.25, "b": 0.25})
    assert half({"a": 0.0, "b": 0.0}) == half({"a": 0.0, "b": 0.0, "c": 1.0})
    everything = ExpectedTime(model, calibration, lambda layer: {"a": 1.0})
    assert half({"a": 0.4, "b": 0.2}) == pytest.approx(everything({"a": 0.65}), rel=1e-12)
