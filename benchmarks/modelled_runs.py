"""Runs networks one after the other under ONNX Runtime's profiler: what `modelled_prices.py` starts under qemu.

Command: python benchmarks/modelled_runs.py JOBS.json
n: each network as often as its job says
Hardware: any with onnxruntime and gossamer_runtime
Date: 2026-11-29

JOBS.json is a list of {"model", "inputs" (an .npz file), "profile" (where to write), "sparse", "runs"}; a line with the
profile's name is printed for each.
"""

import json
import sys
from pathlib import Path

import gossamer_runtime
import numpy as np
import onnxruntime

FATAL = 4


def main() -> None:
    for job in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = FATAL
        options.enable_profiling = True
        options.profile_file_prefix = job["profile"]
        with np.load(job["inputs"]) as arrays:
            inputs = {name: arrays[name] for name in arrays.files}
        if job["sparse"]:
            session = gossamer_runtime.Session(job["model"], options)
        else:
            session = onnxruntime.InferenceSession(job["model"], options, providers=["CPUExecutionProvider"])
        for _ in range(job["runs"]):
            session.run(None, inputs)
        print(session.end_profiling(), flush=True)


if __name__ == "__main__":
    main()
