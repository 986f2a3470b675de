"""Public names of a package, each imported at its first use: what needs no torch, such as `gossamer --help`, does not
wait the seconds that torch takes."""

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any


def attribute(package: str, homes: Mapping[str, str], name: str) -> Any:
    """What the package's `__getattr__` returns.

    Args:
        homes: public name -> its module.

    Raises:
        AttributeError: it is no public name.
    """
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    found = getattr(import_module(homes[name]), name)
    setattr(sys.modules[package], name, found)
    return found
