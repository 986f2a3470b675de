"""The beginning of a run: its folder made, or verified to hold this very run, and its last round put back."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gossamer import randomness
from gossamer.errors import CheckpointError, ConfigurationError, GossamerWarning
from gossamer.loop import folder as run_folder
from gossamer.loop.configuration import FILE, Configuration
from gossamer.loop.pruned_model import PrunedModel
from gossamer.loop.record import RoundRecord
from gossamer.loop.records import SNAPSHOT, TRAINING, read_records, write_table
from gossamer.loop.shards import OF_STATE, placements_of
from gossamer.model.pieces import divide
from gossamer.ranks.group import Ranks
from gossamer.rewind.optimizers import restore_memory_formats
from gossamer.rewind.parts import is_in_parts, load_state, own_state
from gossamer.storage import state as states
from gossamer.storage.files import remove

PARTS = "parts"
"""The entry of a state that names the objects of which every rank's file has a part."""


def make_folder(folder: Path) -> None:
    """Makes the folder of a run.

    Raises:
        ConfigurationError: it is a file, cannot be made, or holds something that is no run.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot make the folder {folder}: {error.strerror}; choose another one") from error
    if not (folder / FILE).exists() and any(folder.glob("round*")):
        raise CheckpointError(f"{folder} holds rounds but no {FILE}; restore it, or choose another folder")


def open_folder(
    folder: Path,
    configuration: Configuration,
    dense: Path | None,
    moment: str | None,
    trained: Callable[[int], str],
) -> list[RoundRecord]:
    """Writes the configuration, or verifies that the folder holds this very run; returns its finished rounds.

    Args:
        dense: the folder of another run, whose dense round is taken over if there is none yet.
        moment: which snapshot to take along with it, such as "2 epochs".
        trained: how a round, by its number, is to be trained: in float, for int8, or in levels.

    Raises:
        ConfigurationError: the folder, or `dense`, is of another run.
        CheckpointError: a file is damaged.
    """
    run_folder.clear_leftovers(folder)
    records = read_records(folder)
    training = (folder / TRAINING).exists()
    if records or training:
        configuration.refuse_other(folder)
        _refuse_other_rounds(folder, records, trained)
        configuration.write_changed(folder)
    else:
        # Nothing was computed yet, so a setting that was mended after an error loses nothing.
        configuration.write(folder)
        # Left by a crash in the dense round, which begins again.
        for path in folder.glob("snapshot*.safetensors"):
            remove(path)
    if records:
        # Left by a crash between the end of the dense round and its removal.
        remove(folder / SNAPSHOT)
    if dense is not None and not (records or training):
        configuration.refuse_other_dense(dense)
        records = [run_folder.take_over_dense(folder, dense, moment)]
    write_table(folder, records)
    return records


def _refuse_other_rounds(folder: Path, records: list[RoundRecord], trained: Callable[[int], str]) -> None:
    """Verifies that the finished rounds were trained in float, for int8 or in levels as they would be now."""
    for record in records:
        if record.trained != (asked := trained(record.round)):
            raise ConfigurationError(
                f"round {record.round} in {folder} was trained {record.trained}, and is to be trained {asked}. Use the "
                f"same quantised_rounds and levels to continue the run; or remove the folders round-{record.round:02d} "
                f"and later to train these rounds again."
            )


def put_back(network: PrunedModel, folder: Path, number: int, ranks: Ranks) -> tuple[dict[str, Tensor], Any]:
    """Puts a finished round into the model, the objects of the run's state and the random generators.

    Returns:
        Its masks, and what it recorded in the model's place (`Round.record(model=...)`) if that lives on.

    Raises:
        CheckpointError: the round is damaged, or does not fit.
    """
    record = run_folder.load_round(folder, number, network.model)
    with as_stored(f"the masks of round {number} in {folder} do not fit the model"):
        masks = run_folder.masks_like(folder, number, network.current_weights())
    state = run_folder.read_state(folder, number)
    trained_by = run_folder.count_ranks(record)
    own = run_folder.read_state(folder, number, ranks.rank) if ranks.rank < trained_by else {}
    with as_stored(f"the state of round {number} in {folder} is none"):
        in_parts = state.get(PARTS, ())
    others = range(1, trained_by) if in_parts else ()
    every = [state, *(run_folder.read_state(folder, number, rank) for rank in others)]
    for name, thing in network.state.items():
        with as_stored(f"the state of round {number} in {folder} does not fit {name!r}"):
            parts = [one["objects"][name] for one in every if name in one["objects"]]
            of_this_rank = own.get("objects", {}).get(name, state["objects"][name])
            if name not in in_parts:
                parts = [run_folder.whole_state(folder, number, of_this_rank, placements_of(thing))]
            load_state(thing, parts)
    restore_memory_formats(network.state)
    with as_stored(f"the state of round {number} in {folder} has no random generators"):
        _restore_random(state["random"], own, ranks)
    if ranks.first and trained_by != ranks.size:
        warnings.warn(
            f"round {number} in {folder} was trained by {trained_by} processes, and the run goes on with {ranks.size}: "
            f"with the same masks and weights, but other random numbers than it would have had",
            GossamerWarning,
            stacklevel=3,
        )
    return masks, network.state.get(state.get("average"))


def _restore_random(of_first: dict[str, Any], own: Mapping[str, Any], ranks: Ranks) -> None:
    randomness.restore(of_first)
    if "random" in own:
        randomness.restore(own["random"])
    elif not ranks.first:
        # A rank that there was not; it is to draw others than rank 0.
        randomness.seed_all(randomness.derived_seed(int(torch.randint(2**62, ())), ranks.rank))


def state_of(objects: Mapping[str, Any], average: str | None, ranks: Ranks) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What the next round starts from, as `put_back` takes it: of rank 0 all of it, of others what is different there;
    and what is sharded of it, by the names in its places.

    Args:
        average: the name among the objects of what was recorded in the model's place.
    """
    found, pieces = divide({name: own_state(thing) for name, thing in objects.items()}, OF_STATE)
    if ranks.several:
        digests = {name: states.digest(state) for name, state in found.items()}
        of_first = ranks.from_first(digests)
        if not ranks.first:
            found = {name: state for name, state in found.items() if digests[name] != of_first.get(name)}
    state: dict[str, Any] = {"random": randomness.capture(), "objects": found}
    if parts := [name for name, thing in objects.items() if is_in_parts(thing)]:
        state[PARTS] = parts
    return state if average is None else {**state, "average": average}, pieces


@contextmanager
def as_stored(problem: str) -> Iterator[None]:
    """What goes wrong with the content of an intact file is the file's fault, or that of what it is loaded into."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{problem} ({type(error).__name__}: {error}); go on with the objects and the scope that it was made with, "
            f"or start in a new folder"
        ) from error
