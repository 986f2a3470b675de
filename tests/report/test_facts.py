"""What the page is drawn from, against values worked out by hand or by the code that it has to agree with."""

import importlib.util
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch
from export.onnx_graphs import network, sparse_weight
from onnx import helper
from small_run import printed, refused, small_run
from torch import nn

import gossamer
from gossamer.job.compress import compress
from gossamer.job.training import Training
from gossamer.loop.configuration import read
from gossamer.loop.stop import Stop
from gossamer.prune.cut import Cut
from gossamer.report.errors import ReportError
from gossamer.report.files import form_rows, ledger_rows, read_files
from gossamer.report.front import networks
from gossamer.report.latency import as_given, read_latencies
from gossamer.report.published import read_curves
from gossamer.report.reproduce import commands
from gossamer.report.rows import accuracy_rows
from gossamer.report.run import named_apart, read_run
from gossamer.report.series import distinct, group
from gossamer.report.size import FLOAT16, FLOAT32, layer_size
from gossamer.rewind.strategies import Retraining
from gossamer.tasks import find_task

RUNTIME = Path(__file__).parents[2] / "runtime/src/gossamer_runtime/weights.py"
MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A run of a loop that trains nothing: make_run("name", [0.9, 0.8], seed=1) -> folder."""

    def make_run(name: str, values: list[float], seed: int = 0, **options: object) -> Path:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(30, 20), nn.Linear(20, 5))
        rounds = gossamer.rounds(
            model,
            folder=tmp_path / name,
            stop=Stop(rounds=len(values) - 1),
            seed=seed,
            **options,  # type: ignore[arg-type]
        )
        for round, value in zip(rounds, values, strict=True):
            round.record(untrained=True, accuracy=value, test_accuracy=value - 0.01)
        return tmp_path / name

    return make_run


def packed_format() -> ModuleType:
    """The writer of the bytes that docs/format.md describes; the runtime need not be installed."""
    specification = importlib.util.spec_from_file_location("packed_format", RUNTIME)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("shape", [(7,), (3, 50), (16, 8, 3, 3), (300, 784)])
@pytest.mark.parametrize("density", [0.0, 0.0005, 0.02, 0.11, 0.13, 0.5, 1.0])
def test_sizes_are_those_of_the_packed_bytes(shape: tuple[int, ...], density: float) -> None:
    generator = np.random.default_rng(0)
    weight = (generator.random(shape) + 1) * (generator.random(shape) < density)
    size = layer_size("weight", torch.from_numpy(weight != 0))
    encode = packed_format().encode
    assert size.packed(FLOAT32) == len(encode(weight))
    assert size.packed(FLOAT16) == len(encode(weight, half=True))
    assert size.density == np.count_nonzero(weight) / weight.size


def test_the_bytes_of_a_round_by_hand(make_run: MakeRun) -> None:
    run = read_run(make_run("run", [0.9, 0.8], cut=Cut(per_round=0.5)))
    # Half of 600 and 100 weights; 25 biases. Bit masks are shorter than gaps above an eighth.
    headers = 2 * (24 + 2 * 4 + 4)
    assert run.records[1].kept == 350
    assert run.bytes_on_disk(1) == headers + 75 + 13 + 4 * 350 + 4 * 25
    assert run.bytes_on_disk(1, FLOAT16) == headers + 75 + 13 + 2 * 350 + 2 * 25
    assert run.bytes_dense() == 4 * 725


def test_runs_that_differ_by_seed_only_are_one_series(make_run: MakeRun) -> None:
    runs = [
        make_run("a", [0.9, 0.8], seed=0),
        make_run("b", [0.8, 0.6, 0.5], cut=Cut(per_round=0.5)),
        make_run("c", [0.7, 0.9], seed=1),
    ]
    first, second = group([read_run(folder) for folder in runs])
    assert [run.name for run in first.runs] == ["a", "c"]
    assert second.name == "rounds 2, per_round 0.5"
    spread = first.spread(1, lambda run: run.records[1].val)
    assert spread is not None
    assert (spread.low, spread.high, spread.count) == (0.8, 0.9, 2)
    assert spread.middle == pytest.approx(0.85)
    assert [len(second.records(number)) for number in range(3)] == [1, 1, 1]


def test_names_are_told_apart() -> None:
    assert distinct(["a", "b", "a"]) == ["a (1)", "b", "a (2)"]


def test_the_front_by_hand(make_run: MakeRun) -> None:
    # From dense to sparse: worse than a smaller one; best; on the front; as good as a smaller one; on the front.
    series = group([read_run(make_run("run", [0.90, 0.95, 0.93, 0.80, 0.80]))])
    assert [network.round for network in networks(series) if network.on_front] == [1, 2, 4]


def test_the_front_of_a_loss(tmp_path: Path) -> None:
    losses = iter([1.0, 0.9, 1.2])
    for round in gossamer.rounds(nn.Linear(30, 20), folder=tmp_path, stop=Stop(rounds=2)):
        round.record(untrained=True, loss=next(losses))
    assert [network.round for network in networks(group([read_run(tmp_path)])) if network.on_front] == [1, 2]


def test_the_recommended_round(make_run: MakeRun) -> None:
    folder = make_run("run", [0.90, 0.89, 0.895, 0.7])
    assert read_run(folder).recommended == 3
    recommended = read_run(folder, max_drop=0.01)
    assert recommended.recommended == 2
    assert recommended.why == "the smallest within 0.01 of the dense accuracy on validation"


def test_published_curves_are_chosen_on_validation(tmp_path: Path) -> None:
    def point(method: str, density: float, val: float, test: float, **others: object) -> dict[str, object]:
        return {"network": "resnet20", "method": method, "density": density, "val_median": val, "test_median": test} | (
            others
        )

    path = tmp_path / "published.json"
    entries = [
        point("lr_rewinding", 0.2, 0.90, 0.93),
        point("lr_rewinding", 0.2, 0.91, 0.92, test_min=0.915, test_max=0.93, n=3),
        point("lr_rewinding", 0.5, 0.90, 0.91),
        point("lr_rewinding", 0.2, 0.99, 0.99, iterative=False),
        point("fine_tuning", 0.2, 0.99, 0.98, structure="Structured-A"),
        {**point("lr_rewinding", 0.2, 0.99, 0.99), "network": "vgg"},
    ]
    path.write_text(json.dumps({"dense": {"resnet20": {"median": 0.917, "n": 246}}, "pruned": entries}))
    (curve,) = read_curves(path, None, "resnet-20")
    assert curve.name == "published: lr rewinding"
    assert [(p.density, p.median, p.low, p.high, p.n) for p in curve.points] == [
        (1.0, 0.917, 0.917, 0.917, 246),
        (0.5, 0.91, 0.91, 0.91, 1),
        (0.2, 0.92, 0.915, 0.93, 3),
    ]
    with pytest.raises(ReportError, match="several networks: resnet20, vgg; say which with --network"):
        read_curves(path, None, "lenet")
    with pytest.raises(ReportError, match="it has resnet20, vgg"):
        read_curves(path, "resnet50", None)


def test_the_curves_of_the_paper(real_data: Path) -> None:
    curves = {curve.name: curve for curve in read_curves(real_data / "paper/renda2020.json", None, "resnet-20")}
    points = {round(point.density, 4): point for point in curves["published: lr rewinding"].points}
    # The retraining time of the best median on validation at 21% density: 150 or 170 epochs, and 91.75% on test.
    assert points[0.2097].median == 0.9175
    assert points[1.0].median == 0.9173


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no JSON file"),
        ("[]", "no list 'pruned'"),
        ('{"pruned": [3]}', "no list 'pruned'"),
        ('{"pruned": [{"network": "a", "density": 0, "test_median": 1}]}', r"density in \(0, 1\]"),
        ('{"pruned": [{"network": "a", "density": 0.5, "test_median": NaN}]}', "NaN is no number of JSON"),
        ('{"pruned": [{"network": "a", "density": 0.5, "test_median": "<b>"}]}', "as numbers"),
    ],
)
def test_damaged_curves_are_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text(content)
    with pytest.raises(ReportError, match=message):
        read_curves(tmp_path / "file.json", None, None)


def test_the_ledger_is_read_beside_the_seconds(tmp_path: Path) -> None:
    small_run(tmp_path / "run")
    run = read_run(tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/ledger.jsonl").read_text().splitlines()]
    assert [costs["steps"] for costs in run.costs] == [line["steps"] for line in lines]
    assert [costs["FLOPs, as if dense"] for costs in run.costs] == [line["training_flops"] for line in lines]
    assert [costs["joules (an estimate)"] for costs in run.costs] == [line["energy_joules_estimate"] for line in lines]
    assert run.costs[1]["seconds"] == run.records[1].seconds
    printed("report", tmp_path / "run", "--no-facts", "-o", tmp_path / "report.html")
    assert "round 2 makes up for all pruning and retraining after " in (tmp_path / "report.html").read_text()


def test_without_a_ledger_there_are_the_seconds(tmp_path: Path) -> None:
    small_run(tmp_path / "run")
    for path in (tmp_path / "run").glob("round-*/cost.json"):
        path.unlink()
    assert [set(costs) for costs in read_run(tmp_path / "run").costs] == [{"seconds"}] * 3
    printed("report", tmp_path / "run", "--no-facts", "-o", tmp_path / "report.html")


def test_the_commands_make_the_same_run_again(tmp_path: Path) -> None:
    options = "--rounds 1 --per-round 0.8 --epochs 1 --seed 3 --exclude classes --include 'c*' --fresh-optimizer"
    options += " --criterion lamp --allocation erk --structure 1x4"
    printed("compress", "digits", *shlex.split(options), "--max-drop", "0.5", "--out", tmp_path / "run one")
    (line,) = (line for line in commands(read_run(tmp_path / "run one")) if line.startswith("gossamer compress"))
    _, *words = shlex.split(line, comments=True)
    words[words.index("--out") + 1] = str(tmp_path / "again")
    printed(*words)
    assert read(tmp_path / "again") == read(tmp_path / "run one")


def test_the_commands_say_how_it_was_retrained(tmp_path: Path) -> None:
    options = "--method weight-rewind --rewind-to 1 --rewound optimizer --one-shot --target-sparsity 0.8 --epochs 2"
    options += " --replicates 2"
    printed("compress", "digits", *shlex.split(options), "--out", tmp_path / "run")
    (line,) = (line for line in commands(read_run(tmp_path / "run")) if line.startswith("gossamer compress"))
    _, *words = shlex.split(line, comments=True)
    words[words.index("--out") + 1] = str(tmp_path / "again")
    printed(*words)
    assert read(tmp_path / "again") == read(tmp_path / "run")


def test_runs_of_one_name_are_told_apart_by_their_folders(make_run: MakeRun) -> None:
    runs = [
        make_run(f"{method}/seed-0", [0.9, 0.8], cut=Cut(per_round=share)) for method, share in (("a", 0.2), ("b", 0.5))
    ]
    assert [run.name for run in named_apart([read_run(run) for run in runs])] == ["a/seed-0", "b/seed-0"]
    assert [run.name for run in named_apart([read_run(runs[0])])] == ["seed-0"]


def test_a_task_of_ones_own_is_named_in_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    example = Path(__file__).parents[2] / "examples/own_task.py"
    Path("mine.py").write_text(example.read_text())
    printed("compress", "mine.py:task", "--epochs", 1, "--rounds", 1, "--per-round", 0.9, "--out", "run")
    lines = commands(read_run(Path("run")))
    assert "gossamer shrink run --round 1 --task mine.py:task" in lines
    assert any(
        line.startswith("gossamer compress mine.py:task --rounds 1 --per-round 0.9 --epochs 1") for line in lines
    )


def test_a_line_break_in_a_name_makes_no_command(make_run: MakeRun) -> None:
    folder = make_run("run\nrm -rf x", [0.9, 0.8], settings={"task": "digits\nrm -rf y"})
    for line in commands(read_run(folder)):
        assert line.isprintable()
        assert shlex.split(line, comments=True)[:1] in ([], ["gossamer"], ["pip"])


@pytest.mark.slow
def test_a_report_of_25_rounds_and_160_layers_is_small(tmp_path: Path) -> None:
    model = nn.Sequential(*(nn.Conv2d(8, 8, 3) for _ in range(160)))
    for round in gossamer.rounds(model, folder=tmp_path / "run", stop=Stop(rounds=24)):
        round.record(untrained=True, accuracy=0.9 - round.number / 100)
    printed("report", tmp_path / "run", "-o", tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 3e6


def test_latencies_of_a_bench_belong_to_the_round_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    engines = {
        name: {"milliseconds": {"median": time, "p10": 0.1, "p90": 9.0}} for name, time in (("a", 2.5), ("b", 4))
    }
    path.write_text(json.dumps({"threads": 2, "machine": {"processor": "an abacus"}, "engines": engines}))
    number, given = as_given(f"16={path}")
    points = read_latencies(given, number)
    assert [(point.round, point.engine, point.milliseconds) for point in points] == [(16, "a", 2.5), (16, "b", 4.0)]
    assert points[0].where == "measured, medians, threads: 2, an abacus"
    predicted = tmp_path / "predicted.json"
    predicted.write_text('{"threads": 1, "machine": {}, "milliseconds": 0.5, "dense_milliseconds": 2}')
    points = read_latencies(predicted, 3)
    assert [(point.engine, point.milliseconds) for point in points] == [
        ("predicted, sparse", 0.5),
        ("predicted, dense", 2.0),
    ]
    with pytest.raises(ReportError, match="say of which round: --latency ROUND="):
        read_latencies(*reversed(as_given(str(path))))  # type: ignore[arg-type]
    engines["a"]["milliseconds"]["median"] = -1
    path.write_text(json.dumps({"engines": engines}))
    with pytest.raises(ReportError, match="expected positive milliseconds, got -1"):
        read_latencies(path, 3)


def test_rounds_in_levels_are_marked(tmp_path: Path) -> None:
    compress(
        find_task("digits"),
        folder=tmp_path / "run",
        stop=Stop(rounds=1),
        training=Training(epochs=1),
        retraining=Retraining(quantised_rounds=1, levels=3),
    )
    rows = accuracy_rows(group([read_run(tmp_path / "run")]), ())
    assert [row["weights"] for row in rows] == ["float", "3 levels"]
    printed("report", tmp_path / "run", "--no-facts", "-o", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "An outline marks a round that was trained and measured for int8, or in levels." in page
    assert "trained and measured in 3 levels" in page
    assert "--quantised-rounds 1 --levels 3" in page


@pytest.mark.usefixtures("native_library")
@pytest.mark.parametrize("form", ["--smallest", "--half"])
def test_the_bytes_of_files_are_drawn_as_they_are(form: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {"first": sparse_weight(rng, 60, 40, density=0.1), "second": sparse_weight(rng, 20, 60, density=0.2)}
    nodes = [
        helper.make_node("Gemm", ["x", "first"], ["h"], transB=1, name="a"),
        helper.make_node("Gemm", ["h", "second"], ["y"], transB=1, name="b"),
    ]
    onnx.save(network(nodes, {"x": ["n", 40]}, weights, ["y"]), tmp_path / "dense.onnx")
    printed("export", tmp_path / "dense.onnx", "-o", tmp_path / "small.onnx", form)
    measured = read_files([tmp_path / "small.onnx", tmp_path / "dense.onnx"])
    for one in measured:
        rows = [row for row in ledger_rows(measured) if row["file"] == one.name]
        size = (tmp_path / one.name).stat().st_size
        assert sum(row["bytes"] for row in rows) == size
        forms = {row["form"]: row for row in form_rows(measured) if row["file"] == one.name}
        assert (forms["this file"]["bytes"], forms["this file"]["times"]) == (size, 1)
        assert forms["dense, fp32"]["bytes"] == pytest.approx((tmp_path / "dense.onnx").stat().st_size, rel=0.1)
    # What the balanced form of it takes is what exporting it without further words writes.
    printed("export", tmp_path / "dense.onnx", "-o", tmp_path / "balanced.onnx")
    balanced = measured[1].ledger.others["balanced (gossamer export)"]
    assert balanced == (tmp_path / "balanced.onnx").stat().st_size
    message = refused("report", small(tmp_path), "--file", tmp_path / "no.onnx", "-o", tmp_path / "report.html")
    assert "there is no file" in message
    twice = ("--file", tmp_path / "small.onnx") * 2
    assert "given twice with --file" in refused("report", small(tmp_path), *twice, "-o", tmp_path / "report.html")


def small(folder: Path) -> Path:
    if not (folder / "run").exists():
        small_run(folder / "run")
    return folder / "run"


def test_facts_from_a_file_are_drawn(tmp_path: Path) -> None:
    small_run(tmp_path / "run")
    printed("explain", tmp_path / "run", "--json", tmp_path / "facts.json")
    printed("report", tmp_path / "run", "--explain", tmp_path / "facts.json", "-o", tmp_path / "report.html")
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["dead_units"]["how"][:60] in (tmp_path / "report.html").read_text()
    del facts["dead_units"]["layers"][0]["units"]
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    message = refused("report", tmp_path / "run", "--explain", tmp_path / "facts.json", "-o", tmp_path / "other.html")
    assert "its facts have not the form of `gossamer explain --json` (KeyError: 'units')" in message
    assert not (tmp_path / "other.html").exists()


def test_mistakes_are_explained(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("run", [0.9, 0.8])
    assert "given twice" in refused("report", run, run, "-o", tmp_path / "report.html")
    assert "config.toml is missing" in refused("report", tmp_path / "nowhere", "-o", tmp_path / "report.html")
    assert "cannot read" in refused("report", run, "--against", tmp_path / "none", "-o", tmp_path / "report.html")
    (tmp_path / "latency.json").write_text('{"points": [{"round": 7, "milliseconds": 1}]}')
    assert "its runs and rounds are other ones" in refused(
        "report", run, "--latency", tmp_path / "latency.json", "-o", tmp_path / "report.html"
    )
    for round in gossamer.rounds(nn.Linear(4, 4), folder=tmp_path / "loss", stop=Stop(rounds=1)):
        round.record(untrained=True, loss=1.0)
    assert "different metrics (accuracy, loss)" in refused("report", run, tmp_path / "loss", "-o", tmp_path / "r.html")
    assert not (tmp_path / "report.html").exists()
