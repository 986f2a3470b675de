"""Tasks by name."""

from collections.abc import Iterator, Mapping
from importlib import import_module

from gossamer.tasks.built_in import BUILT_IN
from gossamer.tasks.errors import TaskError
from gossamer.tasks.own_task import is_own_task, load_own_task
from gossamer.tasks.task import Task


class _Tasks(Mapping[str, Task]):
    """The built-in tasks; the module of one is imported when it is asked for."""

    def __getitem__(self, name: str) -> Task:
        task: Task = import_module(BUILT_IN[name].module).TASK
        return task

    def __iter__(self) -> Iterator[str]:
        return iter(BUILT_IN)

    def __len__(self) -> int:
        return len(BUILT_IN)


TASKS: Mapping[str, Task] = _Tasks()


def find_task(name: str) -> Task:
    """The built-in task of this name, or the user's own when `name` is `path/file.py:function`.

    Raises:
        TaskError: there is no such task.
    """
    if is_own_task(name):
        return load_own_task(name)
    if name not in BUILT_IN:
        raise TaskError(
            f"there is no task {name!r}; expected one of {', '.join(BUILT_IN)}, or path/file.py:function for your own"
        )
    return TASKS[name]
