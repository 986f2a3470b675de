"""Builds of the op library, in turn in one process, by where the two processors lie.

Command: python benchmarks/builds_by_place.py build/native/native/bench/libcore_latency.so resnet-50 2 0.05 40 \\
    before=LIBRARY after=LIBRARY > FILE
n: 40 rounds of 7 runs of each build
Hardware: two threads of 2 cores of AMD Zen 4 in a virtual machine
Date: 2026-11-26 to 2026-11-27

Arguments: what measures the way of a cache line between two processors (two_threads.py says why), network, threads,
share of weights kept, rounds, and the builds by name. In every round each build has 2 runs that do not count and 7 that
do; the next round begins with the next build. A line of JSON for the rounds "near" and "apart": of every build the
median in ms, the shortest, and the median of its ratio to the first one's within a round.
"""

import json
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from libraries import open_builds, paths_by_name
from two_threads import core_latency, place_of, typical

from gossamer.bench.network import build, find_network

WARM_UP, RUNS = 2, 7


def main(
    latency_library: str, network: str, threads: int, density: float, rounds: int, libraries: dict[str, Path]
) -> None:
    latency = core_latency(latency_library)
    model = build(find_network(network), density)
    names = list(libraries)
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        runners = open_builds(libraries, model, threads, Path(folder))
        for number in range(rounds):
            first = number % len(names)
            ways = [latency()]
            times = {name: typical(runners[name], WARM_UP, RUNS) for name in names[first:] + names[:first]}
            ways.append(latency())
            if place := place_of(ways):
                found[place].append(times)
    for place, rows in found.items():
        line: dict[str, Any] = {
            "network": network,
            "threads": threads,
            "density": density,
            "processors": place,
            "rounds": len(rows),
        }
        line["milliseconds"] = {name: round(statistics.median(row[name] for row in rows), 3) for name in names}
        line["shortest"] = {name: round(min(row[name] for row in rows), 3) for name in names}
        line["ratio"] = {name: round(statistics.median(row[name] / row[names[0]] for row in rows), 4) for name in names}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    latency_library, network, threads, density, rounds, *builds = sys.argv[1:]
    main(latency_library, network, int(threads), float(density), int(rounds), paths_by_name(builds))
