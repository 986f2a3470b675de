from pathlib import Path

import pytest

from gossamer.errors import GossamerError
from gossamer.tasks import TASKS, TaskError, evaluate, find_task, initial_model, train

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_task.py"
TASK_FILE = """
from gossamer.tasks import SGD, OneCycle, Recipe, Task
from torch import nn

def task():
    return Task("mine", "a task", lambda: nn.Linear(2, 2), lambda folder: None, Recipe(1, 1, OneCycle(0.1), SGD()))

def number():
    return 3

def failing():
    return 1 / 0

def refusing():
    from gossamer.tasks import DataError
    raise DataError("get it from there")
"""


def test_finds_the_built_in_tasks_by_name() -> None:
    assert find_task("digits") is TASKS["digits"]
    assert all(task.name == name for name, task in TASKS.items())


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(TaskError, match=r"no task 'digit'; expected one of digits, .*lenet-300-100.*file.py:function"):
        find_task("digit")


def test_the_example_trains() -> None:
    task = find_task(f"{EXAMPLE}:task")
    data = task.data(None)
    model = initial_model(task, seed=0)
    list(train(model, task.recipe.optimizer(model), task.recipe, data.train, seed=0))
    assert evaluate(model, data.test, task.metric) > 0.93  # always answering "benign" gets 0.63


def test_a_file_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "a_neighbour_of_the_task.py").write_text(TASK_FILE)
    (tmp_path / "mine.py").write_text("from a_neighbour_of_the_task import task")
    assert find_task(f"{tmp_path}/mine.py:task").name == "mine"


def test_two_files_of_one_name_are_two_tasks(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(TASK_FILE.replace('"mine"', f'"{folder}"'))
    assert [find_task(f"{tmp_path}/{folder}/mine.py:task").name for folder in ("one", "two")] == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (None, "mine.py:task", "there is no file .*mine.py"),
        (TASK_FILE, "mine.py", "expected path/file.py:function"),
        (TASK_FILE, "mine.py:", "expected path/file.py:function"),
        (TASK_FILE, "mine.py:taks", "has no function taks; it has: .*task, number, failing, refusing"),
        (TASK_FILE, "mine.py:number", r"number\(\) returned int; expected a gossamer.tasks.Task"),
        (TASK_FILE, "mine.py:failing", r"failing\(\) failed: ZeroDivisionError: division by zero \(line 12\)"),
        (TASK_FILE, "mine.py:refusing", r"^get it from there$"),
        (TASK_FILE, "mine.txt:task", r"mine\.txt is not a Python file; expected one that ends in \.py"),
        ("import nothing_of_this_name", "mine.py:task", r"importing .*mine.py failed: ModuleNotFoundError.*\(line 1\)"),
        ("\n\ndef task(:", "mine.py:task", r"failed: SyntaxError: .*\(line 3\)"),
        ("raise SystemExit(0)", "mine.py:task", "failed: SystemExit"),
    ],
)
def test_mistakes_are_one_clear_line(tmp_path: Path, content: str | None, name: str, message: str) -> None:
    if content is not None:
        (tmp_path / name.partition(":")[0]).write_text(content)
    with pytest.raises(GossamerError, match=message) as caught:
        find_task(f"{tmp_path}/{name}")
    assert "\n" not in str(caught.value)
