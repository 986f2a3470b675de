"""What the documents show is run as it stands, in an empty folder."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import command, environment

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"<!-- runs -->\n```(python|sh)\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (document.name, content)
        for document in DOCUMENTS
        for found, content in BLOCK.findall(document.read_text())
        if found == language
    ]


@pytest.mark.parametrize(("document", "script"), blocks("python"), ids=[name for name, _ in blocks("python")])
def test_python_of_a_document_runs(document: str, script: str, tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize(("document", "lines"), blocks("sh"), ids=[name for name, _ in blocks("sh")])
def test_commands_of_a_document_run(document: str, lines: str, tmp_path: Path) -> None:
    for line in lines.strip().splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "gossamer", line
        finished = subprocess.run(command(*arguments), cwd=tmp_path, env=environment(), capture_output=True, text=True)
        assert finished.returncode == 0, f"{line}\n{finished.stderr}"


def test_there_are_documents_to_run() -> None:
    assert {name for name, _ in blocks("python")} >= {"README.md", "all-of-gossamer.md"}
    assert blocks("sh")


@pytest.mark.parametrize("document", DOCUMENTS, ids=[document.name for document in DOCUMENTS])
def test_links_lead_to_files(document: Path) -> None:
    missing = [link for link in LINK.findall(document.read_text()) if not (document.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=[document.name for document in DOCUMENTS])
def test_files_and_names_that_are_mentioned_exist(document: Path) -> None:
    """`prune/select.py` and the like, in backquotes, are files of the package."""
    rooms = "|".join(folder.name for folder in (ROOT / "src/gossamer").iterdir() if folder.is_dir())
    mentioned = set(re.findall(rf"`((?:{rooms})/[a-z_0-9/]+\.py)", document.read_text()))
    assert not [path for path in mentioned if not (ROOT / "src/gossamer" / path).exists()]
