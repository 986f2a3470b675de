"""What every cut is by: what a weight is worth, how many stay in each layer, and what has to stay or go together."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gossamer.arguments import require_function, require_kind, setting, truth
from gossamer.errors import ConfigurationError
from gossamer.options import as_option
from gossamer.prune.allocate import find_allocation
from gossamer.prune.densities import Densities, read_densities

PER_ROUND = 0.2
"""The paper's share of the remaining weights that a round prunes."""
TABLE, SHARES = "method", "rounds"
"""The tables of a run's configuration in which these settings stand: by what is cut, and how much."""
FILE = "densities.toml"
"""What a file of densities is called that has no name any more."""


def _written(allocation: "str | Densities") -> str:
    return allocation if isinstance(allocation, str) else str(allocation.file or FILE)


@dataclass(frozen=True)
class Cut:
    """How every round chooses the weights that stay. The default is the paper's: global, raw magnitudes, 20% a round.

    Raises:
        ConfigurationError: there is no such criterion, allocation or structure, a value is out of range, or two of
            them contradict each other.
    """

    criterion: str = "magnitude"
    """What a weight is worth: magnitude (the paper's), lamp, taylor or random."""
    allocation: str | Path | Mapping[str, float] | Densities = as_option("global", kind=str, written=_written)
    """How the kept weights are shared among the layers: global (the paper's: one ranking over all), uniform, erk, or a
    .toml file of densities (see `gossamer search`). In Python also densities by weight name."""
    structure: str = "unstructured"
    """What stays or goes together: unstructured, 2:4 (or any N:M) along the input channels, 1x4 blocks of input
    channels, or whole output channels. As many whole ones are kept as fit into the plan's number of weights."""
    per_round: float | None = None
    """Share of the remaining weights that each round prunes, in (0, 1); the paper's 0.2 by default."""
    one_shot: bool = False
    """Cut once, straight to the target sparsity, instead of round by round."""
    losses: Callable[[], Iterable[Any]] | None = as_option(None, hidden=True)
    """For the criterion "taylor": called before every cut, yields the model's loss on one batch after another
    (`gossamer.prune.gradients.Losses`). Their mean gradient is used; the model is in evaluation mode meanwhile."""

    def __post_init__(self) -> None:
        # Not at the top: the options of a command are made from the fields above, and need not wait for torch.
        from gossamer.prune.criteria import find_criterion
        from gossamer.prune.structure import find_structure

        require_function("losses", self.losses, "a function that yields the model's loss on some batches")
        needs_gradients = find_criterion(self.criterion).needs_gradients
        find_structure(self.structure)
        object.__setattr__(self, "allocation", _allocation(self.allocation))
        if self.densities is not None:
            self.densities.check_structure(self.structure)
        object.__setattr__(self, "one_shot", truth("one_shot", self.one_shot))
        if self.per_round is not None:
            expected = "a share of the weights between 0 and 1, such as 0.2"
            object.__setattr__(self, "per_round", setting("per_round", self.per_round, expected))
            if not 0 < self.per_round < 1:
                raise ConfigurationError(f"per_round is {self.per_round}; expected {expected}")
        if self.losses is not None and not needs_gradients:
            raise ConfigurationError(
                f"losses is given, but the criterion {self.criterion!r} uses no gradients; leave it out, or pass "
                f"criterion='taylor'"
            )

    @property
    def densities(self) -> Densities | None:
        """The densities that were given; None for an allocation by name."""
        return self.allocation if isinstance(self.allocation, Densities) else None

    @property
    def allocation_name(self) -> str:
        """The name of the allocation, as a run's configuration has it."""
        return self.allocation if isinstance(self.allocation, str) else "densities"

    def to_tables(self) -> dict[str, dict[str, Any]]:
        """Returns the tables of a run's configuration, by name. What is None is left out there."""
        return {
            SHARES: {"per_round": self.per_round, "one_shot": self.one_shot or None},
            TABLE: {
                "criterion": self.criterion,
                "allocation": self.allocation_name,
                "densities": None if self.densities is None else dict(self.densities.of),
                "structure": self.structure,
            },
        }

    @classmethod
    def from_tables(cls, tables: Mapping[str, Mapping[str, Any]]) -> "Cut":
        """The opposite; without the `losses`, which only the run's own code has.

        Raises:
            ConfigurationError: a value is out of range.
        """
        found, shares = tables.get(TABLE, {}), tables.get(SHARES, {})
        one_shot = shares.get("one_shot", False)
        densities = found.get("densities")
        if densities is None:
            # A name and nothing else: no file that somebody else's folder names is opened.
            find_allocation(found.get("allocation", "global"))
        return cls(
            found.get("criterion", "magnitude"),
            found.get("allocation", "global") if densities is None else densities,
            found.get("structure", "unstructured"),
            # With one cut it follows from the target; a run without one is one of 20%.
            None if one_shot or shares.get("per_round") == PER_ROUND else shares.get("per_round"),
            one_shot,
        )


def _allocation(given: str | Path | Mapping[str, float] | Densities) -> str | Densities:
    if isinstance(given, Densities):
        return given
    if isinstance(given, Mapping):
        return Densities(given)
    require_kind("allocation", given, (str, Path), "a name, a file of densities, or densities by weight name")
    if isinstance(given, Path) or given.endswith(".toml"):
        return read_densities(Path(given))
    find_allocation(given)
    return given
