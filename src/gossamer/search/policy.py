"""What a search found: the density of every layer, in a file that `gossamer compress --allocation` takes."""

from dataclasses import dataclass
from pathlib import Path

from gossamer.prune.densities import Densities, write_densities


@dataclass(frozen=True)
class Policy:
    """The best episode of a search."""

    densities: dict[str, float]
    """The densities by weight name; of channels: the share of output channels."""
    actions: str
    """"weights" or "channels"."""
    episode: int
    reward: float
    value: float
    """The metric of the pruned network on the validation examples that the search used."""
    cost: float
    budget: str
    """The cost's unit."""
    kept: dict[str, int]
    """Weights left in every layer."""
    chosen: tuple[int, ...]
    """How many every action keeps."""

    @property
    def structure(self) -> str:
        """What `gossamer compress --structure` is to be given with it."""
        return "channels" if self.actions == "channels" else "unstructured"

    def write(self, path: Path) -> None:
        """Writes it as TOML.

        Raises:
            CheckpointError: it cannot be written.
        """
        facts = {
            "structure": self.structure,
            "search": {
                "actions": self.actions,
                "budget": self.budget,
                "cost": self.cost,
                "episode": self.episode,
                "reward": self.reward,
                "value": self.value,
            },
        }
        write_densities(path, Densities(self.densities), facts)
