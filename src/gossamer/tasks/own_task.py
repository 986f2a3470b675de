"""A user's own task: a function without arguments, in a file of the user's, that returns a `Task`."""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from gossamer.errors import GossamerError
from gossamer.tasks.errors import TaskError
from gossamer.tasks.task import Task


def is_own_task(name: str) -> bool:
    """Whether a task's name has the form `path/file.py:function` (or forgets the function)."""
    return ":" in name or name.endswith(".py")


def load_own_task(name: str) -> Task:
    """Runs the file of `path/file.py:function` as a module and returns what the function makes.

    The file may import its neighbours, as a script may.

    Raises:
        TaskError: no such file or function, or it fails, or returns something else than a Task.
    """
    task = call_own_function(name, "where the function returns a gossamer.tasks.Task")
    if not isinstance(task, Task):
        function_name = name.rpartition(":")[2]
        raise TaskError(f"{name}: {function_name}() returned {type(task).__name__}; expected a gossamer.tasks.Task")
    return task


def call_own_function(name: str, expected: str) -> object:
    """What the function of `path/file.py:function` returns, called without arguments.

    Args:
        expected: of the function, for the message where there is none.

    Raises:
        TaskError: no such file or function, or it fails.
    """
    file, colon, function_name = name.rpartition(":")
    if not colon or not file or not function_name:
        raise TaskError(f"{name}: expected path/file.py:function, {expected}")
    path = Path(file)
    if not path.is_file():
        raise TaskError(f"{name}: there is no file {file}")
    module = _run(path, name)
    function = getattr(module, function_name, None)
    if not callable(function):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise TaskError(f"{name}: {file} has no function {function_name}; it has: {', '.join(functions) or 'none'}")
    try:
        return function()
    except GossamerError:
        raise
    except (Exception, SystemExit) as error:
        raise TaskError(f"{name}: {function_name}() failed: {_described(error, path)}") from error


def source_of(name: str) -> str | None:
    """The `path/file.py:function` of a task of one's own, its path relative to the current folder; None for a built-in
    task. What a run's folder says of where its task came from."""
    if not is_own_task(name):
        return None
    file, _, function = name.rpartition(":")
    return f"{Path(os.path.relpath(file)).as_posix()}:{function}"


def _run(path: Path, name: str) -> ModuleType:
    # Registered under a name of its own, so that it can never hide another module (a file called `torch.py`).
    module_name = f"gossamer_own_task_{path.stem}"
    specification = importlib.util.spec_from_file_location(module_name, path.resolve())
    if specification is None or specification.loader is None:
        raise TaskError(f"{name}: {path} is not a Python file; expected one that ends in .py")
    module = importlib.util.module_from_spec(specification)
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        # Last, so that a neighbour hides nothing that is installed.
        sys.path.append(folder)
    sys.modules[module_name] = module
    try:
        specification.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        raise TaskError(f"{name}: importing {path} failed: {_described(error, path)}") from error
    return module


def _described(error: BaseException, path: Path) -> str:
    """The error in one line, with the last line of the user's file that it passed through."""
    lines = []
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == str(path.resolve()):
            lines.append(traceback.tb_lineno)
        traceback = traceback.tb_next
    if isinstance(error, SyntaxError) and error.lineno is not None:
        lines = [error.lineno]
    place = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"
