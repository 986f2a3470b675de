"""Made-up prices, so that every expected time can be worked out by hand."""

from collections.abc import Mapping

import numpy as np

from gossamer.predict.calibration import Calibration

SPARSE = (
    "sparse 1x1",
    "sparse 1x1, narrow",
    "sparse 1x1, strided",
    "sparse kxk",
    "sparse kxk, strided",
    "sparse kxk, copied",
    "sparse depthwise",
    "sparse depthwise, staged",
    "sparse product",
    "sparse vector",
    "stem",
)
DENSE = (
    "dense 1x1",
    "dense kxk",
    "dense by columns",
    "dense grouped",
    "dense depthwise",
    "dense of an image",
    "dense product",
    "dense vector",
)


def price_list(prices: Mapping[str, Mapping[str, float]]) -> Calibration:
    return Calibration(1, prices, {"processor": "made up"})


def by_op(sparse: float, dense: float, conversion: float = 0.0) -> Calibration:
    """So many seconds for every sparse layer, for every dense one and for every change of layout, whatever its size."""
    kinds = {**dict.fromkeys(SPARSE, sparse), **dict.fromkeys(DENSE, dense), "conversion": conversion}
    return price_list({kind: {"op": seconds} for kind, seconds in kinds.items()})


def at_random(seed: int) -> Calibration:
    """Prices of every term, each anywhere below a usual one, so that some layers are faster sparse and others are not.
    Multiply-adds are dear, for networks so small that else only the number of ops would count."""
    generator = np.random.default_rng(seed)
    sparse = {
        "op": 3e-6,
        "multiply-add vector": 4e-9,
        "kept weight, tile": 1e-9,
        "multiply-add": 5e-10,
        "kept weight": 3e-9,
        "input": 1e-10,
        "output": 1e-10,
        "sum vector": 1e-10,
        "staged": 1e-10,
        "channel, tile": 1e-8,
        "far activation": 1e-10,
        "curved": 1e-9,
        "strided multiply-add": 3e-10,
        "pooled output": 1e-10,
        "row": 1e-8,
    }
    dense = {"op": 6e-6, "multiply-add": 2e-10, "weight": 2e-10, "input": 1e-10, "output": 1e-10, "row": 1e-8}
    dense |= {"group": 1e-7, "column": 1e-10}
    other = {"op": 3e-6, "float": 2e-9}
    kinds = ("MaxPool", "GlobalAveragePool", "ReduceMean", "Add", "Relu", "Mul", "Sigmoid")
    usual = {
        **dict.fromkeys(SPARSE, sparse),
        **dict.fromkeys(DENSE, dense),
        **{f"other {kind}": other for kind in kinds},
        "max pooling of panels": sparse,
        "conversion": {"op": 4e-6, "float": 4e-9},
    }
    return price_list(
        {kind: {term: generator.random() * price for term, price in prices.items()} for kind, prices in usual.items()}
    )
