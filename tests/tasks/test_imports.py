"""Listing the tasks is quick: what only the data need is imported when data are loaded."""

import subprocess
import sys

HEAVY = ["sklearn", "scipy", "pyarrow", "PIL"]


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_importing_the_tasks_imports_none_of_their_data_packages() -> None:
    program = "import sys; from gossamer.tasks import TASKS; list(TASKS.values())"
    assert run(f"{program}; print([name for name in {HEAVY} if name in sys.modules])").strip() == "[]"


def test_a_missing_package_is_named_with_its_remedy() -> None:
    program = """
import sys
sys.modules["sklearn"] = None  # as if it were not installed
from gossamer.tasks import TASKS, DataError
try:
    TASKS["digits"].data(None)
except DataError as error:
    print(error)
"""
    assert "need the package sklearn" in (message := run(program))
    assert "pip install 'gossamer[tasks]'" in message
