"""Times of single nodes, as ONNX Runtime's own profiler sees them: within the whole network, caches included."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from gossamer.bench.engines.onnx_runtime import SessionRunner

ENDING = "_kernel_time"
BLOCKED = "_nchwc"
"""ONNX Runtime marks nodes that it moved to its own layout so."""
FUSED = "fused "
"""And so a Gemm that it joined with the activation behind it."""

Opening = Callable[[Path], SessionRunner]


def node_times(
    openings: Mapping[str, Opening], folder: Path, runs: int, warmups: int = 3
) -> dict[str, dict[str, float]]:
    """Seconds of every node of every session; the sessions take turns.

    Args:
        openings: by name, what opens a session that writes its profile under the path that it is given.
        folder: for the profiles; they are left there.
        warmups: turns that are not counted.
    """
    runners = {name: opening(folder / f"profile-{name}") for name, opening in openings.items()}
    for _ in range(warmups + runs):
        for runner in runners.values():
            # As in the comparison: one run to get threads and caches back, one that counts.
            runner.run()
            runner.run()
    times: dict[str, dict[str, float]] = {}
    for name, runner in runners.items():
        events = json.loads(Path(runner.session.end_profiling()).read_text(encoding="utf-8"))
        times[name] = typical(events, warmups)
        runner.close()
    return times


def typical(events: Sequence[Mapping[str, Any]], warmups: int) -> dict[str, float]:
    """Seconds by the names that the profiler has, from what it wrote of twice as many runs as are counted or were
    warm-ups: of each two the second counts."""
    microseconds: dict[str, list[int]] = {}
    for event in events:
        if event.get("cat") == "Node" and str(event["name"]).endswith(ENDING):
            name = str(event["name"]).removesuffix(ENDING).removesuffix(BLOCKED).removeprefix(FUSED)
            # Nodes that ONNX Runtime adds may have no name; their index tells them apart.
            key = name if name else f"node {event['args'].get('node_index')}"
            microseconds.setdefault(key, []).append(event["dur"])
    return {name: 1e-6 * middle_mean(values[2 * warmups + 1 :: 2]) for name, values in microseconds.items()}


def middle_mean(values: Sequence[float]) -> float:
    """The mean of the middle half: as steady as the median, and finer than the clock's ticks."""
    ordered = sorted(values)
    quarter = len(ordered) // 4
    return statistics.fmean(ordered[quarter : len(ordered) - quarter])


def time_by_node(times: Mapping[str, float], nodes: Sequence[onnx.NodeProto]) -> dict[int, float]:
    """The times of a session's nodes, given to the nodes of the network that the session was made from (by place).

    A node that was fused with others has the name of one of them, or one that begins with it.
    """
    # A node may be named as another one's output is: the profiler means the node.
    indices = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    indices |= {node.name: index for index, node in enumerate(nodes) if node.name}
    found: dict[int, float] = {}
    for name, seconds in times.items():
        index = indices.get(name)
        if index is None:
            # Fusions append to the name that they took: NAME/MatMulAddFusion, NAME_token_3.
            beginnings = [known for known in indices if name.startswith(known)]
            if not beginnings:
                continue
            index = indices[max(beginnings, key=len)]
        found[index] = found.get(index, 0.0) + seconds
    return found
