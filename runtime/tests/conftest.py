"""What several tests of the runtime use."""

import runpy
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def small_model() -> bytes:
    """The sparse model of small_model.py, which is a script as well: make wheels tries the wheel with it."""
    made: bytes = runpy.run_path(str(Path(__file__).with_name("small_model.py")))["small_model"]()
    return made
