"""What a short measurement finds out about a machine: the price of every term of a layer's time."""

import hashlib
import json
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tomli_w

from gossamer.bench.folders import cache_folder
from gossamer.errors import ConfigurationError
from gossamer.predict.other import node_terms
from gossamer.predict.prices import fit
from gossamer.predict.specimens import specimens
from gossamer.predict.terms import Terms, dense_terms, sparse_terms

if TYPE_CHECKING:
    from gossamer.bench.layers import MeasuredNetwork

VERSION = 1
DENSITIES = (0.05, 0.1, 0.2, 0.5)
LEAST = 0.2e-6
"""Seconds of a node at least: the profiler's clock ticks in microseconds."""
UNSEEN_OP = 5e-6
UNSEEN_FLOAT = 0.3e-9
"""Seconds of a node, and of each of its numbers, of a kind that no specimen has: stated as unknown, not as nothing."""


@dataclass(frozen=True)
class Calibration:
    """Prices, with what they belong to."""

    threads: int
    prices: Mapping[str, Mapping[str, float]]
    """Class of a layer -> term -> seconds for each unit."""
    machine: Mapping[str, str]
    """Processor and versions."""

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

    Args:
        threads: of ONNX Runtime.
        runs: of each network.
        progress: is told what comes next.

    Raises:
        EngineFailed: ONNX Runtime or gossamer-runtime is not installed.
    """
    from gossamer.bench.measure import machine

    measured: list[_Measured] = []
    for specimen in specimens():
        for density in DENSITIES:
            progress(f"{specimen.name} at {density:.0%}")
            forms = ("sparse", "dense") if density == DENSITIES[0] else ("sparse",)
            measured.append(_measure(specimen, density, threads, runs, forms))
    watching = _price_of_watching(measured)
    samples: dict[str, list[tuple[Terms, float]]] = defaultdict(list)
    for network in measured:
        for terms, seconds in network.samples:
            samples[terms.kind].append((terms, max(seconds - watching, LEAST)))
    facts = {name: str(value) for name, value in machine().items()}
    return Calibration(threads, {kind: fit(found) for kind, found in sorted(samples.items())}, facts)


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Writes it as TOML, for people to read."""
    from gossamer.rounds.files import write_text

    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "version": VERSION,
        "threads": calibration.threads,
        "machine": dict(calibration.machine),
        "prices": {kind: dict(prices) for kind, prices in calibration.prices.items()},
    }
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
        )
    except (AttributeError, KeyError, TypeError, UnicodeDecodeError, ValueError) as error:
        raise ConfigurationError(
            f"{path} is no calibration ({error}); make it anew: gossamer bench calibrate"
        ) from error


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r} threads")
    return value


def _price(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"{value!r} is no price in seconds")
    return float(value)


@dataclass(frozen=True)
class _Measured:
    samples: Sequence[tuple[Terms, float]]
    nodes: int
    """Of the sparse form."""
    in_nodes: float
    """Seconds of a run, as the profiler adds them up."""
    whole: float
    """Seconds of a run that nobody watches."""


def _measure(specimen: Any, density: float, threads: int, runs: int, forms: Sequence[str]) -> _Measured:
    from gossamer.bench.compare import random_inputs
    from gossamer.bench.engines import Subject
    from gossamer.bench.layers import measure_layers
    from gossamer.bench.network import build
    from gossamer.export.costs import EverythingSparse
    from gossamer.export.rewrite import rewrite

    dense = build(specimen, density)
    rewritten = rewrite(dense, costs=EverythingSparse())
    form_of = {layer.output: layer.form for layer in rewritten.layers}
    with tempfile.TemporaryDirectory(prefix="gossamer-calibrate-") as folder:
        subject = Subject(dense, rewritten.model, random_inputs(dense), threads, Path(folder))
        measured = measure_layers(subject, runs, forms=forms)
        times = [layer.sparse for layer in measured.layers] + [seconds for _, seconds in measured.other_sparse]
        samples = _samples(measured, form_of)
        return _Measured(samples, sum(seconds > 0 for seconds in times), sum(times), _whole_run(subject, runs))


def _price_of_watching(measured: Sequence[_Measured]) -> float:
    """Seconds that the profiler adds to every node: in_nodes - price * nodes = whole, with relative errors that are
    least in the mean square, so that small networks, where it matters, decide."""
    shares = np.array([network.nodes / network.whole for network in measured])
    excess = np.array([network.in_nodes / network.whole - 1 for network in measured])
    return max(0.0, float(shares @ excess / (shares @ shares)))


def _whole_run(subject: Any, runs: int) -> float:
    from gossamer.bench.engines import open_runner

    runner = open_runner("gossamer", subject)
    try:
        return float(np.median([runner.seconds() for _ in range(2 * runs)][runs:]))
    finally:
        runner.close()


def _samples(measured: "MeasuredNetwork", form_of: Mapping[str, str]) -> list[tuple[Terms, float]]:
    found = []
    for entry in measured.layers:
        shape = entry.layer.shape
        if form_of[entry.layer.output] == "sparse":
            found.append((sparse_terms(shape, entry.layer.density), entry.sparse))
        if entry.dense:
            found.append((dense_terms(shape), entry.dense))
    found += [(node_terms(measured.graph, node), seconds) for node, seconds in measured.other_sparse]
    return [(terms, seconds) for terms, seconds in found if seconds > 0]
