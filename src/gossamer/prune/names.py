"""Masks by name: what replaces a masked parameter in its model gets the mask.

A parameter is replaced by `layer.weight = nn.Parameter(...)`, `load_state_dict(assign=True)`, a merged adapter, a layer
put in by hand, conversions that make new parameters. Inside a round the mask is the name's, and whatever is found under
it must have the mask's shape. Outside, a model is its owner's: a new head is dense, and only a parameter that has the
zeros already (the same weights, converted or loaded) takes the mask over.
"""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn

from gossamer.errors import ConfigurationError
from gossamer.model.sharded import piece_for, piece_of, sharded_like
from gossamer.model.wrappers import unwrap
from gossamer.prune.attach import AttachedMask, attach, mask_of


class MaskedParameter(NamedTuple):
    """The parameter that the mask of a name belongs to."""

    mask: AttachedMask
    found_as: str
    """The parameter's name today: another one if an adapter was put around its layer."""
    parameter: nn.Parameter


class MasksByName:
    """The masks of a model, by every name of their parameters."""

    def __init__(self) -> None:
        self.inside_round = False
        """Whether the names are gossamer's now, and not only the parameters."""
        self._masks: dict[str, AttachedMask] = {}
        self._paths: dict[str, tuple[list[str], str]] = {}
        """Name -> the modules on the way to where its parameter was last, and the parameter's own name."""

    def __bool__(self) -> bool:
        return bool(self._masks)

    def add(self, name: str, masked: MaskedParameter) -> None:
        *modules, own = masked.found_as.split(".")
        self._masks[name], self._paths[name] = masked.mask, (modules, own)

    def drop(self, detached: set[AttachedMask], names: set[str]) -> None:
        for name, mask in list(self._masks.items()):
            if mask in detached or name in names:
                del self._masks[name], self._paths[name]

    def are_in_place(self, model: nn.Module) -> bool:
        """Whether every mask is on the parameter that has its name: asked at every step, so without a full look."""
        return all(_at(model, *self._paths[name]) is mask for name, mask in self._masks.items())

    def masked_parameters(self, model: nn.Module) -> dict[str, MaskedParameter]:
        """The parameter of each name today. Outside a round those are left out whose parameter is gone or a new one.

        Raises:
            ConfigurationError: inside a round, a parameter is gone or has another shape.
        """
        current = dict(model.named_parameters(remove_duplicate=False))
        carried = {mask_of(parameter): name for name, parameter in current.items()}
        found = {}
        for name, mask in self._masks.items():
            parameter = current.get(name)
            if parameter is None and mask in carried:
                found[name] = MaskedParameter(mask, carried[mask], current[carried[mask]])
            elif self.inside_round and (parameter is None or parameter.shape != mask.kept.shape):
                raise ConfigurationError(vanished(name, mask.kept.shape, parameter))
            elif parameter is not None and (
                self.inside_round or mask_of(parameter) is mask or _has_zeros(parameter, mask)
            ):
                found[name] = MaskedParameter(mask, name, parameter)
        return found

    def follow(self, model: nn.Module) -> bool:
        """Attaches each mask where it belongs today, and forgets those that belong nowhere; returns whether a parameter
        has a mask that had none."""
        new: dict[int, AttachedMask] = {}
        found = self.masked_parameters(model)
        self._masks, self._paths = {}, {}
        for name, (mask, found_as, parameter) in found.items():
            if mask_of(parameter) is not mask:
                # Under each of a tied weight's names the same.
                kept = sharded_like(name, mask.kept, parameter)
                mask = new.setdefault(id(parameter), AttachedMask(kept, mask.cut_number))
                attach(parameter, mask)
            self.add(name, MaskedParameter(mask, found_as, parameter))
        return bool(new)


_models: "weakref.WeakKeyDictionary[nn.Module, MasksByName]" = weakref.WeakKeyDictionary()
"""Every model with masks, without its wrappers. Nothing in its names leads back to the model, so that it can go."""


def models() -> list[nn.Module]:
    """Every model that has masks."""
    # Not by iterating, during which another thread may add one.
    return [found for reference in _models.keyrefs() if (found := reference()) is not None]


def names_of(model: nn.Module) -> MasksByName:
    """The masks of a model by name; none if it is not known."""
    return _models.get(unwrap(model), MasksByName())


def remember(model: nn.Module, masked: Iterable[tuple[nn.Parameter, AttachedMask]]) -> None:
    """Lets the masks belong to all names of their parameters from now on."""
    model = unwrap(model)
    masks = {id(parameter): mask for parameter, mask in masked}
    names = _models.setdefault(model, MasksByName())
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in masks:
            names.add(name, MaskedParameter(masks[id(parameter)], name, parameter))


def forget(detached: set[AttachedMask], parameters: Iterable[nn.Parameter]) -> None:
    """Forgets the names of these masks, and the masks of the names of these parameters."""
    identities = {id(parameter) for parameter in parameters}
    for model in models():
        names = _models[model]
        current = model.named_parameters(remove_duplicate=False)
        names.drop(detached, {name for name, parameter in current if id(parameter) in identities})
        if not names:
            del _models[model]


@contextmanager
def belonging_to_round(model: nn.Module) -> Iterator[None]:
    """Inside, whatever replaces a masked parameter in the model gets its mask, or is an error if it cannot."""
    names = names_of(model)
    names.inside_round = True
    try:
        yield
    finally:
        names.inside_round = False


def vanished(name: str, expected: Iterable[int], parameter: Tensor | None) -> str:
    """What to say of a parameter that is gone, or has another shape."""
    now = "gone" if parameter is None else f"of shape {tuple(parameter.shape)}"
    return (
        f"{name} is no longer a parameter of the model, or has another shape: it is {now}, and was of shape "
        f"{tuple(expected)}; expected the model's layers to stay as they were when the rounds began"
    )


def _at(module: nn.Module | None, modules: list[str], own: str) -> AttachedMask | None:
    try:
        for step in modules:
            module = module._modules[step]  # type: ignore[union-attr]
        return mask_of(module._parameters[own])  # type: ignore[union-attr, arg-type]
    except (AttributeError, KeyError):
        return None


def _has_zeros(parameter: Tensor, mask: AttachedMask) -> bool:
    kept = mask.kept_on(parameter.device)
    return parameter.shape == kept.shape and not bool((piece_of(parameter) != 0)[~piece_for(kept, parameter)].any())
