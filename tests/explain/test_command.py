"""`gossamer explain`: all facts of a run, as text, as JSON and as a picture."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_run import printed, refused, small_run

import gossamer
from gossamer.explain import draw_input_use, explain_model
from gossamer.explain.inputs import InputReach
from gossamer.tasks import Examples, Metric, find_task


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of the digits, of different seeds."""
    folder = tmp_path_factory.mktemp("explain")
    small_run(folder / "run")
    small_run(folder / "other", seed=1)
    return folder


@pytest.fixture(scope="module")
def explained(runs: Path) -> tuple[str, dict[str, Any]]:
    """What was printed, and the facts of the JSON file."""
    options = ("--against", runs / "other", "--json", runs / "facts.json", "--picture", runs / "use.png")
    text = printed("explain", runs / "run", "--example", 3, *options)
    return text, json.loads((runs / "facts.json").read_text())


def test_every_fact_says_how_it_was_computed(explained: tuple[str, dict[str, Any]]) -> None:
    facts = explained[1]
    for name in ("dead_units", "inputs", "fans", "paths", "ablation", "decision", "signs"):
        assert len(facts[name]["how"]) > 50, name
    assert len(facts["overlaps"][0]["how"]) > 50
    assert facts["missing"] == {}
    assert (facts["run"], facts["round"], facts["task"], facts["seed"]) == ("run", 2, "digits", 0)


def test_the_facts_are_those_of_the_run(runs: Path, explained: tuple[str, dict[str, Any]]) -> None:
    text, facts = explained
    model = find_task("digits").model()
    record = gossamer.load_round(runs / "run", -1, model)
    assert facts["dead_units"]["density"] == record.density
    assert facts["ablation"]["baseline"] == pytest.approx(record.val)
    fan_in = [sum(layer["fan_in"]) for layer in facts["fans"]["layers"]]
    assert fan_in == [int(layer.weight.count_nonzero()) for layer in model if hasattr(layer, "weight")]
    # 9 taps into each of 16 channels, 9 into each of 32, 4 pixels of each into each of 128, and 10 classes.
    assert facts["paths"]["dense"] == 9 * 16 * 9 * 32 * 4 * 128 * 10
    assert facts["decision"]["example"] == 3
    validation = find_task("digits").data(None).validation
    with torch.no_grad():
        outputs = model.eval()(validation.inputs[3:4])[0]
    assert facts["decision"]["predicted"] == int(outputs.argmax())
    first, second = outputs.topk(2).values.tolist()
    assert facts["decision"]["margin"] == pytest.approx(first - second, abs=1e-4)
    assert f"{record.kept:,} of {record.prunable:,} prunable weights kept" in text


def test_signs_and_overlap_are_counted_from_the_files(runs: Path, explained: tuple[str, dict[str, Any]]) -> None:
    facts = explained[1]
    masks = [gossamer.load_masks(runs / name, 2) for name in ("run", "other")]
    both = sum(int((mask & masks[1][name]).sum()) for name, mask in masks[0].items())
    assert facts["overlaps"][0]["total"]["both"] == both
    assert (facts["overlaps"][0]["other_round"], facts["overlaps"][0]["other_seed"]) == (2, 1)
    weights = []
    for number in (1, 2):
        model = find_task("digits").model()
        gossamer.load_round(runs / "run", number, model)
        weights.append({name: tensor.detach().clone() for name, tensor in model.named_parameters()})
    flipped = sum(int((weights[0][name] * weights[1][name] < 0).sum()) for name in masks[0])
    assert facts["signs"]["rounds"][1]["flipped"] == flipped


def test_the_picture_of_the_digits(runs: Path, explained: tuple[str, dict[str, Any]]) -> None:
    assert f"{runs / 'use.png'}: 64 of 64 pixels are read; white: by no connection" in explained[0]
    with Image.open(runs / "use.png") as picture:
        assert picture.size[0] == 8 * 35 + 24


def test_the_colours_of_a_picture_by_hand(tmp_path: Path) -> None:
    reach = InputReach((1, 2, 2), (0, 1, 5, 9), 1, (), ())
    legend = draw_input_use(reach, tmp_path / "use.png")
    assert legend.startswith("3 of 4 pixels are read")
    with Image.open(tmp_path / "use.png") as picture:
        pixels = np.asarray(picture)
    centres = [tuple(int(part) for part in pixels[12 + y, 12 + x]) for y in (70, 210) for x in (70, 210)]
    assert centres == [(255, 255, 255), (253, 231, 37), (33, 145, 140), (68, 1, 84)]


def test_of_the_dense_network_there_are_no_flips(runs: Path) -> None:
    text = printed("explain", runs / "run", "--round", 0, "--ablation-examples", 0)
    assert "no signs: there is no round before the dense one" in text
    assert "no ablation: it was not asked for" in text


def test_mistakes_are_explained(runs: Path) -> None:
    assert "expected 0 to 199" in refused("explain", runs / "run", "--example", 200)
    assert "has no round 9" in refused("explain", runs / "run", "--round", 9)
    assert "nowhere" in refused("explain", runs / "run", "--against", runs / "nowhere", "--ablation-examples", 0)


def test_a_model_of_ones_own_is_explained_as_far_as_it_is_understood() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3), torch.nn.Linear(3, 2))
    examples = Examples(torch.randn(20, 4), torch.zeros(20).long())
    masks = {name: torch.ones_like(weight).bool() for name, weight in gossamer.prunable_weights(model).items()}
    facts = explain_model(model, examples, Metric(), masks)
    assert facts.paths is None
    assert "1 (LayerNorm)" in facts.missing["paths"]
    assert facts.decision is not None
    assert facts.ablation is not None
    json.loads(facts.to_json())
