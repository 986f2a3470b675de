"""What gossamer can compress out of the box, and how to add your own: data, a model and a recipe make a `Task`."""

from typing import TYPE_CHECKING, Any

from gossamer.first_use import attribute

if TYPE_CHECKING:
    from gossamer.randomness import derived_seed
    from gossamer.tasks.errors import DataError, TaskError
    from gossamer.tasks.optimizers import SGD, AdamW
    from gossamer.tasks.schedules import OneCycle, Steps
    from gossamer.tasks.table import TASKS, find_task
    from gossamer.tasks.task import Data, Examples, Metric, Precision, Recipe, Task, describe
    from gossamer.tasks.training import EpochReport, evaluate, initial_model, train

__all__ = [
    "SGD",
    "TASKS",
    "AdamW",
    "Data",
    "DataError",
    "EpochReport",
    "Examples",
    "Metric",
    "OneCycle",
    "Precision",
    "Recipe",
    "Steps",
    "Task",
    "TaskError",
    "derived_seed",
    "describe",
    "evaluate",
    "find_task",
    "initial_model",
    "train",
]

_MODULES = {
    "errors": "DataError TaskError",
    "optimizers": "SGD AdamW",
    "schedules": "OneCycle Steps",
    "table": "TASKS find_task",
    "task": "Data Examples Metric Precision Recipe Task describe",
    "training": "EpochReport evaluate initial_model train",
}
_HOMES = {name: f"gossamer.tasks.{module}" for module, names in _MODULES.items() for name in names.split()}
_HOMES["derived_seed"] = "gossamer.randomness"


def __getattr__(name: str) -> Any:
    return attribute(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
