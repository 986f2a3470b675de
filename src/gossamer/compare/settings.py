"""What a comparison is of, and how its runs are started."""

from dataclasses import dataclass

from gossamer.errors import ConfigurationError
from gossamer.options import as_option, joined, names, numbers


@dataclass(frozen=True)
class Compared:
    """The methods, on how many seeds.

    Raises:
        ConfigurationError: there are no seeds.
    """

    methods: tuple[str, ...] = as_option(("lr-rewind", "weight-rewind", "fine-tune"), read=names, written=joined)
    """Names with commas between them; the first is the reference. weight-rewind@10 retrains for the last 10 epochs;
    one-shot-lr-rewind cuts once; lr-rewind+erk has another allocation (criterion, structure, or file of densities);
    lr-rewind+replicates=3 averages three trainings of every round."""
    seeds: int = 3
    """How many: seeds 0, 1, ..."""
    one_shot_densities: tuple[float, ...] = as_option((), read=numbers, written=joined)
    """Where one-shot methods are looked at, such as 0.2,0.1,0.05; by default every third round's density. Methods
    with a file of densities cut once, to the file's own."""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ConfigurationError(f"got {self.seeds} seeds; expected at least 1")


@dataclass(frozen=True)
class Running:
    """Where the runs of a comparison are computed.

    Raises:
        ConfigurationError: there are no jobs or no threads.
    """

    jobs: int = 1
    """Runs at the same time."""
    threads: int | None = None
    """Threads of each run; by default the processors, divided by --jobs. Part of what makes the same bits."""
    cluster: str | None = None
    """Address of a Ray cluster (auto, host:port; local starts one). --out must be a folder that all of its machines
    see."""

    def __post_init__(self) -> None:
        if self.jobs < 1 or (self.threads is not None and self.threads < 1):
            raise ConfigurationError(f"got {self.jobs} jobs, {self.threads} threads; expected at least 1 of each")
