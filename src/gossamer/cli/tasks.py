"""`gossamer tasks`: what can be compressed without writing anything."""

from rich import box
from rich.table import Table

from gossamer.cli.console import console
from gossamer.tasks.built_in import BUILT_IN


def tasks() -> None:
    """List the built-in tasks."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for heading in ("task", "what", "epochs a round", "metric"):
        table.add_column(heading)
    for task in BUILT_IN.values():
        table.add_row(task.name, task.description, str(task.epochs), task.metric)
    console().print(table)
    console().print("your own: gossamer compress path/file.py:function (see examples/own_task.py)")
