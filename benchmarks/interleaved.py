"""Two sessions of one network, compared and timed in turn: what runtime_networks.py and runtime_resnet_50.py share.

Command: none of its own; imported by these two
n: as many runs of each session as they ask for, after 3 that are not counted
Hardware: as theirs
Date: 2026-11-28
"""

import time

import numpy as np
import onnxruntime

WARM_UP = 3
Feed = dict[str, np.ndarray]
Sessions = dict[str, onnxruntime.InferenceSession]


def largest_error(
    dense: onnxruntime.InferenceSession, sparse: onnxruntime.InferenceSession, feed: Feed
) -> tuple[float, str]:
    """The largest difference of any output, relative to the output's largest value, and that output's name."""
    worst = (0.0, "")
    for description, e, g in zip(sparse.get_outputs(), dense.run(None, feed), sparse.run(None, feed), strict=True):
        worst = max(worst, (float(np.abs(e - g).max() / np.abs(e).max()), description.name))
    return worst


def require_small(what: str, error: tuple[float, str]) -> None:
    """Tells the largest difference, and ends the script if it is no rounding."""
    print(f"{what}: largest relative difference {error[0]:.1e} at {error[1]}")
    if error[0] > 1e-4:
        raise SystemExit("the sparse network computes something else")


def timed(what: str, sessions: Sessions, feed: Feed, runs: int, ready: float, file_bytes: int) -> dict[str, object]:
    """Times the sessions "dense" and "gossamer", one run of each in turn so that all meet the same machine.

    Args:
        ready: milliseconds until the sparse session could be used.
        file_bytes: of the sparse network.

    Returns:
        `medians` and `spreads` (10th and 90th percentile) in milliseconds, by session; their `ratio`; `ready_ms`.
    """
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for run in range(runs + WARM_UP):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run(None, feed)
            if run >= WARM_UP:
                times[name].append(1e3 * (time.perf_counter() - start))
    medians = {name: float(np.median(ms)) for name, ms in times.items()}
    spreads = {name: [float(np.percentile(ms, 10)), float(np.percentile(ms, 90))] for name, ms in times.items()}
    ratio = medians["dense"] / medians["gossamer"]
    print(
        f"{what}: "
        + ", ".join(f"{n} {medians[n]:.2f} ms ({spreads[n][0]:.2f} .. {spreads[n][1]:.2f})" for n in sessions)
        + f": {ratio:.2f} times; ready in {ready:.0f} ms, file {file_bytes / 1e6:.1f} MB"
    )
    return {"medians": medians, "spreads": spreads, "ratio": ratio, "ready_ms": ready}
