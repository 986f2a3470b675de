"""Masks by name: what takes the place of a held parameter in its model is held too.

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
from gossamer.model.wrappers import unwrap
from gossamer.prune.attach import Hold, attach, hold_of


class Place(NamedTuple):
    """Where the mask of a name belongs."""

    hold: Hold
    found_as: str
    """The parameter's name today: another one if an adapter was put around its layer."""
    parameter: nn.Parameter


class HeldNames:
    """The masks of a model, by every name of their parameters."""

    def __init__(self) -> None:
        self.inside_round = False
        """Whether the names are gossamer's now, and not only the parameters."""
        self._holds: dict[str, Hold] = {}
        self._paths: dict[str, tuple[list[str], str]] = {}
        """Name -> the modules on the way to where its parameter was last, and the parameter's own name."""

    def __bool__(self) -> bool:
        return bool(self._holds)

    def add(self, name: str, place: Place) -> None:
        *modules, own = place.found_as.split(".")
        self._holds[name], self._paths[name] = place.hold, (modules, own)

    def drop(self, released: set[Hold], names: set[str]) -> None:
        for name, hold in list(self._holds.items()):
            if hold in released or name in names:
                del self._holds[name], self._paths[name]

    def are_in_place(self, model: nn.Module) -> bool:
        """Whether every mask is on the parameter that has its name: asked at every step, so without a full look."""
        return all(_at(model, *self._paths[name]) is hold for name, hold in self._holds.items())

    def places(self, model: nn.Module) -> dict[str, Place]:
        """Where each mask belongs today. Outside a round those are left out whose parameter is gone or a new one.

        Raises:
            ConfigurationError: inside a round, a parameter is gone or has another shape.
        """
        current = dict(model.named_parameters(remove_duplicate=False))
        carried = {hold_of(parameter): name for name, parameter in current.items()}
        found = {}
        for name, hold in self._holds.items():
            parameter = current.get(name)
            if parameter is None and hold in carried:
                found[name] = Place(hold, carried[hold], current[carried[hold]])
            elif self.inside_round and (parameter is None or parameter.shape != hold.kept.shape):
                raise ConfigurationError(vanished(name, hold.kept.shape, parameter))
            elif parameter is not None and (
                self.inside_round or hold_of(parameter) is hold or _has_zeros(parameter, hold)
            ):
                found[name] = Place(hold, name, parameter)
        return found

    def follow(self, model: nn.Module) -> bool:
        """Attaches each mask where it belongs today, and forgets those that belong nowhere; returns whether a parameter
        has a mask that had none."""
        new: dict[int, Hold] = {}
        places = self.places(model)
        self._holds, self._paths = {}, {}
        for name, (hold, found_as, parameter) in places.items():
            if hold_of(parameter) is not hold:
                # Under each of a tied weight's names the same.
                hold = new.setdefault(id(parameter), Hold(hold.kept, hold.cut_number))
                attach(parameter, hold)
            self.add(name, Place(hold, found_as, parameter))
        return bool(new)


_models: "weakref.WeakKeyDictionary[nn.Module, HeldNames]" = weakref.WeakKeyDictionary()
"""Every model with masks, without its wrappers. Nothing in its names leads back to the model, so that it can go."""


def models() -> list[nn.Module]:
    """Every model that has masks."""
    # Not by iterating, during which another thread may add one.
    return [found for reference in _models.keyrefs() if (found := reference()) is not None]


def names_of(model: nn.Module) -> HeldNames:
    """The masks of a model by name; none if it is not known."""
    return _models.get(unwrap(model), HeldNames())


def remember(model: nn.Module, held: Iterable[tuple[nn.Parameter, Hold]]) -> None:
    """From now on the masks belong to all names of their parameters."""
    model = unwrap(model)
    holds = {id(parameter): hold for parameter, hold in held}
    names = _models.setdefault(model, HeldNames())
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in holds:
            names.add(name, Place(holds[id(parameter)], name, parameter))


def forget(released: set[Hold], parameters: Iterable[nn.Parameter]) -> None:
    """The masks belong to no name any longer, nor does any to the names of these parameters."""
    identities = {id(parameter) for parameter in parameters}
    for model in models():
        names = _models[model]
        current = model.named_parameters(remove_duplicate=False)
        names.drop(released, {name for name, parameter in current if id(parameter) in identities})
        if not names:
            del _models[model]


@contextmanager
def belonging_to_round(model: nn.Module) -> Iterator[None]:
    """Inside, whatever takes a held parameter's place in the model is held, or is an error if it cannot be."""
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


def _at(module: nn.Module | None, modules: list[str], own: str) -> Hold | None:
    try:
        for step in modules:
            module = module._modules[step]  # type: ignore[union-attr]
        return hold_of(module._parameters[own])  # type: ignore[union-attr, arg-type]
    except (AttributeError, KeyError):
        return None


def _has_zeros(parameter: Tensor, hold: Hold) -> bool:
    kept = hold.kept_on(parameter.device)
    return parameter.shape == kept.shape and not bool((parameter.detach() != 0)[~kept].any())
