"""Asks the fork server for a process, or becomes it: ``client.py NAME [FLAG …] SCRIPT [WORD …]``.

Ray's raylet runs this as a script in the place of Python. It imports nothing but the standard
library and the least of that, because it runs at the start of every process. Its environment,
folder and standard files are those of the new process; its process id is not, which Ray learns from
the process itself. Where no server answers, it becomes Python with SCRIPT.
"""

import os
import socket
import sys
from array import array
from collections.abc import Mapping, Sequence

STANDARD_FILES = 0, 1, 2
STARTED = b"+"
"""What the server answers when the process is there."""


def pack_request(
    arguments: Sequence[str], folder: str, environment: Mapping[bytes, bytes]
) -> bytes:
    """Return a request for a process.

    Args:
        arguments: the script and its words.
        folder: where it is to work.
        environment: what it is to find in its environment.
    """
    head = [b"%d" % len(arguments), *map(os.fsencode, arguments), os.fsencode(folder)]
    return b"\0".join([*head, *(name + b"=" + value for name, value in environment.items())])


def unpack_request(request: bytes) -> tuple[list[str], str, dict[bytes, bytes]]:
    """Return what a request asks for: arguments, folder and environment.

    Raises:
        ValueError: it is none.
    """
    count, *parts = request.split(b"\0")
    arguments, folder, named = parts[: int(count)], parts[int(count)], parts[int(count) + 1 :]
    environment = dict(part.split(b"=", 1) for part in named)
    return [os.fsdecode(part) for part in arguments], os.fsdecode(folder), environment


def ask_for_process(name: str, arguments: Sequence[str]) -> bool:
    """Ask for a process that goes on in this one's place; say whether there is one.

    Args:
        name: that of the server's socket.
        arguments: the script and its words.
    """
    request = pack_request(arguments, os.getcwd(), os.environb)  # noqa: PTH109 - pathlib starts slowly
    files = socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", STANDARD_FILES)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(f"\0{name}")
            connection.sendmsg([STARTED], [files])
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            return connection.recv(1) == STARTED
        except OSError:
            return False


def main() -> None:
    """Have the process started, or become it."""
    name, *rest = sys.argv[1:]
    script = next(place for place, part in enumerate(rest) if not part.startswith("-"))
    if not ask_for_process(name, rest[script:]):
        os.execv(sys.executable, [sys.executable, *rest])  # noqa: S606 - what Ray would have run


if __name__ == "__main__":
    main()
