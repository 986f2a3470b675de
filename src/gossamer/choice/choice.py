"""A network that could be shipped, and the file in which such networks are kept."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from gossamer.errors import ConfigurationError, GossamerError
from gossamer.loop.directions import Better
from gossamer.storage.files import read_text, write_text

FORMS = ("dense fp32", "dense int8", "sparse fp32", "sparse int8", "1x4 fp32", "1x4 int8")
"""How a network computes: `dense` is round 0 on ONNX Runtime's own ops, `1x4` a run whose blocks of four input channels
were kept or pruned as one."""


class ChoiceError(GossamerError):
    """A file of networks to choose from cannot be used."""


@dataclass(frozen=True)
class Choice:
    """A round's network in one form."""

    run: str
    """The run's folder, as it was given."""
    round: int
    form: str
    """One of FORMS."""
    density: float
    """Kept weights / prunable weights."""
    milliseconds: float
    """Of one input."""
    bytes: int
    """Of its file."""
    validation: float
    """The metric on validation."""
    test: float | None = None
    """The metric on test, where the task has that."""


@dataclass(frozen=True)
class Choices:
    """Networks to choose from, all timed in the same way."""

    choices: tuple[Choice, ...]
    metric: str
    better: Better
    what: str
    """How their milliseconds were found: "measured, medians of 25 runs" or "predicted"."""
    where: str
    """Threads and processor."""
    left_out: Mapping[str, str]
    """What could not be had -> the reason."""

    def written(self, path: Path) -> None:
        """Writes them as JSON.

        Raises:
            CheckpointError: the file cannot be written.
        """
        write_text(path, json.dumps(asdict(self), indent=1, allow_nan=False) + "\n")


def read_choices(path: Path) -> Choices:
    """The networks of a file of `gossamer bench forms --json`.

    Raises:
        ChoiceError: it is missing, or has another layout.
    """
    try:
        content = json.loads(read_text(path, links=True))
        choices = tuple(_choice(entry) for entry in content["choices"])
        metric, better, what, where = (content[name] for name in ("metric", "better", "what", "where"))
        if not choices or not all(isinstance(one, str) for one in (metric, what, where)):
            raise ValueError("its networks, metric, what or where are missing")
        if better not in ("higher", "lower"):
            raise ValueError(f"better is {better!r}")
        left_out = {str(name): str(reason) for name, reason in content["left_out"].items()}
    except OSError as error:
        raise ChoiceError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ChoiceError(f"{path} is no file of `gossamer bench forms --json` ({reason})") from error
    return Choices(choices, metric, better, what, where, left_out)


def _choice(entry: Mapping[str, Any]) -> Choice:
    found = Choice(**{field.name: entry[field.name] for field in fields(Choice)})
    numbers = [found.density, found.milliseconds, found.bytes, found.validation, found.round]
    numbers += [] if found.test is None else [found.test]
    if found.form not in FORMS or not isinstance(found.run, str) or not all(map(_is_number, numbers)):
        raise ValueError(f"not a network: {entry!r}")
    if found.milliseconds <= 0 or found.bytes <= 0 or not 0 <= found.density <= 1 or not isinstance(found.round, int):
        raise ValueError(f"a number is out of range: {entry!r}")
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def require_same_metric(found: Sequence[tuple[str, Better]]) -> tuple[str, Better]:
    """The metric of all runs.

    Raises:
        ConfigurationError: they have several, which one axis cannot show.
    """
    several = list(dict.fromkeys(found))
    if len(several) > 1:
        raise ConfigurationError(
            f"the runs are scored by different metrics ({', '.join(name for name, _ in several)}), which cannot be "
            f"compared; give runs of one task"
        )
    return several[0]
