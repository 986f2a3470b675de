"""Packages that only the built-in tasks' data need; imported when data are loaded, not before."""

import importlib
from typing import Any

from gossamer.tasks.errors import DataError


def optional_module(name: str, extra: str = "tasks") -> Any:
    """The module `name`, or a DataError that says how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DataError(
            f"this task's data need the package {name.partition('.')[0]}, which cannot be imported ({error}). "
            f"Install it with: pip install 'gossamer[{extra}]'"
        ) from error
