"""`gossamer compress`: the main job."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gossamer.cli.console import console
from gossamer.cli.plan import print_plan
from gossamer.cli.progress import progress
from gossamer.cli.repeated import DataFolder, TaskName
from gossamer.cli.settings import Panel, with_settings
from gossamer.cli.show import print_run
from gossamer.job.training import DenseRound, Training
from gossamer.loop.stop import Stop
from gossamer.prune.cut import Cut
from gossamer.prune.scope import Scope
from gossamer.rewind.strategies import Retraining
from gossamer.storage.files import absolute, same_working_directory

if TYPE_CHECKING:
    from gossamer.integrations.tensorboard import TensorBoard


@contextmanager
def _scalars(run: Path, wanted: bool) -> "Iterator[list[TensorBoard]]":
    """The callback that writes scalars, if they are wanted; closed however the run ends."""
    if not wanted:
        yield []
        return
    from gossamer.integrations.tensorboard import TensorBoard

    callback = TensorBoard(run)
    try:
        yield [callback]
    finally:
        callback.close()


@with_settings
def compress(
    task: TaskName,
    out: Annotated[Path, typer.Option(help="The folder of the run. The same command continues what is in it.")],
    stop: Annotated[Stop, Panel("When to stop (the first that applies; at least one)")],
    cut: Annotated[Cut, Panel("Pruning")],
    scope: Annotated[Scope, Panel("Which weights")],
    training: Annotated[Training, Panel("Training")],
    retraining: Annotated[Retraining, Panel("Retraining after a cut")],
    dense: Annotated[DenseRound, Panel("The dense network")],
    data: DataFolder = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write scalars for TensorBoard to RUN/tensorboard.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan (rounds, weights, epochs, bytes), and train nothing.")
    ] = False,
) -> None:
    """Train, prune 20% globally, rewind the learning rate (or another --method), repeat.

    Interrupt it whenever you like: the same command continues, and ends with the same bits.
    """
    # torch takes a second to load, which `gossamer --help` need not.
    from gossamer.job.compress import compress as run
    from gossamer.tasks import find_task
    from gossamer.tasks.own_task import source_of
    from gossamer.tasks.processor import flush_denormals, keep_freed_memory

    keep_freed_memory()
    flush_denormals()
    # What the task's file does to the working directory is its own affair: paths are those of the command.
    source, folder = source_of(task), absolute(out)
    data = None if data is None else absolute(data)
    dense = replace(dense, taken_from=None if dense.taken_from is None else absolute(dense.taken_from))
    if dry_run:
        with same_working_directory():
            print_plan(find_task(task).at(data), stop, cut, scope, training, retraining)
        return
    with same_working_directory(), progress() as shown, _scalars(folder, tensorboard) as scalars:
        run(
            find_task(task),
            folder=folder,
            data_folder=data,
            stop=stop,
            cut=cut,
            retraining=retraining,
            scope=scope,
            training=training,
            dense=dense,
            callbacks=(shown, *scalars),
            task_source=source,
        )
    print_run(out, console(goes_on=True))
