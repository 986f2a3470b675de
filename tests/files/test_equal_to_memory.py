"""Pruning files keeps exactly the weights that pruning in memory keeps, ties included."""

import json
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sharded import load_shards, pruned_in_memory, same_bits, save_shards
from torch import Tensor

from gossamer.errors import ConfigurationError
from gossamer.files import prune
from gossamer.files.ranking import largest_of_groups

KINDS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def weights_of(generator: torch.Generator, kinds: list[torch.dtype], coarse: bool) -> dict[str, Tensor]:
    found = {}
    for number, kind in enumerate(kinds):
        sizes = torch.randint(1, 12, (4,), generator=generator).tolist()
        shape = sizes[: 2 + number % 3]
        weight = torch.randn(shape, generator=generator, dtype=torch.float64)
        # Halves: most weights are equal to others, minus zeros among them.
        weight = torch.round(weight * 2) / 2 if coarse else weight
        found[f"layer.{number}.weight"] = weight.to(kind)
    return found


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=5),
    coarse=st.booleans(),
    sparsity=st.sampled_from([0.3, 0.5, 0.75, 0.9]),
    structure=st.sampled_from(["unstructured", "2:4", "1:4", "3:10"]),
    layerwise=st.booleans(),
    piece=st.sampled_from([1, 16, 1 << 17]),
)
def test_masks_are_those_of_memory(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    kinds: list[torch.dtype],
    coarse: bool,
    sparsity: float,
    structure: str,
    layerwise: bool,
    piece: int,
) -> None:
    folder = tmp_path_factory.mktemp("files")
    weights = weights_of(torch.Generator().manual_seed(seed), kinds, coarse)
    source = save_shards(folder / "source", weights, number=min(2, len(weights)))
    with patch("gossamer.files.selecting.PIECE", piece):
        try:
            pruned = prune(source, folder / "out", sparsity=sparsity, structure=structure, layerwise=layerwise)
        except ConfigurationError as error:
            assert "leaves at most" in str(error) or "rounds to no weight" in str(error)  # noqa: PT017
            return
    expected = pruned_in_memory(weights, sparsity, structure, layerwise)
    found = load_shards(folder / "out")
    assert all(same_bits(found[name], expected[name]) for name in weights)
    assert pruned.prunable == sum(weight.numel() for weight in weights.values())
    assert {tensor.name: tensor.kept for tensor in pruned.tensors}.keys() == weights.keys()


def test_large_tensors_of_float32_are_read_in_pieces(tmp_path: Path) -> None:
    """More than a piece each, so that the sample is a part, and thresholds lie in different digits of it."""
    weights = {f"layer.{number}.weight": torch.randn(700, 300) * 10.0**-number for number in range(3)}
    source = save_shards(tmp_path / "source", weights)
    for sparsity in (0.05, 0.5, 0.99):
        prune(source, tmp_path / str(sparsity), sparsity=sparsity)
        expected, found = pruned_in_memory(weights, sparsity), load_shards(tmp_path / str(sparsity))
        assert all(same_bits(found[name], expected[name]) for name in weights)


def test_a_sample_that_misleads_costs_a_reading_and_nothing_else(tmp_path: Path) -> None:
    """The rows that are sampled, the first of every 64 pieces, are larger than all others."""
    weight = torch.randn(1 << 10, 1 << 10)
    weight[::256] *= 1e6
    source = save_shards(tmp_path / "source", {"layer.weight": weight}, number=1)
    prune(source, tmp_path / "out", sparsity=0.5)
    assert same_bits(load_shards(tmp_path / "out")["layer.weight"], pruned_in_memory({"w": weight}, 0.5)["w"])


@pytest.mark.parametrize("number", [1, 2, 5])
def test_no_sharding_changes_which_of_equal_weights_are_kept(tmp_path: Path, number: int) -> None:
    weights = {f"layer.{index}.weight": torch.ones(8, 8, dtype=torch.bfloat16) for index in (3, 1, 4, 2, 0)}
    source = save_shards(tmp_path / "source", weights, number)
    prune(source, tmp_path / "out", sparsity=0.5)
    found = load_shards(tmp_path / "out")
    assert [int(found[f"layer.{index}.weight"].sum()) for index in range(5)] == [64, 64, 32, 0, 0]


def test_zeros_go_first_and_are_written_without_a_sign(tmp_path: Path) -> None:
    weight = torch.tensor([[0.0, -0.0, 3.0, -1.0], [-0.0, 2.0, 0.5, -4.0]])
    source = save_shards(tmp_path / "source", {"layer.weight": weight}, number=1)
    pruned = prune(source, tmp_path / "out", sparsity=0.5)
    expected = torch.tensor([[0.0, 0.0, 3.0, -1.0], [0.0, 2.0, 0.0, -4.0]])
    assert same_bits(load_shards(tmp_path / "out")["layer.weight"], expected)
    assert (pruned.tensors[0].kept, pruned.tensors[0].zeros_before) == (4, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_no_order_ranks_is_refused_by_name(tmp_path: Path, kind: torch.dtype, bad: float) -> None:
    weights = {"fine.weight": torch.ones(4, 4, dtype=kind), "spoiled.weight": torch.ones(4, 4, dtype=kind)}
    weights["spoiled.weight"][2, 1] = bad
    source = save_shards(tmp_path / "source", weights)
    with pytest.raises(ConfigurationError, match=r"spoiled\.weight holds (NaN|an infinite number)"):
        prune(source, tmp_path / "out", sparsity=0.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_what_was_done_is_recorded(tmp_path: Path) -> None:
    source = save_shards(tmp_path / "source", {"layer.weight": torch.arange(16.0).reshape(4, 4)}, number=1)
    prune(source, tmp_path / "out", sparsity=0.25)
    record = json.loads((tmp_path / "out" / "gossamer-prune.json").read_text())
    assert record["gossamer-prune"] == 1
    assert record["tensors"] == {"layer.weight": {"kept": 12, "prunable": 16}}


def test_largest_of_groups_by_hand() -> None:
    keys = torch.tensor([[5, 5, 5, 1, 9, 2]], dtype=torch.int32).numpy().astype("u4").reshape(1, 6, 1)
    assert largest_of_groups(keys, 2, 4).reshape(-1).tolist() == [True, True, False, False, True, True]
    assert largest_of_groups(keys, 1, 9).reshape(-1).tolist() == [False, False, False, False, True, False]
