"""What the ranks of one run have in common, by construction, and the verification that they have it.

Rank 0 owns the folder: it locks it, opens it and seals its rounds. What it read is sent to the others; what each
computes for itself, such as masks, is compared.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import torch
from torch import Tensor, nn

from gossamer.errors import ConfigurationError
from gossamer.loop import fingerprint
from gossamer.loop.configuration import Configuration, flat
from gossamer.loop.fingerprint import summary
from gossamer.model.sharded import is_sharded
from gossamer.model.wrappers import unwrap
from gossamer.ranks.group import Ranks
from gossamer.storage.files import TEMPORARY, locked, remove, write_text
from gossamer.storage.together import require_seen

Metrics = dict[str, float]
Reduce = Callable[[Sequence[Metrics]], Mapping[str, float]]
"""The metrics of all ranks, in their order -> those of the round."""


def require_one_folder(ranks: Ranks, folder: Path) -> None:
    """Verifies that all ranks were given the same folder.

    Raises:
        ConfigurationError: they were not; the message names the first that differs.
    """
    paths = ranks.gather(str(folder))
    for rank, path in enumerate(paths):
        if path != paths[0]:
            raise ConfigurationError(
                f"rank {rank} was given the folder {path}, and rank 0 {paths[0]}; expected one folder for all "
                f"processes of a training, in which rank 0 writes the rounds: give every process the same path, on a "
                f"file system that they share"
            )


def require_one_configuration(ranks: Ranks, configuration: Configuration) -> None:
    """Raises:
    RankError: a setting, or a name or shape of a weight, is another one in another rank."""
    ranks.require_same("the settings", {name: repr(value) for name, value in flat(configuration.tables).items()})


@contextmanager
def held(ranks: Ranks, folder: Path, end: Callable[[], None]) -> Iterator[None]:
    """Rank 0 holds the folder for all; they see that it is one and the same folder.

    Raises:
        ConfigurationError: another run holds it.
        CheckpointError: it cannot be written, or a rank does not see it.
    """
    with ExitStack() as holding:
        with ranks.together():
            if ranks.first:
                holding.enter_context(locked(folder, end))
        if ranks.several:
            # A folder of the same name on every machine's own disk looks alike, an older run in it included.
            token = folder / f"seen-{ranks.from_first(uuid4().hex)}{TEMPORARY}"
            with ranks.together():
                if ranks.first:
                    write_text(token, "")
            with ranks.together():
                require_seen(token)
            if ranks.first:
                remove(token)
        yield


def begin_alike(ranks: Ranks, model: nn.Module) -> None:
    """Gives all ranks rank 0's network to begin with, as DistributedDataParallel does when it is made; what is sharded
    is one network already."""
    if ranks.several and len({*ranks.gather(summary(fingerprint.of_state(model)))}) > 1:
        tensors = [tensor for tensor in unwrap(model).state_dict().values() if isinstance(tensor, Tensor)]
        ranks.put_from_first([tensor for tensor in tensors if not is_sharded(tensor)])


def require_same_round(ranks: Ranks, number: int, masks: Mapping[str, Tensor], model: nn.Module) -> None:
    """Verifies that all ranks begin the same round, with the same masks and the same weights. Of what is sharded every
    rank has another piece, which nothing can be compared with.

    Raises:
        RankError: one does not; the message names it.
    """
    if ranks.several:
        weights = dict(unwrap(model).named_parameters())
        found = {"number": number, "masks": _summary_of_whole(masks), "weights": _summary_of_whole(weights)}
        ranks.require_same(f"what round {number} begins with", found)


def _summary_of_whole(tensors: Mapping[str, Tensor]) -> str:
    return summary(fingerprint.fingerprint(_whole(tensors).items()))


def _whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not is_sharded(tensor)}


def end_alike(ranks: Ranks, model: nn.Module, kept: Mapping[str, Tensor], number: int) -> bool:
    """Verifies that all ranks ended a round with the same weights, and writes rank 0's buffers into `kept`: those of
    BatchNorm are each rank's own after a last batch of its own.

    Returns:
        Whether `kept` is now other than it was.

    Raises:
        RankError: a rank has other weights; the message names it.
    """
    if not ranks.several:
        return False
    trained = {name for name, _ in unwrap(model).named_parameters(remove_duplicate=False)}
    digests = {name: digest.hex() for name, digest in fingerprint.fingerprint(_whole(kept).items()).items()}
    ranks.require_same(
        f"the weights that round {number} was trained to",
        {name: digest for name, digest in digests.items() if name in trained},
    )
    expected = ranks.from_first(digests)
    other = [name for name in digests if name not in trained and digests[name] != expected.get(name)]
    anywhere = sorted({name for names in ranks.gather(other) for name in names})
    ranks.put_from_first([kept[name] for name in anywhere])
    return bool(other)


def reduced(ranks: Ranks, metrics: Metrics, reduce: Reduce | None) -> Metrics:
    """The metrics of a round: what `reduce` makes of all ranks', else the mean of each over the ranks that recorded it.

    Those that are the same in all ranks stay as they are, to the bit.
    """
    found = [dict(one) for one in ranks.gather(metrics)]
    if reduce is not None:
        return dict(reduce(found))
    values: dict[str, list[float]] = {}
    for one in found:
        for name, value in one.items():
            values.setdefault(name, []).append(value)
    return {name: _mean(every) for name, every in values.items()}


def _mean(values: list[float]) -> float:
    return values[0] if len({*values}) == 1 else float(torch.tensor(values, dtype=torch.float64).mean())
