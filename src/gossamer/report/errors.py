"""What reporting raises besides gossamer's own errors."""

from gossamer.errors import GossamerError


class ReportError(GossamerError):
    """A file that was given is not what it should be, or the packages that draw are missing."""
