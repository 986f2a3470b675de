"""Networks of torch in half, bfloat16 or double precision: what is exported computes in fp32."""

import functools
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def precision_of(network: nn.Module) -> str | None:
    """The types of its floating-point parameters and buffers, such as "float16"; None if all are fp32."""
    values = itertools.chain(network.parameters(), network.buffers())
    types = dict.fromkeys(value.dtype for value in values if value.is_floating_point())
    types.pop(torch.float32, None)
    return " and ".join(str(kind).removeprefix("torch.") for kind in types) or None


def in_fp32(value: Tensor) -> Tensor:
    """Floating-point numbers in fp32, others as they are."""
    return value.float() if value.is_floating_point() else value


@contextmanager
def fp32_by_default() -> Iterator[None]:
    """What is made without naming a type is fp32; a program of doubles may have set that otherwise."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def computing_in_fp32(network: nn.Module) -> nn.Module:
    """The same network, changed: its parameters and buffers in fp32, and what `forward` makes without naming a type."""
    forward = network.forward

    @functools.wraps(forward)
    def in_single(*positional: object, **named: object) -> object:
        with fp32_by_default():
            return forward(*positional, **named)

    network.forward = in_single
    return network.float()
