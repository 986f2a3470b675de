"""Version 2 of a sparse weight: integer levels, coded by an adaptive range coder (docs/format.md).

The same streams, bit for bit, as native/format/coded_weight.h; here in Python alone, for where there is no native part.
"""

from gossamer_runtime.coding.coded import Bias, Coded, DamagedWeight, decode, encode

__all__ = ["Bias", "Coded", "DamagedWeight", "decode", "encode"]
