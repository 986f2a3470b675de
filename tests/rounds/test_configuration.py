"""The configuration that guards a folder."""

import tomllib
from pathlib import Path

import pytest
import torch

from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.rounds.configuration import Configuration, read

TABLES = {"rounds": {"target_sparsity": 0.95, "seed": None}, "model": {"weights": {"conv.0.weight": [2, 3]}}}


def test_what_is_written_is_plain_toml_with_versions(tmp_path: Path) -> None:
    Configuration(TABLES).write(tmp_path)
    tables = tomllib.loads((tmp_path / "config.toml").read_text())
    assert tables["rounds"] == {"target_sparsity": 0.95}
    assert tables["model"]["weights"] == {"conv.0.weight": [2, 3]}
    assert tables["versions"]["torch"] == torch.__version__
    assert read(tmp_path) == tables


def test_the_same_configuration_is_accepted_whatever_the_versions(tmp_path: Path) -> None:
    Configuration(TABLES).write(tmp_path)
    path = tmp_path / "config.toml"
    path.write_text(path.read_text().replace(torch.__version__, "1.0"))
    Configuration(TABLES).refuse_other(tmp_path)


def test_where_things_came_from_is_recorded_and_not_compared(tmp_path: Path) -> None:
    Configuration(TABLES, {"task": "mine.py:task"}).write(tmp_path)
    assert read(tmp_path)["origin"] == {"task": "mine.py:task"}
    Configuration(TABLES, {"task": "moved/mine.py:task"}).refuse_other(tmp_path)
    Configuration(TABLES).refuse_other(tmp_path)


def test_without_an_origin_there_is_no_section(tmp_path: Path) -> None:
    Configuration(TABLES, {"task": None}).write(tmp_path)
    assert "origin" not in read(tmp_path)


@pytest.mark.parametrize(
    ("other", "shown"),
    [
        (
            {**TABLES, "rounds": {"target_sparsity": 0.9, "seed": None}},
            r"  rounds\.target_sparsity: the folder's run has 0\.95, this one has 0\.9\n",
        ),
        ({**TABLES, "rounds": {"seed": None}}, r"target_sparsity: the folder's run has 0\.95, this one has nothing"),
        (
            {**TABLES, "rounds": {"target_sparsity": 0.95, "seed": 1}},
            r"rounds\.seed: the folder's run has nothing, this one has 1",
        ),
        (
            {**TABLES, "model": {"weights": {"conv.0.weight": [2, 4]}}},
            r"model\.weights\.conv\.0\.weight: the folder's run has \[2, 3\], this one has \[2, 4\]",
        ),
    ],
)
def test_another_configuration_is_refused_with_each_difference(
    other: dict[str, dict[str, object]], shown: str, tmp_path: Path
) -> None:
    Configuration(TABLES).write(tmp_path)
    before = (tmp_path / "config.toml").read_bytes()
    with pytest.raises(ConfigurationError, match=shown):
        Configuration(other).refuse_other(tmp_path)
    assert (tmp_path / "config.toml").read_bytes() == before


@pytest.mark.parametrize("setting", [Path("x"), object(), torch.ones(2), {1: 2}, [None], 1j])
def test_a_setting_that_toml_cannot_hold_is_refused(setting: object) -> None:
    with pytest.raises(ConfigurationError, match=r"a setting cannot be written to config\.toml"):
        Configuration({"settings": {"mine": setting}})


@pytest.mark.parametrize("content", [b"garbage", b"\xff\xfe", b"a = ", b"a = " + b"[" * 5000])
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.toml is damaged"):
        read(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.toml is missing"):
        read(tmp_path)
