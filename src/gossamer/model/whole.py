"""What can be pruned in place: tensors that lie in this process's memory as plain numbers, whole or a known piece."""

from torch import Tensor, nn

from gossamer.errors import ConfigurationError
from gossamer.model.sharded import is_sharded, piece_of, reshard

PRUNE_BEFORE = (
    "Prune it before it is sharded, in a process that holds all of it (one process, or DistributedDataParallel), and "
    "shard the pruned network for what comes then"
)


def settle(model: nn.Module) -> None:
    """Verifies that the model's parameters are its layers', and no pieces without shape as FSDP1's; FSDP2's are put in
    place, if gathered ones stand there.

    Raises:
        ConfigurationError: a part is in the hands of FSDP1; the message names it.
    """
    for path, module in model.named_modules():
        # By name: importing torch.distributed.fsdp takes a second, and fairscale has a class of the same name.
        if any(kind.__name__ == "FullyShardedDataParallel" for kind in type(module).__mro__):
            raise ConfigurationError(
                f"{path or 'the model'} is wrapped by FullyShardedDataParallel (FSDP1), whose pieces are no tensors "
                f"with axes; expected FSDP2. Shard it with torch.distributed.fsdp.fully_shard, whose pieces gossamer "
                f"prunes"
            )
    reshard(model)


def is_plain(tensor: Tensor) -> bool:
    """Whether its numbers are in memory of its own: no DTensor, no tensor that stands for quantized numbers."""
    return type(tensor).__torch_dispatch__ is Tensor.__torch_dispatch__


def require_plain(name: str, tensor: Tensor) -> None:
    """Verifies that a tensor, or this process's piece of it, is plain and not partitioned by DeepSpeed; it may have no
    numbers yet (on the meta device).

    Raises:
        ConfigurationError: it is not.
    """
    if hasattr(tensor, "ds_shape"):
        raise ConfigurationError(
            f"{name} is partitioned by DeepSpeed's ZeRO stage 3, and this process holds a piece; expected a whole "
            f"tensor. {PRUNE_BEFORE}, or use stage 2."
        )
    piece = piece_of(tensor)
    if not is_plain(piece):
        raise ConfigurationError(
            f"{name} is a {type(piece).__name__}, which stands for numbers that are stored in another way (quantized, "
            f"perhaps); expected a plain tensor, whose numbers can be set to zero. Prune first and convert it "
            f"afterwards, or exclude it."
        )


def require_here(name: str, tensor: Tensor) -> None:
    """Verifies that a tensor, or this process's piece of it, is plain and has numbers.

    Raises:
        ConfigurationError: it is not, or has none.
    """
    require_plain(name, tensor)
    if tensor.is_meta:
        raise ConfigurationError(
            f"{name} is on the meta device and has no numbers; expected a tensor in memory. Load the weights first "
            f"(model.to_empty(device='cpu') and load_state_dict), all of them: none left to be loaded on demand"
        )


def require_whole(name: str, tensor: Tensor) -> None:
    """Verifies that a tensor is plain, has numbers, and is here as a whole.

    Raises:
        ConfigurationError: it is not, or has none.
    """
    if is_sharded(tensor):
        raise ConfigurationError(
            f"{name} is a DTensor (FSDP2's fully_shard, tensor parallelism), of which this process holds a piece; "
            f"expected a whole tensor. {PRUNE_BEFORE}."
        )
    require_here(name, tensor)
