"""The checkpoints of a Trainer inside a round: which of them are whole, and what the round needs to go on from one.

A Trainer writes the files of a checkpoint one after the other, so one that was killed leaves some of them. When all are
there, gossamer adds a file of its own, whole or not at all: the sizes of the others, and the state of the round.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from gossamer.errors import CheckpointError
from gossamer.loop.fingerprint import of_state, summary
from gossamer.loop.round import Round
from gossamer.ranks.group import current
from gossamer.storage import state as states
from gossamer.storage.files import write_file
from gossamer.storage.versions import refuse_newer

PREFIX = "checkpoint-"
"""How the Trainer names their folders, followed by the number of optimizer steps."""
MARK = "gossamer.safetensors"
VERSION = 1
"""The version of the file's format."""


@dataclass(frozen=True)
class TrainerCheckpoint:
    """A whole checkpoint of the round that is going on."""

    folder: Path
    finished: bool
    """Whether the training came to its end with it."""
    weights: str
    """The digest of the model's state when it was written."""

    def require(self, model: nn.Module) -> None:
        """Verifies that the model has what the checkpoint was written of: a Trainer only warns of names that it misses.

        Raises:
            CheckpointError: it has other weights.
        """
        if _digest(model) != self.weights:
            raise CheckpointError(
                f"{self.folder}: the Trainer did not put back the weights that it saved, so the round cannot go on "
                f"from it; begin the round anew with trainer.train(resume_from_checkpoint=False)"
            )


class TrainerCheckpoints:
    """Those of one round."""

    def __init__(self, folder: Path, round: Round) -> None:
        self.folder = folder
        self.round = round
        self.ranks = current()

    def mark(self, step: int, model: nn.Module, *, finished: bool, to_go_on: bool) -> None:
        """Says of the checkpoint of the model after so many steps that it is whole.

        Args:
            finished: whether the training ends with it.
            to_go_on: whether an interrupted round may go on from it.

        Raises:
            CheckpointError: the file cannot be written.
        """
        folder = self.folder / f"{PREFIX}{step}"
        # Each rank wrote its random numbers.
        self.ranks.barrier()
        if not self.ranks.first or not folder.is_dir():
            return
        state = {
            "version": VERSION,
            "ranks": self.ranks.size,
            "files": _sizes(folder),
            "finished": finished,
            "weights": _digest(model),
            "round": self.round.state_dict() if to_go_on else None,
            "ranges": None if self.round.quantisation is None else self.round.quantisation.state_dict(),
        }
        write_file(folder / MARK, lambda temporary: states.save(temporary, state))

    def newest(self) -> TrainerCheckpoint | None:
        """The last one that is whole, with the round's steps and time put back to it; None if there is none. What lies
        there behind it is removed: halves, and those of another attempt at the round.

        Raises:
            CheckpointError: one is of a newer version.
        """
        with self.ranks.together():
            found = self._newest() if self.ranks.first else None
        name = self.ranks.from_first(None if found is None else found.folder.name)
        if name is not None and not self.ranks.first:
            found = self._restored(self.folder / name)
        self.ranks.require_same("the checkpoints of a Trainer", {"whole": found is not None})
        return found

    def _newest(self) -> TrainerCheckpoint | None:
        found = None
        for folder in sorted(_checkpoints(self.folder), key=_steps, reverse=True):
            if found is None:
                found = self._restored(folder)
                if found is None:
                    shutil.rmtree(folder)
        return found

    def _restored(self, folder: Path) -> TrainerCheckpoint | None:
        try:
            mark: dict[str, Any] = states.load_entries(folder / MARK)
        except CheckpointError:
            return None
        refuse_newer(mark.get("version", 1), VERSION, folder / MARK)
        # Other processes would divide the data in another way.
        whole = mark.get("files") == _sizes(folder) and mark.get("ranks", 1) == self.ranks.size
        if not (whole and isinstance(mark.get("round"), dict) and isinstance(mark.get("weights"), str)):
            return None
        try:
            self.round.load_state_dict(mark["round"])
        except CheckpointError:
            return None
        return TrainerCheckpoint(folder, mark.get("finished") is True, mark["weights"])

    def require_best(self, folder: Path, model: nn.Module) -> None:
        """Verifies that the model has the weights of a checkpoint that was the best one, and goes back to the ranges
        that belong to them.

        Raises:
            CheckpointError: it has not, or the checkpoint's mark is damaged.
        """
        if (folder / MARK).exists():
            mark = states.load_entries(folder / MARK)
            TrainerCheckpoint(folder, True, str(mark.get("weights"))).require(model)
            self.round.load_ranges(mark)

    def forget(self) -> None:
        """Removes them."""
        self.ranks.barrier()
        for folder in _checkpoints(self.folder) if self.ranks.first else ():
            shutil.rmtree(folder)


def remove_checkpoints(folder: Path, before: int | None = None) -> None:
    """Removes those of all rounds, or of the rounds before one. Whatever else the Trainers wrote stays.

    Args:
        folder: that of the Trainers, with a folder for each round.
    """
    for of_round in folder.glob("round-*"):
        number = of_round.name.removeprefix("round-")
        if number.isdecimal() and (before is None or int(number) < before):
            for checkpoint in _checkpoints(of_round):
                shutil.rmtree(checkpoint)
            if not any(of_round.iterdir()):
                of_round.rmdir()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob(f"{PREFIX}*") if _steps(path) >= 0 and path.is_dir() and not path.is_symlink()]


def _steps(folder: Path) -> int:
    number = folder.name.removeprefix(PREFIX)
    return int(number) if number.isdecimal() else -1


def _digest(model: nn.Module) -> str:
    return summary(of_state(model))


def _sizes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MARK
    }
