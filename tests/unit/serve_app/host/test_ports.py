"""Ports for servers: free, and never the same one twice."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from serve_app.host import environment


@contextlib.contextmanager
def at_once(count: int, code: str) -> Iterator[list[str]]:
    """What processes print that start together, each alive until the end of this context."""
    code = f"from serve_app.host import environment as e\n{code}\ninput()"
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-u", "-c", code],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(count)
        ]
        yield [each.stdout.readline().strip() for each in started]
        for each in started:
            each.communicate("\n", timeout=30)


def test_no_port_is_given_twice():
    # 500 of 12,768: drawn without memory, some two would be equal in all but 6 of 100,000 runs.
    with at_once(2, "print(*{e.free_port() for _ in range(250)})") as said:
        given = [port for line in said for port in line.split()]
    assert len(given) == len(set(given)) == 500


def test_a_port_that_somebody_listens_on_is_not_given(monkeypatch):
    with socket.create_server(("127.0.0.1", environment.free_port())) as server:
        taken, free = server.getsockname()[1], environment.free_port()
        # Only the look at the port itself says that it is taken.
        monkeypatch.setattr(environment, "_given", set())
        monkeypatch.setattr(environment, "claimed", lambda port: True)
        drawn = iter([taken, taken, free])
        monkeypatch.setattr(environment._any, "randrange", lambda *_: next(drawn))
        assert environment.free_port() == free


def test_where_all_are_taken_the_error_says_so(monkeypatch):
    port = environment.free_port()
    monkeypatch.setattr(environment._any, "randrange", lambda *_: port)
    with pytest.raises(OSError, match="1,000 ports between 20,000 and 32,767"):
        environment.free_port()


def test_services_that_start_at_the_same_time_choose_different_ports():
    """Neither listens yet when the other looks: a port is claimed, until whoever did so ends."""
    for _ in range(2):
        with at_once(2, "print(e.claimed(19))") as said:
            assert sorted(said) == ["False", "True"]
