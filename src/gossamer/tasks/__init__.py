"""What gossamer can compress out of the box, and how to add your own: data, a model and a recipe make a `Task`."""

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
