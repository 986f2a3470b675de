"""Pruning files of weights that do not fit into memory: `prune(source, out, sparsity=0.5)` reads them twice and writes
them once."""

from gossamer.files.planning import Planned, PlannedTensor
from gossamer.files.pruning import Pruned, PrunedTensor, prune

__all__ = ["Planned", "PlannedTensor", "Pruned", "PrunedTensor", "prune"]
