"""The whole of `gossamer export`, from a source to a verified file."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from gossamer.errors import ConfigurationError, ExportError, first_line
from gossamer.export.agreement import Recorded, compare
from gossamer.export.canonical import without_dead_units
from gossamer.export.compress import with_functions
from gossamer.export.costs import Costs
from gossamer.export.flattened import flattened
from gossamer.export.form import SPARSE_FP32, FileForm
from gossamer.export.half import LostWeights
from gossamer.export.half_arithmetic import HALF, require_close, with_arithmetic
from gossamer.export.halving import require_same, rounded
from gossamer.export.int8 import Quantised, on_examples, plain_int8, quantise, require_allowed, scored_again
from gossamer.export.left import LeftWeight
from gossamer.export.provenance import with_facts
from gossamer.export.rewrite import LayerReport, Rewritten
from gossamer.export.rounded_once import written_rounding_once
from gossamer.export.rounding import Agreement, Rounding
from gossamer.export.slim import slim
from gossamer.export.smallest import Smallest, SmallestCosts, smallest
from gossamer.export.source import Source
from gossamer.export.verify import compare_with_dense, compare_with_source
from gossamer.export.written import as_written
from gossamer.graph.sessions import Remembering, Run, dense_session, running, sparse_session
from gossamer.storage.files import write_file


@dataclass(frozen=True)
class Exported:
    """What was written, and how it compares."""

    path: Path
    layers: tuple[LayerReport, ...]
    """Empty for a dense file."""
    left: tuple[LeftWeight, ...]
    """Weights with many zeros that no layer has; empty for a dense file."""
    file_bytes: int
    dense_bytes: int
    """Bytes of the same network with all its zeros in fp32."""
    agreement: Agreement
    """The file's outputs against the source's; with fp16 or int8 weights rounding shows here."""
    inputs: str
    """What they are compared on, for people."""
    metric_before: float | None
    metric: float | None
    """The metric of the source's network and of the file, where the source has a metric."""
    lost: tuple[LostWeights, ...] = ()
    """Small weights that fp16 holds with fewer digits, or not at all."""
    unvaried: str | None = None
    """What all outputs are, if none depends on the inputs compared on: that proves nothing."""
    reader: str | None = None
    """The first sparse layer that reads infinite values or NaN, if outputs are therefore compared only where those of
    the source are not NaN."""
    quantised: Quantised | None = None
    """What became of the network in int8."""
    smallest: Smallest | None = None
    """How the levels of weights were chosen."""
    same_bytes: float | None = None
    """The share of what quantised ops make that are the same bytes as ONNX Runtime's; the others differ by one step."""
    same_floats: float | None = None
    """Likewise of floats; the others differ by rounding."""


def export(
    source: Source,
    path: Path,
    *,
    form: FileForm = SPARSE_FP32,
    costs: Costs | None = None,
    overwrite: bool = False,
    progress: Callable[[str], object] = lambda text: None,
) -> Exported:
    """Writes a network as an ONNX file that was compared with it before.

    Args:
        costs: what decides which layers run sparse; None: rates measured when gossamer was made.
        overwrite: replace a file that is there.
        progress: is told what comes next, for people.

    Raises:
        ExportError: the file would compute something else (the layer is named), or fp16 does not hold the weights.
        ConfigurationError: the file is there already or is the source, or options contradict each other.
    """
    if path.is_dir():
        raise ConfigurationError(f"{path} is there already and is a folder; give a file, such as {path / 'model.onnx'}")
    if source.file is not None and path.exists() and path.samefile(source.file):
        raise ConfigurationError(f"{path} is what is exported and would be lost; choose another name with -o")
    if path.exists() and not overwrite:
        raise ConfigurationError(
            f"{path} is there already; choose another name with -o, or replace it with --overwrite"
        )
    if not path.parent.is_dir():
        raise ConfigurationError(f"there is no folder {path.parent} to write {path.name} into; make it first")
    if form.smallest and costs is not None:
        raise ConfigurationError("--smallest makes every layer sparse, whatever it costs; leave --calibration out")
    if not (form.dense or form.int8):
        source = replace(source, dense=with_functions(source.dense))
    dense_bytes = source.dense.ByteSize()
    if form.smallest:
        source = replace(source, dense=without_dead_units(source.dense, source.feeds[0]).model)
    rounding = Rounding(source.dense, source.feeds, run=source.dense_run)
    progress(f"comparing the dense network with {source.name}")
    if source.twin is not None or source.given is not None:
        compare_with_source(source, rounding)
    int8 = quantise(source, form, progress) if form.int8 else None
    source = source if int8 is None else on_examples(source, int8.inputs)
    if form.dense:
        dense = source.dense if int8 is None else plain_int8(int8)
        write_file(path, lambda temporary: _write_dense(dense, temporary))
        return replace(_described(source, path, running(dense_session(onnx.load(path)))), quantised=int8)
    if int8 is not None:
        return _export_int8(source, int8, path, form, costs, progress)
    if form.smallest:
        exported = _export_smallest(source, smallest(source, form, progress), path, progress)
        return replace(exported, dense_bytes=dense_bytes)
    reference, lost = rounded(source.dense) if form.half else (source.dense, ())
    if form.half:
        require_same(source.dense, reference, lost, source.feeds, form.half_difference, rounding)
    progress("choosing which layers run sparse")
    written = as_written(reference, costs=costs, half=form.half)
    progress("comparing every layer with the dense one")
    found: list[tuple[Run, Agreement]] = []

    def write(temporary: Path) -> None:
        save(written.model, temporary)
        run = None if form.half else source.dense_run
        file_run = Remembering(running(sparse_session(str(temporary))))
        agreement = compare_with_dense(
            reference, temporary, written, source.feeds, rounding, run=run, file_run=file_run
        )
        if form.half_arithmetic:
            # What is scored then is what such a processor computes.
            in_half = {layer.output for layer in written.layers if layer.in_half}
            dense_run = run or running(dense_session(reference))
            file_run = require_close(written.model, in_half, dense_run, source.feeds, form.half_difference, rounding)
            save(with_arithmetic(written.model, HALF, in_half), temporary)
        found.append((file_run, agreement))

    write_file(path, write)
    file_run, agreement = found[-1]
    described = _described(source, path, file_run, written, agreement.reader)
    return replace(described, lost=lost, same_bytes=agreement.same_bytes, same_floats=agreement.same_floats)


def _export_int8(
    source: Source,
    int8: Quantised,
    path: Path,
    form: FileForm,
    costs: Costs | None,
    progress: Callable[[str], object],
) -> Exported:
    """Writes a quantised network with sparse ops, each layer compared with the same one as ONNX Runtime computes it."""
    progress("choosing which layers run sparse")
    reference, written = written_rounding_once(int8.model, costs)
    progress("comparing every layer with the dense one")
    found: list[tuple[Agreement, Quantised]] = []

    def write(temporary: Path) -> None:
        save(written.model, temporary)
        run = running(sparse_session(str(temporary)))
        rounding = Rounding(reference, source.feeds)
        agreement = compare_with_dense(reference, temporary, written, source.feeds, rounding, file_run=run)
        scored = scored_again(int8, source, run, progress)
        require_allowed(scored, source, form)
        save(with_facts(written.model, scored.facts()), temporary)
        found.append((agreement, scored))

    write_file(path, write)
    agreement, scored = found[-1]
    exported = _described(source, path, running(sparse_session(str(path))), written, agreement.reader)
    return replace(exported, quantised=scored, same_bytes=agreement.same_bytes, same_floats=agreement.same_floats)


def _export_smallest(source: Source, found: Smallest, path: Path, progress: Callable[[str], object]) -> Exported:
    """Writes a network with coded weights, each layer compared with the same one of the weights that were chosen."""
    progress("coding weights")
    model = flattened(found.model)
    written = as_written(model, costs=SmallestCosts(), steps=found.steps)
    progress("comparing every layer with the dense one")
    agreements: list[Agreement] = []

    def write(temporary: Path) -> None:
        save(written.model, temporary)
        rounding = Rounding(model, source.feeds)
        agreements.append(compare_with_dense(model, temporary, written, source.feeds, rounding))
        run = Remembering(running(sparse_session(str(temporary))))
        save(slim(written.model, found.facts()), temporary)
        _require_same_slim(run, temporary, source, rounding)

    write_file(path, write)
    exported = _described(source, path, running(sparse_session(str(path))), written, agreements[-1].reader)
    return replace(exported, smallest=found)


def _require_same_slim(run: Run, slimmed: Path, source: Source, rounding: Rounding) -> None:
    """Raises ExportError if a file with short names, without descriptions, is not the one that was compared.

    Args:
        run: what runs the one that was compared.
    """
    try:
        same = compare(run, running(sparse_session(str(slimmed))), source.feeds, rounding)
    except Exception as error:  # onnxruntime's errors have no common class
        raise ExportError(
            f"with short names the network does not run any more: {first_line(error)}. Nothing was written. This is a "
            f"defect of gossamer: please report it with the network."
        ) from error
    if not same.within:
        raise ExportError(
            f"with short names the network computes something else: outputs differ by {same.difference:.3g}. Nothing "
            f"was written. This is a defect of gossamer: please report it with the network."
        )


def save(model: onnx.ModelProto, path: Path) -> None:
    """Writes a model's bytes.

    Raises:
        ExportError: it is larger than a file of this format may be.
    """
    try:
        path.write_bytes(model.SerializeToString(deterministic=True))
    except ValueError as error:
        raise ExportError(f"the network is too large for one ONNX file (2 GiB): {error}") from error


def _write_dense(dense: onnx.ModelProto, path: Path) -> None:
    save(dense, path)
    # What was compared with the source is the model in memory; the file has to hold the same.
    if onnx.load(path) != dense:
        raise ExportError(f"{path} reads back as something else than was written; nothing was kept")


def _described(
    source: Source, path: Path, run: Run, written: Rewritten | None = None, reader: str | None = None
) -> Exported:
    """Compares the finished file with the source once more, and scores both.

    Args:
        run: what runs the file.
        written: what the file holds; None for a dense one.
        reader: the first sparse layer that reads infinite values or NaN, if that has made a difference.
    """
    before, after = Recorded(source.run), Recorded(run)
    agreement = compare(before, after, source.feeds, nan=reader is None)
    scoring = source.scoring
    scores = [None, None] if scoring is None else [scoring.of(run.kept) for run in (before, after)]
    return Exported(
        path,
        () if written is None else written.layers,
        () if written is None else written.left,
        path.stat().st_size,
        source.dense.ByteSize(),
        agreement,
        source.inputs,
        metric_before=scores[0],
        metric=scores[1],
        unvaried=before.unvaried(),
        reader=reader,
    )
