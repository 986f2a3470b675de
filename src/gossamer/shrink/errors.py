"""What shrinking raises besides gossamer's own errors."""

from gossamer.errors import GossamerError


class ShrinkError(GossamerError):
    """A model cannot be traced, or the smaller one would not compute the same."""
