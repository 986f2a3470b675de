"""What the tasks raise besides gossamer's own errors."""

from gossamer.errors import ConfigurationError, GossamerError


class TaskError(ConfigurationError):
    """No such task, or a file of the user's own that does not hold one."""


class DataError(GossamerError):
    """A data set is missing, incomplete, damaged, or not what the task expects."""
