"""What can be pruned in place: tensors that lie in this process's memory, whole, as plain numbers."""

from torch import Tensor, nn

from gossamer.errors import ConfigurationError

PRUNE_BEFORE = (
    "Prune it before it is sharded, in a process that holds all of it (one process, or DistributedDataParallel), and "
    "shard the pruned network for what comes then"
)


def refuse_sharded_modules(model: nn.Module) -> None:
    """Verifies that no part of the model is in the hands of FSDP, whose parameters are pieces of the layers'.

    Raises:
        ConfigurationError: a part is; the message names it.
    """
    for path, module in model.named_modules():
        # By name: importing torch.distributed.fsdp takes a second, and fairscale has a class of the same name.
        if any(kind.__name__ == "FullyShardedDataParallel" for kind in type(module).__mro__):
            raise ConfigurationError(
                f"{path or 'the model'} is wrapped by FullyShardedDataParallel, so this process holds a piece of each "
                f"layer only, and its weights cannot be ranked with all others; expected the whole network. "
                f"{PRUNE_BEFORE}."
            )


def is_plain(tensor: Tensor) -> bool:
    """Whether its numbers are in memory of its own: no DTensor, no tensor that stands for quantized numbers."""
    return type(tensor).__torch_dispatch__ is Tensor.__torch_dispatch__


def require_plain(name: str, tensor: Tensor) -> None:
    """Verifies that a tensor is plain and not partitioned; it may have no numbers yet (on the meta device).

    Raises:
        ConfigurationError: it is not.
    """
    kind = type(tensor).__name__
    if kind == "DTensor":
        raise ConfigurationError(
            f"{name} is a DTensor (FSDP2's fully_shard, tensor parallelism), of which this process holds a piece; "
            f"expected a whole tensor. {PRUNE_BEFORE}."
        )
    if hasattr(tensor, "ds_shape"):
        raise ConfigurationError(
            f"{name} is partitioned by DeepSpeed's ZeRO stage 3, and this process holds a piece; expected a whole "
            f"tensor. {PRUNE_BEFORE}, or use stage 2."
        )
    if not is_plain(tensor):
        raise ConfigurationError(
            f"{name} is a {kind}, which stands for numbers that are stored in another way (quantized, perhaps); "
            f"expected a plain tensor, whose numbers can be set to zero. Prune first and convert it afterwards, or "
            f"exclude it."
        )


def require_whole(name: str, tensor: Tensor) -> None:
    """Verifies that a tensor is plain, whole and has numbers.

    Raises:
        ConfigurationError: it is not, or has none.
    """
    require_plain(name, tensor)
    if tensor.is_meta:
        raise ConfigurationError(
            f"{name} is on the meta device and has no numbers; expected a tensor in memory. Load the weights first "
            f"(model.to_empty(device='cpu') and load_state_dict), all of them: none left to be loaded on demand"
        )
