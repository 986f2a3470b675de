"""`gossamer bench model.onnx`: one network on several engines, in turn, on this machine."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from gossamer.bench.differences import difference as output_difference
from gossamer.bench.engines import ENGINE_ORDER, BothForms, EngineFailed, Runner, open_runner
from gossamer.bench.engines.engine import description, make_environment, quantised_form
from gossamer.bench.engines.onnx_runtime import sparse_int8
from gossamer.bench.engines.quantised import quantised
from gossamer.bench.layers import layer_times
from gossamer.bench.measure import machine
from gossamer.errors import ConfigurationError
from gossamer.export.dense import is_exported, to_dense
from gossamer.export.written import as_written
from gossamer.graph.axes import with_sizes
from gossamer.graph.inputs import random_inputs

REFERENCE = "dense"
INT8 = "gossamer-int8"


def both_forms(model: onnx.ModelProto, threads: int, folder: Path, sizes: Mapping[str, int] | None = None) -> BothForms:
    """Both forms of the network, at batch size 1, and random inputs for it.

    Args:
        model: as `gossamer export` wrote it, or plain ONNX with zeros, of which the sparse form is what it would write.
        folder: for files on the way; the caller removes it.
        sizes: of the inputs, where they are open (`gossamer.graph.axes`).

    Raises:
        ConfigurationError: a size is missing or unknown.
        ExportError: a weight is damaged.
    """
    fixed = with_sizes(model, sizes)
    if is_exported(fixed):
        dense, sparse = to_dense(fixed), fixed
    else:
        # The export does not know the sizes that are open, so they must not change what it writes here.
        dense, sparse = fixed, with_sizes(as_written(model).model, sizes)
    return BothForms(dense, sparse, random_inputs(dense), threads, folder)


def compare(
    model: onnx.ModelProto,
    against: Sequence[str],
    *,
    threads: int = 1,
    runs: int = 25,
    layers: bool = False,
    sizes: Mapping[str, int] | None = None,
    progress: Callable[[str], object] = lambda text: None,
) -> dict[str, Any]:
    """Times the network on gossamer and on other engines, and compares what they compute.

    All take turns in one run: in each turn an engine runs once uncounted, so that its threads and caches are its own
    again, and once timed.

    Args:
        model: as `gossamer export` wrote it, or plain ONNX with zeros, which is first made what it would write.
        against: names of `gossamer.bench.engines`, without gossamer.
        threads: of each engine.
        runs: turns of each.
        layers: also measure every layer (`gossamer.bench.layers`).
        sizes: of the inputs, where they are open (`gossamer.graph.axes`).
        progress: is told what comes next, for people.

    Returns:
        `engines`: for each `milliseconds` (median, p10, p90), `ratio` (its median / gossamer's),
        `int8_ratio` (its median / gossamer-int8's, if that is among them), `ready_seconds`,
        `difference` (largest, of its outputs from ONNX Runtime's in fp32, relative to the largest), `version`;
        `skipped`: for each engine that could not run why not; `threads`, `runs`, `sizes`, `weights`, `machine`, and
        `layers`.

    Raises:
        EngineFailed: gossamer or the reference cannot run the network, or gossamer computes something else.
        ConfigurationError: the network cannot be understood, or a size of its inputs is missing or unknown.
    """
    if threads < 1 or runs < 1:
        raise ConfigurationError(f"got {threads} threads and {runs} runs; expected at least 1 of each")
    names = [name for name in ENGINE_ORDER if name == "gossamer" or name in against]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gossamer-bench-")))
        progress("making the network ready")
        subject = both_forms(model, threads, folder, sizes)
        expected = _reference(subject)
        runners, facts, skipped = _open_all(names, subject, expected, stack)
        progress(f"{runs} turns of {', '.join(runners)}")
        milliseconds = take_turns(runners, runs)
        middles = {name: statistics.median(values) for name, values in milliseconds.items()}
        for name, values in milliseconds.items():
            facts[name] |= {"milliseconds": spread_of(values), "ratio": middles[name] / middles["gossamer"]}
            if INT8 in middles:
                facts[name]["int8_ratio"] = middles[name] / middles[INT8]
        result = {
            "network": model.graph.name,
            "threads": threads,
            "runs": runs,
            "sizes": dict(sizes or {}),
            "weights": weight_counts(subject.dense),
            "engines": facts,
            "skipped": skipped,
            "machine": {**machine(), "processors_allowed": len(os.sched_getaffinity(0))},
        }
        if layers:
            progress("every layer")
            result |= layer_times(subject, runs)
    return result


def spread_of(milliseconds: Sequence[float]) -> dict[str, float]:
    """Median, and the values that a tenth of all are below (p10) and above (p90)."""
    low, middle, high = np.percentile(milliseconds, [10, 50, 90])
    return {"median": float(middle), "p10": float(low), "p90": float(high)}


def weight_counts(dense: onnx.ModelProto) -> dict[str, int]:
    """Elements of the constant tensors of two axes or more, and how many of them are not zero."""
    weights = [numpy_helper.to_array(tensor) for tensor in dense.graph.initializer if len(tensor.dims) > 1]
    return {"all": sum(w.size for w in weights), "kept": sum(int(np.count_nonzero(w)) for w in weights)}


def _open_all(
    names: Sequence[str], subject: BothForms, expected: Sequence[np.ndarray[Any, Any]], stack: ExitStack
) -> tuple[dict[str, Runner], dict[str, dict[str, Any]], dict[str, str]]:
    """Opens each engine and compares its outputs; also what is known of each, and why the others are left out."""
    runners: dict[str, Runner] = {}
    facts: dict[str, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    for name in names:
        try:
            make_environment(name)
            _quantise(name, subject)
            started = time.perf_counter()
            runner = open_runner(name, subject)
            stack.callback(runner.close)
            ready = time.perf_counter() - started
            difference = output_difference(name, runner.run(), expected, subject)
        except EngineFailed as error:
            if name == "gossamer":
                raise
            skipped[name] = str(error)
            continue
        runners[name] = runner
        facts[name] = {
            "what": description(name),
            "version": runner.version,
            "ready_seconds": ready,
            "difference": difference,
        }
    return runners, facts, skipped


def _quantise(name: str, subject: BothForms) -> None:
    """Writes the quantised file that an engine opens: that takes longer than opening it, and is done once."""
    form = quantised_form(name)
    if name == INT8:
        sparse_int8(subject)
    elif form is not None:
        quantised(subject, form)


def _reference(subject: BothForms) -> list[np.ndarray[Any, Any]]:
    runner = open_runner(REFERENCE, subject)
    try:
        return runner.run()
    finally:
        runner.close()


def take_turns(runners: Mapping[str, Runner], runs: int) -> dict[str, list[float]]:
    """Milliseconds of each run of each network. In each turn an engine runs once uncounted and once timed."""
    milliseconds: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(runs):
        for name, runner in runners.items():
            # Threads of the engine before may still be spinning, and its data are in the caches.
            runner.seconds()
            milliseconds[name].append(1e3 * runner.seconds())
    return milliseconds
