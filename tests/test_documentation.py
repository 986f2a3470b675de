"""What the documents show is run as it stands, in an empty folder, and what they name exists."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from command_line import Started, environment
from run_document import Block, blocks

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "RELEASE.md",
    ROOT / "CHANGELOG.md",
    ROOT / "runtime" / "README.md",
]
DOCUMENTS += sorted((ROOT / "docs").rglob("*.md"))
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


def running(document: Path) -> list[Block]:
    return [block for block in blocks(document) if block.runs]


WITH_BLOCKS = [document for document in DOCUMENTS if running(document)]


def marked(document: Path) -> ParameterSet:
    slow = any(block.marker == "runs slowly" for block in blocks(document))
    return pytest.param(document, marks=[pytest.mark.slow] if slow else [], id=name_of(document))


@pytest.mark.parametrize("document", [marked(document) for document in WITH_BLOCKS])
def test_blocks_of_a_document_run(document: Path, tmp_path: Path) -> None:
    for package in {block.package for block in running(document)} - {None}:
        pytest.importorskip(str(package))
    if any(block.package == "gossamer_runtime" for block in running(document)):
        from gossamer_runtime import NativeLibraryMissing, library_path

        try:
            library_path()
        except NativeLibraryMissing as missing:
            pytest.skip(str(missing))
    program = (ROOT / "tests" / "run_document.py").read_text(encoding="utf-8")
    finished = Started(tmp_path, document, script=program).completed()
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_block_runs_or_says_why_not(document: Path) -> None:
    unsaid = [block.line for block in blocks(document) if not block.runs and not block.marker.startswith("shown: ")]
    assert not unsaid, "lines of blocks without <!-- runs --> or <!-- shown: REASON -->"


def test_the_first_documents_run() -> None:
    assert {name_of(document) for document in WITH_BLOCKS} >= {"README.md", "docs/your-loop.md", "docs/adding.md"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_to_files(document: Path) -> None:
    missing = [link for link in LINK.findall(document.read_text()) if not (document.parent / link).exists()]
    assert not missing


def anchors_of(document: Path) -> set[str]:
    """As GitHub and mkdocs make them of headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_anchors_lead_to_headings(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]*)#([^)\s]+)\)", document.read_text(encoding="utf-8"))
    targets = [(document.parent / path if path else document, anchor) for path, anchor in links]
    missing = [f"{path.name}#{anchor}" for path, anchor in targets if anchor not in anchors_of(path)]
    assert not missing


def test_ten_questions_are_answered_one_link_from_the_front() -> None:
    text = (ROOT / "docs" / "questions.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^\*\*.+\?\*\*", text, re.MULTILINE)) == 10
    for front in ("README.md", "docs/index.md"):
        assert "questions.md" in (ROOT / front).read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_files_that_are_mentioned_exist(document: Path) -> None:
    """`prune/select.py` and the like, in backquotes, are files of the package; `docs/...` of the repository."""
    package = ROOT / "src" / "gossamer"
    rooms = "|".join(folder.name for folder in package.iterdir() if folder.is_dir())
    text = document.read_text(encoding="utf-8")
    missing = [path for path in re.findall(rf"`((?:{rooms})/[a-z_0-9/]+\.py)", text) if not (package / path).exists()]
    of_repository = re.findall(r"`((?:docs|benchmarks|examples|runtime|tests)/[\w./-]+\.\w+)`", text)
    missing += [path for path in of_repository if not (ROOT / path).exists()]
    assert not missing


def test_the_map_of_the_readme_has_every_room() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rooms = [folder.name for folder in (ROOT / "src" / "gossamer").iterdir() if (folder / "__init__.py").exists()]
    assert [room for room in rooms if f"  {room}/" not in text] == []


def test_the_page_about_everything_is_one_page() -> None:
    assert len((ROOT / "docs" / "all-of-gossamer.md").read_text(encoding="utf-8").split()) <= 1500


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocstrings") is None, reason="needs gossamer[docs]")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    finished = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    assert "rounds" in (tmp_path / "site" / "reference" / "gossamer.html").read_text(encoding="utf-8")
