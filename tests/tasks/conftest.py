"""Real data for the tests that need them: the folder named by GOSSAMER_DATA, or `shared/data` beside the repository."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A folder that holds `mnist` and `cifar10`; the test is skipped where there is none."""
    named = os.environ.get("GOSSAMER_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no data sets in {folder}; set GOSSAMER_DATA to a folder that holds mnist and cifar10")
    return folder
