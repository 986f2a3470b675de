"""What gossamer does inside a training of Lightning, as a callback: every checkpoint gets what a round needs to go on
from it, and no checkpoint leaves with a pruned weight that is not zero."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gossamer import randomness
from gossamer.errors import ConfigurationError, PrunedWeightError
from gossamer.loop.metrics import TEST_PREFIX, is_on_test
from gossamer.loop.round import Round
from gossamer.prune.enforce import check
from gossamer.ranks.group import current

try:
    from lightning.pytorch.callbacks import Checkpoint
except ImportError:
    try:
        from pytorch_lightning.callbacks import Checkpoint  # type: ignore[assignment]
    except ImportError as missing:
        raise ConfigurationError(
            f"the adapter needs lightning, which cannot be imported ({missing}). Install it with: "
            f"pip install 'gossamer[lightning]'"
        ) from missing

HYPERPARAMETERS = ("hyper_parameters", "hparams_name", "hparams_type")
"""How entries of a checkpoint end that hold arguments of the module, or of its data."""
TRAINING = ("train", "training", "lr", "epoch", "step")
"""The first words of metrics that say nothing about how good a network is on examples that it has not seen."""


class InRound:
    """What `RoundCallback` does, whichever of Lightning's two packages the Trainer is of."""

    def __init__(self, round: Round, resume: Path | None = None) -> None:
        self.round = round
        self.resume = resume
        self.ranks = current()
        self.last_step: int | None = None
        """After which the round is trained; None: as the Trainer's arguments say."""
        self._trainer: Any = None
        self._random: dict[str, Any] | None = None
        self._frozen: set[str] | None = None
        """Parameters that were frozen when the checkpoint was written that the training goes on from."""
        self._stopped = False
        self._writes = False
        """Whether the checkpoint that is being written is `resume`."""
        self._metrics: dict[str, float] = {}
        self._measured_after = 0

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of the round, in plain numbers and tensors."""
        module = None if self._trainer is None else self._trainer.lightning_module
        parameters = [] if module is None else module.named_parameters()
        captured = randomness.capture()
        return {
            "round": self.round.state_dict(),
            "frozen": [name for name, parameter in parameters if not parameter.requires_grad],
            "random": randomness.as_tensors(captured),
            # Only rank 0 writes the checkpoint.
            "random_of_ranks": self.ranks.gather(randomness.as_plain(captured)) if self.ranks.several else [],
            "stopped": bool(self._trainer is not None and self._trainer.should_stop),
            "metrics": dict(self._metrics),
            "measured_after": self._measured_after,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        # A checkpoint is loaded to validate or test as well: its ranges belong to its weights.
        if self._trainer is None or self._trainer.state.fn != "fit":
            self.round.load_ranges(state_dict["round"])
            return
        self.round.load_state_dict(state_dict["round"])
        of_ranks = state_dict.get("random_of_ranks", [])
        if self.ranks.rank < len(of_ranks):
            self._random = randomness.as_tensors(randomness.from_plain(of_ranks[self.ranks.rank]))
        else:
            self._random = state_dict["random"]
        self._frozen = {*state_dict["frozen"]}
        self._stopped = state_dict["stopped"]
        self._metrics = dict(state_dict["metrics"])
        self._measured_after = state_dict["measured_after"]

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        # Not the module: what an averaging callback stores in its place is looked at too.
        for name, mask in self.round.masks.items() if self.round.number > 0 else ():
            tensor = checkpoint["state_dict"].get(name)
            if tensor is not None and bool((tensor.detach().cpu()[~mask.cpu()] != 0).any()):
                raise PrunedWeightError(
                    f"a checkpoint was to be written in which pruned weights of {name} are not zero; expected zeros "
                    f"where the round's mask prunes. Something wrote to the weights outside an optimizer step, or "
                    f"averages them with others; gossamer.enforce(module) sets them to zero again."
                )

        if self._writes:
            # The module is there already; they may be objects that only pickle can read.
            for name in [name for name in checkpoint if name.endswith(HYPERPARAMETERS)]:
                del checkpoint[name]

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if self._frozen is not None:
            # Callbacks that freeze do so anew, and forget what had thawed.
            for name, parameter in pl_module.named_parameters():
                parameter.requires_grad_(name not in self._frozen)
            self._frozen = None
        if self._stopped:
            trainer.should_stop = True
        if trainer.fit_loop.restarted_on_epoch_end:
            _begin_next_epoch(trainer.fit_loop)
        self._check(pl_module)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if self._random is not None:
            self._put_back_random()
            _iterate_anew(trainer.fit_loop)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        # In the middle of an epoch, of which Lightning begins the loader anew.
        if self._random is not None:
            self._put_back_random()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.last_step:
            # Not by max_steps: what this ends is validated first.
            trainer.should_stop = True

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        if self._random is not None:
            # Of a training that had come to its end, so that no epoch began.
            self._put_back_random()
        if trainer.ckpt_path == str(self.resume):
            # It was for this fit alone, not for a later validate or test.
            trainer.ckpt_path = None
        # As one of several that write checkpoints it would make `ckpt_path="best"` a question. What is validated and
        # tested from now on is still looked at. (A new list: this one is being gone through.)
        base = next(kind for kind in type(self).__mro__ if kind.__name__ == "Callback")
        # Of the same name, under which checkpoints have its state.
        afterwards = type(type(self).__name__, (Measuring, base), {})(self)
        trainer.callbacks = [afterwards if one is self else one for one in trainer.callbacks]

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self._measure(trainer)
            self._measured_after = trainer.global_step

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self._metrics |= {name if is_on_test(name) else TEST_PREFIX + name: value for name, value in found.items()}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._check(pl_module)
        self._measure(trainer)
        if self.resume is not None:
            self._writes = True
            trainer.save_checkpoint(self.resume, weights_only=False)
            self._writes = False

    def measured(self, trainer: Any) -> dict[str, Any]:
        """What the module logged, as it was last: first what a callback monitors, then what was measured on examples
        that were not trained on, then the rest."""
        monitors = [getattr(callback, "monitor", None) for callback in trainer.callbacks]

        def order(name: str) -> tuple[bool, bool]:
            return name not in monitors, name.replace("/", "_").partition("_")[0].lower() in TRAINING

        return {name: self._metrics[name] for name in sorted(self._metrics, key=order)}

    def is_stale(self, trainer: Any) -> bool:
        """Whether something was validated, but not the network of the last step."""
        return 0 < self._measured_after < int(trainer.global_step)

    def _measure(self, trainer: Any) -> None:
        self._metrics |= {name: float(value) for name, value in trainer.callback_metrics.items()}

    def _check(self, module: Any) -> None:
        if self.round.number > 0:
            check(module, masks=self.round.masks)

    def _put_back_random(self) -> None:
        assert self._random is not None
        randomness.restore(randomness.from_tensors(self._random))
        self._random = None


class Measuring:
    """What is left of a callback after the training: it looks at what is measured."""

    def __init__(self, inside: InRound) -> None:
        self.inside = inside

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.inside.load_state_dict(state_dict)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.inside.on_validation_end(trainer, pl_module)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        self.inside.on_test_end(trainer, pl_module)


class RoundCallback(InRound, Checkpoint):
    """A callback for a Trainer that trains one round, in a loop of your own; `rounds` puts one into each Trainer.

        for round in gossamer.rounds(module, folder=..., target_sparsity=0.9):
            trainer = Trainer(callbacks=[RoundCallback(round)], default_root_dir=f"checkpoints/{round.number}")
            trainer.fit(module, loader, ckpt_path="last")

    Every checkpoint holds the round's steps, time and random numbers, which are put back where a training goes on from
    it: after an epoch with the same bits. That the zeros are in their places is verified after every epoch, and for
    every checkpoint that is written, that of an averaging callback included.

    Args:
        round: the round that is trained.
        resume: a file that a checkpoint is written to after every epoch; None: your own ModelCheckpoint writes them.
    """


def _iterate_anew(loop: Any) -> None:
    """Makes the loader's iterator once more: the one that is there was made of other random numbers."""
    if loop.trainer.reload_dataloaders_every_n_epochs == 1:
        # As before every epoch.
        loop._last_train_dl_reload_epoch = -math.inf
        loop.setup_data()
    fetcher = loop._data_fetcher
    # One that can be resumed was put back by Lightning.
    if not any(hasattr(loader, "load_state_dict") for loader in fetcher.combined_loader.flattened):
        iter(fetcher)


def _begin_next_epoch(loop: Any) -> None:
    """Lets a training by `max_steps` go on from the end of an epoch as one by `max_epochs` does, which Lightning begins
    with the end of that epoch once more, without batches."""
    loops = [loop]
    for part in loops:
        part._restarting = False
        loops += [other for other in vars(part).values() if hasattr(other, "_restarting")]
    loop.update_restart_stage()
    loop.epoch_progress.increment_completed()
