"""Zeros stay zero: masks attached to a model's parameters, whatever its optimizers do.

The invariant: after every optimizer step the weight, its gradient and the optimizer's slots are zero at pruned
positions. Three places keep it, none of them in the model:

- As soon as a gradient is accumulated, its pruned positions are set to zero (a hook of the parameter, not of a
  module: `gossamer.prune.attach`). The gradient is then the one of the network without these weights, so that clipping
  by norm, GradScaler's search for infinities, LBFGS's line search and optimizers with norms see what they should.
- At a cut, the slots of what was just pruned are set to zero (momentum would move them), in optimizers that were seen
  before; in others before their first step.
- After every step, weight, gradient and slots are. Before it, what replaced a parameter of a model gets its mask
  (`gossamer.prune.names`).

Nothing is added to `state_dict`, no module changes its class, and `deepcopy`, `torch.save`, `torch.compile` and
`torch.export` find the model that the user wrote.
"""

import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.hooks import RemovableHandle

from gossamer.errors import PrunedWeightError
from gossamer.model.sharded import indices_of, is_sharded, on_pieces, piece_for, piece_of, reshard, sharded_like
from gossamer.model.whole import require_here, settle
from gossamer.model.wrappers import unwrap
from gossamer.prune import names as by_name
from gossamer.prune.attach import AttachedMask, attach, clear, clear_gradient, detach, mask_of
from gossamer.prune.names import names_of
from gossamer.prune.prunable import aliases


@dataclass(eq=False)
class Known:
    """What is remembered of an optimizer between its steps, so that a step looks nothing up."""

    cut_number: int
    """The last change of masks, anywhere, when this was made. An older one means that it has to be made again."""
    parameters: list[int]
    """Identities of the optimizer's parameters."""
    masks: dict[int, AttachedMask]
    """Identity of a parameter -> its mask, of those that have one."""
    models: list["weakref.ref[nn.Module]"]
    """The models that the optimizer trains, of those that have masks."""
    stepped_at: int
    """The last change of masks before its last step; -1: it was not seen to step."""


_optimizers: "weakref.WeakKeyDictionary[Optimizer, Known]" = weakref.WeakKeyDictionary()
"""Every optimizer that was seen to step since the first run began. Nothing in it leads back to its optimizer."""

_cut_number = 0
_counting = threading.Lock()
_step_hooks: list[RemovableHandle] = []


def watch() -> None:
    """Registers every optimizer that steps from now on, so that its slots can be cleared at the next cut."""
    with _counting:
        if not _step_hooks:
            # Not traced where a step is compiled: they look at parameters one by one, as Python objects.
            _step_hooks.append(register_optimizer_step_pre_hook(_disable_dynamo(_before_step)))
            _step_hooks.append(register_optimizer_step_post_hook(_disable_dynamo(_after_step)))


def attach_masks(
    model: nn.Module,
    weights: Mapping[str, nn.Parameter],
    masks: Mapping[str, Tensor],
    optimizers: Iterable[Optimizer] = (),
) -> None:
    """Sets the pruned positions of `weights` to zero and keeps them there from now on, tied copies included.

    A weight that has a mask gets the new one instead. The slots of them are cleared too, and nothing else, in the
    optimizers that were seen to step and in the given ones (restored from a file, they have not stepped yet).
    """
    watch()
    cut_number = _next_cut()
    masked = []
    for name, parameters in aliases(model, weights).items():
        device = piece_of(parameters[0]).device
        whole = sharded_like(name, masks[name], parameters[0])
        kept = on_pieces(lambda piece, device=device: piece.to(device, copy=True), whole)
        for parameter in parameters:
            masked.append((parameter, AttachedMask(kept, cut_number)))
            attach(*masked[-1])
    by_name.remember(model, masked)
    # Not only before their next step: schedule-free optimizers put weights together from their slots between steps.
    for optimizer in {*_known_optimizers(), *optimizers}:
        _clear_slots(optimizer, {id(parameter): mask for parameter, mask in masked})


def detach_masks(parameters: Iterable[nn.Parameter]) -> None:
    """Takes the masks off the parameters: their zeros are ordinary weights again."""
    parameters = list(parameters)
    detached = {mask for parameter in parameters if (mask := detach(parameter)) is not None}
    by_name.forget(detached, parameters)
    if detached:
        _next_cut()


def attached_masks(model: nn.Module) -> dict[str, Tensor]:
    """The masks that are attached to the model's parameters, by name; True where the weight is kept."""
    return {name: on_pieces(Tensor.clone, mask.kept) for name, (_, mask) in _attached(model).items()}


def enforce(model: nn.Module, *optimizers: Optimizer) -> None:
    """Sets every pruned weight, gradient and optimizer slot of the model to zero, now.

    Needed only after something that no optimizer step of torch shows: a step of an optimizer that is no
    `torch.optim.Optimizer`, or weights written by hand.

    Raises:
        ConfigurationError: inside a round, a pruned parameter is gone or has another shape.
    """
    _follow(unwrap(model))
    masked = {id(parameter): mask for parameter, mask in _attached(model).values()}
    for parameter, mask in _attached(model).values():
        _enforce_parameter(parameter, mask)
    for optimizer in {*_known_optimizers(), *optimizers}:
        _clear_slots(optimizer, masked)


def check(model: nn.Module, *optimizers: Optimizer, masks: Mapping[str, Tensor] | None = None) -> None:
    """Verifies that every pruned weight, its gradient and its optimizer slots are exactly zero.

    Args:
        model: the model that was pruned, or with `masks` any copy of it (an average, a reloaded file).
        optimizers: in addition to those that were seen to step on the model's weights since the last cut.
        masks: by weight name, True where the weight is kept. Default: the masks attached to the model.

    Raises:
        PrunedWeightError: names the first tensor that breaks the rule, and the position; or no masks are known.
        ConfigurationError: a weight is not here: sharded over processes, or on the meta device; or, inside a round, it
            is gone or has another shape.
    """
    model = unwrap(model)
    settle(model)
    if masks is None:
        masks = {name: mask.kept for name, (_, mask) in _attached(model).items()}
    if not masks:
        raise PrunedWeightError(
            f"no masks are attached to this {type(model).__name__}; expected a model that gossamer pruned or loaded "
            f"(in the dense round nothing is pruned yet). A copy of it is an ordinary model: pass its masks "
            f"(masks=round.masks)."
        )
    masks, parameters = dict(masks), dict(model.named_parameters(remove_duplicate=False))
    names: dict[int, str] = {}
    for name, mask in list(masks.items()):
        if name not in parameters:
            raise PrunedWeightError(f"the model has no parameter {name}, but there is a mask for it")
        parameter = parameters[name]
        names[id(parameter)] = name
        require_here(name, parameter)
        if parameter.shape != mask.shape:
            raise PrunedWeightError(_misshapen(name, parameter, mask))
        masks[name] = mask = sharded_like(name, mask, parameter)
        _check_tensor(name, parameter, mask)
        if parameter.grad is not None:
            _check_tensor(f"{name}.grad", parameter.grad, mask)
    stepped = {optimizer for optimizer in _known_optimizers() if _stepped_since_cut(optimizer, _optimizers[optimizer])}
    for optimizer in {*stepped, *optimizers}:
        masked = [(p, masks[names[id(p)]]) for p in _parameters(optimizer) if id(p) in names]
        for owner, slot_name, slot, kept in _slots(optimizer, masked):
            owner_name = names[id(owner)] if owner is not None else "all weights"
            _check_tensor(f"{type(optimizer).__name__}'s {slot_name} of {owner_name}", slot, kept)


def _attached(model: nn.Module) -> dict[str, tuple[nn.Parameter, AttachedMask]]:
    """Name -> parameter and mask: what is attached to the parameters of the model, and what belongs to their names."""
    model = unwrap(model)
    settle(model)
    attached = {name: (parameter, mask_of(parameter)) for name, parameter in model.named_parameters()}
    masked = {name: (parameter, mask) for name, (parameter, mask) in attached.items() if mask is not None}
    replaced = names_of(model).masked_parameters(model).values()
    return masked | {one.found_as: (one.parameter, one.mask) for one in replaced if one.found_as in attached}


def _follow(model: nn.Module) -> bool:
    """Attaches masks to what replaced masked parameters in a model; returns whether anything did."""
    names = names_of(model)
    if names.are_in_place(model):
        return False
    # What a forward pass of FSDP2 gathered, and nobody put away, replaces nothing.
    reshard(model)
    if names.are_in_place(model) or not names.follow(model):
        return False
    _next_cut()
    return True


def _next_cut() -> int:
    """Counts one change of masks: never the same number twice, whichever thread asks."""
    global _cut_number
    with _counting:
        _cut_number += 1
        return _cut_number


def _known_optimizers() -> list[Optimizer]:
    """Not by iterating, during which another thread may add one."""
    return [found for reference in _optimizers.keyrefs() if (found := reference()) is not None]


def _before_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Masks go to what replaced a parameter first; slots made before the last cut still move what it pruned."""
    known = _optimizers.get(optimizer)
    if known is None or _is_outdated(known, optimizer):
        for model in _trained_by(optimizer):
            _follow(model)
        known = _know(optimizer)
    elif sum(_follow(found) for reference in known.models if (found := reference()) is not None):
        known = _know(optimizer)
    if any(mask.cut_number > known.stepped_at for mask in known.masks.values()):
        _clear_slots(optimizer, known.masks)
        _restart(optimizer)
    known.stepped_at = _cut_number
    for parameter, mask in _masked_by(optimizer, known.masks):
        if parameter.grad is not None and not mask.called:
            # Torch has swapped the tensor inside the parameter, with its hooks; or the gradient was set by hand.
            attach(parameter, mask)


def _after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    known = _know(optimizer)
    for parameter, mask in _masked_by(optimizer, known.masks):
        _enforce_parameter(parameter, mask)
        mask.called = False
    if known.masks:
        _clear_slots(optimizer, known.masks)


def _know(optimizer: Optimizer) -> Known:
    """What is known of the optimizer, brought up to date if there was a cut or a new group of parameters."""
    known = _optimizers.get(optimizer)
    if known is None or _is_outdated(known, optimizer):
        parameters = list(_parameters(optimizer))
        known = _optimizers[optimizer] = Known(
            _cut_number,
            [id(parameter) for parameter in parameters],
            {id(parameter): mask for parameter in parameters if (mask := mask_of(parameter)) is not None},
            [weakref.ref(model) for model in _trained_by(optimizer)],
            -1 if known is None else known.stepped_at,
        )
    return known


def _trained_by(optimizer: Optimizer) -> list[nn.Module]:
    """The models with masks that the optimizer trains: what became of others is not its loop's concern."""
    own = {id(parameter) for parameter in _parameters(optimizer)}
    return [model for model in by_name.models() if any(id(parameter) in own for parameter in model.parameters())]


def _is_outdated(known: Known, optimizer: Optimizer) -> bool:
    return known.cut_number != _cut_number or known.parameters != [id(p) for p in _parameters(optimizer)]


def _stepped_since_cut(optimizer: Optimizer, known: Known) -> bool:
    """Whether its last step was after the last cut of its parameters: slots of one that rests move nothing."""
    masks = map(mask_of, _parameters(optimizer))
    return all(mask is None or mask.cut_number <= known.stepped_at for mask in masks)


def _restart(optimizer: Optimizer) -> None:
    """The curvature that LBFGS gathered is the uncut network's; at iteration 0 it begins to gather anew."""
    if isinstance(optimizer, torch.optim.LBFGS):
        for state in optimizer.state.values():
            state["n_iter"] = 0


def _enforce_parameter(parameter: Tensor, mask: AttachedMask) -> None:
    kept = mask.kept_on(parameter.device)
    clear(parameter, kept)
    clear_gradient(parameter, kept)


def _masked_by(optimizer: Optimizer, masks: Mapping[int, AttachedMask]) -> list[tuple[nn.Parameter, AttachedMask]]:
    return [(parameter, masks[id(parameter)]) for parameter in _parameters(optimizer) if id(parameter) in masks]


def _clear_slots(optimizer: Optimizer, masks: Mapping[int, AttachedMask]) -> None:
    masked = [(parameter, mask.kept_on(parameter.device)) for parameter, mask in _masked_by(optimizer, masks)]
    for _, _, slot, kept in _slots(optimizer, masked) if masked else ():
        clear(slot, kept)


def _parameters(optimizer: Optimizer) -> Iterator[nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _slots(
    optimizer: Optimizer, masked: list[tuple[nn.Parameter, Tensor]]
) -> Iterator[tuple[nn.Parameter | None, str, Tensor, Tensor]]:
    """(parameter, name, slot, where it may be other than zero) for every slot that has one number a weight."""
    if isinstance(optimizer, torch.optim.LBFGS):
        yield from _flat_slots(optimizer, masked)
        return
    for parameter, kept in masked:
        for name, slot in optimizer.state.get(parameter, {}).items():
            if isinstance(slot, Tensor) and slot.shape == parameter.shape and slot.is_floating_point():
                yield parameter, name, slot, kept


def _flat_slots(
    optimizer: torch.optim.LBFGS, masked: list[tuple[nn.Parameter, Tensor]]
) -> Iterator[tuple[None, str, Tensor, Tensor]]:
    """LBFGS keeps vectors over all its parameters, one after the other, in the state of the first."""
    kept_of = {id(parameter): kept for parameter, kept in masked}
    parameters = list(_parameters(optimizer))
    kept = torch.cat([kept_of.get(id(p), torch.ones_like(p, dtype=torch.bool)).reshape(-1) for p in parameters])
    for name, value in optimizer.state.get(parameters[0], {}).items():
        for slot in value if isinstance(value, list) else [value]:
            if isinstance(slot, Tensor) and slot.shape == kept.shape:
                yield None, name, slot, kept


def _misshapen(what: str, tensor: Tensor, kept: Tensor) -> str:
    return f"{what} has shape {tuple(tensor.shape)}; expected {tuple(kept.shape)}, its mask's"


def _check_tensor(what: str, tensor: Tensor, kept: Tensor) -> None:
    if tensor.shape != kept.shape:
        raise PrunedWeightError(_misshapen(what, tensor, kept))
    indices = indices_of(what, tensor) if is_sharded(tensor) and is_sharded(kept) else None
    tensor, kept = piece_of(tensor), piece_for(kept, tensor)
    if tensor.is_sparse:
        tensor = tensor.to_dense()
    pruned = ~kept.to(tensor.device)
    broken = (tensor != 0) & pruned
    if broken.any():
        place = tuple(int(i) for i in broken.nonzero()[0])
        position = place if indices is None else tuple(int(axis[i]) for axis, i in zip(indices, place, strict=True))
        raise PrunedWeightError(
            f"{what} is {tensor[place].item():.6g} at {list(position)}, a pruned position; expected 0 "
            f"({int(broken.sum())} of {int(pruned.sum())} pruned positions are not zero). Something wrote to it "
            f"outside an optimizer step; gossamer.enforce(model) sets it to zero again."
        )
