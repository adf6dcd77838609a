"""The embedded Valkey: it outlives its own death, and never its service."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
import redis

from serve_app.host.embedded import embedded_valkey, near_url, running_url
from serve_app.settings import Settings

HOLD = """
import sys, time
from pathlib import Path
from serve_app.host.embedded import embedded_valkey
with embedded_valkey(Path(sys.argv[1])):
    print("up", flush=True)
    time.sleep(60)
"""


def pid_of(folder: Path) -> int:
    return msgspec.json.decode((folder / "running.json").read_bytes())["pid"]


def eventually(condition, timeout_s: float = 60.0):
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(OSError, redis.RedisError, msgspec.MsgspecError):
            if value := condition():
                return value
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def test_a_killed_server_comes_back_on_its_port_with_every_acknowledged_write(tmp_path):
    with embedded_valkey(tmp_path) as url, redis.Redis.from_url(url) as client:
        for round_ in range(3):
            client.set(f"k{round_}", "v")
            killed = pid_of(tmp_path)
            os.kill(killed, signal.SIGKILL)
            eventually(lambda killed=killed: pid_of(tmp_path) != killed and client.ping())
            assert client.mget([f"k{n}" for n in range(round_ + 1)]) == [b"v"] * (round_ + 1)
        assert running_url(tmp_path) == url
    assert running_url(tmp_path) is None


def test_servers_that_are_started_at_once_find_ports_of_their_own(tmp_path):
    """Each looked for a free port before any of them listened: all but one died."""
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", HOLD, str(tmp_path / str(n))], stdout=subprocess.PIPE
                )
            )
            for n in range(6)
        ]
        try:
            assert [each.stdout.readline() for each in started] == [b"up\n"] * 6
        finally:
            for each in started:
                each.terminate()


def test_the_services_own_processes_reach_it_by_a_socket_that_survives_its_restart(tmp_path):
    """Commands go on finding it by its port."""
    settings = Settings(data_dir=tmp_path)
    with embedded_valkey(tmp_path / "valkey") as url:
        near = near_url(settings, url)
        assert near.startswith("unix:///")
        assert running_url(tmp_path / "valkey") == url
        with redis.Redis.from_url(near) as client, redis.Redis.from_url(url) as other:
            client.set("a", 1)
            assert other.get("a") == b"1"
            killed = pid_of(tmp_path / "valkey")
            os.kill(killed, signal.SIGKILL)
            eventually(lambda: pid_of(tmp_path / "valkey") != killed and client.ping())
            assert client.get("a") == b"1"
        assert near_url(settings.model_copy(update={"redis_url": url}), url) == url
    assert near_url(settings, url) == url


def test_a_folder_may_have_spaces_and_quotes_in_its_name(tmp_path):
    """What was written is there at the next start."""
    folder = tmp_path / 'the "first" shop'
    for before in (None, b"v"):
        with embedded_valkey(folder) as url, redis.Redis.from_url(url) as client:
            assert client.get("k") == before
            client.set("k", "v")


def test_where_a_socket_cannot_be_named_the_port_does(tmp_path):
    for name in ("é", "x" * 100):
        folder = tmp_path / name
        with embedded_valkey(folder / "valkey") as url:
            assert near_url(Settings(data_dir=folder), url) == url


@pytest.mark.parametrize("durability", ["always", "everysec", "none"])
def test_the_durability_asked_for_is_the_servers(tmp_path, durability):
    with embedded_valkey(tmp_path, durability) as url, redis.Redis.from_url(url) as client:
        config = client.config_get("append*")
    assert config["appendonly"] == ("no" if durability == "none" else "yes")
    assert config["appendfsync"] == ("no" if durability == "none" else durability)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_a_killed_service_takes_its_server_along(tmp_path):
    service = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    assert service.stdout.readline() == b"up\n"
    assert running_url(tmp_path) is not None
    service.kill()
    service.wait()
    service.stdout.close()
    eventually(lambda: running_url(tmp_path) is None)


@pytest.mark.skipif(shutil.which("setsid") is None, reason="needs setsid")
def test_a_signal_for_the_whole_group_of_the_service_is_not_for_its_server(tmp_path):
    """Ctrl-C, and what `timeout` sends: the server is there until what uses it has stopped."""
    with embedded_valkey(tmp_path) as url, redis.Redis.from_url(url) as client:
        assert client.ping()
        assert os.getpgid(pid_of(tmp_path)) == pid_of(tmp_path) != os.getpgid(0)


def test_a_server_that_an_earlier_service_left_is_ended_before_another_starts(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(shutil, "which", lambda _: None)  # as where there is no setpriv
    script = HOLD.replace(
        "import sys, time", "import shutil, sys, time; shutil.which = lambda _: None"
    )
    service = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert service.stdout.readline() == b"up\n"
    left = pid_of(tmp_path)
    service.kill()
    service.wait()
    service.stdout.close()
    assert running_url(tmp_path) is not None
    with embedded_valkey(tmp_path) as url, redis.Redis.from_url(url) as client:
        assert client.ping()
        assert pid_of(tmp_path) != left
        assert not Path(f"/proc/{left}/exe").exists()


def test_memory_of_what_is_trimmed_is_given_back(tmp_path):
    """Although what was written in between stays."""
    with embedded_valkey(tmp_path, "none") as url, redis.Redis.from_url(url) as client:

        def resident_mb() -> float:
            status = Path(f"/proc/{pid_of(tmp_path)}/status").read_text()
            return int(status.split("VmRSS:")[1].split()[0]) / 1024

        before = resident_mb()
        for batch in range(400):
            pipeline = client.pipeline(transaction=False)
            for number in range(100):
                pipeline.xadd("log", {"r": b"x" * 1000})
                pipeline.set(f"stays-{batch}-{number}", b"y" * 100)
            pipeline.execute()
        full = resident_mb()
        client.xtrim("log", maxlen=0, approximate=False)
        # with Valkey's own settings nothing is given back
        eventually(lambda: resident_mb() < (before + full) / 2)
