"""A short measurement of a machine: small networks of every class of layer, and the prices that explain their times."""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gossamer.bench.measure import machine
from gossamer.bench.network import DescribedNetwork, build
from gossamer.predict.calibration import Calibration, Deviation
from gossamer.predict.prices import Observation, fit, fit_beyond
from gossamer.predict.ready import ReadySpecimen, Times, make_ready
from gossamer.predict.ready_int8 import ReadyInt8, make_ready_int8
from gossamer.predict.specimens import specimens

DENSITIES = (0.05, 0.1, 0.2, 0.5)
INT8_DENSITIES = (0.05, 0.2)
"""Those at which specimens are quantised too: quads of single weights are kept to 19% and 59% there."""
MIXED_DENSITY, MIXED = 0.2, ("convolutions", "functions")
"""Where every second layer of bytes is left dense, to learn what changes of the layout take: at this density, of
specimens whose names begin so."""
ROUNDS = 3
"""How often every specimen is timed, each time after all others."""
DOUBTFUL = 0.15
"""A smaller one that is worth measuring once more: on a shared machine one network may have been timed while another
program ran."""
REPEATS = 3
"""How often a network is, at most."""
FASTER = 0.05
"""Less than this much of the time gained by measuring again: the prices are wrong there, not the measurement."""


def calibrate(threads: int = 1, runs: int = 5, progress: Callable[[str], object] = lambda text: None) -> Calibration:
    """Times small networks of every class of layer, dense and at several densities, and fits the prices to them.

    All are timed in `ROUNDS` rounds, and of each time the shortest counts: what disturbs only ever adds time, and
    seldom disturbs all rounds. Networks whose times the prices then miss by more than `DOUBTFUL` are timed again, as
    long as some become faster by that.

    Args:
        threads: of ONNX Runtime.
        runs: of each network in every round.
        progress: is told what comes next.

    Raises:
        EngineFailed: ONNX Runtime or gossamer-runtime is not installed.
    """
    facts = {name: str(value) for name, value in machine().items()}
    with tempfile.TemporaryDirectory(prefix="gossamer-calibrate-") as folder:
        ready = ready_specimens(threads, Path(folder), progress)
        times: dict[str, Times] = {}
        for number in range(1, ROUNDS + 1):
            for name, found in _timed(ready.values(), runs, progress, f"round {number} of {ROUNDS}").items():
                times[name] = times[name].calmer(found) if name in times else found
        calibration = fitted(threads, ready, times, facts)
        for _ in range(REPEATS):
            doubtful = _doubtful(calibration, ready, times)
            if not doubtful:
                break
            again = _timed(doubtful, runs, progress, "again")
            gained = any(_gained(times[name], found) for name, found in again.items())
            times |= {name: times[name].calmer(found) for name, found in again.items()}
            calibration = fitted(threads, ready, times, facts)
            if not gained:
                break
    return calibration


def ready_specimens(
    threads: int, folder: Path, progress: Callable[[str], object], networks: Sequence[DescribedNetwork] | None = None
) -> dict[str, ReadySpecimen | ReadyInt8]:
    """All specimens at all densities, by name, at some also quantised. The dense form, the same at all densities, is
    timed at the first.

    Args:
        folder: for their files.
        networks: None: those of a calibration.
    """
    ready: dict[str, ReadySpecimen | ReadyInt8] = {}
    for specimen in specimens() if networks is None else networks:
        for density in DENSITIES:
            name = f"{specimen.name} at {density:.0%}"
            progress(f"building {name}")
            forms = ("sparse", "dense") if density == DENSITIES[0] else ("sparse",)
            built = build(specimen, density)
            ready[name] = make_ready(name, built, forms, threads, folder / str(len(ready)))
            if density in INT8_DENSITIES:
                name = f"{name}, int8"
                ready[name] = make_ready_int8(name, built, forms, threads, folder / str(len(ready)))
            if density == MIXED_DENSITY and specimen.name.startswith(MIXED):
                name = f"{name}, mixed"
                ready[name] = make_ready_int8(name, built, ("sparse",), threads, folder / str(len(ready)), mixed=True)
    return ready


def _timed(
    ready: Iterable[ReadySpecimen | ReadyInt8], runs: int, progress: Callable[[str], object], remark: str
) -> dict[str, Times]:
    found = {}
    for one in ready:
        progress(f"{one.name}, {remark}")
        found[one.name] = one.times(runs)
    return found


def fitted(
    threads: int, ready: Mapping[str, ReadySpecimen | ReadyInt8], times: Mapping[str, Times], machine: Mapping[str, str]
) -> Calibration:
    """The prices that explain the times of specimens, by their names, best."""
    floats = {name: one for name, one in ready.items() if isinstance(one, ReadySpecimen)}
    of_bytes = {name: one for name, one in ready.items() if isinstance(one, ReadyInt8)}
    nodes = [node for name, one in floats.items() for node in one.nodes(times[name])]
    wholes, wholes_of_bytes = _wholes(floats, times), _wholes(of_bytes, times)
    prices = fit([*nodes, *wholes.values()])
    # Afterwards, so that prices of floats are what they would be without.
    nodes_of_bytes = [node for name, one in of_bytes.items() for node in one.nodes(times[name])]
    found = Calibration(threads, fit_beyond(prices, [*nodes_of_bytes, *wholes_of_bytes.values()]), machine)
    return replace(found, deviation=deviation_of(found, {**wholes, **wholes_of_bytes}))


def _wholes(ready: Mapping[str, ReadySpecimen | ReadyInt8], times: Mapping[str, Times]) -> dict[str, Observation]:
    """The times of whole networks, by name and form."""
    return {f"{name}, {form}": whole for name, one in ready.items() for form, whole in one.wholes(times[name]).items()}


def _doubtful(
    calibration: Calibration, ready: Mapping[str, ReadySpecimen | ReadyInt8], times: "Mapping[str, Times]"
) -> "list[ReadySpecimen | ReadyInt8]":
    """The specimens of which a whole network's time is missed by more than `DOUBTFUL`."""
    return [
        one
        for name, one in ready.items()
        if any(_deviation_from(calibration, whole) > DOUBTFUL for whole in one.wholes(times[name]).values())
    ]


def _gained(before: Times, after: Times) -> bool:
    return any(after.wholes[form] < (1 - FASTER) * seconds for form, seconds in before.wholes.items())


def _deviation_from(calibration: Calibration, whole: Observation) -> float:
    return abs(sum(calibration.seconds(terms) for terms in whole.terms) / whole.seconds - 1)


def deviation_of(calibration: Calibration, wholes: Mapping[str, Observation]) -> Deviation:
    """How far the calibration's prices are from the times of whole networks, by name."""
    deviations = {name: _deviation_from(calibration, whole) for name, whole in wholes.items()}
    network = max(deviations, key=lambda name: deviations[name])
    return Deviation(float(np.median([*deviations.values()])), deviations[network], network)
