"""`gossamer bench forms` and the report's section of it, on real runs."""

import json
from pathlib import Path

import pytest
from browser import opened
from small_run import printed, refused

from gossamer.choice.choice import FORMS, ChoiceError, read_choices
from gossamer.job.compress import compress
from gossamer.job.training import Training
from gossamer.loop.stop import Stop
from gossamer.prune.cut import Cut
from gossamer.tasks import find_task

pytestmark = pytest.mark.usefixtures("native_library")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits, in single weights and in blocks, from the same dense network."""
    folder = tmp_path_factory.mktemp("runs")
    for structure in ("unstructured", "1x4"):
        compress(
            find_task("digits"),
            folder=folder / structure,
            stop=Stop(rounds=2),
            cut=Cut(per_round=0.6, structure=structure),
            training=Training(epochs=1),
        )
    return folder


@pytest.fixture(scope="module")
def found(runs: Path) -> Path:
    path = runs / "forms.json"
    folders = [runs / name for name in ("unstructured", "1x4")]
    text = printed("bench", "forms", *folders, "--rounds", "1,2", "--runs", 2, "--max-drop", 0.5, "--json", path)
    assert "the fastest within 0.5 of the dense accuracy on validation: " in text
    assert "measured, medians of 2 runs: 1 thread, " in text
    return path


def test_every_form_of_every_round_is_scored_and_timed(found: Path, runs: Path) -> None:
    choices = read_choices(found)
    assert (choices.metric, choices.better, choices.left_out) == ("accuracy", "higher", {})
    forms = [(Path(one.run).name, one.round, one.form) for one in choices.choices]
    # The dense network is the same for both, and is there once.
    assert forms == [
        ("unstructured", 0, "dense fp32"),
        ("unstructured", 0, "dense int8"),
        *(("unstructured", n, f"sparse {precision}") for n in (1, 2) for precision in ("fp32", "int8")),
        *(("1x4", n, f"1x4 {precision}") for n in (1, 2) for precision in ("fp32", "int8")),
    ]
    assert {form for _, _, form in forms} == set(FORMS)
    assert all(one.milliseconds > 0 for one in choices.choices)
    recorded = [json.loads(line) for line in (runs / "unstructured" / "rounds.jsonl").read_text().splitlines()]
    for one in choices.choices:
        record = recorded[one.round]
        if Path(one.run).name == "unstructured":
            assert one.density == record["kept"] / record["prunable"]
            # What the run recorded, and int8 costs little of it.
            allowed = 0.03 if one.form.endswith("int8") else 1e-6
            assert one.validation == pytest.approx(record["val"], abs=allowed)
            assert one.test == pytest.approx(record["test"], abs=allowed)
    weighs = {(Path(one.run).name, one.round, one.form): one.bytes for one in choices.choices}
    assert weighs["unstructured", 0, "dense int8"] < weighs["unstructured", 0, "dense fp32"] / 2
    assert weighs["unstructured", 2, "sparse fp32"] < weighs["unstructured", 1, "sparse fp32"]


def test_the_report_draws_them(found: Path, runs: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    folders = [runs / name for name in ("unstructured", "1x4")]
    printed("report", *folders, "--forms", found, "--max-drop", 0.5, "--no-facts", "-o", page)
    with opened(page, tmp_path / "browser", 390, dark=True) as seen:
        assert seen.complaints() == []
        assert seen.marks("forms") >= 10
        names = seen.run(
            "return [...document.querySelectorAll('#chart-forms svg .mark-text text')].map(one => one.textContent)"
        )
        items = seen.run("return [...document.querySelectorAll('#chart-forms ~ ul li')].map(one => one.textContent)")
        text = seen.run("return document.body.textContent")
    # What is on the front is named in the chart, and said with its numbers beside it.
    front = [item.partition(":")[0] if item.count(":") == 1 else item.rpartition(":")[0] for item in items]
    assert front
    assert all(name in names for name in front)
    assert "The fastest within 0.5 of the dense accuracy on validation: " in text
    assert "Milliseconds: measured, medians of 2 runs; 1 thread, " in text


def test_networks_of_other_runs_are_refused(found: Path, runs: Path, tmp_path: Path) -> None:
    content = json.loads(found.read_text())
    for choice in content["choices"]:
        choice["run"] = "elsewhere"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content))
    message = refused("report", runs / "1x4", "--forms", other, "--no-facts", "-o", tmp_path / "report.html")
    assert "no network of --forms belongs to a run of this report: they are of elsewhere" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("form", "sparse int4"),
        ("milliseconds", 0),
        ("milliseconds", "fast"),
        ("bytes", -1),
        ("density", 2),
        ("validation", True),
        ("test", "good"),
        ("round", 1.5),
        ("run", None),
    ],
)
def test_files_of_another_layout_are_refused(found: Path, tmp_path: Path, name: str, value: object) -> None:
    content = json.loads(found.read_text())
    content["choices"][0][name] = value
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ChoiceError, match="is no file of `gossamer bench forms --json`"):
        read_choices(path)


def test_mistakes_are_told(runs: Path, tmp_path: Path) -> None:
    run = runs / "1x4"
    assert "expected recommended, all, or numbers such as 3,5" in refused("bench", "forms", run, "--rounds", "x")
    assert "has no round 7; expected some of 0, 1, 2" in refused("bench", "forms", run, "--rounds", "7")
    for content in ("[]", "{", '{"choices": []}'):
        (tmp_path / "file.json").write_text(content)
        with pytest.raises(ChoiceError, match="is no file of"):
            read_choices(tmp_path / "file.json")
    with pytest.raises(ChoiceError, match="cannot read"):
        read_choices(tmp_path / "none.json")
