"""Pruning by learning-rate rewinding. The whole library on one page: docs/all-of-gossamer.md."""

from gossamer.errors import GossamerError as GossamerError
from gossamer.prune.enforce import check as check
from gossamer.prune.enforce import enforce as enforce
from gossamer.prune.scope import Scope as Scope
from gossamer.prune.scope import prunable_weights as prunable_weights
from gossamer.prune.select import keep_largest as keep_largest
from gossamer.rounds.driver import Round as Round
from gossamer.rounds.driver import rounds as rounds
from gossamer.rounds.folder import load_round as load_round
from gossamer.rounds.folder import read_masks as load_masks
from gossamer.rounds.record import RoundRecord as RoundRecord
