"""What exporting raises."""

from gossamer.errors import GossamerError


class ExportError(GossamerError):
    """The network cannot be exported, or what was exported computes something else."""
