"""What is compared: a strategy by its name on the command line, such as one-shot-lr-rewind+erk."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gossamer.errors import ConfigurationError
from gossamer.prune.allocate import ALLOCATIONS
from gossamer.prune.criteria import CRITERIA
from gossamer.prune.cut import Cut
from gossamer.prune.structure import STRUCTURES, find_structure
from gossamer.rewind.strategies import STRATEGIES, Retraining

ONE_SHOT = "one-shot-"
REPLICATES = "replicates"
DENSITIES = ".toml"
"""How the name of an allocation ends that is a file of densities."""


@dataclass(frozen=True)
class Method:
    """What is compared: a strategy, how long it retrains, iteratively or in one shot."""

    strategy: str
    retrain_epochs: int | None = None
    """t; None: the whole schedule."""
    one_shot: bool = False
    names: tuple[str, ...] = ()
    """The names of a criterion, an allocation (or its file) and a structure that are not the paper's; or replicates=3,
    for rounds that are trained three times and averaged."""

    @classmethod
    def named(cls, text: str) -> "Method":
        """Reads lr-rewind, weight-rewind@10 (retrain for the last 10 epochs), one-shot-fine-tune, lr-rewind+erk+lamp or
        lr-rewind+replicates=3.

        Raises:
            ConfigurationError: it is no such name, or two parts of it contradict each other.
        """
        retraining, *names = text.split("+")
        strategy, at, epochs = retraining.removeprefix(ONE_SHOT).partition("@")
        if strategy not in STRATEGIES or (at and not (epochs.isdecimal() and int(epochs) > 0)):
            raise ConfigurationError(
                f"there is no method {text!r}; expected one of {', '.join(STRATEGIES)}, with {ONE_SHOT} before it to "
                f"cut once, @10 behind it to retrain for the last 10 epochs only, and +erk for another allocation, "
                f"criterion or structure, and +replicates=3 for averages of 3 trainings"
            )
        for option, count in Counter(_setting(name)[0] for name in names).items():
            if count > 1:
                given = " and ".join(f"+{name}" for name in names if _setting(name)[0] == option)
                raise ConfigurationError(
                    f"{text} has {given}, which are all of a kind (--{option}); expected one of them, or methods of "
                    f"their own"
                )
        return cls(strategy, int(epochs) if at else None, text.startswith(ONE_SHOT), tuple(names))

    @property
    def family(self) -> str:
        """The name without the retraining time, which is chosen on validation."""
        return (ONE_SHOT if self.one_shot else "") + self.strategy + "".join(f"+{name}" for name in self.names)

    def __str__(self) -> str:
        time = "" if self.retrain_epochs is None else f"@{self.retrain_epochs}"
        return (ONE_SHOT if self.one_shot else "") + self.strategy + time + "".join(f"+{name}" for name in self.names)

    @property
    def settings(self) -> dict[str, str]:
        """What the names behind a plus set: field of `Cut` or `Retraining` -> its value."""
        return dict(map(_setting, self.names))

    @property
    def cut(self) -> Cut:
        """How it cuts.

        Raises:
            ConfigurationError: its file of densities cannot be read, or two of its names contradict each other.
        """
        names: dict[str, Any] = {name: value for name, value in self.settings.items() if name != REPLICATES}
        return Cut(**names)

    @property
    def retraining(self) -> Retraining:
        """How it retrains."""
        replicates = int(self.settings.get(REPLICATES, 1))
        return Retraining(self.strategy, rewind_epochs=self.retrain_epochs, replicates=replicates)

    @property
    def densities_file(self) -> Path | None:
        """Where the allocation is, if it has no name."""
        allocation = self.settings.get("allocation", "")
        return Path(allocation) if allocation.endswith(DENSITIES) else None

    @property
    def has_own_densities(self) -> bool:
        """Whether it cuts once, to the densities of its file."""
        return self.one_shot and self.densities_file is not None

    @property
    def rewinds_weights(self) -> bool:
        return STRATEGIES[self.strategy].weights == "rewound"

    @property
    def constant_rate(self) -> bool:
        """Whether it retrains with one learning rate instead of a schedule."""
        return STRATEGIES[self.strategy].rates == "last"


def _setting(name: str) -> tuple[str, str]:
    """What a name behind a plus sets: a field of `Cut` or `Retraining`, and its value.

    Raises:
        ConfigurationError: nothing.
    """
    if name in ALLOCATIONS or name.endswith(DENSITIES):
        return "allocation", name
    if name in CRITERIA:
        return "criterion", name
    if name in STRUCTURES or ":" in name:
        find_structure(name)
        return "structure", name
    if name.startswith(f"{REPLICATES}="):
        count = name.removeprefix(f"{REPLICATES}=")
        if not (count.isdecimal() and int(count) > 0):
            raise ConfigurationError(f"got +{name}; expected how many trainings to average, such as +{REPLICATES}=3")
        return REPLICATES, count
    known = ", ".join([*ALLOCATIONS, *CRITERIA, *STRUCTURES])
    raise ConfigurationError(
        f"+{name} names no allocation, criterion or structure; expected one of {known}, or a file "
        f"of densities that ends in .toml"
    )
