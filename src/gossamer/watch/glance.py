"""What can be seen of a run from outside."""

import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gossamer.errors import GossamerError
from gossamer.loop.configuration import FILE, RUN
from gossamer.loop.finished import FinishedRounds, read_finished
from gossamer.loop.plan import Plan
from gossamer.loop.record import RoundRecord
from gossamer.prune.cut import PER_ROUND
from gossamer.watch.progress import Progress, read_progress

LOCKS = Path("/proc/locks")
ALIVE_SECONDS = 60.0
"""Where it cannot be seen whether a process holds the folder, a run that wrote so recently is taken to be going on."""

State = Literal["not begun", "running", "stopped", "finished"]


@dataclass(frozen=True)
class Glance:
    """A run at one moment."""

    folder: Path
    state: State
    """`stopped`: no process works on it, and the same command would go on with it."""
    records: tuple[RoundRecord, ...]
    progress: Progress | None
    """The progress of the round that goes on, or that was going on when the run was stopped."""
    problem: str | None
    """What is wrong with the folder."""


def look(folder: Path) -> Glance:
    """Looks at a folder, whatever is in it or not yet."""
    if not (folder / FILE).exists():
        return Glance(folder, "not begun", (), None, None)
    try:
        run = read_finished(folder)
    except GossamerError as error:
        return Glance(folder, "stopped", (), None, str(error))
    progress = read_progress(folder)
    if progress is not None and progress.round < len(run.records):
        # The round was finished, and the next has not begun.
        progress = None
    running = is_held(folder)
    if running is None:
        written = progress.written if progress else 0.0
        running = time.time() - written < ALIVE_SECONDS
    if running:
        return Glance(folder, "running", run.records, progress, None)
    return Glance(folder, "finished" if _is_over(run) else "stopped", run.records, progress, None)


def _is_over(run: FinishedRounds) -> bool:
    """Whether the run has nothing more to do: its target or number of rounds is reached, or the allowed loss passed."""
    if not run.records:
        return False
    rounds, last = run.tables[RUN], run.records[-1]
    try:
        plan = Plan(last.prunable, rounds.get("per_round", PER_ROUND), run.stop.target_sparsity, run.stop.rounds)
        return plan.is_last(last.round) or not run.stop.allows(last, run.records[0])
    except (GossamerError, TypeError, ValueError):
        return False


def is_held(folder: Path) -> bool | None:
    """Whether a process holds the folder's lock; None where that cannot be seen without trying to take it, which could
    get into the way of a run that is just starting."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        inode = (folder / ".lock").lstat().st_ino
        locks = LOCKS.read_text(encoding="ascii")
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return re.search(rf"FLOCK\s+ADVISORY\s+WRITE\s+\d+\s+\S+:{inode}\s", locks) is not None
