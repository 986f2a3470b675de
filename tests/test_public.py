"""What `import gossamer` promises."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import gossamer

ROOT = Path(__file__).parents[1]


def test_every_public_name_is_there_and_on_the_page_about_the_library() -> None:
    page = (ROOT / "docs" / "all-of-gossamer.md").read_text(encoding="utf-8")
    for name in gossamer.__all__:
        assert getattr(gossamer, name) is not None
        assert name in dir(gossamer)
        assert re.search(rf"\b{name}\b", page), f"docs/all-of-gossamer.md does not say what {name} is"


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
from gossamer.loop.stopping import smallest_allowed
from gossamer.cli.tasks import tasks
tasks()
assert 'torch' not in sys.modules, 'torch'
gossamer.rounds
assert 'torch' in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
