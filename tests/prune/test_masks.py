"""Masks and their packed form, one bit a weight."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gossamer.errors import CheckpointError
from gossamer.prune import masks as masks_of


def test_packing_by_hand() -> None:
    mask = torch.tensor([[True, False, True], [False, False, False], [False, True, True]])
    # Row by row, the first weight in the lowest bit: 0b10000101, then the ninth weight.
    assert masks_of.pack(mask).tolist() == [0b10000101, 1]
    assert torch.equal(masks_of.unpack(torch.tensor([0b10000101, 1], dtype=torch.uint8), (3, 3), "w"), mask)


@given(shape=st.lists(st.integers(0, 5), max_size=4).map(tuple), seed=st.integers(0, 2**31))
def test_unpacking_gives_back_what_was_packed(shape: tuple[int, ...], seed: int) -> None:
    mask = torch.from_numpy(np.random.default_rng(seed).random(shape) < 0.5) if shape else torch.tensor(seed % 2 == 0)
    packed = masks_of.pack(mask)
    assert packed.shape == ((mask.numel() + 7) // 8,)
    assert torch.equal(masks_of.unpack(packed, shape, "w"), mask)


def test_the_packed_bits_do_not_depend_on_the_memory_format() -> None:
    mask = torch.rand(2, 3, 4, 5) < 0.5
    for layout in (mask.to(memory_format=torch.channels_last), mask.transpose(0, 3).contiguous().transpose(0, 3)):
        assert torch.equal(masks_of.pack(layout), masks_of.pack(mask))


@pytest.mark.parametrize(
    "packed",
    [
        torch.zeros(1, dtype=torch.uint8),
        torch.zeros(3, dtype=torch.uint8),
        torch.zeros(2, dtype=torch.int8),
        torch.zeros(2, 1, dtype=torch.uint8),
        torch.tensor([0, 0b10], dtype=torch.uint8),
    ],
    ids=["too short", "too long", "another type", "another shape", "a bit past the end"],
)
def test_bytes_that_are_no_mask_of_the_shape_are_refused(packed: torch.Tensor) -> None:
    with pytest.raises(CheckpointError, match=r"mask of conv\.weight: "):
        masks_of.unpack(packed, (3, 3), "conv.weight")


def test_counts_and_density() -> None:
    masks = {"a": torch.tensor([True, False, False]), "b": torch.tensor([[True]])}
    assert masks_of.count_kept(masks) == 2
    assert masks_of.count_prunable(masks) == 4
    assert masks_of.density(masks) == 0.5


def test_full_masks_keep_everything_and_are_plain_tensors() -> None:
    masks = masks_of.full(dict(nn.Linear(3, 2).named_parameters()))
    assert masks_of.density(masks) == 1
    assert all(type(mask) is torch.Tensor and not mask.requires_grad for mask in masks.values())
