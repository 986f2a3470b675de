"""Rounds around the Trainer of Lightning: a new Trainer in every round, always for the same module.

Both of its packages are taken, `lightning` and `pytorch_lightning`.
"""

import math
import os
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch.distributed as distributed
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.optimizer import Optimizer

from gossamer.arguments import require_function, require_kind
from gossamer.errors import ConfigurationError, GossamerWarning
from gossamer.integrations.lightning_callback import InRound, RoundCallback
from gossamer.loop.driver import rounds as rounds_of_model
from gossamer.loop.round import Round
from gossamer.loop.stop import Stop
from gossamer.model.wrappers import unwrap
from gossamer.ranks.group import current
from gossamer.rewind.schedulers import RoundScheduler, copies_of
from gossamer.rewind.strategies import Retraining
from gossamer.storage.files import absolute, remove

__all__ = ["RoundCallback", "rounds"]

FOLDER = "trainer"
"""The folder of a run in which the Trainers of all rounds have theirs."""
RESUME = "resume.ckpt"
"""The checkpoint in it that an interrupted round goes on from."""
IN_THIS_PROCESS = ("SingleDeviceStrategy", "SingleDeviceXLAStrategy", "DDPStrategy")
"""Strategies that train the module itself, whole, in the process that the rounds are in."""
SEARCHES = (
    "searches anew in every fit, so that rounds are trained differently, and an interrupted one from its beginning; "
    "expected what it finds: search before the rounds (lightning.pytorch.tuner.Tuner)"
)
REFUSED = {
    "LearningRateFinder": SEARCHES,
    "BatchSizeFinder": SEARCHES,
    "ModelPruning": "prunes inside every training, the dense one too; expected the rounds alone to prune: leave it out",
}
"""Callbacks that no round can be trained with -> why, and what to do."""
ONCE = ("ModelCheckpoint", "EarlyStopping", "WeightAveraging", "StochasticWeightAveraging", "Timer")
"""Callbacks that remember the training before."""


def rounds(
    module: nn.Module,
    make_trainer: Callable[[Path], Any],
    *,
    folder: str | Path,
    target_sparsity: float | None = None,
    stop: Stop | None = None,
    retraining: Retraining | None = None,
    **arguments: Any,
) -> Iterator[tuple[Round, Any]]:
    """`gossamer.rounds` around the Trainer of Lightning.

        def make_trainer(folder):
            return Trainer(max_epochs=10, default_root_dir=folder)

        for round, trainer in gossamer.integrations.lightning.rounds(
            module, make_trainer, folder=..., target_sparsity=0.9
        ):
            trainer.fit(module, datamodule=data)

    After every epoch a checkpoint is written. An interrupted round goes on from it, in `trainer.fit` without a
    `ckpt_path`, with the same bits where the data loader draws its order from torch's random numbers. A method that has
    learning rates of its own gets them whatever scheduler `configure_optimizers` returns, and trains as many steps as
    it asks for.

    A round is recorded with what the module logged last, unless the body calls `round.record` itself. What decides is
    the metric that a callback monitors (ModelCheckpoint, EarlyStopping), else the first one that is not of the
    training, unless `Stop(metric=...)` names another.

    Args:
        module: the LightningModule; the same one is trained in every round.
        make_trainer: makes a new Trainer, with new callbacks, for the folder of a round
            (`FOLDER/trainer/round-NN`), which is to be its `default_root_dir`.
        folder: where the rounds are kept.
        target_sparsity: short for `stop=Stop(target_sparsity=...)`.
        stop: when it ends. With `max_drop`, unless it names a metric: what a ModelCheckpoint or EarlyStopping monitors,
            and what is better by its `mode`.
        retraining: how it is retrained.
        arguments: all others of `gossamer.rounds`.

    Yields:
        The round, and the Trainer that is to train it.

    Raises:
        ConfigurationError: as `gossamer.rounds`; or the Trainer was used before, starts other processes itself, or has
            several optimizers or a scheduler that no such method can follow.
    """
    require_kind("module", module, nn.Module, "a LightningModule")
    require_function("make_trainer", make_trainer, "a function that makes a new Trainer for a folder")
    require_kind("folder", folder, (str, Path), "a path")
    folder = absolute(folder)
    retraining = Retraining() if retraining is None else retraining
    if isinstance(retraining, Retraining) and retraining.replicates > 1:
        raise ConfigurationError(
            "a round with replicates is trained by several Trainers; loop over gossamer.rounds yourself, and make one "
            "in each of round.replicates()"
        )
    if _is_one_of_several():
        # Which a Trainer does not do before its first fit; in all of them, and once.
        _made(make_trainer, folder / FOLDER).strategy.setup_environment()
    if isinstance(stop, Stop) and stop.max_drop is not None and stop.metric is None:
        stop = _monitored(stop, _made(make_trainer, folder / FOLDER))
    inner = rounds_of_model(
        module, folder=folder, target_sparsity=target_sparsity, stop=stop, retraining=retraining, **arguments
    )
    return _with_trainers(inner, module, make_trainer, folder / FOLDER, retraining)


def _with_trainers(
    inner: Iterator[Round],
    module: nn.Module,
    make_trainer: Callable[[Path], Any],
    folder: Path,
    retraining: Retraining,
) -> Iterator[tuple[Round, Any]]:
    used: list[weakref.ref[Any]] = []
    ranks = current()
    for round in inner:
        place = folder / f"round-{round.number:02d}"
        place.mkdir(parents=True, exist_ok=True)
        trainer = _made(make_trainer, place)
        _refuse_again(trainer, used)
        callback = _class_for(_package(trainer))(round, place / RESUME)
        trainer.callbacks.append(callback)
        if ranks.from_first((place / RESUME).exists()):
            trainer.ckpt_path = str(place / RESUME)
        with _scheduled(unwrap(module), round, trainer, callback, retraining):
            yield round, trainer
        if round.result is None:
            if callback.is_stale(trainer):
                warnings.warn(
                    f"the metrics of round {round.number} were measured before its last step, and are recorded for "
                    f"the network after it; call trainer.validate after trainer.fit.",
                    GossamerWarning,
                    stacklevel=2,
                )
            round.record(**callback.measured(trainer))
        if ranks.first:
            remove(place / RESUME)
            with suppress(OSError):
                # Unless something of the Trainer's own lies there.
                place.rmdir()
                folder.rmdir()
        ranks.barrier()


@cache
def _class_for(package: str) -> type[InRound]:
    """The callback as one of the package that the Trainer is of, which orders its callbacks by class."""
    checkpoint = import_module(f"{package}.callbacks").Checkpoint
    return RoundCallback if issubclass(RoundCallback, checkpoint) else type("RoundCallback", (InRound, checkpoint), {})


def _package(trainer: Any) -> str | None:
    """`lightning.pytorch` or `pytorch_lightning`; None if it is no Trainer."""
    for kind in type(trainer).__mro__:
        for package in ("lightning.pytorch", "pytorch_lightning"):
            if kind.__name__ == "Trainer" and kind.__module__.startswith(f"{package}."):
                return package
    return None


def _made(make_trainer: Callable[[Path], Any], folder: Path) -> Any:
    trainer = make_trainer(folder)
    if _package(trainer) is None:
        raise ConfigurationError(
            f"make_trainer returned a {type(trainer).__name__}; expected a Trainer of lightning or pytorch_lightning"
        )
    strategy = type(trainer.strategy).__name__
    launcher = type(getattr(trainer.strategy, "launcher", None)).__name__
    if "MultiProcessing" in launcher:
        raise ConfigurationError(
            f"the strategy of the Trainer ({strategy} by spawn, fork or notebook) trains a copy of the module in "
            f"another process, where no masks are attached and no steps are counted; expected the training to be in "
            f"this one: Trainer(devices=1), without a strategy"
        )
    if trainer.world_size > 1 and not trainer.strategy.cluster_environment.creates_processes_externally:
        raise ConfigurationError(
            f"the Trainer has {trainer.world_size} processes ({strategy}), and would start the others in the middle of "
            f"a round; start all of them with the program: torchrun --nproc-per-node {trainer.num_devices} PROGRAM, or "
            f"srun; or expected one: Trainer(devices=1, num_nodes=1)"
        )
    if strategy not in IN_THIS_PROCESS:
        raise ConfigurationError(
            f"{strategy} keeps parameters in pieces or moves them elsewhere, so that no weights can be chosen of all; "
            f"expected Trainer(devices=1), without a strategy"
        )
    for name in (type(one).__name__ for one in trainer.callbacks):
        if name in REFUSED:
            raise ConfigurationError(f"the Trainer has a {name}, which {REFUSED[name]}")
    return trainer


def _is_one_of_several() -> bool:
    """Whether torchrun or srun started this process as one of several, which have not found each other yet."""
    counts = [os.environ.get(name, "1") for name in ("WORLD_SIZE", "SLURM_NTASKS")]
    started = any(count.isdecimal() and int(count) > 1 for count in counts)
    return started and not (distributed.is_available() and distributed.is_initialized())


def _refuse_again(trainer: Any, used: list["weakref.ref[Any]"]) -> None:
    remembering = [one for one in trainer.callbacks if any(kind.__name__ in ONCE for kind in type(one).__mro__)]
    for thing in (trainer, *remembering):
        if any(reference() is thing for reference in used):
            raise ConfigurationError(
                f"make_trainer used the same {type(thing).__name__} in two rounds, which remembers the one before (a "
                f"Trainer that has finished fits nothing); make it inside make_trainer, so that every round begins "
                f"with a new one"
            )
    used[:] = [weakref.ref(thing) for thing in (trainer, *remembering)] + used


def _monitored(stop: Stop, trainer: Any) -> Stop:
    """The metric and its direction as the Trainer's callbacks have them."""
    for callback in trainer.callbacks:
        monitor, mode = getattr(callback, "monitor", None), getattr(callback, "mode", None)
        if isinstance(monitor, str) and mode in ("min", "max"):
            better = stop.better or ("lower" if mode == "min" else "higher")
            return replace(stop, metric=monitor, better=better)
    return stop


@contextmanager
def _scheduled(module: Any, round: Round, trainer: Any, callback: InRound, retraining: Retraining) -> Iterator[None]:
    """Inside, `configure_optimizers` returns the round's scheduler, if the method has learning rates of its own."""
    if retraining.plain:
        yield
        return
    before = vars(module).get("configure_optimizers")
    own = module.configure_optimizers

    def configure_optimizers() -> dict[str, Any]:
        optimizer, scheduler = _with_round_scheduler(own(), module, round, trainer)
        callback.last_step = scheduler.total_steps
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    module.configure_optimizers = configure_optimizers
    try:
        yield
    finally:
        del module.configure_optimizers
        if before is not None:
            module.configure_optimizers = before


def _with_round_scheduler(configured: Any, module: Any, round: Round, trainer: Any) -> tuple[Optimizer, RoundScheduler]:
    optimizers, schedulers = _parts(configured)
    averaging = [type(one).__name__ for one in trainer.callbacks if type(one).__name__ == "StochasticWeightAveraging"]
    if len(optimizers) != 1 or len(schedulers) > 1 or not module.automatic_optimization or averaging:
        what = averaging[0] if averaging else f"{len(optimizers)} optimizers and {len(schedulers)} schedulers"
        manual = "" if module.automatic_optimization else ", stepped by hand"
        raise ConfigurationError(
            f"this method sets the learning rates of each round itself, and the training has {what}{manual}; expected "
            f"one optimizer with at most one scheduler, which Lightning steps. Learning-rate rewinding (the default) "
            f"trains any module; others through round.scheduler in your own configure_optimizers, in a loop over "
            f"gossamer.rounds"
        )
    (optimizer,) = optimizers
    settings = schedulers[0] if schedulers and isinstance(schedulers[0], dict) else {}
    scheduler = settings.get("scheduler") if settings else next(iter(schedulers), None)
    if settings.get("frequency", 1) != 1:
        raise ConfigurationError(
            f"the scheduler has frequency={settings['frequency']}; expected 1 where its learning rates are replayed"
        )
    total = trainer.estimated_stepping_batches
    if not 0 < total < math.inf:
        raise ConfigurationError(
            "how many steps a round has is not known beforehand; expected Trainer(max_epochs=...) with a loader that "
            "has a length, or Trainer(max_steps=...)"
        )
    batches = trainer.num_training_batches
    per_epoch = math.ceil(batches / trainer.accumulate_grad_batches) if batches < math.inf else None
    make = _constant if scheduler is None else copies_of(scheduler, optimizer, module, trainer)
    interval: Any = settings.get("interval", "epoch") if schedulers else "step"
    return optimizer, round.scheduler(optimizer, make, int(total), per_epoch, interval)


def _parts(configured: Any) -> tuple[list[Any], list[Any]]:
    """The optimizers and the schedulers (or their dictionaries) of what `configure_optimizers` returned."""
    if isinstance(configured, dict):
        return [configured["optimizer"]], [configured["lr_scheduler"]] if "lr_scheduler" in configured else []
    if isinstance(configured, (list, tuple)):
        if len(configured) == 2 and isinstance(configured[0], list):
            schedulers = configured[1]
            return list(configured[0]), list(schedulers) if isinstance(schedulers, list) else [schedulers]
        parts = [_parts(one) for one in configured]
        return [one for optimizers, _ in parts for one in optimizers], [one for _, found in parts for one in found]
    return [] if configured is None else [configured], []


def _constant(optimizer: Any) -> LambdaLR:
    return LambdaLR(optimizer, lambda step: 1.0)
