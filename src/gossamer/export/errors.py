"""What exporting raises."""

from gossamer.errors import GossamerError


class ExportError(GossamerError):
    """The network cannot be exported, or what was exported computes something else."""


def first_line(error: Exception) -> str:
    """What another library's error says, without what stands below its first line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
