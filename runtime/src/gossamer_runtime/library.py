"""Where the native op library is."""

import os
from pathlib import Path

NAME = "libgossamer_ops.so"


class NativeLibraryMissing(ImportError):
    """The library of custom ops was not built for this installation."""


def library_path() -> str:
    """The path to give to ``SessionOptions.register_custom_ops_library``, in Python, C++ or C#.

    The environment variable GOSSAMER_OPS names another build of the library.
    """
    chosen = os.environ.get("GOSSAMER_OPS")
    path = Path(chosen) if chosen else Path(__file__).parent / NAME
    if not path.is_file():
        raise NativeLibraryMissing(
            f"{path} does not exist: gossamer-runtime was installed without its native part. "
            "Build it with a C++17 compiler and CMake (pip install ./runtime says what is missing), "
            "or export with --dense, which needs no native part."
        )
    return str(path)
