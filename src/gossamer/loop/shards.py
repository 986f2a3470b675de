"""What of a round is sharded: in its folder, every process's own blocks, in a file of its own.

The names of the tensors begin with what they are of: the model, the masks (packed, one bit a weight), or the state.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from gossamer.errors import ConfigurationError
from gossamer.loop.record import RoundRecord
from gossamer.model.pieces import Find, blocks_of, entry_of, read_like
from gossamer.model.sharded import is_sharded, sharded_like
from gossamer.model.whole import settle
from gossamer.model.wrappers import unwrap
from gossamer.prune.masks import pack, unpack
from gossamer.prune.shards import Shards
from gossamer.rewind.strategies import Retraining
from gossamer.storage.blocks import Block, Stored

OF_MODEL, OF_MASKS, OF_STATE = "model:", "masks:", "state:"

Blocks = list[tuple[Block, Tensor]]


def check_sharded(retraining: Retraining, model: nn.Module) -> None:
    """Verifies that nothing is asked for that cannot be done with sharded weights.

    Raises:
        ConfigurationError: it is.
    """
    name = next((name for name, parameter in model.named_parameters() if is_sharded(parameter)), None)
    if name is None:
        return
    refused = {
        "replicates": retraining.replicates > 1,
        "quantised_rounds": retraining.quantised_rounds > 0,
        f"the method {retraining.method}": retraining.strategy.weights != "stay",
    }
    for what, asked in refused.items():
        if asked:
            raise ConfigurationError(
                f"{name} is sharded (a DTensor: fully_shard, tensor parallelism), and {what} needs networks that are "
                f"whole in every process; expected a method by which the weights stay, such as lr-rewind. Leave it "
                f"out, or train without sharding"
            )


def shards_file(rank: int) -> str:
    """The name of the file of a process's blocks."""
    return f"shards-{rank}.safetensors"


def own_blocks(tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Blocks:
    """What this process writes of the sharded tensors. To be called by all processes.

    Args:
        tensors: the model's.
        masks: by weight name.
        state: the tensors of the state, under names that begin with `OF_STATE`.
    """
    prefixed = {**_named(OF_MODEL, tensors), **_named(OF_MASKS, masks), **state}
    sharded = {name: tensor for name, tensor in prefixed.items() if is_sharded(tensor)}
    own = Shards.of(sharded).own
    found = [one for name, tensor in sharded.items() if name in own for one in blocks_of(name, tensor)]
    return [(block, pack(part) if block.name.startswith(OF_MASKS) else part) for block, part in found]


def whole_ones(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those that are not sharded."""
    return {name: tensor for name, tensor in tensors.items() if not is_sharded(tensor)}


def stored_shards(folder: Path, record: RoundRecord, verified: Callable[[Path], Path]) -> Stored:
    """The blocks in a round's folder; none, if nothing was sharded."""
    stored = Stored(verified)
    rank = 0
    while shards_file(rank) in record.sha256:
        stored.add(folder / shards_file(rank))
        rank += 1
    return stored


def is_any_sharded(model: nn.Module) -> bool:
    return any(is_sharded(tensor) for tensor in unwrap(model).state_dict().values() if isinstance(tensor, Tensor))


def model_tensors(stored: Stored, model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a stored model, sharded as the model is now; what does not fit it as it is stored."""
    settle(model)
    state, found = unwrap(model).state_dict(), {}
    for name in stored.names(OF_MODEL):
        short, shape = name.removeprefix(OF_MODEL), stored.shape(name)
        like = state.get(short)
        if isinstance(like, Tensor) and tuple(like.shape) == shape:
            found[short] = read_like(stored, name, like)
        else:
            found[short] = stored.read(name, tuple((0, size) for size in shape))
    return found


def read_mask(stored: Stored, name: str, like: Tensor | None = None) -> Tensor:
    """A stored mask: as a whole, or sharded as `like`."""
    full = f"{OF_MASKS}{name}"
    if like is None:
        return stored.read(full, tuple((0, size) for size in stored.shape(full)), _unpacked)
    return read_like(stored, full, like, _unpacked)


def mask_like(stored: Stored, name: str, whole: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """The mask of a weight, from the blocks or from those that are whole, sharded as the weight."""
    return sharded_like(name, whole[name], like) if name in whole else read_mask(stored, name, like)


def placements_of(thing: Any) -> Find:
    """Finds what the tensors in an object's `state_dict` are to be sharded like: of an optimizer its parameters, of
    anything else what stands there now."""
    if isinstance(thing, Optimizer):
        parameters = [parameter for group in thing.param_groups for parameter in group["params"]]
        # Some optimizers keep numbers of their own among the parameters' slots, under names.
        numbered = dict(enumerate(parameters))
        return lambda keys: numbered.get(keys[1]) if keys[:1] == ("state",) and len(keys) > 1 else None
    own = thing.state_dict()
    return lambda keys: entry_of(own, keys)


def _unpacked(packed: Tensor, block: Block) -> Tensor:
    return unpack(packed, block.shape, block.name)


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
