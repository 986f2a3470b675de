"""Rounds around a loop with accelerate: what a round prepares is forgotten after it, and an interrupted round goes on
from the last epoch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gossamer import randomness
from gossamer.arguments import require_kind
from gossamer.errors import ConfigurationError
from gossamer.integrations.prepared import as_before
from gossamer.loop.driver import rounds as rounds_of_model
from gossamer.loop.round import Round
from gossamer.model.sharded import is_sharded
from gossamer.model.wrappers import unwrap
from gossamer.prune.enforce import check
from gossamer.ranks.group import current
from gossamer.storage import state as states
from gossamer.storage.files import absolute, remove
from gossamer.storage.together import write_folder_together

try:
    from accelerate import Accelerator
except ImportError as missing:
    raise ConfigurationError(
        f"the adapter needs accelerate, which cannot be imported ({missing}). Install it with: "
        f"pip install 'gossamer[accelerate]'"
    ) from missing

FOLDER = "trainer"
"""The folder of a run in which the checkpoints of the round that is going on lie."""
STATE = "round.safetensors"
"""What a checkpoint has beside accelerate's own files. Not one of the objects that are registered with an Accelerator,
whose files it reads with pickle."""
PREPARED = ("_models", "_optimizers", "_schedulers", "_dataloaders", "_custom_objects")
"""The lists of an Accelerator of what it prepared, all of which it saves."""
IN_PIECES = ("DEEPSPEED", "FSDP", "MEGATRON_LM", "TP")
"""Kinds of training that keep parameters in pieces. Of FSDP's second version these are tensors with axes (DTensors)."""


def rounds(
    model: nn.Module, accelerator: Accelerator, *, folder: str | Path, **arguments: Any
) -> Iterator[tuple[Round, "EpochCheckpoints"]]:
    """`gossamer.rounds` around a loop with accelerate.

        for round, checkpoints in gossamer.integrations.accelerate.rounds(
            model, accelerator, folder=..., target_sparsity=0.9
        ):
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
            network, optimizer, batches = accelerator.prepare(model, optimizer, loader)
            for epoch in checkpoints.epochs(10):
                train(network, optimizer, batches)
            round.record(accuracy=...)

    What a round prepares is forgotten after it: an Accelerator saves, in `save_state`, all that it ever prepared, and a
    later process could not load it. What was prepared before the rounds stays; put an optimizer that lives on so into
    `state`.

    Args:
        model: trained in place; as it was before it was prepared, or after.
        accelerator: of one process, of several that each hold the whole model (DistributedDataParallel), or of FSDP2,
            with which the model and the one optimizer of all rounds are prepared before the rounds.
        folder: where the rounds are kept.
        arguments: all others of `gossamer.rounds`.

    Yields:
        The round, and its checkpoints.

    Raises:
        ConfigurationError: as `gossamer.rounds`; or the Accelerator keeps parameters in pieces that have no axes
            (DeepSpeed, FSDP1), or has still to shard the model (FSDP2).
    """
    require_kind("accelerator", accelerator, Accelerator, "an Accelerator")
    require_kind("folder", folder, (str, Path), "a path")
    _check_pieces(model, accelerator)
    folder = absolute(folder)
    inner = rounds_of_model(model, folder=folder, **arguments)
    return _with_checkpoints(inner, unwrap(model), accelerator, folder / FOLDER)


def _check_pieces(model: nn.Module, accelerator: Accelerator) -> None:
    kind = accelerator.distributed_type.name
    if kind not in IN_PIECES:
        return
    if not getattr(accelerator, "is_fsdp2", False):
        name = "FSDP1" if kind == "FSDP" else kind
        raise ConfigurationError(
            f"{name} keeps the parameters in pieces without axes, so that no weights can be chosen of all; expected "
            f"FullyShardedDataParallelPlugin(fsdp_version=2), or an Accelerator without it"
        )
    if not any(map(is_sharded, model.parameters())):
        raise ConfigurationError(
            "the model is to be sharded by FSDP2, and is not yet; expected it as it is trained. Before the rounds: "
            "model, optimizer = accelerator.prepare(model, optimizer), and state={'optimizer': optimizer}"
        )


def _with_checkpoints(
    inner: Iterator[Round], model: nn.Module, accelerator: Accelerator, folder: Path
) -> Iterator[tuple[Round, "EpochCheckpoints"]]:
    for round in inner:
        before = {name: len(getattr(accelerator, name, ())) for name in PREPARED}
        checkpoints = EpochCheckpoints(round, accelerator, model, folder / f"round-{round.number:02d}")
        with as_before(model):
            yield round, checkpoints
            if round.result is None:
                round.record()
        for name, count in before.items():
            del getattr(accelerator, name, [])[count:]
        if checkpoints.ranks.first:
            remove(folder)


class EpochCheckpoints:
    """The checkpoints of one round, which is trained epoch by epoch.

    They are what `Accelerator.save_state` writes, and with it how far the round is, all random numbers, and the order
    of the data: whole or not at all.
    """

    def __init__(self, round: Round, accelerator: Accelerator, model: nn.Module, folder: Path) -> None:
        self.round = round
        self.accelerator = accelerator
        self.model = model
        self.folder = folder
        self.ranks = current()
        self.done = 0
        """Epochs that are trained."""

    def epochs(self, count: int) -> Iterator[int]:
        """The numbers of the epochs that are still to be trained, of `count` from 0 on; after each a checkpoint is
        written. Call it when all is prepared."""
        self._load()
        for epoch in range(self.done, count):
            yield epoch
            self.done = epoch + 1
            self._save()

    def _save(self) -> None:
        if self.round.number > 0:
            check(self.model, masks=self.round.masks)
        older = self._written() if self.ranks.first else []
        write_folder_together(self.ranks, self.folder / str(self.done), self._write, lambda folder, written: None)
        for path in older:
            remove(path)

    def _write(self, folder: Path) -> None:
        """Accelerate has rank 0 write what all have in common, each its random numbers, and of FSDP2 its pieces."""
        if self.accelerator.distributed_type.name == "FSDP" and len(self.accelerator._optimizers) > 1:
            raise ConfigurationError(
                f"{len(self.accelerator._optimizers)} optimizers were prepared, of which accelerate saves one with "
                f"FSDP2; expected one for all rounds, prepared with the model before them and given as state="
            )
        with _named_here(self.accelerator):
            self.accelerator.save_state(str(folder))
        loaders = self.accelerator._dataloaders
        state = {
            "round": self.round.state_dict(),
            "ranks": self.ranks.size,
            "epochs": self.done,
            "random": randomness.capture(),
            # With FSDP2 every rank has its own, such as BatchNorm's statistics, and accelerate saves those of one.
            "buffers": {name: buffer.detach() for name, buffer in self._buffers()},
            "iterations": [getattr(loader, "iteration", 0) for loader in loaders],
            "generators": [{name: one.get_state() for name, one in _generators(loader).items()} for loader in loaders],
        }
        states.save(folder / self._state, state)

    def _load(self) -> None:
        written = self.ranks.from_first([path.name for path in self._written()])
        if not written:
            return
        last = self.folder / written[-1]
        if states.load_entries(last / STATE).get("ranks", 1) != self.ranks.size:
            # Its data were divided among other processes; the round begins anew.
            return
        state = states.load_entries(last / self._state)
        self.round.load_state_dict(state["round"])
        with _named_here(self.accelerator):
            self.accelerator.load_state(str(last))
        self.done = state["epochs"]
        with torch.no_grad():
            for name, buffer in self._buffers():
                buffer.copy_(state["buffers"][name])
        for loader, iteration, found in zip(
            self.accelerator._dataloaders, state["iterations"], state["generators"], strict=True
        ):
            # From it a seedable sampler draws its order.
            loader.iteration = iteration
            for name, generator in _generators(loader).items():
                generator.set_state(found[name])
        randomness.restore(state["random"])
        if self.round.number > 0:
            check(self.model, masks=self.round.masks)

    def _buffers(self) -> list[tuple[str, Tensor]]:
        """Those that are each rank's own."""
        in_pieces = self.accelerator.distributed_type.name == "FSDP"
        return list(self.model.named_buffers()) if in_pieces else []

    @property
    def _state(self) -> str:
        return STATE if self.ranks.first else f"round-{self.ranks.rank}.safetensors"

    def _written(self) -> list[Path]:
        """The whole checkpoints, the last one last."""
        found = [path for path in self.folder.glob("*") if path.name.isdecimal()]
        return sorted(found, key=lambda path: int(path.name))


def _generators(loader: Any) -> dict[str, Any]:
    """The random generators that a data loader draws its order from, if they are its own."""
    batches: Any = getattr(loader, "batch_sampler", None)
    # Of several processes each has a share of the batches.
    while hasattr(batches, "batch_sampler"):
        batches = batches.batch_sampler
    samplers = {"sampler": getattr(loader, "sampler", None), "sampler of batches": getattr(batches, "sampler", None)}
    owners = {"loader": loader, **samplers}
    found = {name: getattr(owner, "generator", None) for name, owner in owners.items()}
    return {name: generator for name, generator in found.items() if generator is not None}


@contextmanager
def _named_here(accelerator: Accelerator) -> Iterator[None]:
    """Inside, a checkpoint lies where it is told to, whatever the project's own names are."""
    project = accelerator.project_configuration
    automatic, project.automatic_checkpoint_naming = project.automatic_checkpoint_naming, False
    try:
        yield
    finally:
        project.automatic_checkpoint_naming = automatic


__all__ = ["EpochCheckpoints", "rounds"]
