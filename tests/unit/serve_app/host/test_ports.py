"""Ports for servers: free, and never the same one twice."""

import contextlib
import socket
import subprocess
import sys

import pytest

from serve_app.host import environment


def test_no_port_is_given_twice():
    # 500 of 12,768: drawn without memory, some two would be equal in all but 6 of 100,000 runs.
    given = [environment.free_port() for _ in range(500)]
    assert len(set(given)) == 500


def test_a_port_that_somebody_listens_on_is_not_given(monkeypatch):
    with socket.create_server(("127.0.0.1", environment.free_port())) as server:
        taken = server.getsockname()[1]
        free = environment.free_port()
        monkeypatch.setattr(environment, "_given", set())
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
    code = "from serve_app.host import environment as e; print(e.claimed(19), flush=True); input()"
    claims = []
    for _ in range(2):
        with contextlib.ExitStack() as stack:
            asked = [
                stack.enter_context(
                    subprocess.Popen(
                        [sys.executable, "-c", code],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                    )
                )
                for _ in range(2)
            ]
            claims.append(sorted(each.stdout.readline().strip() for each in asked))
            for each in asked:
                each.communicate("\n", timeout=30)
    assert claims == [["False", "True"]] * 2
