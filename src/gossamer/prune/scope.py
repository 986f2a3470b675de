"""Which weights may be pruned: those of layers, and what is named; never biases or normalisation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from gossamer.arguments import truth
from gossamer.errors import ConfigurationError

TABLE = "scope"
"""The table of a run's configuration in which these settings stand."""
MOST_NAMED = 100
"""Names in a message, of which there may be tens of thousands."""
Named = TypeVar("Named")


@dataclass(frozen=True)
class Scope:
    """Selects the prunable weights of a model by layer type and by name.

    A pattern is a shell pattern (`*`, `?`, `[...]`), matched against the weight's full name (`layer1.0.conv1.weight`)
    and against its layer's (`layer1.0.conv1`); case counts.

    Besides the weights of known layers, parameters of one's own layers are prunable if a pattern of `include` other
    than `"*"` matches them: those of a floating-point type with two axes or more. Their first axis counts outputs (its
    entries are the rows, or channels), their second inputs, as in torch's layers. Embedding tables are taken if
    `embeddings` says so, or if a pattern matches nothing else that could be pruned. A pattern that matches nothing that
    can be pruned is refused.
    """

    include: tuple[str, ...] = ("*",)
    """Prune only weights whose name matches (shell pattern; repeatable)."""
    exclude: tuple[str, ...] = ()
    """Never prune weights whose name matches (repeatable)."""
    embeddings: bool = False
    """Prune embedding tables too (the paper does in its translation network, GNMT)."""
    trainable_only: bool = False
    """Leave frozen weights alone (those with requires_grad=False when the run begins)."""

    def __post_init__(self) -> None:
        for field in ("include", "exclude"):
            patterns = getattr(self, field)
            try:
                # Once: a generator gives its patterns a single time.
                listed = None if isinstance(patterns, (str, bytes)) else tuple(patterns)
            except TypeError:
                listed = None
            if listed is None or not all(isinstance(pattern, str) for pattern in listed):
                raise ConfigurationError(f"scope: {field} is {patterns!r}; expected a list of name patterns")
            object.__setattr__(self, field, tuple(map(str, listed)))
        for field in ("embeddings", "trainable_only"):
            object.__setattr__(self, field, truth(f"scope: {field}", getattr(self, field)))

    def require_matches(self, names: Sequence[str]) -> None:
        """Verifies that every pattern matches one of the names: one that matches nothing is a typing mistake, and would
        otherwise prune what was to be left alone.

        Raises:
            ConfigurationError: one matches none.
        """
        for field in ("include", "exclude"):
            for pattern in getattr(self, field):
                if pattern != "*" and not any(matches(name, (pattern,)) for name in names):
                    raise ConfigurationError(
                        f"scope: {field} pattern {pattern!r} matches no parameter; expected a shell pattern for one "
                        f"of: " + ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")
                    )

    def selects(self, names: Sequence[str]) -> bool:
        """Whether a weight of these names is within the patterns: any of them may be included, none excluded."""
        return any(matches(name, self.include) for name in names) and not any(
            matches(name, self.exclude) for name in names
        )

    def to_tables(self) -> dict[str, dict[str, Any]]:
        """Returns the tables of a run's configuration, by name."""
        table = {"include": list(self.include), "exclude": list(self.exclude), "embeddings": self.embeddings}
        # Only if it is set: folders that were written before there was such a choice are still the same run.
        return {TABLE: {**table, "trainable_only": True} if self.trainable_only else table}

    @classmethod
    def from_tables(cls, tables: Mapping[str, Mapping[str, Any]]) -> "Scope":
        """The opposite.

        Raises:
            ConfigurationError: a value is of another type.
        """
        found = tables.get(TABLE, {})
        return cls(
            found.get("include", ("*",)),
            found.get("exclude", ()),
            found.get("embeddings", False),
            found.get("trainable_only", False),
        )


def matches(weight_name: str, patterns: Sequence[str]) -> bool:
    """Whether a shell pattern matches the weight's name, or its layer's."""
    layer_name = weight_name.rpartition(".")[0]
    return any(fnmatchcase(weight_name, pattern) or fnmatchcase(layer_name, pattern) for pattern in patterns)


def made_prunable(matched: Sequence[Named], kind: Callable[[Named], str]) -> list[Named]:
    """What a pattern makes prunable of all that it matches: weights and one's own parameters, and embedding tables only
    if there is nothing else.

    `encoder.*` leaves the encoder's embedding alone; a pattern for it alone is taken at its word.
    """
    found = [one for one in matched if kind(one) in ("weight", "own")]
    return found or [one for one in matched if kind(one) == "table"]
