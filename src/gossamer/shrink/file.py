"""A shrunk network in a file: its tensors as safetensors, and what its layers' sizes do not tell as JSON beside them.

Not `torch.export`'s .pt2: that format carries pickled objects in places, is tied to torch's version, and holds a graph
where the result is the user's own module with smaller layers. Here the module's code stays with the user, who makes the
original module and has `load_shrunk` give its layers the file's sizes.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from gossamer.errors import CheckpointError
from gossamer.model.call import Call
from gossamer.model.stored import misfits, storable
from gossamer.model.wrappers import unwrap
from gossamer.shrink.channels import Slimmed
from gossamer.shrink.errors import ShrinkError
from gossamer.shrink.resize import leave_sizes_open, resize_layer, resize_normalisation, select_inputs
from gossamer.shrink.shrinking import Shrunk
from gossamer.shrink.understand import CONVOLUTIONS, NORMALISATIONS
from gossamer.storage.files import write_file
from gossamer.storage.state import digest_of
from gossamer.storage.tensors import opened
from gossamer.storage.typed import read_as

DESCRIPTION = "gossamer.shrunk"
"""The entry of the file's metadata that describes the network."""
FORMAT = 3
"""Since 2 with a digest, over the description and the bytes of every tensor; since 3 with the shapes of the forward
pass's arguments."""
TYPES = {
    name: getattr(torch, name)
    for name in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool")
}
"""The types of arguments, by name."""


@dataclass(frozen=True)
class Argument:
    """What the forward pass was given, without its numbers."""

    name: str
    """Empty for one that is given by its position."""
    shape: tuple[int, ...]
    type: str


@dataclass(frozen=True)
class Description:
    """What the file says of the network beside its tensors."""

    format: int
    source: str
    """Where it came from, for people."""
    parameters: int
    arguments: tuple[Argument, ...]
    open_sizes: tuple[str, ...]
    """Nodes of the graph that no longer say how many features there are."""


def save_shrunk(path: Path, shrunk: Shrunk | Slimmed, source: str = "") -> None:
    """Writes a shrunk network, whole or not at all.

    Args:
        source: where it came from, for people.

    Raises:
        CheckpointError: it cannot be written.
    """
    description = Description(FORMAT, source, shrunk.parameters, _described(shrunk.call), shrunk.open_sizes)
    text, tensors = json.dumps(asdict(description)), storable(shrunk.model)
    # One entry only: the format's writer puts several in an order that changes from process to process.
    metadata = {DESCRIPTION: json.dumps({"text": text, "blake2b": digest_of(text, tensors)})}
    write_file(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))


def load_shrunk(path: str | Path, model: nn.Module) -> nn.Module:
    """The network of a file, in evaluation mode, on the CPU.

    Args:
        model: freshly made, of the class of the network that was shrunk, with the sizes it had. It is used up: its
            layers get the file's sizes.

    Raises:
        CheckpointError: the file is missing, damaged, of a later version, or does not fit the model.
    """
    tensors, description = _read(Path(path))
    model = unwrap(model).cpu().eval()
    try:
        selected = _take_selections(tensors)
        for name, index in selected.items():
            _check_selection(model.get_submodule(name), name, index)
        for name, module in model.named_modules():
            _resize(module, name, tensors)
        if description.open_sizes:
            model = leave_sizes_open(model, description.open_sizes, _of_zeros(description.arguments))
        problems = misfits(model, tensors)
        if problems:
            raise ValueError("; ".join(problems[:3]))
        model.load_state_dict(tensors, strict=False)
        for name, index in selected.items():
            select_inputs(model, name, index)
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, ShrinkError) as error:
        raise CheckpointError(
            f"{path} does not fit a {type(model).__name__} ({error}); expected a model of the class and the sizes of "
            f"the one that was shrunk"
        ) from error
    return model


def _read(path: Path) -> tuple[dict[str, Tensor], Description]:
    try:
        with opened(path, links=True) as file:
            entry = json.loads((file.metadata() or {})[DESCRIPTION])
            if "text" not in entry:
                raise ValueError("it has no digest, as files of earlier versions; shrink the run again")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if digest_of(entry["text"], tensors) != entry["blake2b"]:
            raise ValueError("its content does not match its digest")
        description = read_as(Description, json.loads(entry["text"]))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; expected a file written by gossamer shrink") from error
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged, or no shrunk network ({error}); expected a file written by gossamer shrink"
        ) from error
    if description.format != FORMAT:
        raise CheckpointError(f"{path} is of another format than {FORMAT}; read it with the gossamer that wrote it")
    return tensors, description


def _described(call: Call) -> tuple[Argument, ...]:
    given = [("", tensor) for tensor in call.positional] + list(call.named.items())
    return tuple(
        Argument(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for name, tensor in given
    )


def _of_zeros(described: Iterable[Argument]) -> Call:
    """A call with tensors of these shapes, without memory."""
    tensors = [
        (one.name, torch.zeros((), dtype=TYPES[one.type]).expand([max(size, 1) for size in one.shape]))
        for one in described
    ]
    return Call(tuple(tensor for name, tensor in tensors if not name), {n: tensor for n, tensor in tensors if n})


def _take_selections(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Takes the selections of inputs out of the tensors, and gives the layers behind them their own names."""
    names = [name.removesuffix(".index") for name in tensors if name.endswith(".index")]
    selected = {name: tensors.pop(f"{name}.index") for name in names if f"{name}.layer.weight" in tensors}
    for name, index in selected.items():
        for attribute in ("weight", "bias"):
            if f"{name}.layer.{attribute}" in tensors:
                tensors[f"{name}.{attribute}"] = tensors.pop(f"{name}.layer.{attribute}")
        if index.shape != tensors[f"{name}.weight"].shape[1:2] or index.dtype != torch.int64 or (index < 0).any():
            raise ValueError(f"the selection of {name} does not fit its weight")
    return selected


def _check_selection(layer: nn.Module, name: str, index: Tensor) -> None:
    inputs = layer.in_features if isinstance(layer, nn.Linear) else getattr(layer, "in_channels", 0)
    if len(index) and int(index.max()) >= inputs:
        raise ValueError(f"{name} selects input {int(index.max())} of {inputs}")


def _resize(module: nn.Module, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Gives a layer the sizes of its tensors in the file, if they differ from its own."""
    own = {
        attribute: tensors[f"{name}.{attribute}"]
        for attribute in ("weight", "bias", "running_mean", "running_var")
        if f"{name}.{attribute}" in tensors
    }
    held = {attribute: getattr(module, attribute, None) for attribute in own}
    if all(isinstance(old, Tensor) and old.shape == own[attribute].shape for attribute, old in held.items()):
        return
    if isinstance(module, (nn.Linear, *CONVOLUTIONS)):
        weight = own["weight"]
        if weight.shape[2:] != module.weight.shape[2:] or weight.dim() != module.weight.dim():
            raise ValueError(f"{name}.weight has shape {tuple(weight.shape)}, the model's {tuple(module.weight.shape)}")
        resize_layer(module, weight, own.get("bias"))
    elif isinstance(module, NORMALISATIONS):
        resize_normalisation(module, own)
