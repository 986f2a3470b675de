"""Which tensors of files may be pruned, and which of them are: by default, or because a pattern names them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gossamer.errors import ConfigurationError, NothingToPruneError
from gossamer.files.stored import PRUNABLE, Stored
from gossamer.prune.scope import Scope, made_prunable, matches

Standing = Literal["weight", "table", "own", "never"]
"""Pruned by default; an embedding table; pruned if a pattern names it; not to be pruned."""

MOST_NAMED = 5


@dataclass(frozen=True)
class Candidate:
    """A tensor, and what it is to the network."""

    stored: Stored
    standing: Standing
    reason: str
    """Why it stays as it is, if it does."""
    inputs_axis: int | None = None
    """The axis of its inputs, 0 to 2; None if there is not one."""
    names: tuple[str, ...] = ()
    """What it is called besides, by the network."""
    copies: tuple[Stored, ...] = ()
    """The same weight, stored again."""

    @property
    def all_names(self) -> tuple[str, ...]:
        return (self.stored.name, *(copy.name for copy in self.copies), *self.names)


@dataclass(frozen=True)
class Left:
    """A tensor that stays as it is."""

    stored: Stored
    reason: str


def choose(candidates: Sequence[Candidate], scope: Scope) -> tuple[list[Candidate], list[Left]]:
    """Which are pruned, and which are not. Patterns mean what they mean for `gossamer.prunable_weights`.

    Raises:
        ConfigurationError: a pattern matches nothing, or a tensor that would be pruned is of a type that cannot be.
        NothingToPruneError: none is left, or a pattern matches nothing that can be pruned.
    """
    scope.require_matches([name for candidate in candidates for name in candidate.all_names])
    wanted = {id(one) for one in candidates if one.standing == "weight"}
    if scope.embeddings:
        wanted |= {id(one) for one in candidates if one.standing == "table"}
    for pattern in scope.include:
        if pattern != "*":
            wanted |= {id(one) for one in _named(candidates, pattern)}
    chosen, left = [], []
    for one in candidates:
        inside = scope.selects(one.all_names)
        if id(one) in wanted and inside:
            chosen.append(one)
        else:
            excluded = not inside and one.standing != "never"
            left.append(Left(one.stored, "outside --include, --exclude" if excluded else one.reason))
            left += [Left(copy, left[-1].reason) for copy in one.copies]
    for one in chosen:
        if one.stored.kind not in PRUNABLE:
            raise ConfigurationError(
                f"{one.stored.name} holds {one.stored.kind}; expected {', '.join(PRUNABLE)}. Prune the network before "
                f"it is quantised, or leave the tensor as it is: --exclude '{one.stored.name}'"
            )
    if not chosen:
        reasons = dict.fromkeys(f"{one.stored.name} ({one.reason})" for one in left)
        raise NothingToPruneError(
            f"none of {len(candidates)} tensors can be pruned: {', '.join(list(reasons)[:MOST_NAMED])}"
            f"{', ...' if len(reasons) > MOST_NAMED else ''}; expected floating-point weights of two axes or more"
        )
    return chosen, left


def _named(candidates: Sequence[Candidate], pattern: str) -> list[Candidate]:
    """What a pattern makes prunable."""
    matched = [one for one in candidates if any(matches(name, (pattern,)) for name in one.all_names)]
    found = made_prunable(matched, lambda one: one.standing)
    if not found:
        raise NothingToPruneError(
            f"--include {pattern!r} matches nothing that can be pruned: "
            + ", ".join(f"{one.stored.name} ({one.reason})" for one in matched[:MOST_NAMED])
            + (", ..." if len(matched) > MOST_NAMED else "")
            + "; expected floating-point weights of two axes or more"
        )
    return found
