"""How far two networks' outputs are apart on the same inputs, and what of that rounding explains."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from gossamer.errors import ExportError
from gossamer.export.rounding import WITHOUT, Agreement, Rounding
from gossamer.export.unvaried import Unvaried
from gossamer.graph.axes import axis_name, inputs_to_give, open_axes
from gossamer.graph.sessions import Feed, Remembering, Run, dense_session, running

LAYERWISE_EXAMPLES = 2


@dataclass
class Recorded:
    """A run that keeps the outputs of each batch, and sees whether any output depends on the input."""

    run: Run
    kept: list[list[NDArray[np.generic]]] = field(default_factory=list)
    _outputs: list[Unvaried] = field(default_factory=list)

    def __call__(self, feed: Feed) -> list[NDArray[np.generic]]:
        outputs = self.run(feed)
        self.kept.append(outputs)
        self._outputs = self._outputs or [Unvaried() for _ in outputs]
        for seen, output in zip(self._outputs, outputs, strict=True):
            seen.see(output)
        return outputs

    def unvaried(self) -> str | None:
        """What all outputs are, for people, if they are the same whatever the input; None if one is not."""
        found = [seen.value() for seen in self._outputs]
        return None if None in found else " and ".join(dict.fromkeys(filter(None, found)))


def refuse_random(runs: Iterable[Remembering], feed: Feed) -> None:
    """Refuses what cannot be compared with anything, not even with itself.

    Raises:
        ExportError: a network's outputs are others when it is run once more on the same input.
    """
    for run in runs:
        pairs = zip_longest(run(feed), run.fresh(feed), fillvalue=np.zeros(0))
        again = [compare_arrays(first, second) for first, second in pairs]
        if not all(found.difference <= WITHOUT * found.largest for found in again):
            raise ExportError(
                "the network's outputs are others in every run, on the same input too (it draws random numbers: "
                "dropout in training mode, RandomNormal), so nothing can be compared with them. Take the random "
                "numbers out, or make them an input"
            )


def compare_arrays(expected: NDArray[np.generic], got: NDArray[np.generic], *, nan: bool = True) -> Agreement:
    """Another shape is an infinite difference.

    Args:
        nan: compare what is expected to be NaN too.
    """
    if expected.shape != got.shape:
        return Agreement(float("inf"), 0.0)
    if not expected.size:
        return Agreement(0.0, 0.0)
    wide, other = np.asarray(expected, np.float64), np.asarray(got, np.float64)
    same = (wide == other) | (np.isnan(wide) & (np.isnan(other) | (not nan)))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(wide - other))
    finite = np.abs(wide[np.isfinite(wide)])
    return Agreement(float(difference.max()), float(finite.max(initial=0.0)))


def compare(
    expected: Run,
    got: Run,
    feeds: Iterable[Feed],
    rounding: Rounding | None = None,
    *,
    share: float = 0.0,
    nan: bool = True,
) -> Agreement:
    """The worst of all outputs on all inputs.

    Args:
        rounding: on the same inputs, says what is allowed; None: `WITHOUT` of the largest number.
        share: of an output's largest number that is allowed besides. Whole numbers, which are mostly the positions of
            others, may then be any.
        nan: compare what is expected to be NaN too.
    """
    worst: dict[int, Agreement] = {}
    kinds: dict[int, np.dtype[Any]] = {}
    for feed in feeds:
        # Sequences may come out longer or shorter.
        pairs = zip_longest(expected(feed), got(feed), fillvalue=np.zeros(0))
        for index, (e, g) in enumerate(pairs):
            found, before = compare_arrays(e, g, nan=nan), worst.get(index, Agreement(0.0, 0.0))
            # The order of the arguments lets a NaN through.
            worst[index] = Agreement(
                float(np.maximum(before.difference, found.difference)), max(before.largest, found.largest)
            )
            kinds[index] = e.dtype
    for index, agreement in worst.items():
        if rounding is None:
            worst[index] = replace(agreement, allowed=WITHOUT * agreement.largest)
        elif share and not np.issubdtype(kinds[index], np.floating):
            worst[index] = replace(agreement, allowed=math.inf)
        else:
            worst[index] = rounding.explained(index, agreement, kinds[index], share)
    return max(worst.values(), key=lambda agreement: (not agreement.within, agreement.difference))


def how_wrong(
    expected: NDArray[np.generic], got: NDArray[np.generic], rounding: Rounding, index: int, *, nan: bool = True
) -> str | None:
    agreement = rounding.explained(index, compare_arrays(expected, got, nan=nan), expected.dtype)
    if agreement.within:
        return None
    return (
        f"differs by {agreement.difference:.3g}, values up to {agreement.largest:.3g}; rounding explains "
        f"{agreement.allowed:.3g}"
    )


def few_examples(model: onnx.ModelProto, feed: Feed, run: Run | None = None, count: int = LAYERWISE_EXAMPLES) -> Feed:
    """The first examples of a batch, on whatever axes count them; all of it where the network does not run with
    fewer: their number is fixed, or an open first axis counts something else.

    Args:
        run: what runs the model, where it is open already.
        count: how many.
    """
    values = {value.name: value for value in inputs_to_give(model)}
    batches = {axis.name for axis in open_axes(model) if axis.first}
    few = {}
    for name, value in feed.items():
        axes = range(len(values[name].type.tensor_type.shape.dim))
        counted = [axis_name(values[name], index) in batches for index in axes]
        cut = tuple(slice(count if counts else None) for counts in counted)
        few[name] = np.asarray(value[cut]) if isinstance(value, np.ndarray) else value
    if all(np.shape(value) == np.shape(feed[name]) for name, value in few.items() if isinstance(value, np.ndarray)):
        return feed
    try:
        (run or running(dense_session(model)))(few)
    except Exception:  # onnxruntime's errors have no common class
        return feed
    return few
