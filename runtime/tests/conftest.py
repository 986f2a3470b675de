"""What several tests of the runtime use."""

import itertools
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Convolution = Callable[..., np.ndarray]


@pytest.fixture(scope="session")
def small_model() -> bytes:
    """The sparse model of small_model.py, which is a script as well: make wheels tries the wheel with it."""
    made: bytes = runpy.run_path(str(Path(__file__).with_name("small_model.py")))["small_model"]()
    return made


@pytest.fixture(scope="session")
def convolution() -> Convolution:
    """A convolution of images in the plainest way, in double precision: of what lies outside an image nothing is read.

    ONNX Runtime's own is no reference for that everywhere: on 64-bit ARM it multiplies paddings too, so that NaN and
    infinities reach further, and refuses a dilation of 2^15.
    """

    def convolve(
        images: np.ndarray,
        weight: np.ndarray,
        *,
        strides: tuple[int, int] = (1, 1),
        dilations: tuple[int, int] = (1, 1),
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        group: int = 1,
    ) -> np.ndarray:
        reach = [dilations[axis] * (weight.shape[2 + axis] - 1) for axis in (0, 1)]
        padded = [images.shape[2 + axis] + pads[axis] + pads[2 + axis] for axis in (0, 1)]
        extents = [(padded[axis] - reach[axis] - 1) // strides[axis] + 1 for axis in (0, 1)]
        shape = (len(images), group, len(weight) // group)
        grouped = images.reshape(len(images), group, -1, *images.shape[2:]).astype(np.float64)
        kernels = weight.reshape(group, len(weight) // group, *weight.shape[1:]).astype(np.float64)
        sums = np.zeros((*shape, *extents))
        for row, column in itertools.product(*map(range, extents)):
            for tap in itertools.product(*map(range, weight.shape[2:])):
                y = row * strides[0] + tap[0] * dilations[0] - pads[0]
                x = column * strides[1] + tap[1] * dilations[1] - pads[1]
                if 0 <= y < images.shape[2] and 0 <= x < images.shape[3]:
                    terms = kernels[None, ..., *tap] * grouped[:, :, None, :, y, x]
                    sums[..., row, column] += terms.sum(-1)
        return sums.reshape(len(images), len(weight), *extents).astype(np.float32)

    return convolve
