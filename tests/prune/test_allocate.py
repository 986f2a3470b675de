"""Shares of the layers, against numbers computed by hand and the definitions written out."""

from fractions import Fraction
from math import prod
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gossamer.errors import ConfigurationError
from gossamer.prune import masks as masks_of
from gossamer.prune.allocate import apportion, erk, uniform
from gossamer.prune.choose import check, choose
from gossamer.prune.cut import Cut
from gossamer.prune.densities import Densities, read_densities, write_densities
from gossamer.prune.prunable import prunable_weights

SHAPES = st.dictionaries(
    st.sampled_from("abcdef"),
    st.lists(st.integers(1, 9), min_size=2, max_size=4).map(tuple),
    min_size=1,
)


def test_uniform_by_hand() -> None:
    assert uniform({"a": (2, 5), "b": (3, 10)}, 20) == {"a": 5, "b": 15}


def test_erk_by_hand() -> None:
    # Densities proportional to (2+5)/10, (3+10)/30: 20 weights over 7 + 13 = 20, so the scale is 1.
    assert erk({"a": (2, 5), "b": (3, 10)}, 20) == {"a": 7, "b": 13}
    # 32 would take 11.2 of a's 10 weights: a is full, and b takes the rest.
    assert erk({"a": (2, 5), "b": (3, 10)}, 32) == {"a": 10, "b": 22}
    # A kernel's sides are part of the sum: (8+4+3+3)/288 against (10+20)/200.
    assert erk({"conv": (8, 4, 3, 3), "linear": (10, 20)}, 48) == {"conv": 18, "linear": 30}


@given(shapes=SHAPES, share=st.fractions(0, 1))
def test_erk_is_proportional_where_it_is_not_full(shapes: dict[str, tuple[int, ...]], share: Fraction) -> None:
    total = sum(prod(shape) for shape in shapes.values())
    kept = int(share * total)
    shares = erk(shapes, kept)
    assert sum(shares.values()) == kept
    scales = {Fraction(shares[name], sum(shape)) for name, shape in shapes.items() if shares[name] < prod(shape)}
    assert len(scales) <= 1
    for name, shape in shapes.items():
        assert 0 <= shares[name] <= prod(shape)
        if scales and shares[name] == prod(shape):
            assert Fraction(prod(shape), sum(shape)) <= max(scales)


@given(
    rows=st.lists(st.tuples(st.fractions(0, 50), st.integers(0, 60)), min_size=1, max_size=8),
    share=st.fractions(0, 1),
)
def test_whole_numbers_add_up_and_stay_near(rows: list[tuple[Fraction, int]], share: Fraction) -> None:
    available = {str(index): number for index, (_, number) in enumerate(rows)}
    kept = int(share * sum(available.values()))
    asked = sum(wish for wish, _ in rows)
    if asked == 0:
        return
    wanted = {str(index): wish * kept / asked for index, (wish, _) in enumerate(rows)}
    counts = apportion(wanted, available, kept)
    assert sum(counts.values()) == kept
    for name in available:
        assert 0 <= counts[name] <= available[name]
        # Never less than the share rounded down, unless there is no more.
        assert counts[name] >= min(int(wanted[name]), available[name])


def test_remainders_are_rounded_up_largest_first_and_ties_in_order() -> None:
    wanted = {"a": Fraction(5, 3), "b": Fraction(5, 3), "c": Fraction(5, 3)}
    assert apportion(wanted, dict.fromkeys("abc", 9), 5) == {"a": 2, "b": 2, "c": 1}
    # What one cannot take, the other does: one weight, and half of one.
    assert apportion({"a": Fraction(2), "b": Fraction(1)}, {"a": 1, "b": 9}, 3) == {"a": 1, "b": 2}
    assert apportion({"a": Fraction(3, 2), "b": Fraction(3, 2)}, {"a": 1, "b": 9}, 3) == {"a": 1, "b": 2}
    with pytest.raises(ValueError, match="expected at least as many"):
        apportion(wanted, dict.fromkeys("abc", 1), 5)


def test_densities_end_exactly_and_the_way_there_is_geometric() -> None:
    shapes = {"a": (10, 10), "b": (10, 40)}
    densities = Densities({"a": 0.25, "b": 0.04})
    assert densities.total(shapes) == 25 + 16
    assert densities(shapes, 41) == {"a": 25, "b": 16}
    # Half of the way: 0.25^0.5 = 0.5 and 0.04^0.5 = 0.2.
    halfway = densities(shapes, 50 + 80)
    assert [float(halfway[name]) for name in "ab"] == pytest.approx([50, 80], rel=1e-12)
    assert sum(halfway.values()) == 130
    # Past the end the rates go on: 0.25^2 and 0.04^2, 6.25 + 0.64 weights.
    assert float(densities(shapes, 7)["a"]) == pytest.approx(6.35, abs=0.05)


def test_densities_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    shapes = {"a": (2, 2), "b": (2, 2)}
    for given_, message in (
        ({"a": 0.5}, "no density for b"),
        ({"a": 0.5, "b": 0.5, "c": 0.5}, "density for c, which is not prunable"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            Densities(given_).total(shapes)
    for density in (0, -0.5, 1.5, True, float("nan"), "0.5"):
        with pytest.raises(ConfigurationError, match="above 0 and at most 1"):
            Densities({"a": density})  # type: ignore[dict-item]
    model = nn.Linear(2, 2)
    for last_kept in (None, 2):
        with pytest.raises(ConfigurationError, match="density for a, which is not prunable"):
            check(Cut(allocation=Densities({"weight": 0.5, "a": 0.5})), model, prunable_weights(model), last_kept)
    with pytest.raises(ConfigurationError, match="density 1 alone have 4"):
        Densities({"a": 1, "b": 0.5})(shapes, 3)
    for content in ("", "[densities]\n", "densities = 3\n", "not toml", '[densities]\na = "x"\n'):
        file = tmp_path / "file.toml"
        file.write_text(content)
        with pytest.raises(ConfigurationError):
            read_densities(file)
    with pytest.raises(ConfigurationError, match="No such file"):
        Cut(allocation=str(tmp_path / "missing.toml"))
    with pytest.raises(ConfigurationError, match=r"global, uniform, erk, or a file .* \.toml"):
        Cut(allocation="magic")


def test_densities_are_of_the_structure_that_they_were_found_for(tmp_path: Path) -> None:
    for found_for, other in (("channels", "2:4"), ("2:4", "channels")):
        densities = Densities({"a": 0.5}, found_for)
        densities.check_structure(found_for)
        with pytest.raises(ConfigurationError, match=f"found for the structure {found_for}, got {other}"):
            densities.check_structure(other)
        with pytest.raises(ConfigurationError, match=f"found for the structure {found_for}, got {other}"):
            Cut(allocation=densities, structure=other)
        Densities({"a": 0.5}).check_structure(other)
    # Shares of single weights are shares of single weights in blocks too.
    Densities({"a": 0.5}, "unstructured").check_structure("2:4")
    (tmp_path / "file.toml").write_text("structure = 24\n[densities]\na = 0.5\n")
    with pytest.raises(ConfigurationError, match=r"structure is 24; expected a name, such as 'channels'"):
        read_densities(tmp_path / "file.toml")


def test_densities_come_back_from_their_file(tmp_path: Path) -> None:
    densities = Densities({"a.weight": 1 / 3, "b": 1})
    write_densities(tmp_path / "policy.toml", densities, {"budget": "weights"})
    assert Cut(allocation=tmp_path / "policy.toml").allocation == densities
    assert Cut(allocation=str(tmp_path / "policy.toml")).allocation == densities
    # What the user names may be a link.
    (tmp_path / "link.toml").symlink_to(tmp_path / "policy.toml")
    assert Cut(allocation=tmp_path / "link.toml").allocation == densities


@pytest.mark.parametrize("allocation", ["uniform", "erk", Densities({"0.weight": 0.5, "2.weight": 0.05})])
def test_layers_keep_their_largest_and_never_regrow(allocation: str | Densities) -> None:
    model = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 30))
    weights = prunable_weights(model)
    cut = Cut(allocation=allocation)
    masks = masks_of.full(weights)
    for number, kept in enumerate([600, 431, 200, 111], start=1):
        before = masks
        masks = choose(cut, model, weights, kept, before, round_number=number)
        assert masks_of.count_kept(masks) == kept
        for name, mask in masks.items():
            assert not (mask & ~before[name]).any()
            magnitudes = weights[name].detach().abs()
            if (before[name] & ~mask).any():
                assert magnitudes[mask].min() >= magnitudes[before[name] & ~mask].max()
        with torch.no_grad():
            # Retraining moves the weights, so that the ranking of the next round is another one; what was pruned would
            # be among the largest if it counted.
            for name, weight in weights.items():
                weight.copy_(torch.randn_like(weight) + 100 * ~masks[name])


def test_uniform_is_uniform() -> None:
    model = nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 40))
    with torch.no_grad():
        model[0].weight.mul_(1000)
    weights = prunable_weights(model)
    masks = choose(Cut(allocation="uniform"), model, weights, 250, masks_of.full(weights), round_number=1)
    assert [int(mask.sum()) for mask in masks.values()] == [50, 200]
