"""What all tests share: one thread, fixed seeds, a small model that is quickly pruned, and where real data are."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

import gossamer
from gossamer.prune.enforce import attach_masks

# The first example of a test pays for what torch sets up once; a slow machine is no failure.
settings.register_profile("gossamer", deadline=None, max_examples=60)
settings.load_profile("gossamer")

Prune = Callable[..., dict[str, Tensor]]


@pytest.fixture(autouse=True)
def _reproducible() -> Iterator[None]:
    """The tensors here are small: more threads only make them wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    # A measurement in this process may have turned denormal numbers off, for the whole process.
    torch.set_flush_denormal(False)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def prune() -> Prune:
    """Prunes a model to a density and holds the masks, as a round does: prune(model, 0.5) -> masks."""

    def prune(
        model: nn.Module,
        density: float = 0.5,
        scope: gossamer.Scope | None = None,
        masks: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        weights = gossamer.prunable_weights(model, scope)
        kept = int(density * sum(weight.numel() for weight in weights.values()))
        chosen = gossamer.keep_largest(weights, kept, masks)
        attach_masks(model, weights, chosen)
        return chosen

    return prune


@pytest.fixture
def native_library() -> None:
    """Skips the test, and says so, where gossamer-runtime was installed without its native part."""
    runtime = pytest.importorskip("gossamer_runtime")
    try:
        runtime.library_path()
    except runtime.NativeLibraryMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A folder that holds `mnist`, `cifar10` and `text`, named by GOSSAMER_DATA, or `shared/data` beside the
    repository; the test is skipped where there is none."""
    named = os.environ.get("GOSSAMER_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no data sets in {folder}; set GOSSAMER_DATA to a folder that holds mnist, cifar10 and text")
    return folder
