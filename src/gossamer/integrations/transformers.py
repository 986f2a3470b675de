"""Rounds around the Trainer of Hugging Face transformers: a new Trainer in every round, always for the same model.

Where its checkpoints lie, and how a round goes on from one: `gossamer.integrations.trainer_checkpoints`.
"""

import copy
import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from gossamer.arguments import require_kind, truth
from gossamer.errors import ConfigurationError
from gossamer.integrations.prepared import as_before
from gossamer.integrations.trainer_checkpoints import TrainerCheckpoint, TrainerCheckpoints, remove_checkpoints
from gossamer.loop.driver import rounds as rounds_of_model
from gossamer.loop.round import Round
from gossamer.loop.stop import Stop
from gossamer.model.wrappers import unwrap
from gossamer.ranks.group import current
from gossamer.rewind.schedulers import copies_of
from gossamer.rewind.strategies import Retraining
from gossamer.storage.files import absolute

try:
    from transformers import PreTrainedModel, Trainer, TrainerCallback
    from transformers.trainer_callback import ExportableState, TrainerState
    from transformers.trainer_utils import TrainOutput
except ImportError as missing:
    raise ConfigurationError(
        f"the adapter needs transformers and accelerate, which cannot be imported ({missing}). Install them with: "
        f"pip install 'gossamer[transformers]'"
    ) from missing

FOLDER = "trainer"
"""The folder of a run in which the Trainers of all rounds have theirs."""
TIMES = ("_runtime", "_per_second", "_preparation_time")
"""How metrics end that say how long the evaluation took."""


def rounds(
    make_trainer: Callable[[], Trainer],
    *,
    folder: str | Path,
    target_sparsity: float | None = None,
    stop: Stop | None = None,
    retraining: Retraining | None = None,
    keep_checkpoints: bool = False,
    **arguments: Any,
) -> Iterator[tuple[Round, Trainer]]:
    """`gossamer.rounds` around the Trainer of transformers, or a subclass of it.

        for round, trainer in gossamer.integrations.transformers.rounds(make_trainer, folder=..., target_sparsity=0.9):
            trainer.train()
            round.record(**trainer.evaluate())

    All rounds train one model, that of the first Trainer: a model that `make_trainer` or `model_init` makes anew is put
    aside. Every round has a Trainer of its own, with a fresh optimizer, schedule and state, whose `output_dir` is
    `FOLDER/trainer/round-NN`. Its schedule is the one that the method asks for, whatever scheduler the Trainer makes.
    After an interruption `trainer.train()` goes on from the last whole checkpoint of the round, with its steps and time
    counted. A round that is not recorded is, with what `trainer.evaluate()` returns if there is an `eval_dataset`.

    The folder of each round of a `PreTrainedModel` is one that `from_pretrained` takes: beside the weights lie the
    configurations and the `processing_class`.

    Args:
        make_trainer: makes a new Trainer, and with it a new optimizer and new callbacks if these are its arguments.
        folder: where the rounds are kept.
        target_sparsity: short for `stop=Stop(target_sparsity=...)`.
        stop: when it ends. Unless it names a metric, the one that decides is `metric_for_best_model` of the Trainer's
            arguments, if that is set, and better is what their `greater_is_better` says.
        retraining: how it is retrained.
        keep_checkpoints: whether the Trainer's checkpoints stay when their round is recorded.
        arguments: all others of `gossamer.rounds`.

    Yields:
        The round, and the Trainer that is to train it.

    Raises:
        ConfigurationError: as `gossamer.rounds`; or the Trainer shards its model (DeepSpeed, FSDP), or would change it
            outside the training.
    """
    if not callable(make_trainer):
        raise ConfigurationError(
            f"make_trainer is a {type(make_trainer).__name__}; expected a function without arguments that makes one"
        )
    require_kind("folder", folder, (str, Path), "a path")
    keep_checkpoints = truth("keep_checkpoints", keep_checkpoints)
    first = _made(make_trainer)
    stop = _stop(stop, target_sparsity, first.args)
    folder = absolute(folder)
    inner = rounds_of_model(first.model, folder=folder, stop=stop, retraining=retraining, **arguments)
    retraining = retraining or Retraining()
    if retraining.replicates > 1:
        raise ConfigurationError(
            "a round with replicates is trained by several Trainers; loop over gossamer.rounds yourself, and make one "
            "in each of round.replicates()"
        )
    return _with_trainers(inner, first, make_trainer, folder / FOLDER, retraining, keep_checkpoints)


def _with_trainers(
    inner: Iterator[Round],
    first: Trainer,
    make_trainer: Callable[[], Trainer],
    folder: Path,
    retraining: Retraining,
    keep_checkpoints: bool,
) -> Iterator[tuple[Round, Trainer]]:
    model, before = first.model, _Once(first)
    del first
    ranks = current()
    for round in inner:
        if ranks.first and not keep_checkpoints:
            remove_checkpoints(folder, before=round.number)
        trainer = _made(make_trainer)
        before.refuse_again(trainer)
        before = _Once(trainer)
        _give(trainer, model)
        _InRound(trainer, round, folder / f"round-{round.number:02d}", retraining)
        round.beside = lambda destination, trainer=trainer: _save_configuration(trainer, destination)
        with as_before(model):
            yield round, trainer
            if round.result is None:
                round.record(**_measured(trainer))
            _release(trainer)
    if ranks.first and not keep_checkpoints:
        remove_checkpoints(folder)


class _InRound(TrainerCallback):  # type: ignore[misc]
    """What makes a Trainer train one round: it goes on where an interrupted attempt was, by the round's schedule."""

    def __init__(self, trainer: Trainer, round: Round, folder: Path, retraining: Retraining) -> None:
        self.trainer = trainer
        self.round = round
        self.retraining = retraining
        self.checkpoints = TrainerCheckpoints(folder, round)
        self.trained = False
        self.found: TrainerCheckpoint | None = None
        """What the training goes on from."""
        self.last_step: int | None = None
        """After which the round is trained; None: as the Trainer's arguments say."""
        # Those that `make_trainer` was given may be the ones of all rounds.
        trainer.args = copy.copy(trainer.args)
        trainer.args.output_dir = str(folder)
        # Without it early stopping has forgotten, after an interruption, how long it has been patient.
        trainer.args.restore_callback_states_from_checkpoint = True
        folder.mkdir(parents=True, exist_ok=True)
        self._train, trainer.train = trainer.train, self.train
        if not retraining.plain:
            self._create_scheduler, trainer.create_scheduler = trainer.create_scheduler, self.create_scheduler
        # At the end: what other callbacks put into a checkpoint is there before it is called whole.
        trainer.callback_handler.callbacks.append(self)

    def train(self, resume_from_checkpoint: str | bool | None = None, *others: Any, **named: Any) -> Any:
        """The Trainer's own `train`, which goes on from the round's last whole checkpoint if no other is named."""
        if self.trained or resume_from_checkpoint is False:
            self.checkpoints.forget()
            resume_from_checkpoint = None
        elif resume_from_checkpoint is None or resume_from_checkpoint is True:
            self.found = found = self.checkpoints.newest()
            if found is not None and found.finished:
                self.trained = True
                return self._load_finished(found)
            resume_from_checkpoint = None if found is None else str(found.folder)
        with _own_names(self.trainer.model):
            output = self._train(resume_from_checkpoint, *others, **named)
        self.trained, self.found = True, None
        return output

    def create_scheduler(self, num_training_steps: int, *others: Any, **named: Any) -> Any:
        """The Trainer's own scheduler, played as the round's method says."""
        own = self._create_scheduler(num_training_steps, *others, **named)
        optimizer = getattr(own, "optimizer", self.trainer.optimizer)
        make = copies_of(own, optimizer, self.trainer, unwrap(self.trainer.model))
        scheduler = self.round.scheduler(optimizer, make, num_training_steps, self._steps_per_epoch())
        self.last_step = scheduler.total_steps
        self.trainer.lr_scheduler = scheduler
        return scheduler

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **named: Any) -> None:
        """Ends the training where the round's schedule does."""
        if self.found is not None:
            self.found.require(self.trainer.model)
        if self.last_step is not None:
            state.max_steps = min(state.max_steps, self.last_step)
        self._find_best(state)

    def on_save(self, args: Any, state: TrainerState, control: Any, **named: Any) -> None:
        """Marks a checkpoint as whole, with what the round needs of itself to go on from it."""
        to_go_on = not self.trained and not args.save_only_model
        finished = control.should_training_stop
        self.checkpoints.mark(state.global_step, self.trainer.model, finished=finished, to_go_on=to_go_on)

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **named: Any) -> None:
        """Verifies that the best weights were put back, if these are asked for."""
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            self.checkpoints.require_best(Path(state.best_model_checkpoint), self.trainer.model)

    def _load_finished(self, found: TrainerCheckpoint) -> TrainOutput:
        """Puts a training back that came to its end before it was recorded. The Trainer itself would take a step more
        if the end is not that of an epoch."""
        trainer, folder = self.trainer, found.folder
        trainer._load_from_checkpoint(str(folder))
        found.require(trainer.model)
        trainer.state = TrainerState.load_from_json(str(folder / "trainer_state.json"))
        self._find_best(trainer.state)
        if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint is not None:
            trainer._load_best_model()
        self.on_train_end(trainer.args, trainer.state, trainer.control)
        trainer._load_rng_state(str(folder))
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return TrainOutput(trainer.state.global_step, losses[-1] if losses else math.nan, {})

    def _find_best(self, state: TrainerState) -> None:
        """The best checkpoint, where it is today: the run's folder may have been moved."""
        if state.best_model_checkpoint is not None:
            found = self.checkpoints.folder / Path(state.best_model_checkpoint).name
            state.best_model_checkpoint = str(found) if found.is_dir() else state.best_model_checkpoint

    def _steps_per_epoch(self) -> int | None:
        """Optimizer steps of an epoch, where the method has to know them."""
        if not any(
            span is not None and span.unit == "epochs" for span in (self.retraining.length, self.retraining.start)
        ):
            return None
        try:
            batches: int = len(self.trainer.get_train_dataloader())
        except TypeError:
            return None
        return max(math.ceil(batches / int(self.trainer.args.gradient_accumulation_steps)), 1)


class _Once:
    """What is to be made anew for every round, and was made for one."""

    def __init__(self, trainer: Trainer) -> None:
        callbacks = [thing for thing in trainer.callback_handler.callbacks if isinstance(thing, ExportableState)]
        made = {"Trainer": trainer, "optimizer": trainer.optimizer, "scheduler": trainer.lr_scheduler}
        made |= {type(callback).__name__: callback for callback in callbacks}
        self.made = {name: weakref.ref(thing) for name, thing in made.items() if thing is not None}

    def refuse_again(self, trainer: Trainer) -> None:
        """Raises:
        ConfigurationError: a Trainer has something of this one."""
        for name, found in _Once(trainer).made.items():
            if any(found() is other() for other in self.made.values()):
                raise ConfigurationError(
                    f"make_trainer used the same {name} twice, which would go on in one round where it stopped in the "
                    f"last; make it inside make_trainer, so that every round begins with a new one"
                )


def _made(make_trainer: Callable[[], Trainer]) -> Trainer:
    trainer = make_trainer()
    require_kind("what make_trainer returned", trainer, Trainer, "a Trainer of transformers")
    args = trainer.args
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        name = "FSDP" if trainer.is_fsdp_enabled else "DeepSpeed"
        raise ConfigurationError(
            f"{name} is set in the Trainer's arguments, which shards the model anew inside trainer.train(), after its "
            f"weights were chosen; expected no fsdp and no deepspeed there. A model that has to be sharded is pruned "
            f"in a loop of your own: gossamer.rounds around fully_shard, or gossamer.integrations.accelerate with FSDP2"
        )
    if args.fp16_full_eval or args.bf16_full_eval:
        raise ConfigurationError(
            "fp16_full_eval and bf16_full_eval round the model itself when it is evaluated, and the next round would "
            "begin with the rounded weights; leave them out (bf16=True evaluates in bfloat16 and rounds none)"
        )
    if getattr(args, "enable_jit_checkpoint", False):
        raise ConfigurationError(
            "enable_jit_checkpoint ends trainer.train() in its middle, and the half-trained round would be recorded; "
            "leave it out: a run that is killed goes on from its last checkpoint"
        )
    return trainer


def _give(trainer: Trainer, model: nn.Module) -> None:
    """Has the Trainer train the model of all rounds."""
    trainer.model_init = None
    if trainer.model is model:
        return
    if trainer.optimizer is not None:
        raise ConfigurationError(
            "make_trainer makes a model and an optimizer for it, but all rounds train the first model; make the model "
            "outside of make_trainer, or leave the optimizer to the Trainer (optim, optimizer_cls_and_kwargs)"
        )
    trainer.model = trainer.model_wrapped = trainer.callback_handler.model = model


def _stop(stop: Stop | None, target_sparsity: float | None, args: Any) -> Stop:
    if target_sparsity is not None:
        if stop is not None:
            raise ConfigurationError(
                f"target_sparsity is {target_sparsity!r}, which is short for stop=Stop(target_sparsity=...), and stop "
                f"was given too; expected one of them: Stop takes the target as well"
            )
        stop = Stop(target_sparsity)
    stop = stop or Stop()
    require_kind("stop", stop, Stop, "a gossamer.Stop")
    best = args.metric_for_best_model
    if best is None:
        return stop
    best = best if best.startswith("eval_") else f"eval_{best}"
    if stop.metric not in (None, best):
        return stop
    return replace(stop, metric=best, better=stop.better or ("higher" if args.greater_is_better else "lower"))


def _measured(trainer: Trainer) -> dict[str, Any]:
    """What the Trainer's own evaluation says of the model, without the time that it took."""
    if trainer.eval_dataset is None:
        return {}
    metrics = trainer.evaluate()
    return {name: value for name, value in metrics.items() if name != "epoch" and not name.endswith(TIMES)}


def _release(trainer: Trainer) -> None:
    """Lets go of the optimizer's state, which is twice the model: the user's loop holds the Trainer until the next."""
    for holder in (trainer, trainer.callback_handler):
        holder.optimizer = holder.lr_scheduler = None
    trainer.accelerator.free_memory()


@contextmanager
def _own_names(model: nn.Module) -> Iterator[None]:
    """Has the Trainer's checkpoints written under the model's own names.

    By default transformers 5 writes them under those of its earlier versions (ViT, Mixtral, ...), which
    `from_pretrained` reads, and the Trainer itself does not: it would go on from weights that are not in the file.
    """
    if not isinstance(model, PreTrainedModel):
        yield
        return
    own = vars(model).get("_weight_conversions")
    model._weight_conversions = []
    try:
        yield
    finally:
        del model._weight_conversions
        if own is not None:
            model._weight_conversions = own


def _save_configuration(trainer: Trainer, folder: Path) -> None:
    """Writes what `from_pretrained` needs beside the weights: the configurations and the processing class."""
    model = unwrap(trainer.model)
    if not isinstance(model, PreTrainedModel):
        return
    configuration = copy.deepcopy(model.config)
    # As save_pretrained does.
    configuration.architectures = [type(model).__name__]
    dtype = str(model.dtype).removeprefix("torch.")
    setattr(configuration, "dtype" if hasattr(configuration, "dtype") else "torch_dtype", dtype)
    configuration.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)
    processing = trainer.processing_class or getattr(trainer.data_collator, "tokenizer", None)
    if processing is not None:
        processing.save_pretrained(folder)


__all__ = ["rounds"]
