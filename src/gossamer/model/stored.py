"""A network's tensors as files hold them, and back again."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from gossamer.errors import CheckpointError
from gossamer.model.sharded import is_sharded, piece_of
from gossamer.model.ties import ties
from gossamer.model.whole import require_here, settle
from gossamer.model.wrappers import unwrap


def storable(model: nn.Module) -> dict[str, Tensor]:
    """The model's state, on the CPU, each tensor once: what is tied is stored under its first name. What is sharded is
    the model's own, and not copied.

    Raises:
        CheckpointError: the state holds something that is no tensor.
        ConfigurationError: a tensor is not here, but on the meta device, or in pieces that are no tensors (FSDP1).
    """
    settle(model)
    state = unwrap(model).state_dict()
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"the model's state_dict holds a {type(tensor).__name__} under {name}; expected tensors only. It "
                f"cannot be stored without pickle: return a tensor from get_extra_state."
            )
        require_here(name, tensor)
    # Cloned, since different views of one storage are not accepted by the format.
    return {
        name: state[name].detach() if is_sharded(state[name]) else state[name].detach().cpu().contiguous().clone()
        for name, first in ties(state).items()
        if name == first
    }


def fill(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Puts the tensors, as `storable` returns them, into the model.

    Raises:
        CheckpointError: they do not fit; the message names `path`, where they come from.
    """
    problems = misfits(model, tensors)
    if problems:
        raise CheckpointError(f"{path} does not fit the model: {'; '.join(problems[:3])}")
    try:
        model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit the model: {' '.join(str(error).split())}") from error


def misfits(model: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """Why the tensors are not those that `storable` returns of a model of this kind; empty if they are."""
    stored = storable(model)
    expected = model.state_dict()
    problems = [f"it lacks {name}" for name in stored if name not in tensors]
    problems += [f"it has {name}, which the model lacks" for name in tensors if name not in expected]
    problems += [
        f"{name} has shape {tuple(tensor.shape)}, the model's {tuple(expected[name].shape)}"
        for name, tensor in tensors.items()
        if name in expected and expected[name].shape != tensor.shape and not _gets_its_size(model, name)
    ]
    problems += [
        f"it has {first} and {name} apart, which are one in the model"
        for name, first in ties(expected).items()
        if name in tensors and name != first and not torch.equal(piece_of(tensors[name]), piece_of(tensors[first]))
    ]
    return problems


def _gets_its_size(model: nn.Module, name: str) -> bool:
    """Whether a buffer has the size that is loaded: that of an observer (quantisation-aware training), which is empty
    until it has seen a batch."""
    path, _, attribute = name.rpartition(".")
    owner = model.get_submodule(path)
    loads_itself = type(owner)._load_from_state_dict is not nn.Module._load_from_state_dict
    # Normalisation only looks for older files there.
    return loads_itself and attribute in owner._buffers and not isinstance(owner, _NormBase)
