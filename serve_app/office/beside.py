"""Runs a command of ``banditloop`` for a process of the service: ``beside.py COMMAND [WORD …]``.

Whoever wants the command holds the other end of the pipe that is its standard input. When nobody
holds it any more, be it that they want the command no longer or that they have ended, the kernel
ends the command, wherever it was forked. It yields to everything else.
"""

import fcntl
import os
import select
import signal
import sys
from importlib import import_module
from typing import Any

INPUT = 0
LAST = 19
"""The niceness of what everything else goes before."""


def end_with_input() -> None:
    """Have the kernel end this process when nobody holds the other end of its input any more."""
    # Of nobody, the signal's own effect is that the process ends; it comes while Python computes.
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(INPUT, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(INPUT, fcntl.F_SETFL, fcntl.fcntl(INPUT, fcntl.F_GETFL) | os.O_ASYNC)

    # They may have let go before.
    looks = select.poll()
    looks.register(INPUT, select.POLLHUP)
    if looks.poll(0):
        sys.exit(1)


def main() -> None:
    """Run the command that the arguments say."""
    end_with_input()
    os.setpriority(os.PRIO_PROCESS, 0, LAST)

    # A fork has the command line of what it was forked of.
    forked: Any = sys.modules.get("ray._raylet")
    if forked is not None:
        forked.setproctitle(" ".join([sys.executable, *sys.argv]))

    # What the office asks of the command line it asks as anybody does: by its name.
    import_module("serve_app.cli.main").main()


if __name__ == "__main__":
    main()
