"""Structures, against arrays written by hand and slow loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gossamer import Scope
from gossamer.errors import ConfigurationError, TrainingDivergedError
from gossamer.prune import masks as masks_of
from gossamer.prune.choose import check, choose
from gossamer.prune.cut import Cut
from gossamer.prune.prunable import inputs_first, prunable_weights
from gossamer.prune.structure import find_structure

SEEDS = st.integers(0, 2**32 - 1)


def kept_by(structure: str, score: Tensor, kept: int, mask: Tensor | None = None) -> Tensor:
    mask = torch.ones_like(score, dtype=torch.bool) if mask is None else mask
    return find_structure(structure).keep({"w": score}, kept, {"w": mask})["w"]


def test_two_of_four_by_hand() -> None:
    score = torch.tensor([[1.0, -4.0, 3.0, 2.0, 9.0, 8.0, 7.0, 6.0]])
    assert kept_by("2:4", score, 4).int().tolist() == [[0, 1, 1, 0, 1, 1, 0, 0]]
    # On the way there the two largest of each four are safe: 6 and 7 go before 3, but not before 1 and 2.
    assert kept_by("2:4", score, 6).int().tolist() == [[0, 1, 1, 0, 1, 1, 1, 1]]
    # Past it the rest is ranked over all.
    assert kept_by("2:4", score, 3).int().tolist() == [[0, 1, 0, 0, 1, 1, 0, 0]]


def test_blocks_by_hand() -> None:
    score = torch.tensor([[1.0, 1, 1, 1, 3, -3, 0, 0, 3], [2, 2, 2, 2, 0, 0, 0, 1, 1]])
    # Means: 1, 1.5, 3 (a block of one), 2, 0.25, 1.
    assert kept_by("1x4", score, 5).int().tolist() == [[0] * 8 + [1], [1] * 4 + [0] * 5]
    assert kept_by("1x4", score, 9).int().tolist() == [[0] * 4 + [1] * 5, [1] * 4 + [0] * 5]
    # The next block is the first of two equal ones, and has four weights: two more are not enough for it.
    assert torch.equal(kept_by("1x4", score, 11), kept_by("1x4", score, 9))
    assert kept_by("1x4", score, 13).int().tolist() == [[1] * 9, [1] * 4 + [0] * 5]


def test_blocks_lie_along_input_channels() -> None:
    score = torch.zeros(2, 8, 1, 2)
    score[1, 4:, 0, 1] = 1
    mask = kept_by("1x4", score, 4)
    assert torch.equal(mask, score.bool())


def test_channels_by_hand() -> None:
    score = torch.tensor([[1.0, 1], [3, -3], [2, 2]])
    assert kept_by("channels", score, 4).int().tolist() == [[0, 0], [1, 1], [1, 1]]
    assert kept_by("channels", score, 3).int().tolist() == [[0, 0], [1, 1], [0, 0]]
    # A weight that was pruned before stays so, and the mean is over the others: channel 0 has mean 9 now.
    mask = torch.tensor([[False, True], [True, True], [True, True]])
    assert kept_by("channels", torch.tensor([[1.0, 9], [3, 3], [2, 2]]), 3, mask).int().tolist() == [
        [0, 1],
        [1, 1],
        [0, 0],
    ]


@pytest.mark.parametrize("structure", ["channels", "1x4", "2:4"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_an_error(structure: str, bad: float) -> None:
    score = torch.ones(2, 4)
    score[1, 2] = bad
    with pytest.raises(TrainingDivergedError, match=r"^w holds .*finite"):
        kept_by(structure, score, 4)


def by_loops(structure: str, score: np.ndarray, kept: int, mask: np.ndarray) -> np.ndarray:
    """Whole groups, largest mean first, until one does not fit."""
    groups: list[list[tuple[int, ...]]] = []
    if structure == "channels":
        groups = [
            [(row, *rest) for rest in np.ndindex(*score.shape[1:]) if mask[(row, *rest)]] for row in range(len(score))
        ]
    else:
        for row in range(score.shape[0]):
            for start in range(0, score.shape[1], 4):
                for kernel in np.ndindex(*score.shape[2:]):
                    columns = range(start, min(start + 4, score.shape[1]))
                    groups.append([(row, c, *kernel) for c in columns if mask[(row, c, *kernel)]])
    groups = [group for group in groups if group]
    chosen = np.zeros(score.shape, bool)
    left = kept
    for group in sorted(groups, key=lambda group: -np.mean([abs(score[place]) for place in group])):
        if len(group) > left:
            break
        left -= len(group)
        for place in group:
            chosen[place] = True
    return chosen


@pytest.mark.parametrize("structure", ["channels", "1x4"])
@given(
    seed=SEEDS,
    shape=st.tuples(st.integers(1, 5), st.integers(1, 10), st.integers(1, 2), st.integers(1, 2)),
    share=st.floats(0, 1),
)
def test_groups_against_loops(structure: str, seed: int, shape: tuple[int, ...], share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    score = torch.randint(-4, 5, shape, generator=generator).float()
    mask = torch.rand(shape, generator=generator) < 0.8
    kept = int(share * mask.sum())
    found = kept_by(structure, score, kept, mask)
    assert np.array_equal(found.numpy(), by_loops(structure, score.numpy(), kept, mask.numpy()))


@given(
    seed=SEEDS,
    shape=st.tuples(st.integers(1, 4), st.integers(1, 11), st.integers(1, 2)),
    n=st.integers(1, 4),
    more=st.integers(1, 4),
    share=st.floats(0, 1),
)
def test_n_of_m_against_loops(seed: int, shape: tuple[int, ...], n: int, more: int, share: float) -> None:
    m = n + more
    generator = torch.Generator().manual_seed(seed)
    score = torch.randint(-4, 5, shape, generator=generator).float()
    mask = torch.rand(shape, generator=generator) < 0.8
    kept = int(share * mask.sum())
    found = kept_by(f"{n}:{m}", score, kept, mask).numpy()
    # The preferred ones: within each group the n largest survivors, the earlier ones of equal ones.
    preferred = []
    for row in range(shape[0]):
        for kernel in range(shape[2]):
            for start in range(0, shape[1], m):
                group = [(row, c, kernel) for c in range(start, min(start + m, shape[1])) if mask[row, c, kernel]]
                preferred += sorted(group, key=lambda place: -abs(score[place]))[:n]
    places = sorted(map(tuple, mask.nonzero().tolist()))
    ranking = sorted(places, key=lambda place: (place not in preferred, -abs(score[place])))
    expected = np.zeros(shape, bool)
    for place in ranking[:kept]:
        expected[place] = True
    assert np.array_equal(found, expected)


class Odd(nn.Module):
    """Layers whose inputs come second, and layers whose inputs come first."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)
        self.up = nn.ConvTranspose2d(8, 4, 3)


def test_inputs_are_found_in_transposed_layers() -> None:
    model = Odd()
    weights = prunable_weights(model)
    assert inputs_first(model, weights) == {"up.weight"}
    masks = choose(Cut(structure="2:4"), model, weights, 160, masks_of.full(weights), round_number=1)
    assert (masks["linear.weight"].reshape(4, 2, 4).sum(2) == 2).all()
    assert (masks["up.weight"].reshape(2, 4, 4, 3, 3).sum(1) == 2).all()
    masks = choose(Cut(structure="channels"), model, weights, 200, masks_of.full(weights), round_number=1)
    assert all(mask.all() or not mask.any() for mask in masks["up.weight"].unbind(1))
    assert masks["up.weight"].shape == weights["up.weight"].shape


class Adapted(nn.ConvTranspose2d):
    """With a parameter of its own, which lies as torch's layers do."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__(8, 4, 3, groups=groups)
        self.adapter = nn.Parameter(torch.randn(6, 5))


@pytest.mark.parametrize("groups", [1, 2])
def test_an_own_parameter_of_a_transposed_layer_has_its_outputs_first(groups: int) -> None:
    model = nn.Sequential(Adapted(groups))
    weights = prunable_weights(model, Scope(include=["0.adapter"]))
    assert inputs_first(model, weights) == set()
    mask = choose(Cut(structure="channels"), model, weights, 15, masks_of.full(weights), round_number=1)["0.adapter"]
    assert mask.all(1).sum() == 3


def test_memory_formats_stay() -> None:
    model = nn.Conv2d(8, 8, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = prunable_weights(model)
    for structure in ("unstructured", "2:4", "1x4", "channels"):
        plain = nn.Conv2d(8, 8, 3)
        plain.load_state_dict(model.state_dict())
        cut = Cut(structure=structure)
        found = choose(cut, model, weights, 288, masks_of.full(weights), round_number=1)["weight"]
        others = prunable_weights(plain)
        expected = choose(cut, plain, others, 288, masks_of.full(others), round_number=1)["weight"]
        assert torch.equal(found, expected), structure


@pytest.mark.parametrize("layer", [nn.Bilinear(3, 3, 3), nn.ConvTranspose2d(4, 4, 3, groups=2)])
def test_layers_without_channels_are_refused(layer: nn.Module) -> None:
    model = nn.Sequential(layer, nn.Linear(3, 3))
    weights = prunable_weights(model)
    with pytest.raises(ConfigurationError, match=r"0\.weight .* Exclude it"):
        check(Cut(structure="channels"), model, weights, 5)
    with pytest.raises(ConfigurationError, match=r"0\.weight .* Exclude it"):
        inputs_first(model, weights)
    check(Cut(), model, weights, 5)
    check(Cut(structure="channels"), model, prunable_weights(model, Scope(exclude=("0",))), 5)


def test_mistakes_say_what_to_do() -> None:
    for name in ("3:2", "0:4", "2:2", "a:b", "rows", "2:4:8"):
        with pytest.raises(ConfigurationError, match="unstructured, 2:4, 1x4, channels, or N:M"):
            Cut(structure=name)
    model = nn.Linear(8, 8)
    weights = prunable_weights(model)
    with pytest.raises(ConfigurationError, match=r"at most 32; expected a target sparsity of at least 0\.5"):
        check(Cut(structure="2:4"), model, weights, 33)
    check(Cut(structure="2:4"), model, weights, 32)
    with pytest.raises(ConfigurationError, match="not one of the groups"):
        choose(Cut(structure="channels"), model, weights, 7, masks_of.full(weights), round_number=1)
    two = nn.Sequential(nn.Linear(8, 80), nn.Linear(80, 4))
    with pytest.raises(ConfigurationError, match=r"erk keeps .* 1\.weight"):
        check(Cut(structure="2:4", allocation="erk"), two, prunable_weights(two), 480)
