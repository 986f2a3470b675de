"""The configuration that guards a folder."""

import tomllib
from pathlib import Path

import pytest
import torch

from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.loop.configuration import Configuration, read, read_of_run

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


def test_a_setting_of_another_type_than_declared_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^rounds\.seed is 'x'; expected a whole number"):
        Configuration({"rounds": {"seed": "x"}})


def test_each_kind_has_a_folder_of_its_own(tmp_path: Path) -> None:
    Configuration({"comparison": {"threads": 1}}).write(tmp_path)
    with pytest.raises(ConfigurationError, match=r"holds a comparison, which is left .* another folder for a run"):
        Configuration(TABLES).write(tmp_path)
    with pytest.raises(ConfigurationError, match="another folder for mine"):
        Configuration({"mine": {}}).write(tmp_path)
    with pytest.raises(ConfigurationError, match="holds a comparison; expected the folder of a run"):
        read_of_run(tmp_path)
    Configuration({"comparison": {"threads": 2}}).write(tmp_path)
    assert read(tmp_path)["comparison"] == {"threads": 2}
    (tmp_path / "config.toml").write_text("[mine]\na = 1\n")
    with pytest.raises(ConfigurationError, match=r"holds a config\.toml that is not gossamer's; expected"):
        read_of_run(tmp_path)
    (tmp_path / "config.toml").unlink()
    Configuration(TABLES).write(tmp_path)
    assert read_of_run(tmp_path) == read(tmp_path)


DENSE = {
    "rounds": {"target_sparsity": 0.5, "seed": 1, "metric": "accuracy", "better": "higher"},
    "method": {"retraining": "lr-rewind", "state": ["optimizer"]},
    "scope": {"embeddings": False},
    "model": {"weights": {"a": [2, 3]}},
    "settings": {"epochs": 3, "fine_tune_rate": 0.1},
    "origin": {"task": "a"},
}


@pytest.mark.parametrize(
    ("table", "change", "decides"),
    [
        ("rounds", {"seed": 2}, True),
        ("rounds", {"metric": "loss"}, True),
        ("rounds", {"better": "lower"}, True),
        ("rounds", {"target_sparsity": 0.6}, False),
        ("method", {"state": []}, True),
        ("method", {"retraining": "fine-tune"}, False),
        ("scope", {"embeddings": True}, True),
        ("model", {"weights": {"a": [3, 3]}}, True),
        ("settings", {"epochs": 4}, True),
        ("settings", {"more": 4}, True),
        ("settings", {"fine_tune_rate": 0.2}, False),
        ("origin", {"task": "b"}, False),
    ],
)
def test_a_dense_network_is_another_one_if_what_decides_it_differs(
    table: str, change: dict[str, object], decides: bool, tmp_path: Path
) -> None:
    Configuration(DENSE).write(tmp_path)
    other = Configuration({**DENSE, table: {**DENSE[table], **change}})
    if decides:
        (name,) = change
        with pytest.raises(ConfigurationError, match=rf"not the one that this run would train:\n  {table}\.{name}.*: "):
            other.refuse_other_dense(tmp_path)
    else:
        other.refuse_other_dense(tmp_path)
