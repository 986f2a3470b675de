"""One run of a comparison as a process: `gossamer` with its options, which ends when the comparison ends.

The comparison holds the other end of this process's standard input and writes nothing to it. However the comparison
ends, killed too, the system closes that end, and the read below returns: on Linux and macOS alike, without asking again
and again whether the parent is still there, and with none left out that was starting just then.
"""

import os
import signal
import threading

STANDARD_INPUT, STANDARD_ERROR = 0, 2


def main() -> None:
    """Runs the command line of this process."""
    threading.Thread(target=_end_with_comparison, daemon=True).start()
    from gossamer.cli.main import main as command

    command()


def _end_with_comparison() -> None:
    while os.read(STANDARD_INPUT, 1):
        pass
    os.write(STANDARD_ERROR, b"the comparison that started this run has ended; what was finished is kept\n")
    # At once, whatever the main thread is in: what is half-written is written again, as after any kill.
    os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    main()
