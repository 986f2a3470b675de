"""Runs the sparse networks that gossamer exports, several times faster, inside ONNX Runtime.

>>> session = gossamer_runtime.Session("model.onnx")
>>> outputs = session.run(None, {"input": images})

Needs numpy and onnxruntime, nothing else.
"""

from gossamer_runtime.library import NativeLibraryMissing, library_path
from gossamer_runtime.session import Session, session_options

__all__ = ["NativeLibraryMissing", "Session", "library_path", "session_options"]
__version__ = "0.1.0"
