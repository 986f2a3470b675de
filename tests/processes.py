"""Several processes that train together, as torchrun starts them: forked with torch imported, over gloo on the CPU."""

import subprocess
import textwrap
from pathlib import Path

from command_line import Started

FOUND_EACH_OTHER = """
    import os, sys
    from datetime import timedelta
    import torch
    import torch.distributed as distributed

    torch.set_num_threads(1)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    distributed.init_process_group(
        "gloo", init_method="file://" + os.environ["MEETING"], rank=rank, world_size=size, timeout=timedelta(seconds=60)
    )
    distributed.barrier()
    open(os.environ["MEETING"] + ".over", "w").close()
"""


def start(folder: Path, size: int, program: str, *arguments: object, meeting: str = "meeting") -> list[Started]:
    """The ranks of `program`, which begins when they have found each other (`distributed`, `rank`, `size`)."""
    script = textwrap.dedent(FOUND_EACH_OTHER) + textwrap.dedent(program)
    place = folder / meeting
    for old in (place, over(folder, meeting)):
        old.unlink(missing_ok=True)
    return [
        Started(folder, *arguments, script=script, RANK=str(rank), WORLD_SIZE=str(size), MEETING=str(place))
        for rank in range(size)
    ]


def over(folder: Path, meeting: str = "meeting") -> Path:
    """A file that is there when the ranks have found each other."""
    return folder / f"{meeting}.over"


def run(folder: Path, size: int, program: str, *arguments: object) -> list["subprocess.CompletedProcess[str]"]:
    """What the ranks came to, in their order."""
    return [started.completed() for started in start(folder, size, program, *arguments)]


def succeeded(folder: Path, size: int, program: str, *arguments: object) -> list[str]:
    """What the ranks said, of which none failed."""
    ended = run(folder, size, program, *arguments)
    assert all(one.returncode == 0 for one in ended), "\n".join(one.stderr for one in ended)
    return [one.stdout for one in ended]
