"""Densities given layer by layer, as a file: what a search found, or what the user wants.

[densities]
"conv_1.weight" = 0.66
"hidden.weight" = 0.085
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod
from pathlib import Path

import tomli_w

from gossamer.arguments import as_written, require_kind, setting
from gossamer.errors import ConfigurationError
from gossamer.prune.allocate import Shapes
from gossamer.storage.files import read_text, write_text
from gossamer.storage.versions import refuse_newer

TABLE = "densities"
CHANNELS = "channels"

FORMAT = 1
"""The version of the file. One that states none, such as those that people write, is of version 1."""

HALVINGS = 100
"""Halvings of the interval in which the exponent is sought: past what a double distinguishes."""


@dataclass(frozen=True)
class Densities:
    """An allocation that ends at given densities.

    On the way there every layer is thinned at its own constant rate: when the exponent t of `density ** t` has gone
    from 0 to 1, all layers arrive together. Past it (a smaller target than the file's) they go on at the same rates.
    """

    of: Mapping[str, float] = field(hash=False)
    """Weight name -> kept / all weights of it, in (0, 1]."""
    structure: str | None = None
    """The structure that they were found for: shares of whole output channels, or of single weights. None: not
    known."""
    file: Path | None = field(default=None, compare=False)
    """Where they are from."""

    def __post_init__(self) -> None:
        expected = "a number above 0 and at most 1"
        for name in self.of:
            require_kind("the name of a density", name, str, "the name of a weight")
        numbers = {name: setting(f"the density of {name}", density, expected) for name, density in self.of.items()}
        object.__setattr__(self, "of", numbers)
        for name, density in numbers.items():
            if not 0 < density <= 1:
                raise ConfigurationError(f"the density of {name} is {density!r}; expected {expected}")

    def check_structure(self, structure: str) -> None:
        """Verifies that densities of channels are used for channels, and others are not.

        Raises:
            ConfigurationError: they are not.
        """
        if self.structure is not None and (self.structure == CHANNELS) != (structure == CHANNELS):
            raise ConfigurationError(
                f"the densities were found for the structure {self.structure}, got {structure}; give {self.structure}, "
                f"or other densities"
            )

    def total(self, shapes: Shapes) -> int:
        """How many weights these densities keep, each layer rounded to the nearest.

        Raises:
            ConfigurationError: they are not of these weights.
        """
        self._check_names(shapes)
        return sum(round(share) for share in self._final(shapes).values())

    def __call__(self, shapes: Shapes, kept: int) -> dict[str, Fraction]:
        """How many weights to keep in each layer, not yet rounded (see `allocate.Allocation`)."""
        if kept == self.total(shapes):
            return self._final(shapes)
        sizes = {name: prod(shape) for name, shape in shapes.items()}
        full = sum(size for name, size in sizes.items() if self.of[name] == 1)
        if kept <= full < sum(sizes.values()) or kept < full:
            raise ConfigurationError(
                f"{kept} weights are to be kept, but the layers of density 1 alone have {full}; expected a smaller "
                f"target sparsity, or densities below 1 for them"
            )
        low, high = 0.0, 1.0
        while self._kept_at(high, sizes) > kept:
            low, high = high, 2 * high
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._kept_at(middle, sizes) > kept else (low, middle)
        shares = {name: Fraction(self.of[name] ** high) * size for name, size in sizes.items()}
        rounding = Fraction(kept) / sum(shares.values())
        return {name: min(share * rounding, Fraction(sizes[name])) for name, share in shares.items()}

    def _final(self, shapes: Shapes) -> dict[str, Fraction]:
        return {name: as_written(self.of[name]) * prod(shape) for name, shape in shapes.items()}

    def _kept_at(self, exponent: float, sizes: Mapping[str, int]) -> float:
        return math.fsum(size * self.of[name] ** exponent for name, size in sizes.items())

    def _check_names(self, shapes: Shapes) -> None:
        missing = [name for name in shapes if name not in self.of]
        unknown = [name for name in self.of if name not in shapes]
        if missing:
            raise ConfigurationError(
                f"there is no density for {missing[0]}; expected one for every prunable weight. Add it (1 leaves it "
                f"dense), or exclude it from the scope."
            )
        if unknown:
            raise ConfigurationError(
                f"there is a density for {unknown[0]}, which is not prunable; expected densities for "
                f"{', '.join(shapes)} only"
            )


def read_densities(path: Path) -> Densities:
    """The densities in a file.

    Raises:
        ConfigurationError: it cannot be read, or is no such file.
        CheckpointError: it is of a newer version.
    """
    try:
        content = tomllib.loads(read_text(path, links=True))
    except (OSError, ValueError, RecursionError) as error:
        reason = (error.strerror or error) if isinstance(error, OSError) else error
        raise ConfigurationError(
            f"cannot read densities from {path}: {reason}; expected a TOML file with a [{TABLE}] table"
        ) from error
    refuse_newer(content.get("format", 1), FORMAT, path)
    table = content.get(TABLE)
    if not isinstance(table, dict) or not table:
        raise ConfigurationError(f'{path} has no [{TABLE}] table; expected lines such as "conv_1.weight" = 0.5 in one')
    structure = content.get("structure")
    if structure is not None and not isinstance(structure, str):
        raise ConfigurationError(f"{path}: structure is {structure!r}; expected a name, such as {CHANNELS!r}")
    return Densities(table, structure, path)


def write_densities(path: Path, densities: Densities, facts: Mapping[str, object]) -> None:
    """Writes densities, and what is to be known of their origin, as TOML.

    Raises:
        CheckpointError: it cannot be written.
    """
    write_text(path, tomli_w.dumps({"format": FORMAT, **facts, TABLE: dict(densities.of)}))
