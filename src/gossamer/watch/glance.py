"""What can be seen of a run from outside."""

import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gossamer.errors import GossamerError
from gossamer.loop.configuration import FILE, read
from gossamer.loop.record import RoundRecord
from gossamer.loop.records import read_records
from gossamer.loop.stopping import Allowance
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
    """Of the round that goes on, or that was going on when the run was stopped."""
    problem: str | None
    """What is wrong with the folder."""


def look(folder: Path) -> Glance:
    """Looks at a folder, whatever is in it or not yet."""
    if not (folder / FILE).exists():
        return Glance(folder, "not begun", (), None, None)
    try:
        records, rounds = tuple(read_records(folder)), read(folder).get("rounds", {})
    except GossamerError as error:
        return Glance(folder, "stopped", (), None, str(error))
    progress = read_progress(folder)
    if progress is not None and progress.round < len(records):
        # The round was finished, and the next has not begun.
        progress = None
    running = is_held(folder)
    if running is None:
        written = progress.written if progress else 0.0
        running = time.time() - written < ALIVE_SECONDS
    if running:
        return Glance(folder, "running", records, progress, None)
    return Glance(folder, "finished" if _is_over(folder, records, rounds) else "stopped", records, progress, None)


def _is_over(folder: Path, records: tuple[RoundRecord, ...], rounds: Any) -> bool:
    """Whether the run has nothing more to do: its target or number of rounds is reached, or the allowed loss passed."""
    from gossamer.loop.plan import Plan

    if not records or not isinstance(rounds, dict):
        return False
    try:
        last = records[-1]
        plan = Plan(last.prunable, rounds.get("per_round", 0.2), rounds.get("target_sparsity"), rounds.get("rounds"))
        if plan.is_last(last.round):
            return True
        allowance = Allowance.of_run(rounds)
        return allowance is not None and not allowance.allows(last, records[0])
    except (GossamerError, TypeError, ValueError):
        pass
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
