"""Odd values of settings and files of newer versions: refused in words, or kept as Python's own numbers."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gossamer import CheckpointError, ConfigurationError, Cut, Retraining, RoundRecord
from gossamer.job.training import DenseRound, Training
from gossamer.loop.configuration import read
from gossamer.search.settings import PriceList, Scoring, SearchSettings


def test_numbers_of_numpy_become_pythons() -> None:
    given: Any = np.array([3])
    retraining = Retraining("weight-rewind", rewind_to_epoch=given)
    assert type(retraining.rewind_to_epoch) is int
    assert hash(retraining) == hash(Retraining("weight-rewind", rewind_to_epoch=3))
    seconds: Any = np.float32(0.5)
    assert type(Training(checkpoint_seconds=seconds).checkpoint_seconds) is float


def test_cuts_by_densities_are_hashed_and_copied() -> None:
    cut = Cut(allocation={"a": 0.5})
    assert {cut: 1}[copy.deepcopy(cut)] == 1


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Training, {"device": 1}),
        (Training, {"checkpoint_seconds": "soon"}),
        (Training, {"checkpoint_seconds": float("nan")}),
        (Training, {"checkpoint_seconds": -1}),
        (SearchSettings, {"episodes": "x"}),
        (SearchSettings, {"warm_up": None}),
        (Scoring, {"examples": "x"}),
        (PriceList, {"threads": 1.5}),
        (DenseRound, {"only": "no"}),
        (DenseRound, {"taken_from": 3}),
        (DenseRound, {"only": True, "keep_snapshots": np.array([1, 2])}),
        (DenseRound, {"only": True, "keep_snapshots": ("a",)}),
    ],
)
def test_values_of_other_types_are_refused(kind: Any, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        kind(**values)


def test_a_file_of_densities_that_a_folder_names_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("[densities]\na = 0.5\n")
    assert Cut(allocation=tmp_path / "own.toml").densities is not None
    with pytest.raises(ConfigurationError, match="there is no allocation"):
        Cut.from_tables({"method": {"allocation": str(tmp_path / "own.toml")}})


def test_a_newer_file_is_refused_by_its_version_and_not_by_its_types(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[rounds]\nmetric = [1]\n[versions]\nformat = 9\n")
    with pytest.raises(CheckpointError, match="format version 9"):
        read(tmp_path)
    with pytest.raises(CheckpointError, match="format version 9"):
        RoundRecord.from_json(json.dumps({"format": 9, "round": "first"}), "round.json")
