"""What gossamer can compress out of the box, and how to add your own: data, a model and a recipe make a `Task`."""

from typing import TYPE_CHECKING, Any

from gossamer.first_use import attribute

if TYPE_CHECKING:
    from gossamer.randomness import derived_seed
    from gossamer.tasks.batch import Batch, as_batch, returned_loss
    from gossamer.tasks.errors import DataError, TaskError
    from gossamer.tasks.evaluation import evaluate
    from gossamer.tasks.loaded import Loaded
    from gossamer.tasks.optimizers import SGD, AdamW, SelectiveSGD
    from gossamer.tasks.schedules import Linear, OneCycle, Steps, WarmUp
    from gossamer.tasks.table import TASKS, find_task
    from gossamer.tasks.task import Data, Examples, Metric, Precision, Recipe, SetMetric, Split, Task, describe
    from gossamer.tasks.training import EpochReport, StepReport, initial_model, train, train_by_steps

__all__ = [
    "SGD",
    "TASKS",
    "AdamW",
    "Batch",
    "Data",
    "DataError",
    "EpochReport",
    "Examples",
    "Linear",
    "Loaded",
    "Metric",
    "OneCycle",
    "Precision",
    "Recipe",
    "SelectiveSGD",
    "SetMetric",
    "Split",
    "StepReport",
    "Steps",
    "Task",
    "TaskError",
    "WarmUp",
    "as_batch",
    "derived_seed",
    "describe",
    "evaluate",
    "find_task",
    "initial_model",
    "returned_loss",
    "train",
    "train_by_steps",
]

_MODULES = {
    "batch": "Batch as_batch returned_loss",
    "errors": "DataError TaskError",
    "evaluation": "evaluate",
    "loaded": "Loaded",
    "optimizers": "SGD SelectiveSGD AdamW",
    "schedules": "Linear OneCycle Steps WarmUp",
    "table": "TASKS find_task",
    "task": "Data Examples Metric Precision Recipe SetMetric Split Task describe",
    "training": "EpochReport StepReport initial_model train train_by_steps",
}
_HOMES = {name: f"gossamer.tasks.{module}" for module, names in _MODULES.items() for name in names.split()}
_HOMES["derived_seed"] = "gossamer.randomness"


def __getattr__(name: str) -> Any:
    return attribute(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
