"""What gossamer raises. Every message says what was got, what was expected and what to do."""


class GossamerError(Exception):
    """A mistake that the user can mend; the command line prints its message and exits with code 2."""


class ConfigurationError(GossamerError, ValueError):
    """A setting is out of range, contradicts another one, or differs from the run already in the folder."""


class NothingToPruneError(ConfigurationError):
    """The scope holds no prunable weight, or the target would remove none."""


class CheckpointError(GossamerError):
    """A file of a run folder is missing, damaged, or does not fit the model."""


class TrainingDivergedError(GossamerError):
    """A loss, a metric or a weight is not finite; the last good round is kept."""


class PrunedWeightError(GossamerError):
    """A pruned weight, its gradient or its optimizer slot is not zero."""


class RankError(GossamerError):
    """The processes of one training are not at the same point, or one of them is gone."""


class ExportError(GossamerError):
    """The network cannot be exported, or what was exported computes something else."""


class GossamerWarning(UserWarning):
    """Something that the user may want to know or to mend, and that nothing is stopped for."""


def first_line(error: Exception) -> str:
    """What another library's error says, without what stands below its first line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
