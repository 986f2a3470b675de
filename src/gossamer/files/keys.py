"""Bits of weights as integers that order as their magnitudes do, whatever the types of numbers are."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import ConfigurationError
from gossamer.files.stored import PRUNABLE

Keys = NDArray[np.unsignedinteger]

INFINITY = {"BF16": 0x7F80, "F16": 0x7C00, "F32": 0x7F800000, "F64": 0x7FF0000000000000}
"""The key of an infinity. Those of NaN are larger."""


def widest_kind(kinds: Iterable[str]) -> str:
    """The type in which all magnitudes can be compared exactly: F32 for BF16 beside F16, as when they are in memory."""
    found = {*kinds}
    if len(found) == 1:
        return found.pop()
    return "F64" if "F64" in found else "F32"


def keys_of(bits: Keys, kind: str, widest: str) -> Keys:
    """The keys of weights, in a new array of the widest type's size.

    Args:
        bits: of weights of type `kind`.
    """
    if kind != widest:
        bits = _widened(bits, kind, widest)
    return bits & bits.dtype.type(np.iinfo(bits.dtype).max >> 1)


def require_finite(name: str, keys: Keys, widest: str) -> None:
    """Verifies that no weight is infinite or not a number.

    Raises:
        ConfigurationError: one is.
    """
    if keys.size and int(keys.max()) >= INFINITY[widest]:
        bad = "NaN" if int(keys.max()) > INFINITY[widest] else "an infinite number"
        raise ConfigurationError(
            f"{name} holds {bad}, which no order ranks; expected finite weights. Mend the file, or leave the tensor as "
            f"it is: --exclude '{name}'"
        )


def _widened(bits: Keys, kind: str, widest: str) -> Keys:
    if kind == "BF16":
        # It is the upper half of a float32.
        single: Keys = bits.astype(PRUNABLE["F32"]) << np.uint32(16)
    elif kind == "F16":
        with np.errstate(invalid="ignore"):
            single = bits.view("<f2").astype("<f4").view(PRUNABLE["F32"])
    else:
        single = bits
    if widest == "F64":
        with np.errstate(invalid="ignore"):
            single = single.view("<f4").astype("<f8").view(PRUNABLE["F64"])
    return single
