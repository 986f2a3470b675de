"""Pruning by learning-rate rewinding. The whole library on one page: docs/all-of-gossamer.md."""

from gossamer.errors import GossamerError
from gossamer.prune.enforce import check, enforce
from gossamer.prune.scope import Scope, prunable_weights
from gossamer.prune.select import keep_largest
from gossamer.rounds.driver import Round, rounds
from gossamer.rounds.folder import load_masks, load_round
from gossamer.rounds.record import RoundRecord

__all__ = [
    "GossamerError",
    "Round",
    "RoundRecord",
    "Scope",
    "check",
    "enforce",
    "keep_largest",
    "load_masks",
    "load_round",
    "prunable_weights",
    "rounds",
]
