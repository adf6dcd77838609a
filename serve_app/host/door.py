"""The way into a service that runs on this machine, for the owner of its data folder alone.

The service listens on loopback, and writes into its data folder where, with a key that nobody else
can read. Whoever calls sends one message of bytes, and gets answers until the last. Nothing is
pickled.
"""

import contextlib
import os
import queue
import secrets
import threading
from collections.abc import Iterator
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

import msgspec

from bandits.errors import StartupError, plain

FILE = "serving.json"
MAX_BYTES = 16 << 20
HELLO_S = 5.0
"""How long a caller may take to say what it wants, in seconds."""
BROKEN = (OSError, EOFError, AuthenticationError)


class _Way(msgspec.Struct, frozen=True):
    """The file ``serving.json``: where the service listens, and the key."""

    port: int
    key: str
    pid: int


class Visit:
    """One caller of the service, and what it has asked."""

    def __init__(self, connection: "Connection[bytes, bytes]", asked: bytes) -> None:
        self.asked = asked
        self._connection = connection

    def answer(self, message: bytes) -> None:
        """Send an answer; a caller that has gone does not get it."""
        with contextlib.suppress(*BROKEN):
            self._connection.send_bytes(message)

    def close(self) -> None:
        """Say that this was the last answer."""
        self._connection.close()


class Door:
    """The calls that come to a service, one after the other."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Visit] = queue.SimpleQueue()

    def next(self, within_s: float) -> Visit | None:
        """Return the next call; None if none comes in time."""
        try:
            return self._calls.get(timeout=within_s)
        except queue.Empty:
            return None

    def admit(self, listener: Listener, stop: threading.Event) -> None:
        """Let callers in until the event is set.

        Args:
            listener: where they come to.
            stop: the event.
        """
        while not stop.is_set():
            try:
                connection = listener.accept()
                if connection.poll(HELLO_S):
                    self._calls.put(Visit(connection, connection.recv_bytes(MAX_BYTES)))
                else:
                    connection.close()
            except BROKEN:
                continue


@contextlib.contextmanager
def open_door(folder: Path) -> Iterator[Door]:
    """Let callers in for as long as this context lasts.

    Args:
        folder: the service's data folder.
    """
    door, stop, key = Door(), threading.Event(), secrets.token_bytes(32)
    path = folder / FILE
    with Listener(("127.0.0.1", 0), authkey=key) as listener:
        address = listener.address
        fresh = path.with_name(f"{FILE}.{secrets.token_hex(4)}")
        fresh.touch(mode=0o600)
        fresh.write_bytes(msgspec.json.encode(_Way(address[1], key.hex(), os.getpid())))
        fresh.replace(path)

        thread = threading.Thread(target=door.admit, args=(listener, stop), daemon=True)
        thread.start()
        try:
            yield door
        finally:
            stop.set()
            path.unlink(missing_ok=True)
            # The thread waits for a caller.
            with contextlib.suppress(*BROKEN):
                Client(address, authkey=key).close()
            thread.join(HELLO_S)


def call(folder: Path, asked: bytes) -> Iterator[bytes]:
    """Ask the service that runs on a data folder, and yield its answers.

    Args:
        folder: the data folder.
        asked: what is asked.

    Raises:
        StartupError: no service runs there, or it has ended in the middle.
    """
    try:
        way = msgspec.json.decode((folder / FILE).read_bytes(), type=_Way)
        connection = Client(("127.0.0.1", way.port), authkey=bytes.fromhex(way.key))
    except (*BROKEN, msgspec.MsgspecError, ValueError) as error:
        raise StartupError(
            f"no service runs on {folder} ({plain(error)}): banditloop serve starts one; or give"
            " its --data-dir",
            "data_dir",
        ) from error

    with connection:
        try:
            connection.send_bytes(asked)
            while True:
                yield connection.recv_bytes()
        except EOFError:
            return
        except OSError as error:
            raise StartupError(
                f"the service on {folder} has ended meanwhile", "data_dir"
            ) from error
