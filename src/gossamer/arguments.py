"""What callers pass: plain numbers, out of whatever holds one."""

import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from numbers import Real
from typing import Any

import numpy as np

from gossamer.errors import ConfigurationError


def number(name: str, value: Any, expected: str = "a number") -> float:
    """A real number: Python's, numpy's, or that of an array or tensor with one entry.

    Raises:
        ConfigurationError: it is none.
    """
    scalar = _scalar(value)
    try:
        if isinstance(scalar, (Real, Decimal, np.floating, np.integer, np.bool_)):
            return float(scalar)
    except (ArithmeticError, ValueError):
        pass
    raise ConfigurationError(f"{name} is {_shown(value)}; expected {expected}")


def setting(name: str, value: Any, expected: str = "a number") -> float:
    """A real number that is an argument: True is no number there, and one in float32 or float16 is read as it is
    printed, so that `numpy.float32(0.9)` is 0.9 and not 0.8999999761581421.

    Raises:
        ConfigurationError: it is none.
    """
    scalar = _as_printed(_scalar(value))
    if isinstance(scalar, (bool, np.bool_)):
        raise ConfigurationError(f"{name} is {value!r}; expected {expected}")
    real = number(name, scalar, expected)
    return scalar if isinstance(scalar, int) else real


def whole_number(name: str, value: Any, expected: str = "a whole number") -> int:
    """An integer: Python's, numpy's, or that of an array or tensor with one entry.

    Raises:
        ConfigurationError: it is none.
    """
    found = as_whole_number(value)
    if found is None:
        raise ConfigurationError(f"{name} is {_shown(value)}; expected {expected}")
    return found


def as_whole_number(value: Any) -> int | None:
    """An integer, as `whole_number` takes it; None if it is none."""
    scalar = _scalar(value)
    return int(scalar) if isinstance(scalar, (int, np.integer)) and not isinstance(scalar, bool) else None


def truth(name: str, value: Any) -> bool:
    """True or False, Python's or numpy's. A text such as "no" is neither, and would pass for True.

    Raises:
        ConfigurationError: it is neither.
    """
    require_kind(name, value, (bool, np.bool_), "True or False")
    return bool(value)


def as_written(number: float) -> Fraction:
    """The decimal fraction that was typed: 0.2 is 1/5, not the nearest binary number to it."""
    return Fraction(Decimal(repr(float(number))))


def plain(value: Any) -> Any:
    """The value with Python's numbers for numpy's and torch's, in mappings and sequences too."""
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    scalar = _as_printed(_scalar(value))
    return scalar.item() if isinstance(scalar, np.generic) else scalar


def require_kind(name: str, value: Any, kinds: type | tuple[type, ...], expected: str) -> None:
    """Verifies the type of an argument.

    Raises:
        ConfigurationError: it is of another one.
    """
    if not isinstance(value, kinds):
        raise ConfigurationError(f"{name} is {_shown(value)}; expected {expected}")


def require_function(name: str, value: Any, expected: str) -> None:
    """Verifies that an argument can be called, or is None.

    Raises:
        ConfigurationError: it cannot.
    """
    if value is not None and not callable(value):
        raise ConfigurationError(f"{name} is {_shown(value)}; expected {expected}")


def _scalar(value: Any) -> Any:
    """The one entry of an array or a tensor; anything else as it is."""
    if _is_tensor(value) and value.numel() == 1 and not value.is_meta:
        value = value.detach().cpu()
        try:
            value = value.numpy()
        except (TypeError, RuntimeError):
            # A type that numpy lacks, such as bfloat16 and those of 8 bits; or a sparse one.
            value = (value.dequantize() if value.is_quantized else value.to_dense().double()).numpy()
    if isinstance(value, np.ndarray) and value.size == 1:
        return value.reshape(())[()]
    return value


def _as_printed(scalar: Any) -> Any:
    return float(str(scalar)) if isinstance(scalar, np.floating) else scalar


def _shown(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 128:
        return "a number of very many digits"
    shown = repr(value) if isinstance(value, (str, bytes, int, float, complex, type(None), Sequence)) else ""
    return shown if 0 < len(shown) <= 80 else f"a {type(value).__name__}" + _of_shape(value)


def _of_shape(value: Any) -> str:
    return f" of shape {tuple(value.shape)}" if _is_tensor(value) or isinstance(value, np.ndarray) else ""


def _is_tensor(value: Any) -> bool:
    """Whoever has a tensor has imported torch, which takes seconds; what works without it does not wait for it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)
