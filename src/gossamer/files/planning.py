"""What is pruned of files and how many weights stay, before a weight is read."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from pathlib import Path

from gossamer.errors import ConfigurationError
from gossamer.files.candidates import Candidate, Left, choose
from gossamer.files.folder import PICKLED, SAFETENSORS, SAVE, open_file, open_folder
from gossamer.files.keys import widest_kind
from gossamer.files.ranking import Ranking
from gossamer.files.selecting import Weight
from gossamer.files.source import Source
from gossamer.loop.plan import Plan
from gossamer.loop.stop import Stop
from gossamer.prune.allocate import apportion, uniform
from gossamer.prune.n_of_m import most_of_groups, n_and_m
from gossamer.prune.scope import Scope
from gossamer.storage.files import absolute, read_text

RECORD = "gossamer-prune.json"
"""What was done, in the folder that is written."""
UNSTRUCTURED = "unstructured"


@dataclass(frozen=True)
class Group:
    """Weights that are ranked together."""

    weights: tuple[Weight, ...]
    ranking: Ranking
    kept: int
    """How many of them stay."""

    @property
    def widest(self) -> str:
        return widest_kind(weight.stored.kind for weight in self.weights)


@dataclass(frozen=True)
class TensorOfFile:
    """A tensor, before its numbers are looked at."""

    name: str
    kind: str
    """The type of its numbers, as safetensors calls it."""
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class PlannedTensor(TensorOfFile):
    """A tensor that is to be pruned."""

    kept: int | None
    """None where that depends on the weights: of all tensors the largest stay."""


@dataclass(frozen=True)
class Planned:
    """What is to be pruned, and written."""

    source: Source
    groups: tuple[Group, ...]
    left: tuple[Left, ...]
    """Those that stay as they are, with the reason."""

    @classmethod
    def of(
        cls,
        source: str | Path,
        out: str | Path,
        *,
        sparsity: float,
        layerwise: bool = False,
        structure: str = UNSTRUCTURED,
        scope: Scope | None = None,
        overwrite: bool = False,
    ) -> "Planned":
        """What `prune` does with these arguments. Nothing is written, and of the files their headers alone are read.

        Raises:
            ConfigurationError, NothingToPruneError, CheckpointError: as `prune`; not what only the weights tell.
        """
        groups = _groups_of(structure)
        Stop(target_sparsity=sparsity)
        _check_out(absolute(source), absolute(out), overwrite)
        opened = _open(absolute(source))
        chosen, left = choose(opened.candidates, Scope() if scope is None else scope)
        if groups is not None:
            _require_inputs(chosen, structure)
        weights = [Weight(one.stored, one.inputs_axis, one.copies) for one in chosen]
        ranked = _ranked_together(weights, sparsity, layerwise, groups)
        _require_room(opened, absolute(out))
        return cls(opened, tuple(ranked), tuple(left))

    @property
    def weights(self) -> tuple[Weight, ...]:
        return tuple(weight for group in self.groups for weight in group.weights)

    @property
    def tensors(self) -> tuple[PlannedTensor, ...]:
        found = []
        for group in self.groups:
            kept = group.kept if len(group.weights) == 1 else None
            for weight in group.weights:
                found.append(PlannedTensor(weight.stored.name, weight.stored.kind, weight.stored.shape, kept))
        return tuple(found)

    @property
    def prunable(self) -> int:
        return sum(weight.stored.size for weight in self.weights)

    @property
    def kept(self) -> int:
        """How many of the prunable weights stay."""
        return sum(group.kept for group in self.groups)

    @property
    def known_by(self) -> str:
        """How it is known what each tensor is, for people."""
        return self.source.known_by

    @property
    def left_behind(self) -> tuple[str, ...]:
        """Files that hold the weights in another form, unpruned, and are not copied."""
        return self.source.left_behind

    @property
    def files(self) -> tuple[str, ...]:
        """Those with weights, in the folder."""
        return self.source.written

    @property
    def bytes(self) -> int:
        """Of all that is written, but for the notes in `gossamer-prune.json`."""
        return self.source.size()


def _open(source: Path) -> Source:
    if source.is_dir():
        return open_folder(source)
    if not source.exists():
        raise ConfigurationError(f"there is no {source}; expected a .safetensors or .onnx file, or a folder of shards")
    if source.suffix == SAFETENSORS:
        return open_file(source)
    if source.suffix.lower() == ".onnx":
        from gossamer.files.onnx_file import open_onnx

        return open_onnx(source)
    why = f"pickled weights run code when they are read. {SAVE}" if source.suffix in PICKLED else "name one of those"
    raise ConfigurationError(f"{source} is no .safetensors or .onnx file, and no folder of shards; {why}")


def _groups_of(structure: str) -> tuple[int, int] | None:
    groups = n_and_m(structure)
    if groups is None and structure != UNSTRUCTURED:
        raise ConfigurationError(
            f"structure is {structure!r}; expected {UNSTRUCTURED}, or N:M with 0 < N < M such as 2:4 (others need the "
            f"network in memory: gossamer.rounds)"
        )
    return groups


def _check_out(source: Path, out: Path, overwrite: bool) -> None:
    inside = source if source.is_dir() else None
    if out.resolve() == source.resolve() or (inside and out.resolve().is_relative_to(inside.resolve())):
        raise ConfigurationError(f"{out} lies in the source {source}; name a folder elsewhere")
    if source.resolve().is_relative_to(out.resolve()) and out.exists():
        raise ConfigurationError(f"{out} holds the source {source}; name another folder")
    if not out.exists() and not out.is_symlink():
        return
    if not overwrite:
        raise ConfigurationError(f"{out} is there already; name another folder, or replace it with --overwrite")
    try:
        record = json.loads(read_text(out / RECORD))
        ours = isinstance(record, dict) and "gossamer-prune" in record
    except (OSError, ValueError, RecursionError):
        ours = False
    if not ours or out.is_symlink():
        raise ConfigurationError(
            f"{out} was not written by gossamer prune (it has no {RECORD}), and would be lost; name another folder"
        )


def _require_inputs(chosen: Sequence[Candidate], structure: str) -> None:
    without = [one.stored.name for one in chosen if one.inputs_axis is None]
    if without:
        raise ConfigurationError(
            f"{without[0]} has no one axis of inputs (stacked experts, perhaps), along which {structure} could lie; "
            f"leave it as it is: --exclude '{without[0]}', or prune unstructured"
        )


def _outputs_first(weight: Weight) -> tuple[int, ...]:
    shape, axis = weight.stored.shape, weight.inputs_axis
    if axis is None or axis == 1:
        return shape
    return (prod(shape[:axis]) if axis else shape[1], shape[axis], *shape[max(2, axis + 1) :])


def _ranked_together(
    weights: Sequence[Weight], sparsity: float, layerwise: bool, groups: tuple[int, int] | None
) -> list[Group]:
    """How many weights are kept of what."""
    sizes = {weight.stored.name: weight.stored.size for weight in weights}
    shapes = {weight.stored.name: _outputs_first(weight) for weight in weights}
    kept = Plan(sum(sizes.values()), target_sparsity=sparsity).smallest
    counts = {"all tensors": kept}
    together = [("all tensors", tuple(weights))]
    if layerwise:
        counts = apportion(uniform(shapes, kept), sizes, kept)
        together = [(weight.stored.name, (weight,)) for weight in weights]
    found = []
    for name, ranked in together:
        inside = [shapes[weight.stored.name] for weight in ranked]
        if groups is not None:
            most = sum(most_of_groups(*groups, shape) for shape in inside)
            number = sum(weight.stored.size for weight in ranked)
            if counts[name] > most:
                raise ConfigurationError(
                    f"a sparsity of {sparsity} keeps {counts[name]:,} weights of {name}, but {groups[0]}:{groups[1]} "
                    f"leaves at most {most:,}; expected a sparsity of at least {_share(number - most, number)}"
                )
        found.append(Group(ranked, Ranking.of(inside, counts[name], groups), counts[name]))
    return found


def _share(part: int, number: int) -> float:
    """Rounded up to a number that does suffice."""
    return float(-(-Fraction(part, number) * 10**6 // 1)) / 10**6


def _require_room(source: Source, out: Path) -> None:
    place = next(folder for folder in out.parents if folder.exists())
    free, needed = shutil.disk_usage(place).free, source.size()
    if free < needed:
        raise ConfigurationError(
            f"{place} has room for {free:,} bytes; expected {needed:,}. Make room, or write elsewhere"
        )
