"""What is printed: as it is called, wherever it goes, and whatever becomes of it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from command_line import Started, command, environment, gossamer
from small_run import printed, refused, small_run

from gossamer.loop.records import read_records

RUN = ["compress", "digits", "--epochs", "1", "--rounds", "1", "--out"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    small_run(folder)
    return folder


def on_full_disk(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    with Path("/dev/full").open("w") as full:
        return Started(folder, *arguments, into=full.fileno()).completed()


@pytest.mark.parametrize("arguments", [["show", "run"], ["tasks"], ["compress", "--help"]], ids=" ".join)
def test_an_answer_that_cannot_be_written_is_one_line(arguments: list[str], finished: Path) -> None:
    said = on_full_disk(finished.parent, *arguments)
    assert said.returncode == 2
    assert said.stderr.startswith("error: ")
    assert "No space left on device" in said.stderr
    assert said.stderr.count("\n") == 1


def test_a_log_that_cannot_be_written_stops_no_run(tmp_path: Path) -> None:
    said = on_full_disk(tmp_path, *RUN, "run")
    assert said.returncode == 0
    assert said.stderr == (
        "warning: standard output cannot be written (No space left on device); this goes on without it\n"
    )
    assert [record.round for record in read_records(tmp_path / "run")] == [0, 1]


@pytest.mark.parametrize("arguments", [["show", "run"], ["tasks"], ["compress", "--help"]], ids=" ".join)
def test_whoever_stops_reading_is_told_nothing(arguments: list[str], finished: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    said = Started(finished.parent, *arguments, into=writing).completed()
    os.close(writing)
    assert said.stderr == ""
    assert said.returncode in (0, 1)


def test_a_run_goes_on_without_who_read_its_log(tmp_path: Path) -> None:
    process = Started(tmp_path, *RUN, "run", piped=True)
    assert process.output is not None
    process.output.readline()
    process.output.close()
    assert process.wait() == 0
    assert len(read_records(tmp_path / "run")) == 2


@pytest.mark.parametrize("name", ["digits[lr=0.1]", "[bold]digits[/bold]", "a[/]", ":boom:", "[link=x]y[/link]"])
def test_names_are_printed_as_they_are(
    name: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(finished, folder)
    assert f"run: {folder} " in printed("show", folder).replace("\n", "")
    assert str(folder) in printed("watch", folder, "--once").replace("\n", "")
    assert f"{folder}: " in printed("explain", folder, "--ablation-examples", "0").replace("\n", "")


def test_names_do_not_steer_the_terminal(finished: Path, tmp_path: Path) -> None:
    name = "run\x1b]0;title\x07\x1b[31m"
    shutil.copytree(finished, tmp_path / name)
    shown = gossamer(tmp_path, "show", name)
    assert shown.returncode == 0
    assert "\x1b" not in shown.stdout
    (tmp_path / name / "round-00" / "round.json").unlink()
    refusal = gossamer(tmp_path, "show", name)
    assert refusal.returncode == 2
    assert "\x1b" not in refusal.stderr
    assert "run?]0;title??[31m" in refusal.stderr


def test_a_name_that_is_no_text_is_a_name(tmp_path: Path) -> None:
    name = os.fsdecode(b"run-\xff")
    (tmp_path / name).mkdir()
    task = tmp_path / name / "own.py"
    task.write_text(
        "import dataclasses\nfrom gossamer.tasks import find_task\n"
        "def task(): return dataclasses.replace(find_task('digits'), name='own')\n"
    )
    mine = f"{name}/own.py:task"
    for _ in ("begun", "continued"):
        done = gossamer(tmp_path, "compress", mine, *RUN[2:], f"{name}/run")
        assert (done.returncode, done.stderr) == (0, "")
    for arguments in (
        ["show"],
        ["explain", "--task", mine],
        ["shrink", "--task", mine, "-o", f"{name}/small.safetensors"],
    ):
        done = gossamer(tmp_path, arguments[0], f"{name}/run", *arguments[1:])
        assert (done.returncode, done.stderr) == (0, "")
    done = gossamer(tmp_path, "report", f"{name}/run", "-o", f"{name}/report.html", "--no-facts")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / name / "report.html").exists()


def test_an_encoding_that_lacks_a_letter_stops_nothing(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "überall-東京")
    shown = subprocess.run(
        command("show", "überall-東京"),
        cwd=tmp_path,
        env={**environment(), "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
    )
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert "überall-??".encode("latin-1") in shown.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["compress", "digits", "--rounds", "1", "--out", ""],
        ["compress", "digits", "--rounds", "1", "--out="],
        ["show", ""],
        ["report", "run", "-o", ""],
        ["search", "run", "--budget", "weights=0.1", "--out", ""],
        ["compare", "digits", "--out", ""],
    ],
    ids=" ".join,
)
def test_an_empty_argument_is_no_folder(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "is empty" in refused(*arguments)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments", [["report", "-o"], ["explain", "--json"], ["explain", "--picture"], ["shrink", "-o"]], ids=" ".join
)
def test_a_file_that_cannot_be_written_is_not_about_rounds(arguments: list[str], finished: Path) -> None:
    command_name, option = arguments
    message = refused(command_name, finished, option, finished / "config.toml" / "file.png")
    assert message.startswith("cannot write ")
    assert "round" not in message.replace(str(finished), "")
