"""The office as Serve runs it, in this process: it always has an answer."""

import json

import pytest

from serve_app.host.environment import free_port
from serve_app.office import deployment
from serve_app.office.deployment import Office
from serve_app.settings import Settings


class Here(Office):
    """Without what is for a process of its own."""

    def __del__(self) -> None:
        """Nothing: the test ends it."""


@pytest.fixture
async def office(monkeypatch, tmp_path):
    for name in ("keep_replica_on_loopback", "configure_logging", "_yield_to_others"):
        monkeypatch.setattr(deployment, name, lambda *_: None)
    url = f"redis://127.0.0.1:{free_port()}/0"
    office = Here(Settings(redis_url=url, data_dir=tmp_path, archive="none"), "http://127.0.0.1:1")
    yield office
    await Office.__del__(office)


def code_of(answer: tuple[int, bytes]) -> tuple[int, str]:
    return answer[0], json.loads(answer[1])["error"]["code"]


async def test_without_redis_it_says_so_and_what_it_does_not_know_it_refuses(office):
    for errand in ("decisions", "snapshots"):
        assert code_of(await office.do(errand, "home", {"limit": 1})) == (503, "log_unavailable")
    assert code_of(await office.do("gossip", "home", {})) == (404, "not_found")


async def test_a_fault_of_its_own_names_no_detail(office, monkeypatch):
    def fail(*_) -> None:
        raise KeyError("a secret")

    monkeypatch.setattr(deployment, "do_now", fail)
    answer = await office.do("decisions", "home", {})
    assert code_of(answer) == (500, "error")
    assert b"secret" not in answer[1]


async def test_who_waits_too_long_is_told_what_to_do(office, monkeypatch):
    monkeypatch.setattr(deployment, "PATIENCE_S", 0.0)
    status, body = await office.do("event", "home", {"event_id": "e"})
    assert (status, json.loads(body)["error"]["target"]) == (503, "entry")
