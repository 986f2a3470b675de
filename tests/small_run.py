"""A small run to ask questions about, and the command line without a process of its own (which takes seconds)."""

from pathlib import Path

from typer.testing import CliRunner

from gossamer.cli.main import app
from gossamer.errors import GossamerError
from gossamer.job.compress import compress
from gossamer.job.training import Training
from gossamer.loop.record import RoundRecord
from gossamer.loop.stop import Stop
from gossamer.prune.cut import Cut
from gossamer.tasks import find_task


def small_run(folder: Path, seed: int = 0) -> list[RoundRecord]:
    """The digits, cut twice, to 3% of their weights."""
    return compress(
        find_task("digits"),
        folder=folder,
        stop=Stop(target_sparsity=0.97),
        cut=Cut(per_round=0.83),
        training=Training(epochs=1, seed=seed),
    )


def printed(*arguments: object) -> str:
    """What `gossamer ARGUMENTS` prints; it has to succeed."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: object) -> str:
    """The message with which `gossamer ARGUMENTS` refuses the user's mistake."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(result.exception, GossamerError), result.output
    return str(result.exception)
