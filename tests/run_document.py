"""Runs the blocks of one document, from the first to the last, in the current folder, as a reader would at a prompt.

    python -W error tests/run_document.py DOCUMENT.md

A page is one session: its Python blocks share their names, and its commands the folder. `gossamer` and `gossamer-run`
run in this process, which has imported torch by then.
"""

import contextlib
import re
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(
    r"(?:<!-- (?P<marker>[^>]*) -->\n)?^```(?P<language>python|sh)\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """A fenced block of Python or of commands, and what the comment before it says of running it."""

    marker: str
    """"runs"; "runs as FILE", which is also written there; "runs with PACKAGE", where that is installed; "runs
    slowly"; "shown: REASON"; or nothing."""
    language: str
    text: str
    line: int

    @property
    def runs(self) -> bool:
        return self.marker.startswith("runs")

    @property
    def file(self) -> str | None:
        return self.marker.removeprefix("runs as ") if self.marker.startswith("runs as ") else None

    @property
    def package(self) -> str | None:
        return self.marker.removeprefix("runs with ") if self.marker.startswith("runs with ") else None


def blocks(document: Path) -> Iterator[Block]:
    """All blocks of Python and commands, in order."""
    text = document.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("text"))
        yield Block(found["marker"] or "", found["language"], found["text"], line)


def run_command(line: str) -> None:
    """A line of a shell: `gossamer ...` or `gossamer-run ...`."""
    program, *arguments = shlex.split(line, comments=True)
    sys.argv = [program, *arguments]
    run: Callable[[], object]
    if program == "gossamer":
        from gossamer.cli.main import main as run
    elif program == "gossamer-run":
        from gossamer_runtime.run import main as run
    else:
        raise ValueError(f"{program} is no command of gossamer's")
    try:
        status = run()
    except SystemExit as ended:
        status = ended.code
    if status:
        raise RuntimeError(f"exit code {status}: {line}")


OF_OTHERS = (
    # Lightning, of torch's names and of data loaders on machines with several processors.
    ".*LeafSpec.* is deprecated",
    "The '.*dataloader' does not have many workers",
    ".*tensorboardX.* has been removed",
    "The number of training batches",
)
"""Warnings of other packages, which a reader sees too and a page need not silence."""


def main(document: Path) -> None:
    for message in OF_OTHERS:
        warnings.filterwarnings("ignore", message)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(document):
        if not block.runs:
            continue
        if block.file is not None:
            Path(block.file).write_text(block.text, encoding="utf-8")
        try:
            if block.language == "python":
                # Line numbers of tracebacks are the document's.
                exec(compile("\n" * block.line + block.text, str(document), "exec"), names)
            else:
                for line in block.text.replace("\\\n", " ").strip().splitlines():
                    run_command(line)
        except BaseException:
            with contextlib.redirect_stdout(sys.stderr):
                print(f"{document}, line {block.line + 1}:")
            traceback.print_exc()
            sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
