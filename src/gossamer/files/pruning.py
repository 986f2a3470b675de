"""Pruning weights in files, of which only pieces are in memory at any time."""

import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gossamer.files.candidates import Left
from gossamer.files.masking import Counted, Masking, copy_around
from gossamer.files.planning import RECORD, UNSTRUCTURED, Group, Planned, TensorOfFile
from gossamer.files.selecting import Advance, Weight, threshold_of
from gossamer.files.source import Source
from gossamer.files.stored import Stored
from gossamer.prune.scope import Scope
from gossamer.storage.files import absolute, write_folder, write_text

VERSION = 1

Progress = Callable[[int, int], None]
"""(bytes read and written until now, all of them)."""


@dataclass(frozen=True)
class PrunedTensor(TensorOfFile):
    """A tensor that was pruned."""

    kept: int
    zeros_before: int
    """Weights that were zero before; the first to be pruned."""


@dataclass(frozen=True)
class Pruned:
    """What was pruned, and written."""

    folder: Path
    """What was written."""
    files: tuple[str, ...]
    """Those with weights, in the folder."""
    tensors: tuple[PrunedTensor, ...]
    left: tuple[Left, ...]
    """Those that stayed as they were, with the reason."""
    known_by: str
    """How it was known what each tensor is, for people."""
    left_behind: tuple[str, ...]
    """Files that hold the weights in another form, unpruned, and were not copied."""

    @property
    def prunable(self) -> int:
        return sum(tensor.size for tensor in self.tensors)

    @property
    def kept(self) -> int:
        return sum(tensor.kept for tensor in self.tensors)


def prune(
    source: str | Path,
    out: str | Path,
    *,
    sparsity: float,
    layerwise: bool = False,
    structure: str = UNSTRUCTURED,
    scope: Scope | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Pruned:
    """Sets the smallest weights of files to zero: the same ones as `gossamer.keep_largest` of them all in memory.

    The files are read twice and written once, in pieces; the tensors, their types, metadata, configuration, tokenizer
    and all else in the folder stay as they are. The result is there whole, or not at all. Pruning without retraining
    costs accuracy: load the result and go on with `gossamer.rounds`.

    Args:
        source: a safetensors file; a folder with one, or with its shards and their index, such as Hugging Face's; an
            ONNX file, with external data or without.
        out: the folder to write.
        sparsity: share of the prunable weights to remove, in (0, 1); ceil(N (1 - sparsity)) of N are kept.
        layerwise: remove this share of every tensor, instead of the smallest of all.
        structure: "unstructured", or N:M ("2:4") along the input channels.
        scope: which tensors, by the patterns and embeddings of `gossamer.Scope`. By default those of the layers that
            gossamer knows, if transformers knows the architecture; else floating-point tensors of at least two axes,
            without embeddings and the output layer as far as their names tell.
        overwrite: replace `out`, if a call of this function wrote it.
        progress: called now and then with the bytes read and written, and those of the whole.

    Raises:
        ConfigurationError: an argument is out of range, `out` is there, weights are quantised, pickled, not finite.
        NothingToPruneError: no tensor can be pruned.
        CheckpointError: a file is damaged, or cannot be written.
    """
    source, out = absolute(source), absolute(out)
    planned = Planned.of(
        source, out, sparsity=sparsity, layerwise=layerwise, structure=structure, scope=scope, overwrite=overwrite
    )
    opened, weights, left = planned.source, planned.weights, planned.left
    told = _Told(progress, _work(opened, weights))
    found: dict[str, Counted] = {}

    def write(folder: Path) -> None:
        found.update(_write(opened, planned.groups, folder, told.advance))
        result = _result(opened, weights, left, found, out)
        write_text(folder / RECORD, _record(result, source, sparsity, layerwise, structure))

    write_folder(out, write, replace=overwrite)
    return _result(opened, weights, left, found, out)


def _write(source: Source, groups: Sequence[Group], folder: Path, advance: Advance) -> dict[str, Counted]:
    """Writes all files, and says what became of each tensor."""
    thresholds = [threshold_of(group.weights, group.ranking, source.open_file, advance) for group in groups]
    pruned: dict[str, list[Stored]] = {file: [] for file in (*source.files, *source.contents)}
    for group in groups:
        for weight in group.weights:
            for stored in (weight.stored, *weight.copies):
                pruned[stored.file].append(stored)
    outputs = _Outputs(folder, source.contents)
    for file in source.beside:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.folder / file, folder / file)
    for file, without in pruned.items():
        with source.open_file(file) as given, outputs.open_file(file) as written:
            copy_around(given, written, without, advance)
    found: dict[str, Counted] = {}
    for group, threshold in zip(groups, thresholds, strict=True):
        masking = Masking(group.ranking, threshold, group.widest, source.open_file, outputs.open_file, advance)
        ties_left = threshold.ties_kept
        for weight in group.weights:
            counted = masking.write(weight, ties_left)
            ties_left -= counted.ties
            found[weight.stored.name] = counted
    source.finish(folder, {file: written.getvalue() for file, written in outputs.in_memory.items()})
    return found


class _Outputs:
    """Where files are written: into a folder, or into memory if they are in memory and in no file of their own."""

    def __init__(self, folder: Path, contents: Iterable[str]) -> None:
        self.in_memory = {file: io.BytesIO() for file in contents}
        self._folder = folder

    @contextmanager
    def open_file(self, file: str) -> Iterator[BinaryIO]:
        if file in self.in_memory:
            yield self.in_memory[file]
            return
        path = self._folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        with path.open("r+b") as written:
            yield written


class _Told:
    """Adds up what was done."""

    def __init__(self, progress: Progress | None, work: int) -> None:
        self._progress = progress
        self._work = work
        self._done = 0

    def advance(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._work)


def _work(source: Source, weights: Sequence[Weight]) -> int:
    """Bytes that are read and written: of pruned tensors twice and once."""
    stored = sum(weight.stored.length for weight in weights)
    copies = sum(copy.length for weight in weights for copy in weight.copies)
    return source.size() - sum((source.folder / file).stat().st_size for file in source.beside) + 2 * stored + copies


def _result(
    source: Source, weights: Sequence[Weight], left: Sequence[Left], found: Mapping[str, Counted], out: Path
) -> Pruned:
    tensors = []
    for stored in (weight.stored for weight in weights):
        counted = found[stored.name]
        tensors.append(PrunedTensor(stored.name, stored.kind, stored.shape, counted.kept, counted.zeros_before))
    return Pruned(out, source.written, tuple(tensors), tuple(left), source.known_by, source.left_behind)


def _record(result: Pruned, source: Path, sparsity: float, layerwise: bool, structure: str) -> str:
    """As JSON: what was asked, and how many weights of each tensor were kept."""
    tensors = {tensor.name: {"kept": tensor.kept, "prunable": tensor.size} for tensor in result.tensors}
    return json.dumps(
        {
            "gossamer-prune": VERSION,
            "source": source.name,
            "sparsity": sparsity,
            "layerwise": layerwise,
            "structure": structure,
            "prunable": result.prunable,
            "kept": result.kept,
            "tensors": tensors,
        },
        indent=1,
    )
