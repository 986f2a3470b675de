"""The built-in tasks by name. A new one is one file with a `TASK`, and one line here."""

from gossamer.tasks.char_gpt import TASK as CHAR_GPT
from gossamer.tasks.digits import TASK as DIGITS
from gossamer.tasks.errors import TaskError
from gossamer.tasks.lenet_5 import TASK as LENET_5
from gossamer.tasks.lenet_300_100 import TASK as LENET_300_100
from gossamer.tasks.own_task import is_own_task, load_own_task
from gossamer.tasks.resnet_20 import TASK as RESNET_20
from gossamer.tasks.resnet_56 import TASK as RESNET_56
from gossamer.tasks.task import Task

TASKS: dict[str, Task] = {
    "digits": DIGITS,
    "lenet-300-100": LENET_300_100,
    "lenet-5": LENET_5,
    "resnet-20": RESNET_20,
    "resnet-56": RESNET_56,
    "char-gpt": CHAR_GPT,
}


def find_task(name: str) -> Task:
    """The built-in task of this name, or the user's own when `name` is `path/file.py:function`.

    Raises:
        TaskError: there is no such task.
    """
    if is_own_task(name):
        return load_own_task(name)
    if name not in TASKS:
        raise TaskError(
            f"there is no task {name!r}; expected one of {', '.join(TASKS)}, or path/file.py:function for your own"
        )
    return TASKS[name]
