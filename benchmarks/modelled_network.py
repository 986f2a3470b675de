"""Instructions and modelled milliseconds of a whole network on a Raspberry Pi 5, beside what its prices expect.

Command: python benchmarks/modelled_network.py build WORK resnet-50 --density 0.1 --json FILE
n: 1, counts are exact and times a model
Hardware: any with qemu-aarch64 (with plugins), llvm-mca 19, and what `make test-aarch64` has built in build
Date: 2026-11-29

As modelled_prices.py, for one network in fp32, fp16, int8 and int8 with its zeros in blocks of 1x4, all sparse.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
from block_cycles import read_looks
from modelled_prices import MODEL, Job, run, with_cycles

from gossamer.bench.network import build, find_network
from gossamer.export.half_arithmetic import HALF, with_arithmetic
from gossamer.export.quantise import quantised_by_minmax
from gossamer.export.rounded_once import written_rounding_once
from gossamer.export.written import as_written
from gossamer.graph.inputs import random_inputs
from gossamer.predict.calibration import Calibration
from gossamer.predict.devices import device_calibration
from gossamer.predict.network import CalibratedCosts, predict


def forms_of(name: str, density: float, prices: Calibration) -> dict[str, tuple[onnx.ModelProto, float]]:
    """Form -> the network as it would be exported for the device, and the seconds that the prices expect."""
    plain = build(find_network(name), density)
    halves = CalibratedCosts(prices, half_arithmetic=True)
    in_half = as_written(plain, costs=halves)
    outputs = {layer.output for layer in in_half.layers if layer.in_half}
    found = {
        "sparse fp32": (as_written(plain, costs=CalibratedCosts(prices)).model, predict(plain, prices).expected),
        "sparse fp16": (
            with_arithmetic(in_half.model, HALF, outputs),
            predict(plain, prices, half_arithmetic=True).expected,
        ),
    }
    for form, structure in {"sparse int8": "unstructured", "sparse int8 in blocks of 1x4": "1x4"}.items():
        floats = build(find_network(name), density, structure=structure)
        inputs = {key: value for key, value in random_inputs(floats).items() if isinstance(value, np.ndarray)}
        of_bytes = quantised_by_minmax(floats, [inputs])
        written = written_rounding_once(of_bytes, CalibratedCosts(prices))[1]
        found[form] = written.model, predict(of_bytes, prices).expected
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path, help="the folder of `make test-aarch64`")
    parser.add_argument("work", type=Path, help="for networks, counts and profiles")
    parser.add_argument("network", help="one of `gossamer bench shapes`")
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()

    options.work.mkdir(parents=True, exist_ok=True)
    forms = forms_of(options.network, options.density, device_calibration("raspberry-pi-5"))
    jobs = []
    for index, (form, (model, _)) in enumerate(forms.items()):
        path = options.work / f"{index}.onnx"
        onnx.save(model, path)
        inputs = path.with_suffix(".npz")
        np.savez(inputs, **{key: np.asarray(value) for key, value in random_inputs(model).items()})
        facts = {"model": str(path), "inputs": str(inputs), "profile": str(path.with_suffix("")), "sparse": True}
        jobs.append(Job(options.network, form, 1, {**facts, "runs": 1}))
    profiles = run(options.build, options.work, jobs)
    looks = read_looks(options.work / "looks", MODEL)
    rows = []
    for job, profile in zip(jobs, profiles, strict=True):
        whole = next(event for event in with_cycles(profile, looks) if event["name"] == "model_run")
        row = {"form": job.form, "instructions": whole["instructions"], "modelled_milliseconds": 1e-3 * whole["dur"]}
        row["expected_milliseconds"] = 1e3 * forms[job.form][1]
        print(row)
        rows.append(row)
    facts = {"network": options.network, "density": options.density, "forms": rows}
    options.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
