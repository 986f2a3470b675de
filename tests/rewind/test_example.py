"""The example of a loop of one's own, run as it stands with every method."""

import importlib.util
import tomllib
from pathlib import Path

import pytest

from gossamer.loop.records import read_ledger
from gossamer.rewind.strategies import STRATEGIES

EXAMPLE = Path(__file__).parents[2] / "examples" / "methods.py"


@pytest.mark.parametrize("method", STRATEGIES)
def test_the_example_runs_with_every_method(method: str, tmp_path: Path) -> None:
    specification = importlib.util.spec_from_file_location("methods", EXAMPLE)
    assert specification is not None
    assert specification.loader is not None
    example = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(example)
    records = example.main(method, tmp_path / "run")
    assert [record.kept for record in records] == [1536, 768, 384, 192, 154]
    assert records[0].val > 0.8
    assert [cost.steps for cost in read_ledger(tmp_path / "run")] == [120, 108, 108, 108, 108]
    assert tomllib.loads((tmp_path / "run" / "config.toml").read_text())["method"]["rewind_to"] == "12 steps"
    rewound = 12.0 if STRATEGIES[method].weights == "rewound" else None
    assert [record.weights_rewound_to for record in records] == [None, *[rewound] * 4]
