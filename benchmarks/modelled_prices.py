"""Prices of a device that nobody has at hand, from a model of its processor: what `gossamer predict --device` goes by.

Command: python benchmarks/modelled_prices.py build WORK --out src/gossamer/predict/raspberry-pi-5.toml
n: 1, a model
Hardware: any with qemu-aarch64 (with plugins), llvm-mca 19, and what `make test-aarch64` has built in build
Date: 2026-11-29

Small networks of every class of layer run in ONNX Runtime under qemu: dense, sparse, in int8, in fp16. A plugin
(block_counts.c) counts how often every block of instructions runs between two looks at the clock, which ONNX Runtime's
profiler takes when a node begins and ends; llvm-mca says how many cycles a block takes (block_cycles.py). Prices are
fitted to these times as to measured ones. What comes from beyond the first cache and branches that are not guessed are
not in them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from block_cycles import Looks, read_looks

from gossamer.bench.profile import typical
from gossamer.export.half_arithmetic import HALF, with_arithmetic
from gossamer.graph.half_terms import can_multiply_in_half, half_terms
from gossamer.predict.calibrate import fitted, ready_specimens
from gossamer.predict.calibration import Calibration, write_calibration
from gossamer.predict.prices import Observation, fit_beyond
from gossamer.predict.ready import ReadySpecimen, Times
from gossamer.predict.ready_int8 import ReadyInt8
from gossamer.predict.specimens import small_specimens

HERE = Path(__file__).parent
CLOCK = 2.4e9
PROCESSOR = "Cortex-A76 (Raspberry Pi 5, 2.4 GHz)"
MODEL = "neoverse-n1"
"""llvm-mca's own cortex-a76 is the model of cortex-a57."""
MODELLED = (
    "cycles of every block of instructions by llvm-mca 19's neoverse-n1, times how often it runs under qemu 7.2 in "
    "ONNX Runtime 1.27; all data in the first cache, all branches guessed"
)
RUNS = 2
AROUND = 10**9
"""Nanoseconds between the beginning of a profile and what its name says of that, at most."""
NEAR = 2_000_000
"""Nanoseconds between a look at the clock and the profile's microseconds of it, at most."""

Ready = ReadySpecimen | ReadyInt8


@dataclass(frozen=True)
class Job:
    """A form of a specimen that is run."""

    specimen: str
    form: str
    runs: int
    facts: Mapping[str, Any]


def jobs_of(name: str, one: Ready, place: Path) -> Iterator[Job]:
    """Writes a specimen's files."""
    place.mkdir(parents=True, exist_ok=True)
    np.savez(place / "inputs.npz", **{key: np.asarray(value) for key, value in one.subject.inputs.items()})
    models = {form: getattr(one.subject, form) for form in one.forms}
    if isinstance(one, ReadySpecimen) and in_half(one):
        models["half"] = with_arithmetic(one.subject.sparse, HALF, in_half(one))
    for form, model in models.items():
        onnx.save(model, place / f"{form}.onnx")
        # The first run of a dense network differs from others only in what it allocates.
        runs = 1 if form == "dense" else RUNS
        facts = {
            "model": str(place / f"{form}.onnx"),
            "inputs": str(place / "inputs.npz"),
            "profile": str(place / form),
            "sparse": form != "dense",
            "runs": runs,
        }
        yield Job(name, form, runs, facts)


def in_half(one: ReadySpecimen) -> set[str]:
    """The values that layers make which multiply in fp16."""
    return {
        layer.output
        for layer, terms in zip(one.layers.layers, one.of_layers["sparse"], strict=True)
        if terms.kind.startswith("sparse") and can_multiply_in_half(layer.shape, layer.density)
    }


def run(build: Path, folder: Path, jobs: Sequence[Job]) -> list[str]:
    """Runs all of them under qemu; the names of their profiles."""
    root = build / "aarch64-root/root"
    plugin = folder / "block_counts.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", plugin, HERE / "block_counts.c"], check=True)
    (folder / "jobs.json").write_text(json.dumps([job.facts for job in jobs]))
    command = ["qemu-aarch64", "-cpu", "cortex-a76", "-L", root, "-plugin", f"{plugin},out={folder / 'looks'}"]
    command += [root / "usr/bin/python3", HERE / "modelled_runs.py", folder / "jobs.json"]
    environment = {"PYTHONPATH": str(build / "aarch64-site"), "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin"}
    names = []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line, job in zip(process.stdout, jobs, strict=False):
            names.append(line.strip())
            print(f"{job.specimen}, {job.form}", flush=True)
    if process.returncode != 0 or len(names) != len(jobs):
        raise SystemExit(f"qemu ended with status {process.returncode} after {len(names)} of {len(jobs)} networks")
    return names


def with_cycles(profile: str, looks: Looks) -> list[dict[str, Any]]:
    """A profile's events, lasting as many microseconds as the model says, with their numbers of instructions.

    When the profile begins its name says to a few milliseconds; exactly right is the time at which most events begin
    and end with a look at the clock.
    """
    events = json.loads(Path(profile).read_text(encoding="utf-8"))
    day, clock, thousandths = Path(profile).stem.rsplit("_", 3)[1:]
    begun = datetime.strptime(f"{day}_{clock}", "%Y-%m-%d_%H-%M-%S").replace(tzinfo=UTC).timestamp() * 1e9
    begun += int(thousandths) * 1e6
    named = [event for event in events if event.get("cat") == "Node" or event["name"] == "model_run"]
    begins = np.array([event["ts"] for event in named]) * 1000
    ends = begins + np.array([event["dur"] for event in named]) * 1000
    both = np.concatenate([begins, ends])
    longest = int(np.argmax(ends - begins))
    found, error = 0, np.inf
    starts = looks.nanoseconds - begins[longest]
    for start in starts[np.abs(starts - begun) < AROUND]:
        distance = np.median(np.abs(nearest(looks.nanoseconds, both + start)[1]))
        if distance < error:
            found, error = int(start), distance
    indices, distances = nearest(looks.nanoseconds, both + found)
    if np.median(np.abs(distances)) > NEAR:
        raise SystemExit(f"no looks at the clock fit the profile: {np.median(np.abs(distances))} ns apart")
    first, last = indices[: len(named)], indices[len(named) :]
    cycles = looks.cycles[last] - looks.cycles[first]
    ran = looks.instructions[last] - looks.instructions[first]
    return [
        {**event, "dur": 1e6 * took / CLOCK, "instructions": int(count)}
        for event, took, count in zip(named, cycles, ran, strict=True)
    ]


def nearest(times: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Indices of the times next to those that are wanted, and how far they are."""
    after = np.clip(np.searchsorted(times, wanted), 1, len(times) - 1)
    index = np.where(wanted - times[after - 1] < times[after] - wanted, after - 1, after)
    return index, times[index] - wanted


def read_times(jobs: Sequence[Job], profiles: Iterable[str], looks: Looks) -> dict[str, dict[str, tuple[Any, float]]]:
    """Specimen -> form -> seconds of nodes by name, and of the whole run."""
    found: dict[str, dict[str, tuple[Any, float]]] = {}
    for job, profile in zip(jobs, profiles, strict=True):
        events = with_cycles(profile, looks)
        whole = [event["dur"] for event in events if event["name"] == "model_run"][-1]
        nodes = typical(events * (RUNS // job.runs), 0)
        found.setdefault(job.specimen, {})[job.form] = (nodes, 1e-6 * whole)
    return found


def half_observations(one: ReadySpecimen, nodes: Mapping[str, float]) -> Iterator[Observation]:
    """The layers that multiplied in fp16."""
    chosen = in_half(one)
    measured = one.layers.measured({"sparse": nodes})
    for layer, entry in zip(one.layers.layers, measured.layers, strict=True):
        if layer.output in chosen and entry.sparse > 0:
            yield Observation((half_terms(layer.shape, layer.density),), entry.sparse)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path, help="the folder of `make test-aarch64`")
    parser.add_argument("work", type=Path, help="for networks, counts and profiles")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="only specimens whose names contain this")
    parser.add_argument("--again", action="store_true", help="read what an earlier call left in WORK")
    options = parser.parse_args()

    options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        ready = ready_specimens(1, Path(folder), lambda text: None, small_specimens())
    ready = {name: one for name, one in ready.items() if options.only in name}
    places = {name: options.work / "networks" / str(index) for index, name in enumerate(ready)}
    # The same networks each time: their weights are drawn from their names.
    jobs = [job for name, one in ready.items() for job in jobs_of(name, one, places[name])]
    kept = options.work / "profiles.json"
    if not options.again:
        kept.write_text(json.dumps(run(options.build, options.work, jobs)))
    looks = read_looks(options.work / "looks", MODEL)
    read = read_times(jobs, json.loads(kept.read_text()), looks)
    times = {
        name: Times(
            {form: found[form][0] for form in ready[name].forms}, {form: found[form][1] for form in ready[name].forms}
        )
        for name, found in read.items()
    }
    facts = {"processor": PROCESSOR}
    calibration = fitted(1, ready, times, facts)
    halves = [
        observation
        for name, found in read.items()
        if "half" in found and isinstance(one := ready[name], ReadySpecimen)
        for observation in half_observations(one, found["half"][0])
    ]
    calibration = replace(calibration, prices=fit_beyond(calibration.prices, halves), modelled=MODELLED)
    report(calibration, halves)
    write_calibration(options.out, calibration)


def report(calibration: Calibration, halves: Sequence[Observation]) -> None:
    found = calibration.deviation
    if found is not None:
        print(
            f"whole networks missed by {found.median:.1%} in the median, at most {found.largest:.1%} ({found.network})"
        )
    misses = [abs(calibration.seconds(one.terms[0]) / one.seconds - 1) for one in halves]
    if misses:
        print(
            f"{len(misses)} layers in fp16 missed by {np.median(misses):.1%} in the median, at most {max(misses):.1%}"
        )


if __name__ == "__main__":
    sys.exit(main())
