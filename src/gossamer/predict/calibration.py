"""What a short measurement finds out about a machine: the price of every term of a layer's time."""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomli_w

from gossamer.errors import ConfigurationError
from gossamer.export.prices import seconds
from gossamer.graph.half_terms import HALF
from gossamer.graph.terms import Terms
from gossamer.storage.cache import cache_folder
from gossamer.storage.files import read_text, write_text
from gossamer.storage.versions import refuse_newer

VERSION = 5
LARGE, LARGE_OF_SEVERAL_THREADS = 0.25, 0.35
"""A relative deviation from a whole network's time that a quiet machine does not explain: networks that were not
measured are expected within 0.14 there (docs/results.md). Several threads deal out a layer that is one tile by
channels, which no term describes: specimens made of such layers are missed by up to 0.27."""


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
    modelled: str | None = None
    """By what model of the processor, where nothing was measured."""

    @property
    def prices_half(self) -> bool:
        """Whether it has prices of layers that multiply in fp16."""
        return any(kind.startswith(HALF) for kind in self.prices)

    @property
    def warning(self) -> str | None:
        """What to tell those who rely on the prices, if something disturbed the measurement."""
        most = LARGE if self.threads == 1 else LARGE_OF_SEVERAL_THREADS
        if self.deviation is None or self.deviation.largest <= most:
            return None
        if self.modelled is not None:
            return f"these prices miss the model's time of {self.deviation.network} by {self.deviation.largest:.0%}"
        return (
            f"warning: these prices miss the measured time of {self.deviation.network} by {self.deviation.largest:.0%} "
            f"(at most {most:.0%} is expected): something disturbed the calibration; repeat it on a quiet machine, "
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
        return seconds(self.prices, terms)


def default_path(threads: int) -> Path:
    """Where `gossamer bench calibrate` keeps what it found, and `gossamer predict` looks for it."""
    return cache_folder() / f"calibration-{threads}-thread{'s' if threads > 1 else ''}.toml"


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Writes it as TOML, for people to read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "version": VERSION,
        "threads": calibration.threads,
        "machine": dict(calibration.machine),
        "prices": {kind: dict(prices) for kind, prices in calibration.prices.items()},
    }
    if calibration.modelled is not None:
        content["modelled"] = calibration.modelled
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
            f"there is no calibration {path}; make one in about five minutes: gossamer bench calibrate (with the same "
            f"--threads)"
        )
    try:
        content = tomllib.loads(read_text(path, links=True))
        refuse_newer(content["version"], VERSION, path)
        return calibration_of(content)
    except (AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{path} is no calibration ({error}); make it anew: gossamer bench calibrate"
        ) from error


def calibration_of(content: Mapping[str, Any]) -> Calibration:
    """What a calibration's file says.

    Raises:
        AttributeError, LookupError, TypeError, ValueError: it is damaged.
    """
    if content["version"] != VERSION:
        raise ValueError(f"its version is {content['version']!r}, not {VERSION}")
    return Calibration(
        _whole(content["threads"]),
        {str(kind): {str(name): _price(p) for name, p in prices.items()} for kind, prices in content["prices"].items()},
        {str(name): str(value) for name, value in content["machine"].items()},
        _deviation(content["deviation"]) if "deviation" in content else None,
        _words(content["modelled"]) if "modelled" in content else None,
    )


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


def _words(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError(f"{value!r} says of no model")
    return value


def _deviation(content: Mapping[str, object]) -> Deviation:
    network = str(content["network"])
    if not network.isprintable():
        raise ValueError(f"{network!r} is no network's name")
    return Deviation(_share(content["median"]), _share(content["largest"]), network)


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
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
