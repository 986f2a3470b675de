"""`gossamer compare`: methods side by side on one task."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from gossamer.cli.console import console
from gossamer.cli.export import with_export_packages
from gossamer.cli.repeated import DataFolder, TaskName
from gossamer.cli.settings import Panel, with_settings
from gossamer.compare.settings import Compared, Running
from gossamer.job.training import Training
from gossamer.loop.stop import Stop
from gossamer.prune.cut import PER_ROUND, Cut
from gossamer.storage.files import same_working_directory

if TYPE_CHECKING:
    from gossamer.compare.job import Job

GRID = "What is compared"


@with_settings
def compare(
    task: TaskName,
    out: Annotated[Path, typer.Option(help="The folder of the comparison. The same command continues what is in it.")],
    stop: Annotated[
        Stop,
        Panel("Where iterative methods end", ("target_sparsity", "rounds"), {"target_sparsity": 0.95}),
    ],
    cut: Annotated[Cut, Panel(GRID, ("per_round",))],
    training: Annotated[Training, Panel(GRID, ("epochs", "fine_tune_rate", "device"))],
    compared: Annotated[Compared, Panel(GRID)],
    running: Annotated[Running, Panel("How it runs")],
    forms: Annotated[
        bool,
        typer.Option(
            "--forms", help="Afterwards also score and time each method's last network in fp32 and in int8 (forms.md)."
        ),
    ] = False,
    data: DataFolder = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the runs and which of them are done, and start none.")
    ] = False,
) -> None:
    """Compare retraining methods on a task: every method with every seed, each seed's dense network trained once.

    Interrupt it whenever you like: the same command continues. More methods or seeds may be added later.
    """
    if forms:
        with_export_packages()
    # torch takes a second to load, which `gossamer --help` need not.
    from gossamer.compare import before, report
    from gossamer.compare.comparison import run_comparison, threads_before
    from gossamer.compare.grid import Grid
    from gossamer.compare.method import Method
    from gossamer.compare.runner import run_in_processes, run_on_cluster
    from gossamer.tasks import find_task

    with same_working_directory():
        what = find_task(task).at(data)
    threads = running.threads or threads_before(out) or max(1, (os.cpu_count() or 1) // running.jobs)
    # On a cluster the runs start elsewhere: what they are told has to mean the same there.
    anchored = Path if running.cluster is None else Path.resolve
    methods = tuple(Method.named(name.strip()) for name in compared.methods)
    grid = Grid(
        folder=anchored(out),
        task=task if running.cluster is None else _anchored_task(task),
        methods=methods,
        seeds=tuple(range(compared.seeds)),
        stop=stop,
        per_round=PER_ROUND if cut.per_round is None else cut.per_round,
        one_shot_densities=compared.one_shot_densities,
        data=None if data is None else anchored(data),
        training=training,
        recipe_epochs=what.recipe.epochs,
        file_targets=before.targets_in_files(methods, what),
    )
    before.check_methods(grid, what)
    if dry_run:
        for job in grid.jobs():
            # As words that can be copied; a line is not cut at the width of a terminal.
            typer.echo(f"{'done' if job.done else 'to do'}: {job.name}: gossamer {shlex.join(job.options)}")
        return
    # The machines of a cluster are other ones, and what is finished is shown again without data or device.
    if running.cluster is None and not all(job.done for job in grid.jobs()):
        with same_working_directory():
            before.check_machine(grid, what)

    def run(everything: "list[Job]") -> None:
        tell = _Lines(len(everything))
        if running.cluster is None:
            run_in_processes(everything, running.jobs, threads, tell)
        else:
            run_on_cluster(everything, running.cluster, threads, tell)

    terminal = console(goes_on=True)
    written = run_comparison(grid, threads, run, terminal.print)
    terminal.print((grid.folder / report.TABLE).read_text(encoding="utf-8"))
    terminal.print("written: " + ", ".join(str(path) for path in written))
    if len(written) == 2:
        terminal.print("no plot: its packages are not installed (pip install 'gossamer[report]')")
    if forms:
        from gossamer.compare.forms import TABLE, write_forms

        with terminal.status("forms", refresh_per_second=1) as status:
            written = write_forms(grid, progress=lambda text: status.update(Text(text)))
        terminal.print((grid.folder / TABLE).read_text(encoding="utf-8"))
        terminal.print("written: " + ", ".join(str(path) for path in written))


def _anchored_task(task: str) -> str:
    """The task, with the whole path of a task of one's own."""
    file, colon, function = task.rpartition(":")
    return f"{Path(file).resolve()}:{function}" if colon else task


class _Lines:
    """One line for every run that starts or ends."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._terminal = console(goes_on=True)

    def __call__(self, job: "Job", event: str) -> None:
        self._done += event.startswith("done")
        self._terminal.print(f"[{self._done}/{self._total}] {job.name}: {event}")
