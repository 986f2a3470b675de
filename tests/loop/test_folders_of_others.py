"""A run's folder may come from anybody: nothing in it is run, no link in it is followed, and nothing in it waits."""

import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import tomli_w
from small_run import printed, refused, small_run
from typer.testing import CliRunner

from gossamer.cli.main import app
from gossamer.compare.job import Job
from gossamer.compare.runner import run_in_processes
from gossamer.errors import CheckpointError, ConfigurationError, GossamerError
from gossamer.loop.configuration import read
from gossamer.loop.folder import load_masks
from gossamer.loop.record import RoundRecord
from gossamer.report.run import read_run
from gossamer.storage.files import locked, write_file, write_text
from gossamer.watch import look
from gossamer.watch.progress import Progress, ProgressFile

FILES = ("config.toml", "round-01/round.json", "round-01/masks.safetensors", "round-01/cost.json")
"""Read by `gossamer report`, each of them."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    small_run(folder)
    return folder


@pytest.fixture
def theirs(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, tmp_path / "theirs")
    return Path("theirs")


@contextmanager
def in_time() -> Iterator[None]:
    """Ends what waits for ever."""

    def waited(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("it waits for somebody who never writes")

    before = signal.signal(signal.SIGALRM, waited)
    signal.alarm(20)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def with_settings(run: Path, table: str, **values: Any) -> None:
    tables = read(run)
    tables[table] = tables.get(table, {}) | values
    (run / "config.toml").write_text(tomli_w.dumps(tables))


@pytest.mark.parametrize(
    "arguments",
    [
        ["explain", "theirs"],
        ["shrink", "theirs"],
        ["export", "theirs"],
        ["predict", "theirs"],
        ["search", "theirs", "--budget", "weights=0.1", "--out", "policy.toml"],
        ["explain", "theirs", "--against", "theirs"],
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_code_that_a_folder_names_is_never_run(arguments: list[str], theirs: Path) -> None:
    (theirs / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\ntask = None\n")
    with_settings(theirs, "settings", task="theirs/evil.py:anything")
    with_settings(theirs, "origin", task="theirs/evil.py:task")
    message = refused(*arguments)
    assert "--task" in message
    assert not Path("ran").exists()


def test_looking_runs_no_code_either(theirs: Path) -> None:
    (theirs / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    with_settings(theirs, "settings", task="theirs/evil.py:anything")
    printed("show", "theirs")
    printed("watch", "theirs", "--once")
    printed("report", "theirs", "-o", "report.html")
    assert "evil.py:anything" in Path("report.html").read_text()
    assert not Path("ran").exists()


@pytest.mark.parametrize("file", FILES)
def test_a_link_in_a_folder_is_not_followed(file: str, theirs: Path, tmp_path: Path) -> None:
    (theirs / file).rename(tmp_path / "elsewhere")
    (theirs / file).symlink_to(tmp_path / "elsewhere")
    assert "a link" in refused("report", "theirs", "--no-facts")


@pytest.mark.parametrize("file", FILES)
def test_a_pipe_in_a_folder_is_not_waited_for(file: str, theirs: Path) -> None:
    (theirs / file).unlink()
    os.mkfifo(theirs / file)
    with in_time():
        assert "a pipe" in refused("report", "theirs", "--no-facts")


def test_a_damaged_file_is_not_quoted_at_length(theirs: Path) -> None:
    header = json.dumps({"a": 100_000 * "x"}).encode()
    damaged = theirs / "round-01" / "masks.safetensors"
    damaged.write_bytes(len(header).to_bytes(8, "little") + header)
    record = json.loads((theirs / "round-01" / "round.json").read_text())
    record["sha256"]["masks.safetensors"] = hashlib.sha256(damaged.read_bytes()).hexdigest()
    sealed = RoundRecord(**record).sealed()
    (theirs / "round-01" / "round.json").write_text(sealed.to_json())
    message = refused("report", "theirs", "--no-facts")
    assert "masks.safetensors is damaged" in message
    assert len(message) < 1_000


@pytest.mark.parametrize("task", [1, True, 0.5, [[]], {"a": 1}], ids=str)
def test_a_task_that_is_no_text_is_refused(task: Any, theirs: Path) -> None:
    with_settings(theirs, "settings", task=task)
    assert "settings.task is" in refused("shrink", "theirs")


@pytest.mark.parametrize("file", [file for file in FILES if not file.endswith(".safetensors")])
def test_a_file_as_large_as_a_disk_is_not_read(file: str, theirs: Path) -> None:
    os.truncate(theirs / file, 2**40)
    with in_time():
        assert re.search(rf"{file}.* is longer than", refused("report", "theirs", "--no-facts"))


def test_a_folder_with_an_empty_configuration_is_no_run_of_other_settings(theirs: Path) -> None:
    (theirs / "config.toml").write_text("")
    message = refused("compress", "digits", "--out", "theirs", "--rounds", "1")
    assert "theirs holds a config.toml that is not gossamer's" in message
    assert "\n" not in message


def test_a_device_is_not_replaced_by_a_file(theirs: Path) -> None:
    """Whoever may write to /dev would lose /dev/stdout by `--out /dev/stdout`."""
    os.mkfifo("output")
    Path("link").symlink_to("output")
    for name in ("output", "link"):
        assert "a pipe or a device" in refused("report", "theirs", "--no-facts", "--out", name)
    assert Path("output").is_fifo()
    assert Path("link").is_symlink()


def test_a_round_is_not_read_where_no_file_can_be_opened_any_more(theirs: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    for more in range(1, 6):
        first_free = os.dup(0)
        os.close(first_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (first_free + more, before[1]))
        try:
            with suppress(GossamerError):
                load_masks(theirs, 1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_round_that_is_a_link_is_refused(theirs: Path, tmp_path: Path) -> None:
    (theirs / "round-01").rename(tmp_path / "elsewhere")
    (theirs / "round-01").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert "round-01 is a link" in refused("show", "theirs")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/null")], ids=["pipe", "device"])
def test_watching_does_not_wait_for_a_pipe(make: Callable[[Path], None], theirs: Path) -> None:
    make(theirs / "progress.json")
    with in_time():
        assert look(theirs).progress is None


def test_a_lock_that_is_a_link_empties_nothing(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(CheckpointError, match=r"\.lock"), locked(tmp_path / "run"):
        pass
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_lock_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".lock")
    with in_time(), pytest.raises(CheckpointError, match=r"\.lock"), locked(tmp_path):
        pass


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    for name in ("report.html", "progress.json"):
        (tmp_path / f"{name}.tmp").symlink_to(tmp_path / "precious")
        (tmp_path / name).symlink_to(tmp_path / "precious")
    write_text(tmp_path / "report.html", "new")
    listener = ProgressFile(tmp_path)
    listener._now = Progress(0, 1, 1.0, 0, None, (), None, None, 0.0)
    listener._write()
    assert (tmp_path / "precious").read_text() == "kept"
    assert (tmp_path / "report.html").read_text() == "new"
    assert json.loads((tmp_path / "progress.json").read_text())["last_round"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious", "progress.json", "report.html"]


def test_a_killed_write_is_cleared_by_the_next(tmp_path: Path) -> None:
    """Whatever name the writer gave to what it had half-written."""
    path = tmp_path / "small.safetensors"
    if not os.fork():

        def write(temporary: Path) -> None:
            temporary.write_text("half")
            (temporary.parent / ".tmpA1b2C3").write_text("half, under a name of the writer's own")
            os._exit(0)

        write_file(path, write)
    os.wait()
    assert [left.suffix for left in tmp_path.iterdir()] == [".tmp"]
    write_text(path, "whole")
    assert [left.name for left in tmp_path.iterdir()] == ["small.safetensors"]


def test_leftovers_that_are_links_are_removed_and_not_followed(theirs: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (theirs / "round-03.tmp").symlink_to(tmp_path / "precious", target_is_directory=True)
    small_run(theirs)
    assert (tmp_path / "precious" / "file").exists()
    assert not (theirs / "round-03.tmp").is_symlink()


def test_scalars_are_not_written_through_a_link(theirs: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "elsewhere").mkdir()
    (theirs / "tensorboard").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    from gossamer.integrations.tensorboard import TensorBoard

    with pytest.raises(ConfigurationError, match="tensorboard is a link"):
        TensorBoard(theirs)
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_comparison_writes_through_no_link(theirs: Path, tmp_path: Path) -> None:
    (tmp_path / "comparison" / "dense").mkdir(parents=True)
    (tmp_path / "comparison" / "dense" / "seed-0").symlink_to(tmp_path / "theirs", target_is_directory=True)
    before = (theirs / "config.toml").read_bytes()
    options = ["--target-sparsity", "0.5", "--epochs", "1", "--seeds", "1", "--methods", "lr-rewind"]
    assert "seed-0 is a link" in refused("compare", "digits", *options, "--out", tmp_path / "comparison")
    assert (theirs / "config.toml").read_bytes() == before


def test_a_comparison_runs_no_file_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody's folder is the current one: what is there is called as a module that the runs import."""
    monkeypatch.chdir(tmp_path)
    for name in ("torch", "typer", "gossamer", "signal"):
        Path(f"{name}.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    job = Job("lists tasks", tmp_path / "log", ("tasks",), None, None)
    run_in_processes([job], at_once=1, threads=1, tell=lambda job, event: None)
    assert not Path("ran").exists()
    assert "lenet-300-100" in (tmp_path / "log.log").read_text()


def test_a_log_of_a_comparison_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "seed-0.log").symlink_to(tmp_path / "precious")
    job = Job("lists tasks", tmp_path / "seed-0", ("tasks",), None, None)
    with pytest.raises(GossamerError, match=r"seed-0\.log"):
        run_in_processes([job], at_once=1, threads=1, tell=lambda job, event: None)
    assert (tmp_path / "precious").read_text() == "kept"


VALUES = (
    None, True, "x", 1, -1, 0, -0.5, 10**400, 1e308, 2**65, [], {}, [1], {"a": 1}, "0.5", float("nan"), float("inf"),
)  # fmt: skip
"""Put in the place of every value of a file in turn."""


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield before
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*before, key))


def with_value(whole: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    changed = dict(whole) if isinstance(whole, dict) else list(whole)
    changed[place[0]] = with_value(whole[place[0]], place[1:], value)
    return changed


def sealed(record: Any) -> Any:
    """With the checksum that goes with it: whoever makes a folder makes that too."""
    if not isinstance(record, dict) or not isinstance(record.get("sha256"), dict):
        return record
    rest = {**record, "sha256": {name: digest for name, digest in record["sha256"].items() if name != "round.json"}}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    return {**rest, "sha256": {**rest["sha256"], "round.json": digest}}


@pytest.mark.slow
@pytest.mark.parametrize("file", ["round-01/round.json", "round-01/cost.json", "progress.json", "config.toml"])
def test_any_value_of_any_type_is_read_or_refused(file: str, theirs: Path) -> None:
    going_on = Progress(3, 4, 0.1, 1, 4, (1.0, 2.0), 0.1, 1.0, 0.0, 1, 3)
    with_settings(theirs, "rounds", max_drop=0.9)
    toml = file.endswith(".toml")
    whole = read(theirs) if toml else json.loads(
        json.dumps(asdict(going_on)) if file == "progress.json" else (theirs / file).read_text()
    )  # fmt: skip
    cases = [(place, value) for place in places(whole) for value in VALUES if not toml or (place and value is not None)]
    # A sample; another one finds what this one leaves out.
    for place, value in random.Random(0).sample(cases, min(len(cases), 60)):
        changed = with_value(whole, place, value)
        (theirs / file).write_text(tomli_w.dumps(changed) if toml else json.dumps(sealed(changed)))
        for command in (["show", "theirs"], ["watch", "theirs", "--once"]):
            result = CliRunner().invoke(app, command)
            assert result.exception is None or isinstance(result.exception, GossamerError), (place, value)
        with suppress(GossamerError):
            read_run(theirs)


@pytest.mark.parametrize(
    ("command", "option", "file"),
    [
        ("report", "-o", "config.toml"),
        ("report", "--out", "rounds.jsonl"),
        ("shrink", "-o", "round-01/model.safetensors"),
        ("explain", "--json", "round-01/round.json"),
        ("explain", "--picture", "ledger.jsonl"),
        ("export", "-o", "round-00/cost.json"),
    ],
)
def test_what_is_written_replaces_no_file_of_a_run(theirs: Path, command: str, option: str, file: str) -> None:
    before = (theirs / file).read_bytes()
    assert "is a file of the run in" in refused(command, theirs, option, theirs / file)
    assert (theirs / file).read_bytes() == before
