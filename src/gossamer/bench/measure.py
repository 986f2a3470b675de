"""Measuring fairly: what is compared runs in turn in one process, and medians are quoted with their spread."""

import ctypes
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gossamer.loop.configuration import versions


def interleaved(
    actions: Mapping[str, Callable[[], object]],
    runs: int,
    warmups: int = 1,
    after: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of each action in each run; every run does all of them, in turn, so that drift hits them alike.

    Args:
        after: called after each action, outside its time, to undo what it did.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for run in range(warmups + runs):
        for name, action in actions.items():
            started = time.perf_counter()
            action()
            if run >= warmups:
                seconds[name].append(time.perf_counter() - started)
            after()
    return seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and largest value."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def machine() -> dict[str, Any]:
    """The processor and the versions that a measurement belongs to."""
    return {"processor": _processor_name(), **versions()}


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def reset_peak_memory() -> None:
    """Lets the peak of this process's resident memory begin at what it really uses now (Linux, glibc)."""
    # Blocks that were freed but not handed back would hide what is allocated next.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def memory_mib() -> tuple[float, float]:
    """Resident memory of this process now, and its peak since `reset_peak_memory`, in MiB (Linux)."""
    values = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    now, peak = (int(values[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak
