"""What lives on across rounds, as each rank holds it: a whole object, or with ZeroRedundancyOptimizer a part of one.

A part is written as an optimizer's state of its own parameters only, under the numbers that they have in the whole. All
ranks' parts together are then the state of one whole optimizer, which any number of ranks takes, in parts or not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim.optimizer import Optimizer

from gossamer.errors import ConfigurationError


def is_in_parts(thing: Any) -> bool:
    """Whether this process holds a part of it only."""
    # By name: importing torch.distributed.optim takes half a second.
    return any(kind.__name__ == "ZeroRedundancyOptimizer" for kind in type(thing).__mro__)


def require_steps_seen(name: str, thing: Any) -> None:
    """Verifies that the steps of an optimizer in parts are steps of an optimizer, after which zeros are kept.

    Raises:
        ConfigurationError: they are taken inside the backward pass.
    """
    if is_in_parts(thing) and getattr(thing, "_overlap_with_ddp", False):
        raise ConfigurationError(
            f"state[{name!r}] is a ZeroRedundancyOptimizer with overlap_with_ddp=True, which takes its steps inside "
            f"the backward pass, where no pruned weight is kept at zero; expected overlap_with_ddp=False"
        )


def local(optimizer: Any) -> Optimizer:
    """The optimizer that this process steps with."""
    inner: Optimizer = optimizer.optim if is_in_parts(optimizer) else optimizer
    return inner


def own_state(thing: Any) -> dict[str, Any]:
    """The `state_dict` of an object; of one in parts the part that is here."""
    if not is_in_parts(thing):
        found: dict[str, Any] = thing.state_dict()
        return found
    numbers = _numbers(thing)
    mine = _parameters(local(thing))
    slots = local(thing).state_dict()["state"]
    return {
        "state": {numbers[id(mine[index])]: values for index, values in slots.items()},
        # Of all parameters: those of the base class say nothing of where they are.
        "param_groups": Optimizer.state_dict(thing)["param_groups"],
    }


def load_state(thing: Any, states: Sequence[Mapping[str, Any]]) -> None:
    """The opposite.

    Args:
        states: of one object in parts those of all ranks, in their order; else the one that is this rank's.
    """
    whole = _joined(states)
    if not is_in_parts(thing):
        thing.load_state_dict(whole)
        return
    numbers, inner = _numbers(thing), local(thing)
    mine = [numbers[id(parameter)] for parameter in _parameters(inner)]
    slots = {index: whole["state"][number] for index, number in enumerate(mine) if number in whole["state"]}
    inner.load_state_dict({"state": slots, "param_groups": inner.state_dict()["param_groups"]})
    # Every step hands these on to the inner optimizer.
    for group, stored in zip(thing.param_groups, whole["param_groups"], strict=True):
        group.update({name: value for name, value in stored.items() if name != "params"})


def _joined(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = dict(states[0])
    if len(states) > 1:
        first["state"] = {number: slots for part in states for number, slots in part["state"].items()}
    return first


def _parameters(optimizer: Any) -> list[Any]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _numbers(optimizer: Any) -> dict[int, int]:
    """Identity of a parameter -> its number in the whole optimizer."""
    return {id(parameter): number for number, parameter in enumerate(_parameters(optimizer))}
