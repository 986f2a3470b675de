"""Made-up prices, so that every expected time can be worked out by hand."""

from collections.abc import Mapping

from gossamer.predict.calibration import Calibration

SPARSE = (
    "sparse 1x1",
    "sparse 1x1, narrow",
    "sparse 1x1, strided",
    "sparse kxk",
    "sparse kxk, strided",
    "sparse depthwise",
    "sparse product",
    "sparse vector",
)
DENSE = ("dense 1x1", "dense kxk", "dense depthwise", "dense of an image", "dense product", "dense vector")


def price_list(prices: Mapping[str, Mapping[str, float]]) -> Calibration:
    return Calibration(1, prices, {"processor": "made up"})


def by_op(sparse: float, dense: float, conversion: float = 0.0) -> Calibration:
    """So many seconds for every sparse layer, for every dense one and for every change of layout, whatever its size."""
    kinds = {**dict.fromkeys(SPARSE, sparse), **dict.fromkeys(DENSE, dense), "conversion": conversion}
    return price_list({kind: {"op": seconds} for kind, seconds in kinds.items()})
