"""Processes that begin with torch and gossamer imported, which alone takes three seconds of a processor.

A server, started once by each worker of pytest, imports them and forks a process whenever it is asked to. That is a
process like any other: it has its own exit code, signals, memory, standard streams, and the end of a Python program.
"""

import gc
import json
import os
import resource
import select
import signal
import socket
import stat
import sys
import warnings
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

IMPORTED = (
    *(
        "torch",
        "torch._dynamo",
        "sklearn.datasets",
        "gossamer.cli.compress",
        "gossamer.job.compress",
        "gossamer.explain",
    ),
    *("gossamer.compare.grid", "gossamer.compare.report", "gossamer.shrink"),
)
DRAWING = ("altair", "vl_convert")
"""Where they are installed."""
SOCKET, PYTHON = "socket", "python"
"""Files in the server's folder: where it is asked, and a `python -P -m MODULE` that asks it, for those processes that
start others."""


def serve(folder: Path) -> dict[str, Any]:
    """Answers requests until standard input is closed; returns in every forked process, with what it is to run.

    A request is a connection that brings three file descriptors, which become the standard streams, and a line. It is
    told the process's number, and then how it ended.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / SOCKET))
        listener.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                os._exit(0)
            connection, _ = listener.accept()
            if os.fork() == 0:
                break
            connection.close()
    # Only a parent can wait for a process, so every one gets a parent that does nothing else.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("r") as lines:
        request: dict[str, Any] = json.loads(lines.readline())
    child = os.fork()
    if child == 0:
        connection.close()
        _become(request, streams)
        return request
    connection.sendall(f"{child}\n".encode())
    for stream in streams:
        os.close(stream)
    _, status = os.waitpid(child, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(request: dict[str, Any], streams: list[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
        for number, mode, errors in ((0, "r", "strict"), (1, "w", "strict"), (2, "w", "backslashreplace"))
    )
    # Older torch makes itself a folder when it is imported, which each process tidies up.
    warnings.filterwarnings("ignore", "Implicitly cleaning up", ResourceWarning)
    # Whoever runs the tests in the background may have it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])
    if request["session"]:
        os.setsid()
    if request["largest_file"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest_file"], resource.RLIM_INFINITY))
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = ["gossamer", *request["arguments"]]


def _run(request: dict[str, Any]) -> None:
    if request["script"] is None:
        import_module(request["module"]).main()
    else:
        sys.path[0] = request["folder"]
        module = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(request["script"], "<string>", "exec"), vars(module))


CLIENT = f"""#!{sys.executable} -IS
import json, os, signal, socket, sys
if sys.argv[1:3] != ["-P", "-m"]:
    os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])
_, _, _, module, *arguments = sys.argv
connection = socket.socket(socket.AF_UNIX)
connection.connect(os.path.join(os.path.dirname(sys.argv[0]), {SOCKET!r}))
socket.send_fds(connection, [b"+"], [0, 1, 2])
blocked = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
request = dict(module=module, arguments=arguments, script=None, session=False, largest_file=None, blocked=blocked)
request |= dict(folder=os.getcwd(), environment=dict(os.environ))
connection.sendall(json.dumps(request).encode() + b"\\n")
code = int(connection.makefile().read().split()[1])
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


def main() -> None:
    """Serves in the folder that is given."""
    folder = Path(sys.argv[1])
    (folder / PYTHON).write_text(CLIENT)
    (folder / PYTHON).chmod(stat.S_IRWXU)
    for name in IMPORTED:
        import_module(name)
    with suppress(ImportError):
        for name in DRAWING:
            import_module(name)
    # What this one remembers is what it starts the runs of a comparison with.
    sys.executable = str(folder / PYTHON)
    import_module("gossamer.compare.runner")
    # What is here stays, so the end of a process need not look through it.
    gc.collect()
    gc.freeze()
    _run(serve(folder))


if __name__ == "__main__":
    main()
