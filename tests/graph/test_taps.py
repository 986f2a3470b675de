"""What ONNX Runtime's convolutions multiply: the positions of a kernel that lie within the image."""

import time

import pytest

from gossamer.graph.layer_shape import LayerShape
from gossamer.graph.taps import AT_THE_EDGE, dense_taps


def test_of_a_row() -> None:
    """Five pixels, one of padding on either side: 2, 3, 3, 3 and 2 of three taps, those at the edges longer."""
    shape = LayerShape("conv", inputs=1, outputs=1, width=5, kernel=(1, 3), pads=(0, 1, 0, 1))
    assert dense_taps(shape) == pytest.approx((2 * AT_THE_EDGE * 2 + 3 * 3) / 5)


def test_of_an_image_smaller_than_its_kernel() -> None:
    """Two rows of three pixels under 5 x 5: of every output two rows of taps read something, and three columns."""
    shape = LayerShape("conv", inputs=1, outputs=1, height=2, width=3, kernel=(5, 5), pads=(2, 2, 2, 2))
    assert dense_taps(shape) == pytest.approx(2 * 3 * AT_THE_EDGE)


def test_taps_that_read_nothing_between_those_that_do() -> None:
    """Of stride 2 and dilation 3 with one pixel, taps read at -3, 0 and 3: only the middle one, of the first output."""
    shape = LayerShape(
        "conv", inputs=1, outputs=1, width=1, kernel=(1, 3), strides=(1, 2), dilations=(1, 3), pads=(0, 3, 0, 3)
    )
    assert dense_taps(shape) == pytest.approx(1 * AT_THE_EDGE)


def test_of_a_long_signal() -> None:
    """Two seconds of sound under a filter of 512 taps: no tap is asked for every output by itself."""
    shape = LayerShape("conv", inputs=1, outputs=36, width=43844, kernel=(1, 512), pads=(0, 256, 0, 255))
    before = time.process_time()
    taps = dense_taps(shape)
    assert time.process_time() - before < 5
    # Of the first outputs 256, 257, ..., 511 taps lie in the signal, of the last ones 511, 510, ..., 257.
    edges = sum(range(256, 512)) + sum(range(257, 512))
    assert taps == pytest.approx((edges * AT_THE_EDGE + (43844 - 511) * 512) / 43844)
