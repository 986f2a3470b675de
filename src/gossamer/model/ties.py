"""Which parameters of a model are one: a network that ties its weights differently is another one, which the folder's
tensors, each kept once, cannot be put into."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from gossamer.errors import ConfigurationError
from gossamer.model.sharded import is_sharded, piece_of
from gossamer.model.whole import is_plain
from gossamer.model.wrappers import unwrap

Identity = tuple[object, ...]


def memory_of(tensor: Tensor) -> Identity:
    """Equal for two tensors exactly if they are the same memory seen the same way (a tied weight)."""
    if is_sharded(tensor):
        # Not by the address of a piece: it may have no numbers in some processes.
        memory, placements = piece_of(tensor).untyped_storage()._cdata, tensor.placements  # type: ignore[attr-defined]
        return (
            memory,
            tensor.dtype,
            tuple(tensor.shape),
            tensor.stride(),
            placements,
            piece_of(tensor).storage_offset(),
        )
    if isinstance(tensor, UninitializedParameter) or tensor.is_meta or tensor.numel() == 0 or not is_plain(tensor):
        return (id(tensor),)
    return (tensor.data_ptr(), tensor.device, tensor.dtype, tuple(tensor.shape), tensor.stride())


def ties(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Name -> the first name of the same memory, seen the same way; its own if it is tied to none before it."""
    first: dict[object, str] = {}
    return {name: first.setdefault(memory_of(tensor), name) for name, tensor in tensors.items()}


def ties_of(model: nn.Module) -> dict[str, str]:
    """The same of a model's parameters, under all their names."""
    return ties(dict(unwrap(model).named_parameters(remove_duplicate=False)))


def require_ties(model: nn.Module, expected: Mapping[str, str]) -> None:
    """Verifies that the parameters of these names, as far as they are there, are tied as `expected` says.

    Raises:
        ConfigurationError: some are not.
    """
    for name, first in ties_of(model).items():
        before = expected.get(name, first)
        if before != first and {before, first} <= expected.keys():
            other, then, now = (before, "one", "apart") if before != name else (first, "apart", "one")
            raise ConfigurationError(
                f"{other} and {name} were {then} when the rounds began and are {now} now; expected weights to stay "
                f"tied as they were. Tie them before the rounds, and again after what separates them (new parameters, "
                f"load_state_dict(assign=True))."
            )
