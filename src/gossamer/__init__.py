"""Pruning by learning-rate rewinding. The whole library on one page: docs/all-of-gossamer.md."""

from typing import TYPE_CHECKING, Any

from gossamer.errors import (
    CheckpointError,
    ConfigurationError,
    ExportError,
    GossamerError,
    GossamerWarning,
    NothingToPruneError,
    PrunedWeightError,
    RankError,
    TrainingDivergedError,
)
from gossamer.first_use import attribute

if TYPE_CHECKING:
    from gossamer.loop.driver import rounds
    from gossamer.loop.folder import load_masks, load_round
    from gossamer.loop.record import RoundRecord
    from gossamer.loop.round import Round
    from gossamer.loop.stop import Stop
    from gossamer.prune.cut import Cut
    from gossamer.prune.enforce import check, enforce
    from gossamer.prune.prunable import prunable_weights
    from gossamer.prune.scope import Scope
    from gossamer.prune.select import keep_largest
    from gossamer.ranks.together import together
    from gossamer.rewind.strategies import Retraining

    __version__: str

__all__ = [
    "CheckpointError",
    "ConfigurationError",
    "Cut",
    "ExportError",
    "GossamerError",
    "GossamerWarning",
    "NothingToPruneError",
    "PrunedWeightError",
    "RankError",
    "Retraining",
    "Round",
    "RoundRecord",
    "Scope",
    "Stop",
    "TrainingDivergedError",
    "__version__",
    "check",
    "enforce",
    "keep_largest",
    "load_masks",
    "load_round",
    "prunable_weights",
    "rounds",
    "together",
]

_HOMES = {
    "Cut": "gossamer.prune.cut",
    "Retraining": "gossamer.rewind.strategies",
    "Round": "gossamer.loop.round",
    "RoundRecord": "gossamer.loop.record",
    "Scope": "gossamer.prune.scope",
    "Stop": "gossamer.loop.stop",
    "check": "gossamer.prune.enforce",
    "enforce": "gossamer.prune.enforce",
    "keep_largest": "gossamer.prune.select",
    "load_masks": "gossamer.loop.folder",
    "load_round": "gossamer.loop.folder",
    "prunable_weights": "gossamer.prune.prunable",
    "rounds": "gossamer.loop.driver",
    "together": "gossamer.ranks.together",
}
"""Public name -> its module."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("gossamer")
    return attribute(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
