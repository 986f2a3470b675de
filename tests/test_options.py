"""Settings objects: their options, the tables of a run's configuration, and the way back from both."""

import tomllib
from typing import Any

import pytest
from small_run import printed

from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.job.training import DenseRound, Training
from gossamer.loop.configuration import Configuration, read
from gossamer.loop.settings import Settings
from gossamer.loop.stop import Stop
from gossamer.options import docstrings, from_options, options_of, to_options
from gossamer.prune.cut import Cut
from gossamer.prune.scope import Scope
from gossamer.rewind.strategies import Retraining

KINDS = (Stop, Cut, Retraining, Scope, Training, DenseRound)

SETTINGS = [
    Settings(Stop(0.95)),
    Settings(Stop(max_drop=0.01, metric="accuracy", better="higher"), seed=3),
    Settings(Stop(rounds=4), Cut("lamp", "erk", "2:4", 0.5), Retraining("weight-rewind", rewind_to_step=7), seed=0),
    Settings(Stop(0.9), Cut(one_shot=True), Retraining("fine-tune", rewind_epochs=10, replicates=3)),
    Settings(Stop(0.9), Cut(allocation={"a": 0.5, "b": 1.0}), Retraining("reinit", rewound=())),
    Settings(Stop(0.9), retraining=Retraining("weight-rewind", rewound=("statistics",), rewind_to_epoch=2)),
    Settings(Stop(0.9), scope=Scope(("*", "head.*"), ("conv1",), True)),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_configuration_says_all_that_was_set(settings: Settings, tmp_path: Any) -> None:
    Configuration(settings.to_tables()).write(tmp_path)
    assert Settings.from_tables(read(tmp_path)) == settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Stop(0.95, rounds=3), "--target-sparsity 0.95 --rounds 3"),
        (Stop(metric="loss", better="lower"), ""),
        (Cut(), ""),
        (Cut("taylor", structure="1x4", per_round=0.2), "--criterion taylor --structure 1x4 --per-round 0.2"),
        (Cut(allocation={"a": 0.5}, one_shot=True), "--allocation densities.toml --one-shot"),
        (Retraining("weight-rewind", rewind_to_epoch=0), "--method weight-rewind --rewind-to 0"),
        (Retraining("reinit", rewound=()), "--method reinit --rewound none"),
        (Retraining("reinit", rewound=("optimizer", "statistics")), "--method reinit --rewound optimizer,statistics"),
        (Scope(("a", "b"), ("c",)), "--include a --include b --exclude c"),
        (Training(3, 1, fresh_optimizer=True), "--epochs 3 --seed 1 --fresh-optimizer"),
        (DenseRound(only=True, keep_snapshots=(0, 1, 5)), "--dense-only --keep-snapshots 0,1,5"),
    ],
)
def test_settings_as_words_of_a_command(settings: Any, words: str) -> None:
    assert " ".join(to_options(settings)) == words


def test_what_a_command_gives_becomes_the_object() -> None:
    assert from_options(Stop, {"rounds": 3, "other": 1}) == Stop(rounds=3)
    assert from_options(Scope, {"include": [], "exclude": ["a"]}) == Scope(exclude=("a",))
    given = {"method": "reinit", "rewound": "none", "rewind_to_epoch": None}
    assert from_options(Retraining, given) == Retraining("reinit", rewound=())
    assert from_options(DenseRound, {"only": True, "keep_snapshots": "0,5"}) == DenseRound(None, True, (0, 5))
    with pytest.raises(ConfigurationError, match="--keep-snapshots is '0;5'; expected whole numbers such as 0,1,5"):
        from_options(DenseRound, {"keep_snapshots": "0;5"})


@pytest.mark.parametrize("kind", KINDS)
def test_help_is_the_docstring_of_the_field(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    shown = " ".join(printed("compress", "--help").replace("│", " ").split())
    for option in options_of(kind):
        assert option.name in shown
        assert docstrings(kind)[option.field] in shown


@pytest.mark.parametrize(("file", "known"), [("config.toml", 2), ("round-00/round.json", 3)])
def test_a_folder_of_a_newer_version_is_refused_by_name(file: str, known: int, tmp_path: Any) -> None:
    printed("compress", "digits", "--dense-only", "--epochs", 1, "--out", tmp_path)
    path = tmp_path / file
    assert tomllib.loads((tmp_path / "config.toml").read_text())["versions"]["format"] == 2
    text = path.read_text()
    newer = text.replace(f"format = {known}", f"format = {known + 1}")
    path.write_text(newer.replace(f'"format": {known}', f'"format": {known + 1}'))
    assert path.read_text() != text
    from gossamer.loop.finished import read_finished

    name = file.rpartition("/")[2]
    message = rf"{name} is of format version {known + 1}, .* up to version {known}"
    with pytest.raises(CheckpointError, match=message):
        read_finished(tmp_path)
