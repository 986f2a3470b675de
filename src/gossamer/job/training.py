"""How a built-in task is trained, beside its recipe."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gossamer.arguments import require_kind, setting, truth, whole_number
from gossamer.errors import ConfigurationError
from gossamer.options import as_option, joined, whole_numbers

TABLE, SEEDS = "settings", "rounds"
"""The tables of a run's configuration in which these settings stand."""
FRESH, KEPT = "fresh", "keep"


@dataclass(frozen=True)
class Training:
    """How every round of a built-in job is trained.

    Raises:
        ConfigurationError: a value is out of range.
    """

    epochs: int | None = None
    """Training time of every round; the recipe's by default."""
    seed: int = 0
    """Same seed, same bits on the CPU (with the same versions and number of threads): of the initial weights, the order
    of the data and the augmentation."""
    device: str = "cpu"
    """cpu or cuda."""
    fine_tune_rate: float | None = None
    """Constant learning rate of fine-tune and low-lr-weight-rewind; the recipe's own or last one by default."""
    fresh_optimizer: bool = False
    """Begin every round without momentum; by default it lives on, as in the paper's code."""
    checkpoint_seconds: float = 10.0
    """Least time between two saves inside a round. Random numbers are derived from the seed, epoch by epoch, so a later
    resumption point costs time and changes no bit."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", whole_number("seed", self.seed))
        require_kind("device", self.device, str, "cpu or cuda")
        object.__setattr__(self, "checkpoint_seconds", setting("checkpoint_seconds", self.checkpoint_seconds))
        if not self.checkpoint_seconds >= 0:
            raise ConfigurationError(f"checkpoint_seconds is {self.checkpoint_seconds}; expected 0 or more")
        object.__setattr__(self, "fresh_optimizer", truth("fresh_optimizer", self.fresh_optimizer))
        if self.fine_tune_rate is not None:
            object.__setattr__(self, "fine_tune_rate", setting("fine_tune_rate", self.fine_tune_rate))
        if self.epochs is not None:
            object.__setattr__(self, "epochs", whole_number("epochs", self.epochs, "a whole number, at least 1"))
            if self.epochs < 1:
                raise ConfigurationError(f"epochs is {self.epochs}; expected at least 1")

    def epochs_of(self, recipe_epochs: int) -> int:
        """How many a round is trained for."""
        return recipe_epochs if self.epochs is None else self.epochs

    def to_tables(self, recipe_epochs: int, rate: float | None) -> dict[str, dict[str, Any]]:
        """The tables of a run's configuration that say this, by name.

        Args:
            rate: the constant learning rate that the method came to have, if it has one.
        """
        return {
            TABLE: {
                "epochs": self.epochs_of(recipe_epochs),
                "device": self.device,
                "optimizer_state": FRESH if self.fresh_optimizer else KEPT,
                "fine_tune_rate": rate,
            }
        }

    @classmethod
    def from_tables(cls, tables: Mapping[str, Mapping[str, Any]]) -> "Training":
        """The opposite; what is as the recipe has it is left to that.

        Raises:
            ConfigurationError: a value is out of range.
        """
        found = tables.get(TABLE, {})
        recipe = found.get("recipe")
        own = recipe.get("epochs") if isinstance(recipe, Mapping) else None
        return cls(
            None if found.get("epochs") == own else found.get("epochs"),
            tables.get(SEEDS, {}).get("seed", 0),
            found.get("device", "cpu"),
            found.get("fine_tune_rate"),
            found.get("optimizer_state", KEPT) == FRESH,
        )


@dataclass(frozen=True)
class DenseRound:
    """Where the dense network of a job is from, and what is kept of its training for others.

    Raises:
        ConfigurationError: a value is of another type, or snapshots are to be kept of another training than the
            dense one.
    """

    taken_from: Path | None = as_option(None, name="dense", kind=Path)
    """A run of the same settings, whose dense network is taken over instead of training it again."""
    only: bool = as_option(False, name="dense_only")
    """Train the dense network and stop."""
    keep_snapshots: tuple[int, ...] = as_option((), read=whole_numbers, written=joined)
    """With --dense-only: epochs, such as 0,1,5, that other runs may rewind to."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "only", truth("dense_only", self.only))
        if self.taken_from is not None:
            require_kind("dense", self.taken_from, (str, Path), "the folder of a run")
            object.__setattr__(self, "taken_from", Path(self.taken_from))
        require_kind("keep_snapshots", self.keep_snapshots, (list, tuple), "epochs, such as (0, 1, 5)")
        epochs = tuple(whole_number("an epoch of keep_snapshots", epoch) for epoch in self.keep_snapshots)
        object.__setattr__(self, "keep_snapshots", epochs)
        if self.keep_snapshots and not self.only:
            raise ConfigurationError(
                "snapshots for other runs are kept of a dense network that is trained for them; give dense_only with "
                "keep_snapshots, or leave it out"
            )
