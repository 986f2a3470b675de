"""Exact global selection, against arrays written by hand and a stable sort in numpy."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gossamer import keep_largest
from gossamer.errors import TrainingDivergedError
from gossamer.prune import select
from gossamer.prune.radix import locate
from gossamer.prune.select import _is_dense

TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def by_sorting(weights: dict[str, Tensor], kept: int, masks: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The oracle: all magnitudes in one float64 vector, sorted stably from large to small, the first `kept` stay."""
    magnitudes = np.concatenate([np.abs(w.detach().double().numpy().reshape(-1)) for w in weights.values()])
    if masks is not None:
        there = np.concatenate([masks[name].numpy().reshape(-1) for name in weights])
        magnitudes[~there] = -1
    chosen = np.zeros(len(magnitudes), bool)
    chosen[np.argsort(-magnitudes, kind="stable")[:kept]] = True
    parts = np.split(chosen, np.cumsum([w.numel() for w in weights.values()])[:-1])
    return {
        name: torch.from_numpy(part.copy()).reshape(w.shape)
        for (name, w), part in zip(weights.items(), parts, strict=True)
    }


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name in expected:
        assert found[name].dtype == torch.bool
        assert found[name].shape == expected[name].shape
        assert torch.equal(found[name], expected[name]), name


def test_the_largest_magnitudes_stay_whatever_their_sign() -> None:
    weights = {"w": torch.tensor([0.1, -0.5, 0.3, -0.2, 0.4])}
    assert keep_largest(weights, 3)["w"].tolist() == [False, True, True, False, True]


def test_one_threshold_holds_for_all_tensors() -> None:
    weights = {"small": torch.tensor([[0.1, 0.2], [0.3, 0.4]]), "large": torch.tensor([1.0, -2.0, 0.35])}
    masks = keep_largest(weights, 4)
    assert masks["small"].tolist() == [[False, False], [False, True]]
    assert masks["large"].tolist() == [True, True, True]


def test_of_equal_magnitudes_the_later_ones_go_first() -> None:
    weights = {"a": torch.tensor([1.0, -1.0, 2.0]), "b": torch.tensor([[1.0], [-1.0]])}
    assert_same(
        keep_largest(weights, 3),
        {"a": torch.tensor([True, True, True]), "b": torch.tensor([[False], [False]])},
    )
    assert keep_largest(weights, 2)["a"].tolist() == [True, False, True]
    assert keep_largest(weights, 4)["b"].tolist() == [[True], [False]]
    assert keep_largest({"b": weights["b"], "a": weights["a"]}, 3)["a"].tolist() == [False, False, True]


def test_the_order_of_ties_is_row_major_in_every_memory_format() -> None:
    weight = torch.ones(2, 3, 2, 2)
    expected = (torch.arange(24) < 11).reshape(2, 3, 2, 2)
    for layout in (weight, weight.to(memory_format=torch.channels_last), weight.permute(3, 1, 0, 2).contiguous()):
        layout = layout if layout.shape == weight.shape else layout.permute(2, 1, 3, 0)
        assert torch.equal(keep_largest({"w": layout}, 11)["w"], expected)


def test_plus_and_minus_zero_are_the_same_magnitude() -> None:
    weights = {"w": torch.tensor([-0.0, 0.0, -0.0, 1.0])}
    assert keep_largest(weights, 2)["w"].tolist() == [True, False, False, True]
    assert keep_largest(weights, 3)["w"].tolist() == [True, True, False, True]


@pytest.mark.parametrize("dtype", TYPES)
def test_denormals_are_larger_than_zero_and_in_order(dtype: torch.dtype) -> None:
    smallest = torch.finfo(dtype).smallest_normal
    weights = {"w": torch.tensor([0.0, smallest / 8, smallest / 4, smallest / 8, smallest], dtype=dtype)}
    assert keep_largest(weights, 3)["w"].tolist() == [False, True, True, False, True]


@pytest.mark.parametrize("dtype", TYPES)
def test_neighbouring_numbers_are_told_apart(dtype: torch.dtype) -> None:
    one = torch.ones((), dtype=dtype)
    above = torch.nextafter(one, one * 2) if dtype in (torch.float32, torch.float64) else one + torch.finfo(dtype).eps
    weights = {"w": torch.stack([one, above, one, above, one])}
    assert keep_largest(weights, 2)["w"].tolist() == [False, True, False, True, False]


def test_what_was_pruned_stays_pruned_even_if_it_is_large() -> None:
    weights = {"w": torch.tensor([9.0, 1.0, 2.0, 3.0])}
    masks = {"w": torch.tensor([False, True, True, True])}
    assert keep_largest(weights, 2, masks)["w"].tolist() == [False, False, True, True]


def test_survivors_that_are_zero_do_not_bring_back_what_was_pruned() -> None:
    weights = {"w": torch.tensor([0.0, 0.0, 5.0, 0.0, 0.0])}
    masks = {"w": torch.tensor([False, True, True, False, True])}
    assert keep_largest(weights, 3, masks)["w"].tolist() == [False, True, True, False, True]
    assert keep_largest(weights, 2, masks)["w"].tolist() == [False, True, True, False, False]


def test_masks_may_cover_some_of_the_tensors_only() -> None:
    weights = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([1.0, 2.0])}
    masks = {"a": torch.tensor([False, True])}
    assert_same(keep_largest(weights, 2, masks), {"a": torch.tensor([False, True]), "b": torch.tensor([False, True])})


def test_all_and_none() -> None:
    weights = {"a": torch.zeros(2, 2), "b": torch.ones(3)}
    assert all(mask.all() for mask in keep_largest(weights, 7).values())
    assert not any(mask.any() for mask in keep_largest(weights, 0).values())
    assert_same(keep_largest(weights, 0), by_sorting(weights, 0))


def test_tensors_of_no_dimension_and_of_no_element() -> None:
    weights = {"scalar": torch.tensor(2.0), "empty": torch.empty(0, 3), "w": torch.tensor([[1.0], [3.0]])}
    masks = keep_largest(weights, 2)
    assert masks["scalar"].shape == ()
    assert masks["scalar"].item() is True
    assert masks["empty"].shape == (0, 3)
    assert masks["w"].tolist() == [[False], [True]]


# Few distinct values, so that ties are the rule; zeros of both signs; the smallest and the largest numbers there are.
values = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -3.0, 1e-7, 6e-8, 1.0009765625, 65504.0, -65504.0])
shapes = st.lists(st.integers(1, 5), min_size=0, max_size=4).map(tuple)


@st.composite
def tensors(draw: st.DrawFn, dtypes: list[torch.dtype]) -> Tensor:
    """A tensor in one of many memory layouts."""
    shape = draw(shapes)
    dtype = draw(st.sampled_from(dtypes))
    count = int(np.prod(shape, dtype=int))
    flat = draw(st.lists(values, min_size=count, max_size=count))
    tensor = torch.tensor(flat, dtype=torch.float64).to(dtype).reshape(shape)
    layout = draw(st.sampled_from(["contiguous", "transposed", "strided", "channels_last", "offset"]))
    if layout == "transposed" and tensor.dim() > 1:
        order = draw(st.permutations(range(tensor.dim())))
        inverse = sorted(range(tensor.dim()), key=list(order).__getitem__)
        return tensor.permute(order).contiguous().permute(inverse)
    if layout == "strided" and tensor.dim() > 0:
        wide = torch.full((*shape[:-1], shape[-1] * 3 + 1), 77.0, dtype=dtype)
        wide[..., 1::3] = tensor
        return wide[..., 1::3]
    if layout == "channels_last" and tensor.dim() == 4:
        return tensor.to(memory_format=torch.channels_last)
    if layout == "offset":
        block = torch.full((count + 5,), 77.0, dtype=dtype)
        block[3 : 3 + count] = tensor.reshape(-1)
        return block[3 : 3 + count].reshape(shape)
    return tensor


@pytest.mark.parametrize("dtypes", [[t] for t in TYPES] + [TYPES, [torch.bfloat16, torch.float16]], ids=str)
def test_it_equals_a_stable_sort(dtypes: list[torch.dtype]) -> None:
    @given(data=st.data(), parts=st.lists(tensors(dtypes), min_size=1, max_size=4))
    def equal(data: st.DataObject, parts: list[Tensor]) -> None:
        weights = {f"layer{index}.weight": part for index, part in enumerate(parts)}
        before = {name: weight.clone() for name, weight in weights.items()}
        total = sum(weight.numel() for weight in parts)
        first = data.draw(st.integers(0, total))
        masks = keep_largest(weights, first)
        assert_same(masks, by_sorting(weights, first))

        # Some of what is left is trained to exactly zero, some of what was pruned comes back to life: a second cut.
        trained = {name: weight.flip(0) if weight.dim() else weight for name, weight in weights.items()}
        second = data.draw(st.integers(0, first))
        masks_before = {name: mask.clone() for name, mask in masks.items()}
        again = keep_largest(trained, second, masks)
        assert_same(again, by_sorting(trained, second, masks))
        assert all(not (again[name] & ~masks[name]).any() for name in masks)
        assert sum(int(mask.sum()) for mask in again.values()) == second

        for name in weights:
            assert torch.equal(weights[name], before[name])
            assert torch.equal(masks[name], masks_before[name])

    equal()


@pytest.mark.parametrize("dtype", TYPES)
def test_random_numbers_over_many_magnitudes(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    scale = 2.0 ** torch.randint(-14, 10, (64, 33), generator=generator)
    weights = {
        "a": (torch.randn(64, 33, generator=generator) * scale).to(dtype),
        "b": torch.randn(5, 7, 3, 3, generator=generator).to(dtype).to(memory_format=torch.channels_last),
    }
    total = sum(w.numel() for w in weights.values())
    for kept in (1, 2, total // 3, total - 1, total):
        assert_same(keep_largest(weights, kept), by_sorting(weights, kept))


def test_the_mask_lies_in_memory_as_its_weight_does() -> None:
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    for kept in (0, 7, 48):
        assert keep_largest({"w": weight}, kept)["w"].stride() == weight.stride()


def test_parameters_that_require_gradients_give_plain_masks() -> None:
    weight = torch.nn.Parameter(torch.randn(3, 3))
    mask = keep_largest({"w": weight}, 4)["w"]
    assert type(mask) is Tensor
    assert not mask.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["dense", "transposed", "strided", "wide"])
def test_tensors_of_several_slices(dtype: torch.dtype, layout: str) -> None:
    count = 3 * select.SLICE + 7
    values = torch.randint(-50, 50, (count,), generator=torch.Generator().manual_seed(1)).to(dtype)
    if layout == "dense":
        weight = values
    elif layout == "transposed":
        weight = values[: count - count % 9].reshape(9, -1).t()
    elif layout == "strided":
        weight = torch.stack([values, values + 1], dim=1)[:, 0]
    else:
        # One row is longer than a slice.
        weight = torch.stack([values, -values])[:, ::2]
    weights = {"w": weight, "tail": torch.tensor([49.0, 20.0], dtype=dtype)}
    total = sum(w.numel() for w in weights.values())
    first = keep_largest(weights, total // 2 + 1)
    assert_same(first, by_sorting(weights, total // 2 + 1))
    assert_same(keep_largest(weights, total // 5, first), by_sorting(weights, total // 5, first))


def test_masks_of_another_layout_than_the_weight() -> None:
    weight = torch.randn(8, 6, 3, 3).to(memory_format=torch.channels_last)
    mask = torch.rand(8, 6, 3, 3) < 0.5
    kept = int(mask.sum()) // 2
    assert_same(keep_largest({"w": weight}, kept, {"w": mask}), by_sorting({"w": weight}, kept, {"w": mask}))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_a_weight_that_is_not_finite_is_named(dtype: torch.dtype, bad: float) -> None:
    weights = {"fine.weight": torch.ones(3, dtype=dtype), "bad.weight": torch.tensor([[1.0, bad]], dtype=dtype)}
    with pytest.raises(TrainingDivergedError, match=r"bad\.weight holds -?(inf|nan); expected finite"):
        keep_largest(weights, 2)


def test_a_nan_at_a_pruned_position_is_no_weight() -> None:
    weights = {"w": torch.tensor([float("nan"), 1.0, 2.0])}
    assert keep_largest(weights, 1, {"w": torch.tensor([False, True, True])})["w"].tolist() == [False, False, True]


def test_the_largest_finite_number_is_accepted() -> None:
    for dtype in TYPES:
        weights = {"w": torch.tensor([1.0, torch.finfo(dtype).max, torch.finfo(dtype).min], dtype=dtype)}
        assert keep_largest(weights, 2)["w"].tolist() == [False, True, True]


@pytest.mark.parametrize("kept", [-1, 6])
def test_a_count_out_of_range_is_refused(kept: int) -> None:
    with pytest.raises(ValueError, match=rf"got kept={kept}; expected 0 to 5"):
        keep_largest({"w": torch.ones(5)}, kept)


def test_more_than_is_left_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 0 to 1"):
        keep_largest({"w": torch.ones(2)}, 2, {"w": torch.tensor([True, False])})


@pytest.mark.parametrize("mask", [torch.ones(3, dtype=torch.bool), torch.ones(2), torch.ones(2, 1, dtype=torch.bool)])
def test_a_mask_that_does_not_fit_is_refused(mask: Tensor) -> None:
    with pytest.raises(ValueError, match=r"mask of w is .*; expected bool"):
        keep_largest({"w": torch.ones(2)}, 1, {"w": mask})


@pytest.mark.parametrize("dtype", [torch.int32, torch.int8, torch.bool, torch.complex64])
def test_weights_that_are_no_real_floating_point_numbers_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"quantized holds torch\.\w+; expected"):
        keep_largest({"w": torch.ones(3), "quantized": torch.ones(3).to(dtype)}, 2)


def test_no_tensors_at_all() -> None:
    assert keep_largest({}, 0) == {}


def test_locate_by_hand() -> None:
    counts = torch.tensor([5, 0, 2, 0, 3])
    assert locate(counts, 1) == (4, 0)
    assert locate(counts, 3) == (4, 0)
    assert locate(counts, 4) == (2, 3)
    assert locate(counts, 5) == (2, 3)
    assert locate(counts, 6) == (0, 5)
    assert locate(counts, 10) == (0, 5)
    with pytest.raises(ValueError, match="expected at most 10"):
        locate(counts, 11)


@given(
    counts=st.lists(st.integers(0, 2**40), min_size=1, max_size=40).filter(any),
    rank=st.fractions(min_value=0, max_value=1),
)
def test_locate_counts_far_beyond_31_bits(counts: list[int], rank: float) -> None:
    total = sum(counts)
    wanted = max(1, int(rank * total))
    above = 0
    for bucket in reversed(range(len(counts))):
        if above + counts[bucket] >= wanted:
            break
        above += counts[bucket]
    assert locate(torch.tensor(counts, dtype=torch.int64), wanted) == (bucket, above)


@pytest.mark.slow
def test_25_million_weights_need_at_most_64_mb_beyond_their_masks() -> None:
    """In a process of its own: the peak of selecting, less what was there before and the new masks."""
    script = """
        import torch
        from gossamer.prune.select import keep_largest

        def status(field):
            with open("/proc/self/status") as file:
                return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))

        def extra(weights):
            total = sum(w.numel() for w in weights.values())
            assert total > 25_500_000, total
            worst, masks = 0, None
            for density in (0.8, 0.64, 0.512):
                with open("/proc/self/clear_refs", "w") as file:
                    file.write("5")  # The peak counts from here.
                before = status("VmRSS")
                masks = keep_largest(weights, int(density * total), masks)
                worst = max(worst, status("VmHWM") - before - total)
                assert sum(int(torch.count_nonzero(m)) for m in masks.values()) == int(density * total)
            return worst

        torch.set_num_threads(1)
        layers = {f"conv{i}": torch.randn(512, 512, 3, 3) for i in range(8)}
        layers["conv8"] = torch.randn(512, 512, 3, 3).to(memory_format=torch.channels_last)
        layers["fc"] = torch.randn(2048, 2098).t()
        # What is made for a whole layer shows most in a single large one.
        print(max(extra(layers), extra({"embedding": torch.randn(25_600, 1000)})))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    if "clear_refs" in done.stderr:
        pytest.skip("this system does not let a process reset its peak memory")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64e6


@pytest.mark.parametrize(
    ("tensor", "dense"),
    [
        (torch.ones(3, 4, 5), True),
        (torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last), True),
        (torch.ones(3, 4).t(), True),
        (torch.ones(3, 4)[:, ::2], False),
        (torch.ones(3, 4)[::2], False),
        (torch.ones(3, 4)[:, :3], False),
        (torch.ones(3, 1).expand(3, 4), False),
        (torch.ones(4).expand(3, 4), False),
        (torch.ones(()), True),
        (torch.ones(6).as_strided((2, 1, 3), (3, 100, 1)), True),
    ],
)
def test_what_lies_in_memory_without_gaps(tensor: Tensor, dense: bool) -> None:
    assert _is_dense(tensor) == dense
