"""The fewest bytes that nncodec takes for levels; runs in an environment of its own for coded_weights.py.

Command: python benchmarks/coded_by_nncodec.py LEVELS.npz
n: one number; bytes do not vary
Hardware: any
Date: 2026-11-29

The environment: pip install nncodec==2.1.3 with torch and torchvision. It imports torchvision, cv2, ptflops and
torchmetrics for training and datasets alone; where they are missing, what stands in for them is never asked.
"""

import importlib.abc
import importlib.machinery
import itertools
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

QP = -32
STEP = np.float32(2.0**-8)
"""That of QP: numbers of this step are coded as they are."""
UNUSED = ("torchvision", "cv2", "ptflops", "torchmetrics")


class _AnyName(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyName(name, (), {"__init__": lambda self, *given, **named: None})


class _Unused(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(_AnyName(self.__name__, (), {}), name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] in UNUSED else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Unused(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__path__ = []


def main() -> None:
    # Last: what is installed comes first.
    sys.meta_path.append(_Finder())
    from nncodec import nnc  # type: ignore[import-not-found]

    with np.load(sys.argv[1]) as archive:
        levels = {name: archive[name].astype(np.float32) * STEP for name in archive.files}
    fewest = None
    for param_opt, row_skipping, turned in itertools.product((False, True), repeat=3):
        given = {name: np.ascontiguousarray(one.T) if turned and one.ndim == 2 else one for name, one in levels.items()}
        nnc.compress(
            given,
            "levels.nnc",
            qp=QP,
            nonweight_qp=QP,
            use_dq=False,
            opt_qp=False,
            param_opt=param_opt,
            row_skipping=row_skipping,
        )
        size = Path("levels.nnc").stat().st_size
        back = nnc.decompress("levels.nnc")
        if all(np.array_equal(back[name], one) for name, one in given.items()):
            fewest = min(size, fewest or size)
    if fewest is None:
        sys.exit("nothing came back as it was")
    print(fewest)


if __name__ == "__main__":
    main()
