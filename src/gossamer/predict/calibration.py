"""What a short measurement finds out about a machine: the price of every term of a layer's time."""

import hashlib
import json
import math
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tomli_w

from gossamer.bench.folders import cache_folder
from gossamer.bench.network import Network, build
from gossamer.errors import ConfigurationError
from gossamer.predict.other import between, node_terms
from gossamer.predict.prices import Observation, fit
from gossamer.predict.specimens import specimens
from gossamer.predict.terms import Terms, dense_terms, sparse_terms

if TYPE_CHECKING:
    from gossamer.bench.layers import MeasuredNetwork

VERSION = 1
DENSITIES = (0.05, 0.1, 0.2, 0.5)
WATCHED_FOR = 0.05
"""Seconds that a whole network is timed for, at least."""
WHOLE = 2.0
"""How much a whole network's time counts beside a node's, of which it has about 20."""
LARGE = 0.25
"""A relative deviation from a whole network's time that a quiet machine does not explain: networks that were not
measured are expected within 0.11 there (docs/results.md)."""
DOUBTFUL = 0.15
"""A smaller one that is worth measuring once more: on a shared machine one network may have been timed while another
program ran."""
REPEATS = 3
"""How often that is done at most."""
FASTER = 0.05
"""Less than this much of the time gained by measuring again: the prices are wrong there, not the measurement."""
UNSEEN_OP = 5e-6
UNSEEN_FLOAT = 0.3e-9
"""Seconds of a node, and of each of its numbers, of a kind that no specimen has: stated as unknown, not as nothing."""


@dataclass(frozen=True)
class Sample:
    """A specimen at one density: every node under the profiler, and each form by itself, by its name."""

    nodes: tuple[Observation, ...]
    wholes: Mapping[str, Observation]

    def calmer(self, other: "Sample") -> "Sample":
        """The shorter ones of two measurements of the same: what disturbs only ever adds time."""
        return Sample(
            tuple(_shorter(one, another) for one, another in zip(self.nodes, other.nodes, strict=True)),
            {form: _shorter(one, other.wholes[form]) for form, one in self.wholes.items()},
        )


@dataclass(frozen=True)
class Deviation:
    """How far the whole networks' times by the prices are from those that were measured: |expected / measured - 1|."""

    median: float
    largest: float
    network: str
    """Which one the largest is of."""


@dataclass(frozen=True)
class Calibration:
    """Prices, with what they belong to."""

    threads: int
    prices: Mapping[str, Mapping[str, float]]
    """Class of a layer -> term -> seconds for each unit."""
    machine: Mapping[str, str]
    """Processor and versions."""
    deviation: Deviation | None = None
    """None in files of versions that did not keep it."""

    @property
    def warning(self) -> str | None:
        """What to tell those who rely on the prices, if something disturbed the measurement."""
        if self.deviation is None or self.deviation.largest <= LARGE:
            return None
        return (
            f"warning: these prices miss the measured time of {self.deviation.network} by {self.deviation.largest:.0%} "
            f"(at most {LARGE:.0%} is expected): something disturbed the calibration; repeat it on a quiet machine, "
            f"gossamer bench calibrate"
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What tells it from others: by its prices, whatever file they are in."""
        content = json.dumps([self.threads, self.prices], sort_keys=True)
        return {
            "threads": self.threads,
            "processor": self.machine.get("processor", "unknown"),
            "prices": hashlib.sha256(content.encode()).hexdigest()[:16],
        }

    def seconds(self, terms: Terms) -> float:
        """The time of a layer or node."""
        prices = self.prices.get(terms.kind)
        if prices is None:
            return UNSEEN_OP + UNSEEN_FLOAT * terms.amounts.get("float", 0)
        return sum(prices.get(name, 0.0) * amount for name, amount in terms.amounts.items())


def default_path(threads: int) -> Path:
    """Where `gossamer bench calibrate` keeps what it found, and `gossamer predict` looks for it."""
    return cache_folder() / f"calibration-{threads}-thread{'s' if threads > 1 else ''}.toml"


def calibrate(threads: int = 1, runs: int = 9, progress: Callable[[str], object] = lambda text: None) -> Calibration:
    """Times small networks of every class of layer, dense and at several densities, and fits the prices to them.

    Networks whose times the prices miss by more than `DOUBTFUL` are measured again, as long as some become faster by
    that; of each time the shortest counts.

    Args:
        threads: of ONNX Runtime.
        runs: of each network.
        progress: is told what comes next.

    Raises:
        EngineFailed: ONNX Runtime or gossamer-runtime is not installed.
    """
    from gossamer.bench.measure import machine

    facts = {name: str(value) for name, value in machine().items()}
    chosen = specimens()
    samples = _measured(chosen, threads, runs, progress)
    found = _fitted(threads, samples, facts)
    for _ in range(REPEATS):
        names = _doubtful(found, samples)
        if not names:
            break
        again = _measured([one for one in chosen if one.name in names], threads, runs, progress, ", again")
        gained = any(_gained(samples[key], sample) for key, sample in again.items())
        samples |= {key: samples[key].calmer(sample) for key, sample in again.items()}
        found = _fitted(threads, samples, facts)
        if not gained:
            break
    return found


def _measured(
    chosen: Sequence[Network], threads: int, runs: int, progress: Callable[[str], object], remark: str = ""
) -> dict[tuple[str, float], Sample]:
    """By the specimen's name and density."""
    samples: dict[tuple[str, float], Sample] = {}
    for specimen in chosen:
        for density in DENSITIES:
            progress(f"{specimen.name} at {density:.0%}{remark}")
            samples[specimen.name, density] = _observe(specimen, density, threads, runs)
    return samples


def _fitted(threads: int, samples: Mapping[tuple[str, float], Sample], machine: Mapping[str, str]) -> Calibration:
    nodes = [node for sample in samples.values() for node in sample.nodes if node.seconds > 0]
    wholes = {
        f"{name} at {density:.0%}, {form}": whole
        for (name, density), sample in samples.items()
        for form, whole in sample.wholes.items()
    }
    found = Calibration(threads, fit([*nodes, *wholes.values()]), machine)
    return replace(found, deviation=deviation_of(found, wholes))


def _doubtful(calibration: Calibration, samples: Mapping[tuple[str, float], Sample]) -> set[str]:
    """The specimens of which a network's time is missed by more than `DOUBTFUL`."""
    return {
        name
        for (name, _), sample in samples.items()
        for whole in sample.wholes.values()
        if _deviation_from(calibration, whole) > DOUBTFUL
    }


def _gained(before: Sample, after: Sample) -> bool:
    return any(after.wholes[form].seconds < (1 - FASTER) * whole.seconds for form, whole in before.wholes.items())


def _shorter(one: Observation, other: Observation) -> Observation:
    return replace(one, seconds=min(one.seconds, other.seconds))


def _deviation_from(calibration: Calibration, whole: Observation) -> float:
    return abs(sum(calibration.seconds(terms) for terms in whole.terms) / whole.seconds - 1)


def deviation_of(calibration: Calibration, wholes: Mapping[str, Observation]) -> Deviation:
    """Of the calibration's prices from whole networks, by name."""
    deviations = {name: _deviation_from(calibration, whole) for name, whole in wholes.items()}
    network = max(deviations, key=lambda name: deviations[name])
    return Deviation(float(np.median([*deviations.values()])), deviations[network], network)


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Writes it as TOML, for people to read."""
    from gossamer.rounds.files import write_text

    path.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "version": VERSION,
        "threads": calibration.threads,
        "machine": dict(calibration.machine),
        "prices": {kind: dict(prices) for kind, prices in calibration.prices.items()},
    }
    if calibration.deviation is not None:
        content["deviation"] = asdict(calibration.deviation)
    write_text(path, tomli_w.dumps(content))


def read_calibration(path: Path) -> Calibration:
    """Reads what `write_calibration` wrote.

    Raises:
        ConfigurationError: there is none, or it is damaged.
    """
    if not path.is_file():
        raise ConfigurationError(
            f"there is no calibration {path}; make one in a minute: gossamer bench calibrate (with the same --threads)"
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            raise ValueError(f"its version is {content['version']!r}, not {VERSION}")
        return Calibration(
            _whole(content["threads"]),
            {
                str(kind): {str(name): _price(p) for name, p in prices.items()}
                for kind, prices in content["prices"].items()
            },
            {str(name): str(value) for name, value in content["machine"].items()},
            _deviation(content["deviation"]) if "deviation" in content else None,
        )
    except (AttributeError, KeyError, TypeError, UnicodeDecodeError, ValueError) as error:
        raise ConfigurationError(
            f"{path} is no calibration ({error}); make it anew: gossamer bench calibrate"
        ) from error


def find_calibration(path: Path | None, threads: int | None) -> Calibration:
    """The calibration that a command's options name.

    Args:
        path: None: the usual place.
        threads: None: those of the calibration, in the usual place 1.

    Raises:
        ConfigurationError: there is none, it is damaged, or it was measured with another number of threads.
    """
    path = path or default_path(threads or 1)
    found = read_calibration(path)
    if threads is not None and threads != found.threads:
        raise ConfigurationError(
            f"--threads is {threads}, but {path} was measured with {found.threads}; leave --threads out, or give the "
            f"file of gossamer bench calibrate --threads {threads}"
        )
    return found


def _deviation(content: Mapping[str, object]) -> Deviation:
    network = str(content["network"])
    if not network.isprintable():
        raise ValueError(f"{network!r} is no network's name")
    return Deviation(_share(content["median"]), _share(content["largest"]), network)


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{value!r} is no deviation")
    return float(value)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r} threads")
    return value


def _price(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"{value!r} is no price in seconds")
    return float(value)


def _observe(specimen: Network, density: float, threads: int, runs: int) -> Sample:
    """The dense form at the first density only: it is the same at all."""
    from gossamer.bench.compare import random_inputs
    from gossamer.bench.engines import Subject
    from gossamer.bench.layers import measure_layers
    from gossamer.export.costs import EverythingSparse
    from gossamer.export.rewrite import rewrite

    forms = ("sparse", "dense") if density == DENSITIES[0] else ("sparse",)
    dense = build(specimen, density)
    rewritten = rewrite(dense, costs=EverythingSparse())
    form_of = {layer.output: layer.form for layer in rewritten.layers}
    with tempfile.TemporaryDirectory(prefix="gossamer-calibrate-") as folder:
        subject = Subject(dense, rewritten.model, random_inputs(dense), threads, Path(folder))
        measured = measure_layers(subject, runs, forms=forms)
        wholes = {form: _whole_run(subject, form, runs) for form in forms}
    rest = between(measured.graph, [entry.layer for entry in measured.layers], rewritten)
    terms: dict[str, list[Terms]] = {"sparse": [], "dense": []}
    for entry in measured.layers:
        dense_form = dense_terms(entry.layer.shape)
        terms["dense"].append(dense_form)
        sparse = form_of[entry.layer.output] == "sparse"
        terms["sparse"].append(sparse_terms(entry.layer.shape, entry.layer.density) if sparse else dense_form)
    terms["sparse"] += [node_terms(measured.graph, node) for node in (*rest.conversions, *rest.other)]
    terms["dense"] += [node_terms(measured.graph, node) for node in rest.other_dense]
    nodes = tuple(Observation((one,), seconds, watched=1) for one, seconds in _samples(measured, form_of))
    return Sample(nodes, {form: Observation(tuple(terms[form]), wholes[form], weight=WHOLE) for form in forms})


def _whole_run(subject: Any, form: str, runs: int) -> float:
    """Seconds of a run that nobody watches, the median."""
    from gossamer.bench.engines import open_runner

    runner = open_runner("gossamer" if form == "sparse" else form, subject)
    try:
        first = [runner.seconds() for _ in range(runs)]
        # Small networks often, so that a short disturbance does not decide their time.
        again = max(runs, math.ceil(WATCHED_FOR / min(first)))
        return float(np.median([runner.seconds() for _ in range(again)]))
    finally:
        runner.close()


def _samples(measured: "MeasuredNetwork", form_of: Mapping[str, str]) -> "Iterator[tuple[Terms, float]]":
    """The nodes that the profiler names. ONNX Runtime joins what is added to a linear layer's result with a node behind
    it, which no longer has the layer's name: only whole runs know what that takes."""
    for entry in measured.layers:
        shape = entry.layer.shape
        if form_of[entry.layer.output] == "sparse":
            yield sparse_terms(shape, entry.layer.density), entry.sparse
        if not (shape.kind == "linear" and shape.residual):
            yield dense_terms(shape), entry.dense
    for node, seconds in measured.other_sparse:
        yield node_terms(measured.graph, node), seconds
