"""The example, run as it stands on a little text."""

import importlib.util
from pathlib import Path

import pytest

from gossamer.loop.records import read_ledger, read_records

transformers = pytest.importorskip("transformers")

EXAMPLE = Path(__file__).parents[2] / "examples" / "transformers_text.py"


@pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")  # Of torch, without a GPU.
def test_the_example_runs(tmp_path: Path) -> None:
    specification = importlib.util.spec_from_file_location("transformers_text", EXAMPLE)
    assert specification is not None
    assert specification.loader is not None
    example = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(example)
    text = tmp_path / "text.txt"
    text.write_text("".join(f"line {number}: {number} and {number} is {2 * number}\n" for number in range(200)))
    example.main(text, tmp_path / "run", max_steps=2, disable_tqdm=True, use_cpu=True)
    records = read_records(tmp_path / "run")
    assert records[-1].sparsity == pytest.approx(0.8, abs=1e-4)
    assert {cost.steps for cost in read_ledger(tmp_path / "run")} == {2}
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "round-08")
    assert sum(int((parameter == 0).sum()) for parameter in loaded.parameters()) >= records[-1].prunable * 0.8 - 1
