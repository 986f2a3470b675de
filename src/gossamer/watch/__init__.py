"""A run, looked at while it goes on: from outside, by its folder alone, without disturbing it."""

from gossamer.watch.glance import Glance, look
from gossamer.watch.progress import Progress, ProgressFile

__all__ = ["Glance", "Progress", "ProgressFile", "look"]
