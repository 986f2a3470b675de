"""What the tests of transformers share."""

import gc
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def _little_to_collect() -> Iterator[None]:
    """Accelerate collects garbage at the beginning of every training, among all that transformers has imported."""
    transformers = sys.modules.get("transformers")
    if transformers is not None:
        gc.collect()
        gc.freeze()
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before version 5, arguments with bf16 leave it in the environment, for all Trainers that follow."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
