"""`gossamer compress`: the main job."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gossamer.cli.console import console
from gossamer.cli.lists import whole_numbers
from gossamer.cli.progress import progress
from gossamer.cli.show import print_run

if TYPE_CHECKING:
    from gossamer.integrations.tensorboard import TensorBoard

STOPPING = "When to stop (the first that applies; at least one)"
TRAINING = "Training"
RETRAINING = "Retraining after a cut"
PRUNING = "Pruning"


@contextmanager
def _scalars(run: Path, wanted: bool) -> "Iterator[list[TensorBoard]]":
    """The listener that writes scalars, if they are wanted; closed however the run ends."""
    if not wanted:
        yield []
        return
    from gossamer.integrations.tensorboard import TensorBoard

    listener = TensorBoard(run)
    try:
        yield [listener]
    finally:
        listener.close()


def compress(
    task: Annotated[
        str, typer.Argument(help="A built-in task (see `gossamer tasks`) or your own: path/file.py:function.")
    ],
    out: Annotated[Path, typer.Option(help="The folder of the run. The same command continues what is in it.")],
    data: Annotated[Path | None, typer.Option(help="Where the task's data are.")] = None,
    target_sparsity: Annotated[
        float | None,
        typer.Option(help="Share of the prunable weights to remove, such as 0.95.", rich_help_panel=STOPPING),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Largest loss of validation metric against dense, such as 0.01; keeps the smallest network within it.",
            rich_help_panel=STOPPING,
        ),
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="How many times to prune.", rich_help_panel=STOPPING)] = None,
    per_round: Annotated[
        float | None,
        typer.Option(
            help="Share of the remaining weights that each round prunes; 0.2 by default.", rich_help_panel=PRUNING
        ),
    ] = None,
    criterion: Annotated[
        str,
        typer.Option(help="What a weight is worth: magnitude, lamp, taylor or random.", rich_help_panel=PRUNING),
    ] = "magnitude",
    allocation: Annotated[
        str,
        typer.Option(
            help="How the weights are shared among layers: global, uniform, erk, or a .toml file of densities "
            "(see `gossamer search`).",
            rich_help_panel=PRUNING,
        ),
    ] = "global",
    structure: Annotated[
        str,
        typer.Option(
            help="What stays or goes together: unstructured, 2:4 (or any N:M), 1x4 blocks of input channels, or whole "
            "output channels.",
            rich_help_panel=PRUNING,
        ),
    ] = "unstructured",
    include: Annotated[
        list[str] | None,
        typer.Option(
            help="Prune only weights whose name matches (shell pattern; repeatable).", rich_help_panel=PRUNING
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Never prune weights whose name matches (repeatable).", rich_help_panel=PRUNING),
    ] = None,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="Prune embedding tables too.", rich_help_panel=PRUNING)
    ] = False,
    epochs: Annotated[
        int | None,
        typer.Option(help="Training time of every round; the recipe's by default.", rich_help_panel=TRAINING),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same bits on the CPU.", rich_help_panel=TRAINING)] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.", rich_help_panel=TRAINING)] = "cpu",
    method: Annotated[
        str,
        typer.Option(
            help="lr-rewind, weight-rewind, fine-tune, reinit, low-lr-weight-rewind or linear-lr-restart.",
            rich_help_panel=RETRAINING,
        ),
    ] = "lr-rewind",
    one_shot: Annotated[
        bool,
        typer.Option("--one-shot", help="Cut once, straight to the target sparsity.", rich_help_panel=RETRAINING),
    ] = False,
    rewind_epochs: Annotated[
        int | None,
        typer.Option(
            help="Retrain for so many epochs: the schedule restarts that long before its end.",
            rich_help_panel=RETRAINING,
        ),
    ] = None,
    rewind_to: Annotated[
        int | None,
        typer.Option(
            help="Instead: the epoch to rewind to; 0, the start, by default (weight-rewind: the lottery ticket).",
            rich_help_panel=RETRAINING,
        ),
    ] = None,
    rewind_to_step: Annotated[
        int | None, typer.Option(help="Instead: the step to rewind to.", rich_help_panel=RETRAINING)
    ] = None,
    rewound: Annotated[
        str | None,
        typer.Option(
            help="What goes back with the weights: optimizer, statistics, both (optimizer,statistics; the default, as "
            "in the paper's code) or none.",
            rich_help_panel=RETRAINING,
        ),
    ] = None,
    replicates: Annotated[
        int,
        typer.Option(
            help="Train every round after the dense one so many times and go on with the average of the weights.",
            rich_help_panel=RETRAINING,
        ),
    ] = 1,
    fine_tune_rate: Annotated[
        float | None,
        typer.Option(
            help="Constant learning rate of fine-tune and low-lr-weight-rewind; the recipe's last by default.",
            rich_help_panel=RETRAINING,
        ),
    ] = None,
    dense: Annotated[
        Path | None,
        typer.Option(
            help="A run of the same settings, whose dense network is taken over instead of training it again.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    dense_only: Annotated[
        bool,
        typer.Option("--dense-only", help="Train the dense network and stop.", rich_help_panel=TRAINING),
    ] = False,
    keep_snapshots: Annotated[
        str | None,
        typer.Option(
            help="With --dense-only: epochs, such as 0,1,5, that other runs may rewind to.", rich_help_panel=TRAINING
        ),
    ] = None,
    fresh_optimizer: Annotated[
        bool,
        typer.Option(
            "--fresh-optimizer",
            help="Begin every round without momentum; by default it lives on, as in the paper's code.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard", help="Write scalars for TensorBoard to RUN/tensorboard.", rich_help_panel=TRAINING
        ),
    ] = False,
    checkpoint_seconds: Annotated[
        float, typer.Option(help="Least time between two saves inside a round.", rich_help_panel=TRAINING)
    ] = 10.0,
) -> None:
    """Train, prune 20% globally, rewind the learning rate (or another --method), repeat.

    Interrupt it whenever you like: the same command continues, and ends with the same bits.
    """
    # torch takes a second to load, which `gossamer --help` need not.
    import torch

    from gossamer.compress import Listener, Together
    from gossamer.compress import compress as run
    from gossamer.prune.scope import Scope
    from gossamer.storage.files import absolute, same_working_directory
    from gossamer.tasks import find_task
    from gossamer.tasks.own_task import source_of
    from gossamer.tasks.processor import keep_freed_memory

    keep_freed_memory()
    torch.set_flush_denormal(True)
    # What the task's file does to the working directory is its own affair: paths are those of the command.
    source, folder = source_of(task), absolute(out)
    data, dense = (None if path is None else absolute(path) for path in (data, dense))
    allocation = str(absolute(allocation)) if allocation.endswith(".toml") else allocation
    with same_working_directory(), progress() as shown, _scalars(folder, tensorboard) as scalars:
        listener: Listener = Together(shown, *scalars)
        run(
            find_task(task),
            folder=folder,
            data_folder=data,
            target_sparsity=target_sparsity,
            max_drop=max_drop,
            # A rule of when to stop has to be given, but the dense network is trained before the first cut.
            round_count=1 if dense_only and rounds is None and target_sparsity is None else rounds,
            per_round=per_round,
            criterion=criterion,
            allocation=allocation,
            structure=structure,
            scope=Scope(tuple(include or ("*",)), tuple(exclude or ()), embeddings),
            epochs=epochs,
            seed=seed,
            device=device,
            optimizer_state="fresh" if fresh_optimizer else "keep",
            method=method,
            one_shot=one_shot,
            rewind_epochs=rewind_epochs,
            rewind_to_epoch=rewind_to,
            rewind_to_step=rewind_to_step,
            rewound=None if rewound is None else () if rewound == "none" else tuple(rewound.split(",")),
            replicates=replicates,
            fine_tune_rate=fine_tune_rate,
            dense=dense,
            dense_only=dense_only,
            keep_snapshots=whole_numbers(keep_snapshots, "--keep-snapshots"),
            checkpoint_seconds=checkpoint_seconds,
            listener=listener,
            task_source=source,
        )
    print_run(out, console(goes_on=True))
