"""`gossamer tasks`: what can be compressed without writing anything."""

from rich import box
from rich.table import Table

from gossamer.cli.console import console


def tasks() -> None:
    """List the built-in tasks."""
    from gossamer.tasks import TASKS

    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for heading in ("task", "what", "epochs a round", "metric"):
        table.add_column(heading)
    for name, task in TASKS.items():
        table.add_row(name, task.description, str(task.recipe.epochs), task.metric.name)
    console().print(table)
    console().print("your own: gossamer compress path/file.py:function (see examples/own_task.py)")
