"""The folder of a run: what is in it, how a round gets into it, and how it comes out again.

    config.toml            the resolved configuration, with versions
    rounds.jsonl           one line a finished round
    ledger.jsonl           what it cost, likewise: the cost.json of every round
    round-00/              the dense network
        model.safetensors  the model's state_dict, tied tensors once
        masks.safetensors  one bit a prunable weight (see `gossamer.prune.masks.pack`)
        state.safetensors  random generators, optimizers: what the next round starts from
        state-1.safetensors ... what other ranks have beside that: their random generators, their parts of optimizers
        shards-0.safetensors ... of sharded networks: the blocks of model, masks and state that each rank held
        round.json         the round's line of rounds.jsonl
        cost.json          what the round cost
        ...                what an adapter puts beside the model: configuration and tokenizer of transformers
        ranges.json        only of a round that was trained for int8: the ranges of its layers' inputs
        snapshot.safetensors  only of the dense round, if weights are rewound: what to
    round-01/ ...
    snapshot.safetensors   the same while the dense round goes on
    training.safetensors   a built-in task's state inside the round that is going on
    trainer/round-00/ ...  checkpoints of another one's trainer, inside the round that is going on
    replicates.safetensors those of its replicates that are trained, if a round trains several

A round exists from the moment its folder gets its name; `rounds.jsonl` is put together from the `round.json` files.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from gossamer.arguments import require_kind, whole_number
from gossamer.errors import CheckpointError
from gossamer.loop import shards
from gossamer.loop.cost import COST, Cost
from gossamer.loop.record import RoundRecord
from gossamer.loop.records import (
    MASKS,
    MODEL,
    RANGES,
    RECORD,
    SNAPSHOT,
    STATE,
    damaged,
    read_records,
    round_folder,
    write_table,
)
from gossamer.model.pieces import Find, join
from gossamer.model.sharded import is_sharded
from gossamer.model.stored import fill
from gossamer.model.wrappers import unwrap
from gossamer.prune import masks as mask_files
from gossamer.prune.enforce import attach_masks
from gossamer.quantise import ranges as ranges_files
from gossamer.quantise.ranges import Ranges
from gossamer.ranks.group import ALONE, Ranks
from gossamer.storage import state as states
from gossamer.storage.blocks import Stored
from gossamer.storage.blocks import save as save_blocks
from gossamer.storage.files import TEMPORARY, read_text, regular, remove, sha256, write_folder
from gossamer.storage.tensors import opened
from gossamer.storage.together import write_folder_together

SAFETENSORS_TEMPORARY = ".tmp??????"
"""The names under which safetensors itself writes a file before it gets the one that was asked for."""


def clear_leftovers(folder: Path) -> None:
    """Removes what a crash left half-written; nothing that was finished has such a name."""
    for pattern in (f"*{TEMPORARY}", SAFETENSORS_TEMPORARY):
        for path in folder.glob(pattern):
            remove(path)


def write_round(
    folder: Path,
    record: RoundRecord,
    tensors: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    state: Any,
    snapshot: Path | None = None,
    cost: Cost | None = None,
    beside: Callable[[Path], object] | None = None,
    ranges: Ranges | None = None,
    ranks: Ranks = ALONE,
    pieces: Mapping[str, Tensor] | None = None,
) -> RoundRecord:
    """Adds a finished round to the folder, whole or not at all, and returns its record with the files' checksums.
    Rank 0 writes it, and each rank the files of its own state and its own blocks of what is sharded.

    What an attempt before this one wrote, which failed afterwards, is replaced.

    Args:
        tensors: the model's state, as `storable` returns it.
        snapshot: a file that goes into the round's folder too, as `SNAPSHOT`.
        cost: its page of the ledger. It is told only, and differs from run to run: no checksum covers it.
        beside: writes what else belongs into the round's folder (`Round.beside`). No checksum covers it either.
        ranges: of the inputs of a network that was trained for int8.
        ranks: that train it.
        pieces: what is sharded of the state, by the names that the state has for it.

    Raises:
        CheckpointError: it cannot be written, or the state cannot be stored without pickle.
    """
    finished = record
    blocks = shards.own_blocks(tensors, masks, pieces or {})
    some_sharded = len(shards.whole_ones({**tensors, **masks})) < len({**tensors, **masks}) or bool(pieces)

    def write(destination: Path) -> dict[str, str]:
        files = []
        if some_sharded:
            save_blocks(destination / shards.shards_file(ranks.rank), blocks)
            files.append(shards.shards_file(ranks.rank))
        states.save(destination / state_file(ranks.rank), state)
        files.append(state_file(ranks.rank))
        if not ranks.first:
            return {name: sha256(destination / name) for name in files}
        if beside is not None:
            beside(destination)
        save_file(shards.whole_ones(tensors), destination / MODEL)
        packed = {name: mask_files.pack(mask) for name, mask in shards.whole_ones(masks).items()}
        shapes = {name: list(mask.shape) for name, mask in masks.items()}
        save_file(packed, destination / MASKS, metadata={"shapes": json.dumps(shapes)})
        files = [MODEL, MASKS, *files]
        if snapshot is not None:
            shutil.copyfile(regular(snapshot), destination / SNAPSHOT)
            files.append(SNAPSHOT)
        if ranges is not None:
            (destination / RANGES).write_text(ranges_files.to_json(ranges), encoding="utf-8")
            files.append(RANGES)
        return {name: sha256(destination / name) for name in files}

    def finish(destination: Path, written: list[dict[str, str]]) -> None:
        nonlocal finished
        finished = replace(record, sha256={name: sha for files in written for name, sha in files.items()}).sealed()
        (destination / RECORD).write_text(finished.to_json() + "\n", encoding="utf-8")
        if cost is not None:
            (destination / COST).write_text(cost.to_json() + "\n", encoding="utf-8")

    with ranks.together():
        if ranks.first:
            remove(round_folder(folder, record.round))
    write_folder_together(ranks, round_folder(folder, record.round), write, finish)
    with ranks.together():
        if ranks.first:
            write_table(folder, read_records(folder))
    return from_first(ranks, [finished])[0]


def from_first(ranks: Ranks, records: list[RoundRecord]) -> list[RoundRecord]:
    """Rank 0's records, in all ranks."""
    if not ranks.several:
        return records
    sent = ranks.from_first([record.to_json() for record in records])
    return records if ranks.first else [RoundRecord.from_json(line, "the record of rank 0") for line in sent]


def state_file(rank: int) -> str:
    """The name of the file of what a rank starts the next round from: of the others what rank 0 has not."""
    return STATE if rank == 0 else f"state-{rank}.safetensors"


def load_masks(folder: str | Path, number: int) -> dict[str, Tensor]:
    """The masks of a round, by weight name; True where the weight is kept.

    Raises:
        CheckpointError: there is no such round, or its file is damaged.
    """
    require_kind("folder", folder, (str, Path), "the folder of a run")
    number, record = _find(Path(folder), number)
    shapes, whole = _whole_masks(Path(folder), number)
    stored = _stored_shards(Path(folder), number, record)
    return {name: whole[name] if name in whole else shards.read_mask(stored, name) for name in shapes}


def masks_like(folder: Path, number: int, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same of these weights, on their devices and sharded as they are.

    Raises:
        CheckpointError: see `load_masks`.
        LookupError: there is none for one of the weights.
    """
    number, record = _find(folder, number)
    _, whole = _whole_masks(folder, number)
    stored = _stored_shards(folder, number, record)
    masks = {name: shards.mask_like(stored, name, whole, weight) for name, weight in weights.items()}
    return {name: mask if is_sharded(mask) else mask.to(weights[name].device) for name, mask in masks.items()}


def _whole_masks(folder: Path, number: int) -> tuple[dict[str, list[int]], dict[str, Tensor]]:
    """The shapes of all masks of a round, and those that are not in blocks."""
    path = _verified(folder, number, MASKS)
    try:
        with opened(path) as file:
            shapes: dict[str, list[int]] = json.loads((file.metadata() or {})["shapes"])
            packed = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return shapes, {
            name: mask_files.unpack(packed[name], tuple(shape), name)
            for name, shape in shapes.items()
            if name in packed
        }
    except CheckpointError as error:
        raise CheckpointError(damaged(path, str(error))) from error
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(damaged(path, str(error))) from error


def load_ranges(folder: str | Path, number: int) -> Ranges:
    """The ranges of the inputs of the layers of a round that was trained for int8, by the names of the layers' weights.

    Raises:
        CheckpointError: there is no such round, it was trained in float, or its file is damaged or of a newer version.
    """
    require_kind("folder", folder, (str, Path), "the folder of a run")
    number, record = _find(Path(folder), number)
    if not record.quantised or record.levels is not None:
        raise CheckpointError(
            f"round {number} of {folder} was trained {record.trained}, and has no ranges; expected one of "
            f"--quantised-rounds for int8"
        )
    path = _verified(Path(folder), number, RANGES)
    try:
        return ranges_files.from_json(read_text(path), path)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(damaged(path, str(error))) from error


def read_state(folder: Path, number: int, rank: int = 0) -> Any:
    """What the round after this one starts from, in one of the ranks that trained this one.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    return states.load(_verified(folder, number, state_file(rank)))


def whole_state(folder: Path, number: int, state: Any, find: Find) -> Any:
    """A state, or an entry of one, with what of it was sharded in its places again.

    Args:
        find: what that is to be sharded like now.

    Raises:
        CheckpointError: it is missing or damaged, or does not fit.
    """
    return join(state, _stored_shards(folder, *_find(folder, number)), find)


def count_ranks(record: RoundRecord) -> int:
    """How many processes trained the round."""
    count = 1
    while state_file(count) in record.sha256:
        count += 1
    return count


def kept_snapshot(folder: Path, moment: str) -> Path:
    """Where a run that only trains the dense network keeps what other runs may rewind to, e.g. after "2 epochs"."""
    return folder / f"snapshot-{moment.replace(' ', '-')}.safetensors"


def take_over_dense(folder: Path, dense: Path, moment: str | None) -> RoundRecord:
    """Copies the dense round of another run, verified, to where a run would have put its own.

    Args:
        folder: of the run that takes it over, without rounds yet.
        dense: folder of the other run.
        moment: which snapshot to take along, e.g. "2 epochs"; None: none.

    Raises:
        CheckpointError: there is no dense round, or a file is damaged; or there is no snapshot.
    """
    records = read_records(dense)
    if not records:
        raise CheckpointError(f"{dense} holds no finished round; expected the folder of a run with its dense network")
    files = {name: _verified(dense, 0, name) for name in (MODEL, MASKS, STATE)}
    if moment is not None:
        kept = kept_snapshot(dense, moment)
        if not kept.exists() and not (round_folder(dense, 0) / SNAPSHOT).exists():
            raise CheckpointError(
                f"{dense} kept no snapshot of its training after {moment} to rewind to; train it with that snapshot "
                f"kept (keep_snapshots), or leave dense out"
            )
        files[SNAPSHOT] = kept if kept.exists() else snapshot_of(dense)
    finished = records[0]

    def write(destination: Path) -> None:
        nonlocal finished
        for name, path in files.items():
            shutil.copyfile(regular(path), destination / name)
        finished = replace(records[0], sha256={name: sha256(destination / name) for name in files}).sealed()
        if any(finished.sha256[name] != records[0].sha256[name] for name in (MODEL, MASKS, STATE)):
            raise CheckpointError(f"{dense} changed while its dense round was copied; run the same command again")
        (destination / RECORD).write_text(finished.to_json() + "\n", encoding="utf-8")
        # What it cost, and what an adapter put beside the model; no link, which could lead anywhere.
        for path in round_folder(dense, 0).iterdir():
            if path.is_file() and not path.is_symlink() and path.name not in (MODEL, MASKS, STATE, SNAPSHOT, RECORD):
                shutil.copyfile(path, destination / path.name)

    write_folder(round_folder(folder, 0), write)
    return finished


def snapshot_of(folder: Path) -> Path:
    """The snapshot of the dense round, its checksum verified."""
    return _verified(folder, 0, SNAPSHOT)


def load_round(folder: str | Path, number: int, model: nn.Module) -> RoundRecord:
    """Puts a finished round's weights into `model` and attaches its masks: further training keeps the zeros.

    Args:
        folder: the folder that was given to `gossamer.rounds` or to `gossamer compress --out`.
        number: 0 is the dense network; -1 is the last round.
        model: of the same class as the one that was pruned; on any device, of any memory format.

    Returns:
        The round's record: its density and metrics.

    Raises:
        CheckpointError: there is no such round, a file is damaged, or the model does not fit.
    """
    require_kind("folder", folder, (str, Path), "the folder of a run")
    folder = Path(folder)
    number, record = _find(folder, number)
    path = _verified(folder, number, MODEL)
    stored = _stored_shards(folder, number, record)
    if stored.names() or shards.is_any_sharded(model):
        stored.add_whole(path, shards.OF_MODEL)
        tensors = shards.model_tensors(stored, model)
    else:
        tensors = _whole_tensors(path)
    shapes, whole = _whole_masks(folder, number)
    # Pieces are not counted: the other processes may not be here.
    if len(whole) == len(shapes) and (kept := mask_files.count_kept(whole)) != record.kept:
        raise CheckpointError(damaged(path.parent / MASKS, f"it keeps {kept} weights, round.json says {record.kept}"))
    fill(unwrap(model), tensors, path)
    parameters = dict(unwrap(model).named_parameters(remove_duplicate=False))
    unknown = [n for n, shape in shapes.items() if n not in parameters or list(parameters[n].shape) != shape]
    if unknown:
        raise CheckpointError(f"{path.parent / MASKS} has a mask for {unknown[0]}, which does not fit the model")
    masks = {name: shards.mask_like(stored, name, whole, parameters[name]) for name in shapes}
    attach_masks(model, {name: parameters[name] for name in masks}, masks)
    return record


def _whole_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with opened(path) as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(damaged(path, str(error))) from error


def _stored_shards(folder: Path, number: int, record: RoundRecord) -> Stored:
    """What the round has in blocks."""
    place = round_folder(folder, number)
    return shards.stored_shards(place, record, lambda path: _verified(folder, number, path.name))


def _find(folder: Path, number: int) -> tuple[int, RoundRecord]:
    number = whole_number("the number of a round", number)
    records = read_records(folder)
    if not records:
        raise CheckpointError(f"{folder} holds no finished round; expected the folder of a gossamer run")
    if not -len(records) <= number < len(records):
        raise CheckpointError(
            f"{folder} has no round {number}; it holds {len(records)} rounds, 0 to {len(records) - 1}"
        )
    return number % len(records), records[number]


def _verified(folder: Path, number: int, name: str) -> Path:
    """The path of a round's file, after its checksum was compared."""
    number, record = _find(folder, number)
    path = round_folder(folder, number) / name
    try:
        found = sha256(path)
    except OSError as error:
        raise CheckpointError(damaged(path, error.strerror or str(error))) from error
    if found != record.sha256.get(name):
        raise CheckpointError(damaged(path, "its SHA-256 is not the one in round.json"))
    return path
