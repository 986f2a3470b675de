"""Nested states (of optimizers, schedules, random generators) in one safetensors file. Never a pickle.

A state is a tree of dictionaries, lists and tuples whose leaves are tensors, numpy arrays, numbers, strings, booleans,
torch's types of numbers and None: what `state_dict()` of any optimizer or schedule returns. The tensors are stored as
tensors; the tree, with the tensors' names in their places, as JSON in the file's metadata. The order of a tensor's axes
in memory is kept: products of matrices that lie column by column (SOAP's eigenvectors) have other bits than of rows.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from gossamer.errors import CheckpointError
from gossamer.storage.tensors import opened

STATE = "gossamer.state"
DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
"""Torch's types of numbers, by name."""


@dataclass(frozen=True)
class Elsewhere:
    """In the place of a tensor that is stored in other files, in pieces (`gossamer.storage.blocks`)."""

    name: str


def save(path: Path, state: Any) -> None:
    """Writes the state to `path`.

    Raises:
        CheckpointError: the state holds something that is neither a container, a tensor nor a plain value.
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_encode(state, tensors, "state"))
    # One entry only: the format's writer puts several in an order that changes from process to process.
    metadata = {STATE: json.dumps({"tree": tree, "blake2b": digest_of(tree, tensors)})}
    try:
        save_file(tensors, path, metadata=metadata)
    except (LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"the state cannot be stored without pickle ({error}); leave it out") from error


def load(path: Path) -> Any:
    """The state in `path`, its tensors on the CPU.

    Raises:
        CheckpointError: the file is missing, damaged, or not such a state.
    """
    try:
        with opened(path) as file:
            state = json.loads((file.metadata() or {})[STATE])
            # Cloned to where memory is allocated: at the addresses of the file's own bytes, which are no multiples of a
            # vector's, products of matrices (Shampoo's) have other bits.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        if digest_of(state["tree"], tensors) != state["blake2b"]:
            raise ValueError("its content does not match its digest")
        return _decode(json.loads(state["tree"]), tensors)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; expected a saved state") from error
    except (OSError, SafetensorError, LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged or no gossamer state ({error}); expected the file as written"
        ) from error


def load_entries(path: Path) -> dict[str, Any]:
    """The state in `path`, which has to be a dictionary.

    Raises:
        CheckpointError: see `load`; or it is something else.
    """
    state = load(path)
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}; expected the file as written")
    return state


def digest(state: Any) -> str:
    """A digest of a state, which two states of the same content have in common.

    Raises:
        CheckpointError: it holds something that cannot be stored.
    """
    tensors: dict[str, Tensor] = {}
    return digest_of(json.dumps(_encode(state, tensors, "state")), tensors)


def digest_of(tree: str, tensors: dict[str, Tensor]) -> str:
    """Over the tree and the bytes of every tensor: a flipped bit in a file shows."""
    digest = hashlib.blake2b(tree.encode("utf-8", "surrogatepass"), digest_size=32)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _encode(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    if isinstance(value, Tensor):
        if value.layout != torch.strided:
            raise CheckpointError(f"{where} is a sparse tensor; expected a dense one. Leave it out of the state.")
        name = str(len(tensors))
        strides = value.stride()
        axes = sorted(range(value.dim()), key=lambda axis: -strides[axis])
        if not value.is_contiguous() and value.permute(axes).is_contiguous():
            tensors[name] = value.detach().cpu().permute(axes).clone()
            return {"permuted": [name, axes]}
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, np.ndarray):
        try:
            return {"array": _encode(torch.from_numpy(value.copy()), tensors, where)}
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{where} is an array that cannot be stored: {error}") from error
    if isinstance(value, Elsewhere):
        return {"elsewhere": value.name}
    if value is None or isinstance(value, (bool, int, float, str)):
        # JSON has no infinities; Python's reads and writes them all the same.
        return {"value": value}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value)}
    if isinstance(value, np.generic):
        return {"value": value.item()}
    if isinstance(value, dict):
        return {
            "dict": [
                [_encode(key, tensors, where), _encode(item, tensors, f"{where}[{key!r}]")]
                for key, item in value.items()
            ]
        }
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_encode(item, tensors, f"{where}[{index}]") for index, item in enumerate(value)]}
    raise CheckpointError(
        f"{where} is a {type(value).__name__}; expected tensors, numbers, strings, None, and dictionaries, lists and "
        f"tuples of them. It cannot be stored without pickle: leave it out of the state."
    )


def _decode(node: Any, tensors: dict[str, Tensor]) -> Any:
    ((kind, content),) = node.items()
    match kind:
        case "tensor":
            return tensors[content]
        case "permuted":
            name, axes = content
            return tensors[name].permute([axes.index(axis) for axis in range(tensors[name].dim())])
        case "dtype":
            return DTYPES[content]
        case "elsewhere":
            return Elsewhere(str(content))
        case "array":
            return _decode(content, tensors).numpy()
        case "value":
            return content
        case "dict":
            return {_decode(key, tensors): _decode(item, tensors) for key, item in content}
        case "list":
            return [_decode(item, tensors) for item in content]
        case "tuple":
            return tuple(_decode(item, tensors) for item in content)
    raise ValueError(f"unknown kind of node {kind!r}")
