"""What a torch network is given and what it returns, as far as an exported one can be given and return it."""

from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.utils import _pytree

from gossamer.errors import ExportError
from gossamer.model.call import Call

CONSTANTS = (bool, int, float, str, type(None))
"""Arguments beside tensors, which become part of what is exported."""


def call_with(given: object) -> Call | None:
    """The call with these example inputs: a tensor, several in a tuple or list, or in a dictionary by their names; None
    if it is something else."""
    if isinstance(given, Tensor):
        return Call((given,))
    if isinstance(given, Mapping):
        call = Call((), {str(name): value for name, value in given.items()})
    elif isinstance(given, Sequence) and not isinstance(given, str):
        call = Call(tuple(given))
    else:
        return None
    leaves = _pytree.tree_leaves((call.positional, call.named))
    known = all(isinstance(leaf, (Tensor, *CONSTANTS)) for leaf in leaves)
    return call if known and any(isinstance(leaf, Tensor) for leaf in leaves) else None


def tensors_returned(outputs: object) -> list[Tensor]:
    """What a network returns, in the order of the graph's outputs: dictionaries, lists and tuples laid flat.

    Raises:
        ExportError: there is something else than tensors among it.
    """
    leaves = [leaf for leaf in _pytree.tree_leaves(outputs) if leaf is not None]
    others = [type(leaf).__name__ for leaf in leaves if not isinstance(leaf, Tensor)]
    if others or not leaves:
        raise ExportError(
            f"the network returns {others[0] if others else 'nothing'}; expected tensors, alone or in tuples, lists "
            f"and dictionaries. Give gossamer export a network whose forward returns nothing else"
        )
    return leaves
