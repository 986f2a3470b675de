"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

TaskName = Annotated[
    str, typer.Argument(help="A built-in task (see `gossamer tasks`) or your own: path/file.py:function.")
]
RunFolder = Annotated[Path, typer.Argument(help="The folder of a run.")]
RoundNumber = Annotated[int | None, typer.Option(help="Which round; the recommended one by default, -1 is the last.")]
DataFolder = Annotated[Path | None, typer.Option(help="Where the task's data are.")]
OwnTask = Annotated[str | None, typer.Option(help="Only for a run of your own task: its path/file.py:function.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
