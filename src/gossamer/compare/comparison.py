"""A comparison in its folder: begun, or gone on with, and run to its table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gossamer.compare import before, report
from gossamer.compare.grid import Grid
from gossamer.compare.job import Job
from gossamer.errors import CheckpointError
from gossamer.loop.configuration import FILE, Configuration, read
from gossamer.loop.opening import make_folder
from gossamer.storage.files import locked

TABLE = "comparison"


def run_comparison(
    grid: Grid, threads: int, run: Callable[[list[Job]], None], tell: Callable[[str], None]
) -> list[Path]:
    """Runs what is not done yet of the grid, and writes the comparison's table; continues what its folder holds.

    Args:
        threads: of each run; part of what makes the same bits.
        run: runs the jobs, those that are done left out.
        tell: what is told beside the jobs.

    Returns:
        The files that were written.

    Raises:
        ConfigurationError: the folder holds another comparison.
        CheckpointError: it is damaged.
        CellFailedError: a run failed.
    """
    make_folder(grid.folder)
    with locked(grid.folder):
        grid.refuse_links()
        _begin(grid, threads)
        for folder in before.begin_again(grid):
            tell(f"{folder}: its training begins again, for it had passed what a method goes back to")
        run(grid.jobs())
        return report.write(grid, report.collect(grid))


def threads_before(folder: Path) -> int | None:
    """The threads of each run when the comparison was begun, so that another number of jobs may continue it."""
    known = (_settings_before(folder) or {}).get("threads")
    return known if isinstance(known, int) else None


def _begin(grid: Grid, threads: int) -> None:
    """Writes the comparison's settings, or verifies that the folder is of this one."""
    known = _settings_before(grid.folder)
    # A rate matters from the first run that has one, so that fine-tuning can be added to what has none.
    rate_is_open = known is None or not grid.holds_constant_rates()
    uses_rate = any(method.constant_rate for method in grid.methods)
    rate = grid.training.fine_tune_rate if uses_rate or known is None else known.get("fine_tune_rate")
    settings = {
        "task": grid.task,
        "target_sparsity": grid.target_sparsity,
        "rounds": grid.stop.rounds,
        "per_round": grid.per_round,
        "epochs": grid.schedule_epochs,
        "device": grid.training.device,
        "threads": threads,
        "fine_tune_rate": rate,
    }
    if known is not None:
        ignored = {"fine_tune_rate": known.get("fine_tune_rate")} if rate_is_open else {}
        Configuration({TABLE: settings | ignored}).refuse_other(grid.folder)
    if rate_is_open:
        Configuration({TABLE: settings}).write(grid.folder)


def _settings_before(folder: Path) -> dict[str, Any] | None:
    """What the comparison in the folder was begun with; None: there is none."""
    if not (folder / FILE).exists():
        return None
    found = read(folder).get(TABLE, {})
    if not isinstance(found, dict):
        raise CheckpointError(f"{folder / FILE} is damaged: comparison is {found!r}; expected a table of settings")
    return found
