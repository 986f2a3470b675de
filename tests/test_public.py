"""What `import gossamer` promises."""

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gossamer
import gossamer.tasks

ROOT = Path(__file__).parents[1]


def test_public_names_are_those_of_the_reference() -> None:
    """Pages of docs/reference list what docs/public.md calls public; each line there becomes the docstring."""
    for module, page in ((gossamer, "gossamer"), (gossamer.tasks, "tasks")):
        text = (ROOT / "docs" / "reference" / f"{page}.md").read_text(encoding="utf-8")
        listed = re.findall(
            rf"^::: {re.escape(module.__name__)}\.(\w+)$|`{re.escape(module.__name__)}\.(\w+)` is", text, re.M
        )
        assert sorted("".join(names) for names in listed) == sorted(module.__all__)
        for name in module.__all__:
            assert getattr(module, name) is not None
            assert name in dir(module)


@pytest.mark.parametrize("name", ["transformers", "lightning", "accelerate", "peft"])
def test_what_the_adapters_are_for_is_in_the_reference(name: str) -> None:
    pytest.importorskip(name)
    module = importlib.import_module(f"gossamer.integrations.{name}")
    text = (ROOT / "docs" / "reference" / "integrations.md").read_text(encoding="utf-8")
    listed = re.findall(rf"^::: gossamer\.integrations\.{name}\.(\w+)$", text, re.M)
    assert sorted(listed) == sorted(getattr(module, "__all__", listed))
    assert all(getattr(module, found).__doc__ for found in listed)


def test_the_version_is_the_one_that_is_declared() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert gossamer.__version__ == declared["project"]["version"]


def test_rounds_is_the_function_whatever_was_imported() -> None:
    import gossamer.loop.folder as folder

    assert callable(gossamer.rounds)
    assert gossamer.load_round is folder.load_round


def test_help_the_tasks_and_the_table_of_a_run_do_not_wait_for_torch() -> None:
    program = """
import sys
import gossamer
import gossamer.cli.main
from gossamer.loop.configuration import read_of_run
from gossamer.loop.records import read_ledger, read_records
from gossamer.loop.stop import Stop
from gossamer.cli.tasks import tasks
tasks()
assert 'torch' not in sys.modules, 'torch'
gossamer.rounds
assert 'torch' in sys.modules
import gossamer.integrations
assert not {'transformers', 'lightning', 'accelerate', 'peft', 'tensorboard'} & {*sys.modules}
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
