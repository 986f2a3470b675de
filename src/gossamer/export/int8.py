"""Quantisation after training: the whole of `--int8`, but for sparse ops."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import numpy as np
import onnx

from gossamer.errors import ConfigurationError, ExportError
from gossamer.export.form import AUTO, FileForm, allowed_drop
from gossamer.export.provenance import STORED_INT8, with_provenance
from gossamer.export.quantisable import is_quantised
from gossamer.export.quantise import zeros_kept
from gossamer.export.range_inputs import RangeInputs
from gossamer.export.source import Source
from gossamer.export.trials import Told, Trials, run_of, squared_error
from gossamer.graph.layers import Layer
from gossamer.graph.sessions import Run
from gossamer.loop.directions import is_within
from gossamer.wording import value_text

COMPARED = 128
"""Examples of files that outputs are compared on, at least; each is run several times, by several networks."""
LARGEST_DIFFERENCE = 0.9
"""Of outputs, as a share of them, where no metric says what it costs; zeros would differ by all of them."""
NAMED = 5
"""Layers that a refusal names."""
DECIDES = "validation"
"""The split that decides; others are reported."""


@dataclass(frozen=True)
class Scores:
    """The metric of a split, of the network in fp32 and of the file."""

    metric: str
    before: float
    after: float

    def text(self) -> str:
        """Such as "99.18% -> 99.20%"."""
        return f"{value_text(self.metric, self.before)} -> {value_text(self.metric, self.after)}"


@dataclass(frozen=True)
class Quantised:
    """A network with QuantizeLinear and DequantizeLinear, and what was found on the way."""

    model: onnx.ModelProto
    layers: tuple[str, ...]
    """The names of those in int8."""
    kept_float: tuple[str, ...]
    """Those that could be, and were left in float."""
    ranges: str
    """How ranges were found and on what, for people: "minmax of 512 training examples"."""
    inputs: RangeInputs
    """What they were found on."""
    difference: float
    """Root mean square of what outputs differ by, as a share of that of outputs, on the source's inputs; on those of
    ranges where the source has no metric, and perhaps no inputs but random ones."""
    scores: Mapping[str, Scores] = field(default_factory=dict)
    """Split -> the metric, where the source has one."""

    def facts(self) -> dict[str, str]:
        """What the file says of it, by keys of its metadata."""
        told = {"ranges": self.ranges, "layers": str(len(self.layers))}
        if self.kept_float:
            told["float"] = ", ".join(self.kept_float)
        told.update((f"{split}.{s.metric}", f"{s.before:.6g} -> {s.after:.6g}") for split, s in self.scores.items())
        return {f"gossamer.int8.{key}": value for key, value in told.items()}


def quantise(source: Source, form: FileForm, progress: Told = lambda text: None) -> Quantised:
    """Quantises a network after training.

    Args:
        progress: is told what comes next, for people.

    Raises:
        ConfigurationError: it has no examples for ranges, an option does not fit it, or it is quantised already.
        ExportError: it has no layer to quantise, or loses more of its metric than `form` allows; names the layers that
            cost most.
    """
    _require_fitting(source, form)
    trials = Trials(source, form, progress)
    layers = _asked_for(trials.network.layers, form.keep_float)
    scores: dict[str, float] = {}
    if DECIDES in source.splits:
        tried = _within(trials, layers)
        layers, model, scores[DECIDES] = tried.layers, tried.model, tried.score
    else:
        model = trials.of(layers)
    compared = on_examples(source, trials.inputs)
    difference = math.sqrt(squared_error(compared.dense_run, run_of(model), compared.feeds))
    if not math.isfinite(difference):
        raise ExportError(
            "outputs of the quantised network are infinite or NaN where those of the network in fp32 are numbers. "
            "Nothing was written. Give other examples with --ranges-from, or leave layers in float with --keep-float"
        )
    if difference > LARGEST_DIFFERENCE and not source.splits and _are_numbers(compared):
        raise ExportError(
            f"outputs of the quantised network differ from those in fp32 by {difference:.0%} of them (root mean "
            f"square). Nothing was written. Give other examples with --ranges-from, or leave layers in float with "
            f"--keep-float"
        )
    wrong = zeros_kept(model, trials.network.graph)
    if wrong is not None:
        raise ExportError(
            f"the weight {wrong} has a zero in fp32 that is none in int8. Nothing was written. This is a defect of "
            f"gossamer or of ONNX Runtime: please report it with the network."
        )
    scores.update((split, trials.score(split, model)) for split in source.splits if split not in scores)
    return Quantised(
        model,
        tuple(layer.name for layer in layers),
        tuple(layer.name for layer in trials.network.layers if not _among(layer, layers)),
        trials.words,
        trials.inputs,
        difference,
        {split: Scores(source.splits[split].name, trials.before(split), value) for split, value in scores.items()},
    )


def _are_numbers(source: Source) -> bool:
    """Whether outputs are more than the smallest numbers of fp32, of which int8 leaves nothing."""
    values = (value for feed in source.feeds for value in source.dense_run(feed))
    return any(np.abs(value).max(initial=0) >= np.finfo(np.float32).tiny for value in values)


def on_examples(source: Source, inputs: RangeInputs) -> Source:
    """The source with inputs that are like those it will be given: its own if it is a task's, else those of ranges."""
    if source.splits:
        return source
    some = inputs.first(COMPARED)
    return replace(source, feeds=some.feeds, inputs=some.words)


def plain_int8(found: Quantised) -> onnx.ModelProto:
    """The quantised network as any runtime runs it, which says what it is."""
    return with_provenance(found.model, sparse_ops=False, stored=STORED_INT8, facts=found.facts())


def scored_again(found: Quantised, source: Source, run: Run, progress: Told = lambda text: None) -> Quantised:
    """The same with the metric of the file that was made of the network.

    Args:
        run: what runs the file.
    """
    scores = {}
    for split, score in found.scores.items():
        progress(f"measuring the {score.metric} of the file on {split}")
        scores[split] = replace(score, after=source.splits[split].of(run))
    return replace(found, scores=scores)


def require_allowed(found: Quantised, source: Source, form: FileForm) -> None:
    """Raises ExportError if the file that was made of a network loses more than the network itself was allowed to: its
    sparse ops round at fewer places, and by chance that may be the worse."""
    score = found.scores.get(DECIDES)
    if score is None:
        return
    allowed = allowed_drop(form, score.before)
    if not is_within(allowed, score.before, score.after, source.splits[DECIDES].better):
        raise ExportError(
            f"in int8 with sparse ops the {score.metric} on {DECIDES} goes from {score.text()}, and may get worse by "
            f"{allowed:g} (--max-drop), which without them it does not. Nothing was written. Leave layers in float "
            f"with --keep-float NAME, allow more, or write the dense form with --dense --int8"
        )


def require_no_limit(source: Source, form: FileForm) -> None:
    """Raises ConfigurationError if a loss is limited of a source that has no metric."""
    if form.max_drop is not None:
        raise ConfigurationError(f"--max-drop limits the loss of a metric, and {source.name} has none; leave it out")


def _require_fitting(source: Source, form: FileForm) -> None:
    if is_quantised(source.dense):
        raise ConfigurationError(
            f"{source.name} is quantised already; leave --int8 out (export takes such networks too), or give the "
            f"network in fp32 that it was made of"
        )
    if DECIDES in source.splits:
        return
    require_no_limit(source, form)
    if AUTO in form.keep_float:
        raise ConfigurationError(
            f"--keep-float auto goes by a metric, and {source.name} has none; name the layers, or export a task's run"
        )


def _asked_for(layers: Sequence[Layer], keep_float: Sequence[str]) -> list[Layer]:
    """The layers that `--keep-float` does not name.

    Raises:
        ConfigurationError: it names none of them, or all.
        ExportError: there is no layer.
    """
    if not layers:
        raise ExportError(
            "no layer was found that could compute in int8 (a Conv, Gemm or MatMul with a constant fp32 weight); leave "
            "--int8 out"
        )
    patterns = [pattern for pattern in keep_float if pattern != AUTO]
    for pattern in patterns:
        if not any(fnmatchcase(layer.name, pattern) for layer in layers):
            raise ConfigurationError(
                f"--keep-float {pattern!r} names no layer; expected one of {', '.join(layer.name for layer in layers)}"
            )
    rest = [layer for layer in layers if not any(fnmatchcase(layer.name, pattern) for pattern in patterns)]
    if not rest:
        raise ConfigurationError("--keep-float names every layer, so nothing is left for --int8; leave one of them out")
    return rest


def _among(layer: Layer, layers: Sequence[Layer]) -> bool:
    # Their weights are arrays, which are not compared at once.
    return any(layer is other for other in layers)


@dataclass(frozen=True)
class _Tried:
    """A network with some layers in int8, and its metric on the split that decides."""

    layers: list[Layer]
    model: onnx.ModelProto
    score: float


def _within(trials: Trials, layers: list[Layer]) -> _Tried:
    """The network with these layers in int8, or with fewer of them if some may be left in float.

    Raises:
        ExportError: it loses more than is allowed; names the layers that cost most.
    """
    metric, before = trials.source.splits[DECIDES], trials.before(DECIDES)
    allowed = allowed_drop(trials.form, before)

    def tried(chosen: list[Layer]) -> _Tried:
        model = trials.of(chosen)
        return _Tried(chosen, model, trials.score(DECIDES, model))

    def fits(found: _Tried) -> bool:
        return is_within(allowed, before, found.score, metric.better)

    whole = tried(layers)
    if fits(whole):
        return whole
    costs = trials.costs(layers)
    if AUTO in trials.form.keep_float:
        order = [cost.layer for cost in costs]
        found = _fewest(
            len(layers) - 1, lambda count: tried([one for one in layers if not _among(one, order[:count])]), fits
        )
        if found is not None:
            return found
    named = ", ".join(f"{cost.layer.name} ({cost.share:.0%} of the error of outputs)" for cost in costs[:NAMED])
    others = (
        "--keep-float auto left all but one in float, which was not enough: give other examples with --ranges-from, or "
        "allow more"
        if AUTO in trials.form.keep_float
        else "Leave them in float with --keep-float NAME, or as many as needed with --keep-float auto; or find other "
        "ranges (--ranges-by, --ranges-from)"
    )
    raise ExportError(
        f"in int8 the {metric.name} on {DECIDES} goes from {Scores(metric.name, before, whole.score).text()}, and may "
        f"get worse by {allowed:g} (--max-drop). Nothing was written. The layers that cost most: {named}. {others}"
    )


def _fewest(most: int, tried: Callable[[int], _Tried], fits: Callable[[_Tried], bool]) -> _Tried | None:
    """What fits with the smallest number, if whatever fits with a number does so with larger ones too; None if none up
    to `most` does. Few are tried: 1, 2, 4, ..., and then halves of what is between."""
    below, number = 0, 1
    found: _Tried | None = None
    while found is None and below < most:
        number = min(number, most)
        attempt = tried(number)
        if fits(attempt):
            found = attempt
        else:
            below, number = number, 2 * number
    while found is not None and number - below > 1:
        middle = (below + number) // 2
        attempt = tried(middle)
        if fits(attempt):
            found, number = attempt, middle
        else:
            below = middle
    return found
