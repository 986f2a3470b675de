"""Pruning by learning-rate rewinding. The whole library on one page: docs/all-of-gossamer.md."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gossamer.errors import (
    CheckpointError,
    ConfigurationError,
    GossamerError,
    GossamerWarning,
    NothingToPruneError,
    PrunedWeightError,
    TrainingDivergedError,
)

if TYPE_CHECKING:
    from gossamer.loop.driver import Round, rounds
    from gossamer.loop.folder import load_masks, load_round
    from gossamer.loop.record import RoundRecord
    from gossamer.prune.enforce import check, enforce
    from gossamer.prune.scope import Scope, prunable_weights
    from gossamer.prune.select import keep_largest

    __version__: str

__all__ = [
    "CheckpointError",
    "ConfigurationError",
    "GossamerError",
    "GossamerWarning",
    "NothingToPruneError",
    "PrunedWeightError",
    "Round",
    "RoundRecord",
    "Scope",
    "TrainingDivergedError",
    "__version__",
    "check",
    "enforce",
    "keep_largest",
    "load_masks",
    "load_round",
    "prunable_weights",
    "rounds",
]

_HOMES = {
    "Round": "loop.driver",
    "RoundRecord": "loop.record",
    "Scope": "prune.scope",
    "check": "prune.enforce",
    "enforce": "prune.enforce",
    "keep_largest": "prune.select",
    "load_masks": "loop.folder",
    "load_round": "loop.folder",
    "prunable_weights": "prune.scope",
    "rounds": "loop.driver",
}
"""Public name -> its module, imported at the first use: what needs no torch, such as `gossamer --help`, does not wait
the seconds that torch takes."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        found: Any = version("gossamer")
    elif name in _HOMES:
        found = getattr(import_module(f"gossamer.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'gossamer' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
