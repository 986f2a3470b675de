"""Whether tensors changed, to the bit: one digest a tensor instead of a copy."""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gossamer.model.sharded import piece_of
from gossamer.model.whole import require_here
from gossamer.model.wrappers import unwrap

Fingerprint = dict[str, bytes]
"""Name of a tensor -> digest of its type, shape and bits."""


def fingerprint(tensors: Iterable[tuple[str, Tensor]]) -> Fingerprint:
    """The fingerprint of named tensors, on any device; of sharded ones, of this process's pieces. Only one at a time is
    copied to the CPU.

    Raises:
        ConfigurationError: one is on the meta device.
    """
    found = {}
    for name, tensor in tensors:
        require_here(name, tensor)
        found[name] = _digest(tensor)
    return found


def of_state(model: nn.Module) -> Fingerprint:
    """The fingerprint of all that a round keeps of a model: parameters and buffers."""
    return fingerprint(unwrap(model).state_dict().items())


def summary(found: Fingerprint) -> str:
    """One digest of all of them, in hexadecimal."""
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(f"{name} {found[name].hex()}\n".encode())
    return digest.hexdigest()


def _digest(tensor: Tensor) -> bytes:
    bits = piece_of(tensor).cpu().contiguous().reshape(-1).view(torch.uint8)
    # SHA-256 has instructions of its own in today's processors: 1.5 GB/s and more.
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(bits.numpy().data)
    return digest.digest()
