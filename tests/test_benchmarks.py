"""The scripts behind docs/results.md still run, say how they were run, and their tables are the document's."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))
HEADER = re.compile(r"^Command: .+?^n: .+?^Hardware: .+?^Date: .*\d{4}-\d\d-\d\d", re.MULTILINE | re.DOTALL)
TABLES = {
    "comparison_table": ["compare-lenet-5.json"],
    "rounds_table": ["compress-digits.jsonl"],
    "amc_table": [
        "compare-lenet-5.json",
        "compare-lenet-5-amc-three-densities.json",
        "compare-lenet-5-amc-05-percent.json",
    ],
}


@pytest.fixture(autouse=True)
def _beside_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_a_script_says_how_it_was_run_and_finds_what_it_imports(script: Path) -> None:
    if "gossamer_runtime" in script.read_text(encoding="utf-8"):
        pytest.importorskip("gossamer_runtime")
    description = importlib.import_module(script.stem).__doc__
    assert description is not None
    assert HEADER.search(description), "Command, n, Hardware and Date"


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_document_is_what_the_script_prints(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module(name).main
    paths = [RESULTS / file for file in TABLES[name]]
    main(paths[0], []) if name == "comparison_table" else main(paths)
    document = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").replace("**", "")
    for line in capsys.readouterr().out.replace("**", "").splitlines():
        assert line in document


def test_every_result_is_cited_by_its_name() -> None:
    documents = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("docs", "benchmarks")
        for path in (ROOT / folder).glob("*.*")
        if path.suffix in (".md", ".py")
    )
    files = {path.name for path in RESULTS.iterdir()} - {"README.md"}
    assert not [name for name in sorted(files) if name not in documents]
    cited = set(re.findall(r"docs/results/([\w.-]+\.\w+)", documents)) - {"NAME.jsonl"}
    assert cited <= files


def test_results_are_json() -> None:
    for path in RESULTS.glob("*.json*"):
        text = path.read_text(encoding="utf-8")
        for part in text.splitlines() if path.suffix == ".jsonl" else [text]:
            json.loads(part)


def test_a_measurement_becomes_a_line_of_a_series(tmp_path: Path) -> None:
    (tmp_path / "measured.json").write_text('{\n "milliseconds": 1.5\n}')
    script = ROOT / "benchmarks" / "one_line.py"
    arguments = [sys.executable, script, "calm", tmp_path / "measured.json"]
    printed = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
    assert printed == '{"series": "calm", "milliseconds": 1.5}\n'
