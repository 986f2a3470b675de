"""`gossamer compare`: methods side by side on one task."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gossamer.cli.console import console
from gossamer.cli.lists import numbers

if TYPE_CHECKING:
    from gossamer.compare.grid import Job

GRID = "What is compared"
RUNNING = "How it runs"


def compare(
    task: Annotated[
        str, typer.Argument(help="A built-in task (see `gossamer tasks`) or your own: path/file.py:function.")
    ],
    out: Annotated[Path, typer.Option(help="The folder of the comparison. The same command continues what is in it.")],
    methods: Annotated[
        str,
        typer.Option(
            help="Names with commas between them; the first is the reference. weight-rewind@10 retrains for the last "
            "10 epochs; one-shot-lr-rewind cuts once; lr-rewind+erk has another allocation (criterion, structure, "
            "or file of densities); lr-rewind+replicates=3 averages three trainings of every round.",
            rich_help_panel=GRID,
        ),
    ] = "lr-rewind,weight-rewind,fine-tune",
    target_sparsity: Annotated[
        float, typer.Option(help="Where iterative methods end: the share of the weights that is pruned.")
    ] = 0.95,
    seeds: Annotated[int, typer.Option(help="How many: seeds 0, 1, ...", rich_help_panel=GRID)] = 3,
    per_round: Annotated[
        float, typer.Option(help="Share of the remaining weights that each round prunes.", rich_help_panel=GRID)
    ] = 0.2,
    one_shot_densities: Annotated[
        str | None,
        typer.Option(
            help="Where one-shot methods are looked at, such as 0.2,0.1,0.05; by default every third round's density. "
            "Methods with a file of densities cut once, to the file's own.",
            rich_help_panel=GRID,
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Where the task's data are.")] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Training time of every round; the recipe's by default.", rich_help_panel=GRID)
    ] = None,
    fine_tune_rate: Annotated[
        float | None,
        typer.Option(help="Learning rate of fine-tune and low-lr-weight-rewind.", rich_help_panel=GRID),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.", rich_help_panel=RUNNING)] = "cpu",
    jobs: Annotated[int, typer.Option(help="Runs at the same time.", rich_help_panel=RUNNING)] = 1,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Threads of each run; by default the processors, divided by --jobs. Part of what makes the same bits.",
            rich_help_panel=RUNNING,
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Address of a Ray cluster (auto, host:port; local starts one). --out must be a folder that all of its "
            "machines see.",
            rich_help_panel=RUNNING,
        ),
    ] = None,
) -> None:
    """Compare retraining methods on a task: every method with every seed, each seed's dense network trained once.

    Interrupt it whenever you like: the same command continues. More methods or seeds may be added later.
    """
    from gossamer.compare import before, report
    from gossamer.compare.grid import Grid, Method
    from gossamer.compare.runner import run_in_processes, run_on_cluster
    from gossamer.errors import ConfigurationError
    from gossamer.loop.configuration import Configuration
    from gossamer.loop.driver import make_folder
    from gossamer.storage.files import locked, same_working_directory
    from gossamer.tasks import find_task

    if seeds < 1 or jobs < 1 or (threads is not None and threads < 1):
        raise ConfigurationError(f"got {seeds} seeds, {jobs} jobs, {threads} threads; expected at least 1 of each")
    with same_working_directory():
        what = find_task(task)
    threads = threads or _threads_before(out) or max(1, (os.cpu_count() or 1) // jobs)
    # On a cluster the runs start elsewhere: what they are told has to mean the same there.
    anchored = Path.resolve if cluster is not None else Path
    file, colon, function = task.rpartition(":")
    if cluster is not None and colon:
        task = f"{Path(file).resolve()}:{function}"
    compared = tuple(Method.named(name.strip()) for name in methods.split(","))
    grid = Grid(
        folder=anchored(out),
        task=task,
        methods=compared,
        seeds=tuple(range(seeds)),
        target_sparsity=target_sparsity,
        per_round=per_round,
        one_shot_densities=numbers(one_shot_densities, "--one-shot-densities"),
        data=None if data is None else anchored(data),
        epochs=epochs,
        recipe_epochs=what.recipe.epochs,
        device=device,
        fine_tune_rate=fine_tune_rate,
        file_targets=before.targets_in_files(compared, what),
    )
    before.check_methods(grid, what)
    # The machines of a cluster are other ones, and what is finished is shown again without data or device.
    if cluster is None and not all(job.done for job in grid.jobs()):
        with same_working_directory():
            before.check_machine(grid, what)
    terminal = console(goes_on=True)
    make_folder(grid.folder)
    with locked(grid.folder):
        grid.refuse_links()
        known = _settings_before(grid.folder)
        # A rate matters from the first run that has one, so that fine-tuning can be added to what has none.
        rate_is_open = known is None or not grid.holds_constant_rates()
        uses_rate = any(method.constant_rate for method in grid.methods)
        settings = {
            "task": task,
            "target_sparsity": target_sparsity,
            "per_round": per_round,
            "epochs": grid.schedule_epochs,
            "device": device,
            "threads": threads,
            "fine_tune_rate": fine_tune_rate if uses_rate or known is None else known.get("fine_tune_rate"),
        }
        if known is not None:
            ignored = {"fine_tune_rate": known.get("fine_tune_rate")} if rate_is_open else {}
            Configuration({"comparison": settings | ignored}).refuse_other(grid.folder)
        if rate_is_open:
            Configuration({"comparison": settings}).write(grid.folder)
        for folder in before.begin_again(grid):
            terminal.print(f"{folder}: its training begins again, for it had passed what a method goes back to")
        everything = grid.jobs()
        tell = _Lines(len(everything))
        if cluster is None:
            run_in_processes(everything, jobs, threads, tell)
        else:
            run_on_cluster(everything, cluster, threads, tell)
        written = report.write(grid, report.collect(grid))
    terminal.print((grid.folder / report.TABLE).read_text(encoding="utf-8"))
    terminal.print("written: " + ", ".join(str(path) for path in written))
    if len(written) == 2:
        terminal.print("no plot: its packages are not installed (pip install 'gossamer[report]')")


def _threads_before(folder: Path) -> int | None:
    """The threads of each run when the comparison was begun, so that another number of jobs may continue it."""
    known = (_settings_before(folder) or {}).get("threads")
    return known if isinstance(known, int) else None


def _settings_before(folder: Path) -> dict[str, Any] | None:
    """What the comparison in the folder was begun with; None: there is none."""
    from gossamer.errors import CheckpointError
    from gossamer.loop.configuration import FILE, read

    if not (folder / FILE).exists():
        return None
    found = read(folder).get("comparison", {})
    if not isinstance(found, dict):
        raise CheckpointError(f"{folder / FILE} is damaged: comparison is {found!r}; expected a table of settings")
    return found


class _Lines:
    """One line for every run that starts or ends."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._terminal = console(goes_on=True)

    def __call__(self, job: "Job", event: str) -> None:
        self._done += event.startswith("done")
        self._terminal.print(f"[{self._done}/{self._total}] {job.name}: {event}")
