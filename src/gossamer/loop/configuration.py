"""The resolved configuration of a run, kept in its folder, and the comparison that guards the folder."""

import platform
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import tomli_w

from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.storage.files import read_text, write_text
from gossamer.storage.typed import WrongTypeError, read_as
from gossamer.storage.versions import refuse_newer

FILE = "config.toml"

VERSIONS, ORIGIN = "versions", "origin"
INFORMATION = (VERSIONS, ORIGIN)
"""The sections that are recorded but not compared: a run may go on after an upgrade, and after its files moved."""

OF_ROUNDS = ("method.quantised_rounds", "method.levels")
"""Settings that every round says of itself: the rounds are compared (`RoundRecord`), so that a finished run goes on
with others once the rounds that they would change are removed."""

FORMAT = 2
"""The version of the file, under `format` of its versions. Version 1 did not state one."""

RUN = "rounds"
KINDS = {RUN: "a run", "comparison": "a comparison", "search": "a search"}
"""The first table of a configuration -> what it is of."""


@dataclass(frozen=True)
class StoredRounds:
    """The types of what a run says of its rounds."""

    target_sparsity: float | None = None
    max_drop: float | None = None
    rounds: int | None = None
    per_round: float | None = None
    one_shot: bool | None = None
    metric: str | None = None
    better: Literal["higher", "lower"] | None = None
    seed: int | None = None


@dataclass(frozen=True)
class StoredMethod:
    """The types of what a run says of its method, as far as the types are known."""

    rewound: list[str] | None = None
    densities: dict[str, float] | None = None


@dataclass(frozen=True)
class StoredPatterns:
    """The types of what a run says of its scope."""

    include: list[str] | None = None
    exclude: list[str] | None = None
    embeddings: bool | None = None
    trainable_only: bool | None = None


@dataclass(frozen=True)
class Anything:
    """A table in which anything may stand, a user's own settings for example."""


@dataclass(frozen=True)
class Comparison:
    """The types of what a comparison says, as far as it is read."""

    threads: int | None = None


DECLARED: dict[str, type] = {
    RUN: StoredRounds,
    "method": StoredMethod,
    "scope": StoredPatterns,
    "model": Anything,
    "settings": Anything,
    "comparison": Comparison,
    "search": Anything,
    VERSIONS: Anything,
    ORIGIN: Anything,
}
"""Tables of a configuration -> the types of what stands in them, verified when it is read."""


@dataclass(frozen=True)
class Configuration:
    """Everything that decides what a run computes, as nested tables of TOML; None values are left out."""

    tables: Mapping[str, Mapping[str, Any]]
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Where what the run is made of came from, for people; recorded and not compared."""

    def __post_init__(self) -> None:
        try:
            _verify(_without_none(self.tables))
        except WrongTypeError as error:
            raise ConfigurationError(str(error)) from error
        try:
            tomli_w.dumps(_without_none({**self.tables, ORIGIN: self.origin}))
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"a setting cannot be written to {FILE} ({error}); expected texts, numbers, booleans, and lists and "
                f"dictionaries of them"
            ) from error

    @property
    def kind(self) -> str:
        """What it is of, by its first table: "rounds" of a run, "comparison", "search"."""
        return next(iter(self.tables))

    def write(self, folder: Path) -> None:
        """Writes it into the folder, over an older one of the same kind.

        Raises:
            ConfigurationError: the folder is of something else.
        """
        if (folder / FILE).exists() and self.kind not in (found := read(folder)):
            raise ConfigurationError(
                f"{folder} holds {_named(found)}, which is left as it is; expected another folder for {self._name}"
            )
        tables = _without_none(self.tables)
        if origin := _without_none(self.origin):
            tables[ORIGIN] = origin
        tables[VERSIONS] = {"format": FORMAT, **versions()}
        write_text(folder / FILE, tomli_w.dumps(tables))

    def write_changed(self, folder: Path) -> None:
        """Writes what is other than in the folder of `OF_ROUNDS`, and leaves the rest as it is."""
        found, own = read(folder), _without_none(self.tables)
        changed = False
        for table, name in (key.split(".") for key in OF_ROUNDS):
            value = own.get(table, {}).get(name)
            if found.get(table, {}).get(name) != value:
                changed = True
                found[table] = _without_none({**found.get(table, {}), name: value})
        if changed:
            write_text(folder / FILE, tomli_w.dumps(found))

    @property
    def _name(self) -> str:
        return KINDS.get(self.kind, self.kind)

    def refuse_other(self, folder: Path) -> None:
        """Verifies that the folder's run is this one.

        Raises:
            ConfigurationError: it is another one, `OF_ROUNDS` apart; the message shows each difference.
        """
        if self.kind not in (tables := read(folder)):
            raise ConfigurationError(
                f"{folder} holds {_named(tables)}, which is left as it is; expected another folder for {self._name}"
            )
        found = flat(tables)
        expected = flat(tomllib.loads(tomli_w.dumps(_without_none(self.tables))))
        differences = [
            f"  {key}: the folder's run has {_shown(found.get(key))}, this one has {_shown(expected.get(key))}"
            for key in sorted({*found, *expected} - {*OF_ROUNDS})
            if key.partition(".")[0] not in INFORMATION and found.get(key) != expected.get(key)
        ]
        if differences:
            raise ConfigurationError(
                f"{folder} holds a run of another configuration, which is left as it is:\n"
                + "\n".join(differences)
                + "\nUse the same settings to continue it, or another folder."
            )

    def refuse_other_dense(self, folder: Path) -> None:
        """Verifies that the dense network of the folder's run is the one that this run would train.

        Raises:
            ConfigurationError: it is another one; the message shows each difference.
        """
        found, expected = flat(read(folder)), flat(tomllib.loads(tomli_w.dumps(_without_none(self.tables))))
        differences = [
            f"  {key}: its run has {_shown(found.get(key))}, this one has {_shown(expected.get(key))}"
            for key in sorted({*found, *expected})
            if _decides_dense(key) and found.get(key) != expected.get(key)
        ]
        if differences:
            raise ConfigurationError(
                f"the dense network in {folder} is not the one that this run would train:\n"
                + "\n".join(differences)
                + "\nUse the same settings, or leave it out to train the dense network again."
            )


def _decides_dense(key: str) -> bool:
    """Whether a setting decides what the dense round comes to."""
    if key in ("rounds.seed", "rounds.metric", "rounds.better", "method.state"):
        return True
    return key.startswith(("scope.", "model.", "settings.")) and key != "settings.fine_tune_rate"


def read(folder: Path) -> dict[str, Any]:
    """The tables of the folder's `config.toml`.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    path = folder / FILE
    try:
        tables = tomllib.loads(read_text(path))
        # First: in a newer version other types may stand.
        stated = tables.get(VERSIONS, {})
        refuse_newer(stated.get("format", 1) if isinstance(stated, dict) else 1, FORMAT, path)
        _verify(tables)
        return tables
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; expected the folder of a gossamer run") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); restore it, or start in a new folder") from error


def read_of_run(folder: Path) -> dict[str, Any]:
    """The tables of a run's `config.toml`.

    Raises:
        CheckpointError: it is missing or damaged.
        ConfigurationError: it is of something else.
    """
    tables = read(folder)
    if RUN not in tables:
        raise ConfigurationError(
            f"{folder} holds {_named(tables)}; expected the folder of a run (those of a comparison are in its dense "
            f"and cells)"
        )
    return tables


def _verify(tables: Mapping[str, Any]) -> None:
    for name, declared in DECLARED.items():
        if name in tables:
            read_as(declared, tables[name], name)


def _named(tables: Mapping[str, Any]) -> str:
    return next((name for kind, name in KINDS.items() if kind in tables), f"a {FILE} that is not gossamer's")


def versions() -> dict[str, Any]:
    """What the run was made with. The bits of a result are the same only with the same of all these."""
    # Not where a configuration is only read.
    import torch

    return {
        "gossamer": version("gossamer"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def _without_none(tables: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _as_stored(value) for key, value in tables.items() if value is not None}


def _as_stored(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _without_none(value)
    # The path of a file whose name is no UTF-8 holds halves of letters, which no file of texts can.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def flat(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with dots in the names."""
    found: dict[str, Any] = {}
    for key, value in tables.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)
