"""What the processor at hand does well, asked for rather than assumed."""

import ctypes
import importlib.util
import platform
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from gossamer.errors import ConfigurationError
from gossamer.tasks.task import Precision, Recipe


def flush_denormals() -> None:
    """Has this process compute with zero in place of denormal numbers, which are slow on many processors."""
    # numpy before 2.4 looks at the limits of its types when they are asked for first, and warns of such zeros.
    for kind in (np.float16, np.float32, np.float64, np.longdouble):
        np.finfo(kind)
    torch.set_flush_denormal(True)


def find_device(name: str) -> torch.device:
    """The device of this name, "cpu" or "cuda".

    Raises:
        ConfigurationError: there is none, here or at all.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigurationError(f"device is {name!r}; expected 'cpu' or 'cuda'") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(f"device is {name!r}, but torch sees no GPU here; use --device cpu")
    return device


def has_bfloat16(device: torch.device | str = "cpu") -> bool:
    """Whether matrix products in bfloat16 are instructions of the device, not an emulation slower than float32."""
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # AVX-512 BF16 (Zen 4, Cooper Lake) or AMX (Sapphire Rapids). torch has no public question for it; a version that
    # no longer knows these names falls back to float32.
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return kind == "cpu" and any(getattr(torch.cpu, name, lambda: False)() for name in asked)


def precision(recipe: Recipe, device: torch.device | str = "cpu") -> Precision:
    """What the recipe's layers compute in on this device; part of what makes a run reproducible, so record it."""
    return "bfloat16" if recipe.bfloat16 and has_bfloat16(device) else "float32"


def fastest_forward(model: nn.Module, device: torch.device | str) -> Callable[..., Any]:
    """The model's forward pass for training: compiled and replayed as CUDA graphs on a GPU that torch can compile for,
    else the model itself.

    Written without a GPU at hand: neither tried nor measured there. On the CPU, compiling ResNet-20 brought nothing.
    Parameters, their gradients and the hooks that hold masks stay outside the graphs, and torch finds what it compiled
    again when the same model is wrapped for the next round.
    """
    if torch.device(device).type != "cuda" or importlib.util.find_spec("triton") is None:
        return model
    return torch.compile(model, mode="reduce-overhead")


def keep_freed_memory() -> bool:
    """Asks the C library to keep freed blocks for the next step instead of handing them back to the system.

    A step of a convolutional network frees and allocates tens of megabytes of activations; by default glibc returns
    each block, and every page is then faulted in again (ResNet-20, batch 128, bfloat16 on two Zen 4 cores: 143 ms a
    step, and 123-135 ms without the faults). The process keeps its peak memory. For the whole process, so only a
    program calls it, never the library. Returns whether it took effect; elsewhere than on glibc it does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(mmap_threshold, 1 << 30)) and bool(mallopt(trim_threshold, (1 << 31) - 1))
