"""Prices of the terms of times, and those that come with gossamer: of layers of bytes, where nobody has calibrated."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources

from gossamer.graph.terms import INT8, QUAD, Terms

Prices = Mapping[str, Mapping[str, float]]
"""Class of a layer -> term -> seconds for each unit."""

UNSEEN_OP = 5e-6
UNSEEN_FLOAT = 0.3e-9
"""Seconds of a node, and of each of its numbers, of a kind that no specimen has: stated as unknown, not as nothing."""
DENSE_BYTES = 1 / 3
REQUANTISED = 0.34e-9
"""Of bytes that no specimen had: what ONNX Runtime takes for them, of the time of as many floats, and seconds for each
sum of a sparse layer that becomes a byte (`benchmarks/runtime_resnet_50_int8.py`)."""


def seconds(prices: Prices, terms: Terms) -> float:
    """The time of a layer or node."""
    own = prices.get(terms.kind)
    if own is None and terms.kind.startswith(INT8):
        return _as_of_floats(prices, terms)
    if own is None:
        return UNSEEN_OP + UNSEEN_FLOAT * terms.amounts.get("float", 0)
    return sum(own.get(name, 0.0) * amount for name, amount in terms.amounts.items())


def _as_of_floats(prices: Prices, terms: Terms) -> float:
    """Of bytes without a price: a quad takes what a weight of floats takes, ONNX Runtime's own ops a fixed share."""
    floats = Terms(terms.kind.removeprefix(INT8), {k: v for k, v in terms.amounts.items() if k != "sum"})
    if "sum" in terms.amounts:
        return seconds(prices, floats) + REQUANTISED * terms.amounts["sum"]
    if floats.kind not in prices:
        lanes = floats.amounts.get("lane", floats.amounts.get("input", 0))
        return UNSEEN_OP + UNSEEN_FLOAT * floats.amounts.get("float", QUAD * lanes)
    once = seconds(prices, Terms(floats.kind, {"op": floats.amounts.get("op", 0.0)}))
    return once + DENSE_BYTES * (seconds(prices, floats) - once)


@cache
def shipped() -> Prices:
    """The prices that come with gossamer, of one thread (`prices.toml` says of which processor and when)."""
    text = (resources.files("gossamer.export") / "prices.toml").read_text(encoding="utf-8")
    prices: Prices = tomllib.loads(text)["prices"]
    return prices
