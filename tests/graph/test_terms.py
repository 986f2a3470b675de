"""Terms of layers worked out by hand, and prices found again in times that were made from them."""

from dataclasses import replace

import numpy as np
import pytest

from gossamer.bench.network import build
from gossamer.graph.graph import Graph
from gossamer.graph.layer_shape import LayerShape
from gossamer.graph.layers import find_layers
from gossamer.graph.terms import Terms, byte_average_terms, dense_terms, panel_pool_terms, sparse_terms, stem_terms
from gossamer.graph.tiles import Tiling, tiling
from gossamer.predict.prices import Observation, fit
from gossamer.predict.specimens import specimens


@pytest.mark.parametrize(
    ("extent", "expected"),
    [
        # 112 pixels are 7 registers of 16 floats. A tile is two rows of 56, of which there are 28.
        ((56, 56), Tiling(28, 28 * 7, 7)),
        # Four rows of 28.
        ((28, 28), Tiling(7, 7 * 7, 7)),
        # Eight rows of 14 and six: 84 pixels are 5 registers and 4 pixels, half a register.
        ((14, 14), Tiling(2, 7 + 5.5, 7)),
        # 49 pixels are 3 registers and one pixel.
        ((7, 7), Tiling(1, 3.5, 3.5)),
        # Rows of 224 are halved.
        ((224, 224), Tiling(448, 448 * 7, 7)),
        ((1, 1), Tiling(1, 0.5, 0.5)),
    ],
)
def test_images_are_cut_into_tiles(extent: tuple[int, int], expected: Tiling) -> None:
    assert tiling(*extent) == expected


@pytest.mark.parametrize(
    ("extent", "expected"),
    [
        # Rows of 28 and 56 pixels begin at multiples of 4 by themselves.
        ((56, 56), Tiling(28, 28 * 7, 7)),
        ((28, 28), Tiling(7, 7 * 7, 7)),
        # Rows of 14 are 16 apart: eight are 7 * 16 + 14 pixels, 8 registers, and six are 94, 6 registers.
        ((14, 14), Tiling(2, 8 + 6, 8)),
        # Ten rows of 10, 12 apart: 118 pixels, 7 registers and 6 pixels.
        ((10, 10), Tiling(1, 7.5, 7.5)),
        # Seven rows of 7, 8 apart: 55 pixels, 3 registers and 7 pixels.
        ((7, 7), Tiling(1, 3.5, 3.5)),
        # Rows that are cut are staged by segments.
        ((224, 224), Tiling(448, 448 * 7, 7)),
    ],
)
def test_staged_rows_begin_at_multiples_of_four_pixels(extent: tuple[int, int], expected: Tiling) -> None:
    assert tiling(*extent, staged=True) == expected


def test_terms_of_a_1x1_convolution() -> None:
    shape = LayerShape("conv", 256, 64, 56, 56)
    kept = 256 * 64 * 0.25
    assert sparse_terms(shape, 0.25) == Terms(
        "sparse 1x1",
        {
            "op": 1,
            "multiply-add vector": kept * 28 * 7,
            "kept weight, tile": kept * 28,
            # 256 channels of a tile are 28,672 floats: three blocks of at most 13,000.
            "sum vector": 64 * 3 * 28 * 7,
            "output": 64 * 56 * 56,
            "input": 256 * 56 * 56,
            # What the second cache does not hold of inputs and outputs; the last one holds them all.
            "far activation": (256 + 64) * 56 * 56 - 250_000,
            "distant activation": 0,
        },
    )
    assert dense_terms(shape) == Terms(
        "dense 1x1",
        {
            "op": 1,
            "multiply-add": 256 * 64 * 56 * 56,
            "weight": 256 * 64,
            "input": 256 * 56 * 56,
            "output": 64 * 56 * 56,
        },
    )


def test_terms_of_a_3x3_convolution() -> None:
    shape = LayerShape("conv", 32, 48, 28, 28, kernel=(3, 3), pads=(1, 1, 1, 1))
    terms = sparse_terms(shape, 0.5)
    assert terms.kind == "sparse kxk"
    kept = 32 * 48 * 9 * 0.5
    assert terms.amounts["multiply-add vector"] == kept * 49
    assert terms.amounts["kept weight, tile"] == kept * 7
    # A tile of four rows reads six, and there are seven tiles. Rows of 28 begin at multiples of 4 only, so the middle
    # row of the kernel has copies of its own; and no multiple of 28 but every fourth begins a cache line.
    assert terms.amounts["staged"] == 32 * (4 + 6) * 28 * 7
    assert terms.amounts["staged row"] == 32 * (4 + 6) * 7
    assert terms.amounts["crossing vector"] == kept * 49
    # 56 is a multiple of 8, 112 one of 16; there the rows of a tile, one of them 112 wide, are copied once.
    wider, widest = (sparse_terms(replace(shape, height=112, width=width), 0.5).amounts for width in (56, 112))
    assert wider["staged"] == 32 * (2 + 2) * 56 * 56
    assert wider["crossing vector"] == wider["multiply-add vector"]
    assert widest["staged"] == 32 * 3 * 112 * 112
    assert widest["crossing vector"] == 0


def test_rows_that_are_cut_are_staged_in_segments() -> None:
    shape = LayerShape("conv", 64, 32, 224, 224, kernel=(3, 3), pads=(1, 1, 1, 1))
    # Each of the 448 tiles, half a row, reads three half rows of every channel: 21,504 floats, two blocks.
    amounts = sparse_terms(shape, 0.5).amounts
    assert amounts["staged"] == 64 * 3 * 112 * 448
    assert amounts["sum vector"] == 32 * 2 * 448 * 7


def test_terms_of_a_strided_3x3_convolution() -> None:
    shape = LayerShape("conv", 32, 48, 56, 56, kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    terms = sparse_terms(shape, 0.5)
    assert terms.kind == "sparse kxk, strided"
    # A tile of four rows reads four even rows, and for each of two kernel rows four odd ones; of each the even columns
    # and the odd ones.
    assert terms.amounts["staged"] == 32 * (4 + 4 + 4) * 28 * 2 * 7
    assert terms.amounts["output"] == 48 * 28 * 28


def test_terms_of_a_depthwise_convolution() -> None:
    shape = LayerShape("conv", 64, 64, 14, 14, kernel=(3, 3), pads=(1, 1, 1, 1), groups=64)
    outputs = 64 * 14 * 14
    expected = {"op": 1, "multiply-add": 9 * outputs, "input": outputs, "output": outputs}
    # An image of 14 x 14 is two tiles.
    own = {"channel, tile": 64 * 2, "far activation": 0, "distant activation": 0}
    assert sparse_terms(shape, 1.0) == Terms("sparse depthwise", {**expected, **own})
    # What lies outside the image is passed over; taps of the columns at its edges take half as long again.
    taps = (12 * 3 + 2 * 2) * (12 * 3 + 2 * 2 * 1.5)
    dense = {"op": 1, "multiply-add": pytest.approx(64 * taps), "output": outputs, "row": 64 * 14}
    assert dense_terms(shape) == Terms("dense depthwise", dense)


def test_depthwise_convolutions_that_are_copied_first_are_another_class() -> None:
    shape = LayerShape("conv", 64, 64, 113, 113, kernel=(3, 3), pads=(1, 1, 1, 1), groups=64)
    terms = sparse_terms(shape, 1.0)
    assert terms.kind == "sparse depthwise, staged"
    # Every row is cut in two; each half is copied with its neighbours, from three rows, the first and last from two.
    assert terms.amounts["staged"] == 64 * (3 * 113 - 2) * 2 * (57 + 2)
    assert terms.amounts["distant activation"] == 0
    assert terms.amounts["far activation"] == 2 * 64 * 113 * 113 - 250_000
    far = sparse_terms(replace(shape, inputs=128, outputs=128, groups=128), 1.0)
    assert far.amounts["distant activation"] == 2 * 128 * 113 * 113 - 2_000_000
    # 30 rows apart: 20 of 50 rows have one above, 20 one below; three columns of each.
    apart = sparse_terms(replace(shape, height=50, width=60, dilations=(30, 30), pads=(30,) * 4), 1.0)
    assert apart.kind == "sparse depthwise, staged"
    assert apart.amounts["staged"] == 64 * (50 + 20 + 20) * (60 + 2 * 30)
    assert apart.amounts["multiply-add"] == pytest.approx(64 * 60 * (50 + 20 + 20) * 3)


def test_terms_know_dilation_and_padding() -> None:
    shape = LayerShape("conv", 32, 32, 33, 33, kernel=(3, 3), pads=(1, 1, 1, 1))
    near, far, beyond = (sparse_terms(replace(shape, dilations=(d, d), pads=(d,) * 4), 0.1) for d in (1, 18, 36))
    kept = 32 * 32 * 9 * 0.1
    assert near.kind == "sparse kxk"
    assert near.amounts["kept weight, tile"] == pytest.approx(kept * 11)
    # Of eleven tiles of three rows, five see the image from two kernel rows, one from one, five from two again.
    assert far.kind == "sparse kxk, copied"
    assert far.amounts["kept weight, tile"] == pytest.approx(kept * (5 * 2 + 1 + 5 * 2) / 3)
    # Each of these rows is copied once for every kernel column.
    assert far.amounts["staged"] == 32 * 3 * 33 * 3 * (5 * 2 + 1 + 5 * 2)
    # The middle tap alone meets the image, which is read as it lies.
    assert beyond.kind == "sparse 1x1"
    assert beyond.amounts["kept weight, tile"] == pytest.approx(kept / 9 * 11)
    assert "staged" not in beyond.amounts
    # ONNX Runtime passes over what lies outside, too: one kernel row of the middle 3, two of the others. So it does for
    # columns, but where it does each tap takes half as long again.
    dense = [dense_terms(replace(shape, dilations=(d, d), pads=(d,) * 4)).amounts["multiply-add"] for d in (1, 18, 36)]
    assert dense[0] == pytest.approx(shape.multiply_adds * (31 * 3 + 2 * 2) * (31 * 3 + 2 * 2 * 1.5) / 99**2)
    assert dense[1] == pytest.approx(shape.multiply_adds * 1.5 * ((30 * 2 + 3) / 99) ** 2)
    assert dense[2] == pytest.approx(shape.multiply_adds * 1.5 / 9)


def test_columns_next_to_one_another_are_shifted_and_others_copied() -> None:
    shape = LayerShape("conv", 16, 16, 20, 50, kernel=(1, 3), pads=(0, 1, 0, 1))
    assert sparse_terms(shape, 0.2).amounts["staged"] == 16 * 20 * 50
    five = sparse_terms(replace(shape, kernel=(1, 5), pads=(0, 2, 0, 2)), 0.2)
    assert five.kind == "sparse kxk, copied"
    assert five.amounts["staged"] == 5 * 16 * 20 * 50


def test_a_column_costs_what_a_row_does() -> None:
    row = LayerShape("conv", 64, 64, 1, 400, kernel=(1, 5), pads=(0, 4, 0, 4), dilations=(1, 2))
    column = LayerShape("conv", 64, 64, 400, 1, kernel=(5, 1), pads=(4, 0, 4, 0), dilations=(2, 1))
    assert sparse_terms(row, 0.1) == sparse_terms(column, 0.1)


def test_few_channels_a_group_are_products_of_their_own_in_onnx_runtime() -> None:
    shape = LayerShape("conv", 64, 128, 28, 28, kernel=(3, 3), pads=(1, 1, 1, 1), groups=16)
    assert dense_terms(shape) == Terms(
        "dense grouped",
        {
            "op": 1,
            "multiply-add": 128 * 4 * 9 * 28 * 28,
            "group": 16,
            # Every pixel's window as a column, as far as it lies within the image.
            "column": pytest.approx(64 * (26 * 3 + 2 * 2) * (26 * 3 + 2 * 2 * 1.5)),
            "output": 128 * 28 * 28,
        },
    )
    assert dense_terms(replace(shape, kernel=(1, 1), pads=(0,) * 4)).amounts["column"] == 64 * 28 * 28
    # So are fewer outputs than a block, and inputs that no block divides by four.
    for inputs, outputs, kind in (
        (12, 12, "by columns"),
        (24, 12, "by columns"),
        (12, 24, "kxk"),
        (22, 32, "by columns"),
    ):
        assert dense_terms(replace(shape, inputs=inputs, outputs=outputs, groups=1)).kind == f"dense {kind}"
    # Whole blocks of 16 channels are what it works on anyway.
    assert dense_terms(replace(shape, groups=4)).kind == "dense kxk"
    assert dense_terms(replace(shape, groups=8)).kind == "dense grouped"
    # A row's sums are begun once, by the block of channels that has its group.
    assert sparse_terms(shape, 0.1).amounts["sum vector"] == 128 * 49


def test_terms_of_stems() -> None:
    shape = LayerShape("conv", 3, 48, 64, 64, kernel=(3, 3), pads=(1, 1, 1, 1))
    # 48 channels are computed as two times 32.
    outputs = 64 * 64 * 64
    expected = {
        "op": 1,
        "multiply-add": outputs * 27,
        "strided multiply-add": 0,
        "output": outputs,
        "pooled output": 0,
        "far activation": outputs - 250_000,
        "distant activation": 0,
    }
    assert stem_terms(shape, pooled=False) == Terms("stem", expected)
    # A pooling stores one of four outputs.
    pooled = {**expected, "output": 0, "pooled output": outputs, "far activation": 0}
    assert stem_terms(shape, pooled=True) == Terms("stem", pooled)
    strided = stem_terms(replace(shape, strides=(2, 2)), pooled=False).amounts
    assert strided["multiply-add"] == 0
    assert strided["strided multiply-add"] == outputs / 4 * 27


def test_terms_of_poolings_on_panels() -> None:
    shape = LayerShape("pool", 24, 24, 28, 28, kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1), groups=24)
    expected = {"op": 1, "row": 24 * 14 * 3, "input": 24 * 28 * 28, "output": 24 * 14 * 14}
    assert panel_pool_terms(shape) == Terms("max pooling of panels", expected)


def test_terms_of_averages_of_bytes() -> None:
    # 26 channels are seven lanes of four bytes; each of 4 x 7 windows has 6 pixels.
    shape = LayerShape("pool", 26, 26, 8, 21, kernel=(2, 3), strides=(2, 3), groups=26, quantised=True)
    expected = {"op": 1, "lane": 7 * 28 * 6, "made": 4 * 7 * 28}
    assert byte_average_terms(shape) == Terms("int8 average pooling of panels", expected)


def test_dense_convolutions_work_on_whole_blocks_of_channels() -> None:
    # 24 channels are two blocks of 16, 40 are three.
    assert dense_terms(LayerShape("conv", 24, 40, 10, 10)).amounts == {
        "op": 1,
        "multiply-add": pytest.approx(32 * 48 * 100),
        "weight": pytest.approx(32 * 48),
        "input": 24 * 100,
        "output": 40 * 100,
    }


def test_terms_of_fully_connected_layers() -> None:
    vector = LayerShape("linear", 512, 100)
    assert sparse_terms(vector, 0.5) == Terms("sparse vector", {"op": 1, "kept weight": 25_600, "output": 100})
    assert dense_terms(vector) == Terms("dense vector", {"op": 1, "weight": 51_200})
    tokens = LayerShape("linear", 512, 100, width=128)
    assert sparse_terms(tokens, 0.5) == Terms(
        "sparse product",
        {
            "op": 1,
            # 128 rows are two tiles of 64, of 4 registers each.
            "multiply-add vector": 25_600 * 8,
            "kept weight, tile": 25_600 * 2,
            # 512 features of 112 rows are 57,344 floats: five blocks.
            "sum vector": 100 * 5 * 8,
            "input": 512 * 128,
            "output": 100 * 128,
            "curved": 0,
        },
    )
    behind = replace(tokens, residual=True, curved=True)
    assert sparse_terms(behind, 0.5).amounts["curved"] == 100 * 128
    assert dense_terms(behind) == Terms(
        "dense product",
        {
            "op": 1,
            "multiply-add": 512 * 100 * 128,
            "weight": 51_200,
            "output": 100 * 128,
            "curved": 100 * 128,
            "residual": 100 * 128,
        },
    )
    assert dense_terms(replace(behind, residual=False, curved=False)).amounts["curved"] == 0


def test_the_specimens_cover_every_class_of_layer() -> None:
    found = set()
    for specimen in specimens():
        if specimen.name in ("convolutions-28", "convolutions-7", "windows-16", "products-96"):
            for layer in find_layers(Graph(build(specimen, 0.1))):
                found |= {sparse_terms(layer.shape, 0.1).kind, dense_terms(layer.shape).kind}
    assert found >= {
        "sparse 1x1",
        "sparse 1x1, narrow",
        "sparse 1x1, strided",
        "sparse kxk",
        "sparse kxk, strided",
        "sparse kxk, copied",
        "sparse depthwise",
        "sparse depthwise, staged",
        "sparse product",
        "dense 1x1",
        "dense kxk",
        "dense by columns",
        "dense grouped",
        "dense depthwise",
        "dense of an image",
        "dense product",
    }
    assert "vectors" in {specimen.name for specimen in specimens()}


PRICES = {"op": 4e-6, "multiply-add": 3e-11, "output": 0.0}


def observations(noise: float) -> list[Observation]:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(40):
        amounts = {"op": 1.0, "multiply-add": float(rng.uniform(1e4, 1e7)), "output": float(rng.uniform(1e3, 1e5))}
        exact = sum(PRICES[name] * amount for name, amount in amounts.items())
        made.append(Observation((Terms("any", amounts),), exact * (1 + noise * float(rng.standard_normal()))))
    return made


def test_known_prices_are_found_again() -> None:
    found = fit(observations(noise=0))["any"]
    assert found["op"] == pytest.approx(PRICES["op"], rel=1e-3)
    assert found["multiply-add"] == pytest.approx(PRICES["multiply-add"], rel=1e-3)
    assert found["output"] * 1e5 < 1e-3 * PRICES["op"]


def test_prices_are_never_negative_and_near_in_noise() -> None:
    noisy = observations(noise=0.05)
    found = fit(noisy)["any"]
    assert all(price >= 0 for price in found.values())
    for one in noisy:
        assert sum(found[name] * amount for name, amount in one.terms[0].amounts.items()) == pytest.approx(
            one.seconds, rel=0.25
        )


def test_a_term_that_would_need_a_negative_price_costs_nothing() -> None:
    # More outputs, less time: the best price would be below zero.
    falling = [Observation((Terms("any", {"op": 1.0, "output": float(n)}),), 1e-5 - 1e-7 * n) for n in range(1, 50)]
    found = fit(falling)["any"]
    assert found["output"] == 0
    assert 5e-6 < found["op"] < 1e-5


def test_small_layers_matter_as_much_as_large_ones() -> None:
    # One price cannot fit both: in relative errors, which stay below what is usual, the least squares of 1/x-weighted
    # times lie between.
    found = fit([Observation((Terms("any", {"op": 1.0}),), 1.0), Observation((Terms("any", {"op": 1.0}),), 1.1)])["any"]
    # Minimises (p - 1)^2 + (p / 1.1 - 1)^2: p = (1 + 1/1.1) / (1 + 1/1.1^2).
    assert found["op"] == pytest.approx((1 + 1 / 1.1) / (1 + 1 / 1.21))


def test_a_time_that_was_disturbed_hardly_counts() -> None:
    disturbed = [*observations(noise=0), Observation((Terms("any", {"op": 1.0, "multiply-add": 1e6}),), 1e-3)]
    found = fit(disturbed)["any"]
    assert found["op"] == pytest.approx(PRICES["op"], rel=0.05)
    assert found["multiply-add"] == pytest.approx(PRICES["multiply-add"], rel=0.05)


def test_whole_networks_say_what_the_watching_costs() -> None:
    # A node of each class takes 10 us and 20 us; watched, each takes 3 us more.
    first, second = Terms("first", {"op": 1.0}), Terms("second", {"op": 1.0})
    watched = [Observation((first,), 13e-6, watched=1), Observation((second,), 23e-6, watched=1)]
    found = fit([*watched, Observation((first, second, second), 50e-6, weight=2)])
    assert found["first"]["op"] == pytest.approx(10e-6, rel=1e-3)
    assert found["second"]["op"] == pytest.approx(20e-6, rel=1e-3)


def test_whole_networks_say_what_no_node_shows() -> None:
    # What is added to a product is summed by a node that the profiler does not name: 5 ns a number.
    alone = Terms("product", {"op": 1.0, "residual": 0.0})
    added = Terms("product", {"op": 1.0, "residual": 1000.0})
    found = fit([Observation((alone,), 10e-6), Observation((alone, added), 25e-6)])["product"]
    assert found["op"] == pytest.approx(10e-6, rel=1e-3)
    assert found["residual"] == pytest.approx(5e-9, rel=1e-3)
