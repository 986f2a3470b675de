"""Exact removal of what cannot matter: `shrink(model, examples)` returns a smaller network with the same outputs."""

from gossamer.shrink.channels import Slimmed, remove_channels
from gossamer.shrink.errors import ShrinkError
from gossamer.shrink.file import load_shrunk, save_shrunk
from gossamer.shrink.resize import SelectedInputs
from gossamer.shrink.shrinking import Shrunk, ShrunkLayer, shrink

__all__ = [
    "SelectedInputs",
    "ShrinkError",
    "Shrunk",
    "ShrunkLayer",
    "Slimmed",
    "load_shrunk",
    "remove_channels",
    "save_shrunk",
    "shrink",
]
