"""The keeper and its processes: which there are, and what becomes of one that dies."""

import threading
from types import SimpleNamespace

import msgspec
import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from bandits.ridge import RidgeConfig
from policies.spec import PolicySpec
from serve_app import background
from serve_app.background import Background, Keeper
from serve_app.settings import Settings

SPEC = PolicySpec("home", learner=RidgeConfig(standbys=1))


class Kept(Keeper):
    """Serve awaits what ``__del__`` returns; here nobody does."""

    def __del__(self) -> None:
        pass


@pytest.fixture
def started(monkeypatch) -> list[str]:
    """Names of what was started; nothing is."""
    names: list[str] = []

    def start(_keeper: Keeper, name: str) -> SimpleNamespace:
        names.append(name)
        return SimpleNamespace(name=name)

    monkeypatch.setattr(Keeper, "_start", start)
    monkeypatch.setattr(background, "keep_replica_on_loopback", lambda: None)
    return names


def test_there_is_a_learner_with_its_standbys_for_each_policy_and_one_archiver(started):
    Kept(Settings(archive="/archive"), [SPEC, PolicySpec("news")])
    assert [name.rsplit("-", 1)[0] for name in started] == [
        "learner-home-0",
        "learner-home-1",
        "learner-news-0",
        "archiver",
    ]


def test_each_partition_has_its_learners(started):
    Kept(Settings(archive="none"), [msgspec.structs.replace(SPEC, partitions=2)])
    names = [name.rsplit("-", 1)[0] for name in started]
    assert names == ["learner-home.0-0", "learner-home.0-1", "learner-home.1-0", "learner-home.1-1"]


def test_without_an_archive_there_is_no_archiver(started):
    Kept(Settings(archive="none"), [SPEC])
    assert [name.rsplit("-", 1)[0] for name in started] == ["learner-home-0", "learner-home-1"]


def test_a_keeper_started_again_finds_its_processes_and_one_of_a_changed_spec_starts_others(started):
    settings = Settings(archive="none")
    for spec in (SPEC, SPEC, msgspec.structs.replace(SPEC, floor=0.3)):
        Kept(settings, [spec])
    assert started[:2] == started[2:4]
    assert not {*started[:2]} & {*started[4:]}


async def test_what_ray_starts_again_is_left_to_ray_and_what_never_started_is_tried_anew(started):
    keeper = Kept(Settings(archive="none"), [SPEC])
    errors = [ActorUnavailableError("restarting", None), ActorDiedError()]

    async def fail(error: Exception) -> None:
        raise error

    for actor, error in zip(keeper._actors.values(), errors, strict=True):
        actor.ping = SimpleNamespace(remote=lambda error=error: fail(error))
    await keeper.check_health()
    assert len(started) == 3
    assert started[2] == started[1]


def test_a_process_ends_with_a_thread_that_dies_and_not_with_one_that_was_told_to(monkeypatch):
    codes: list[int] = []
    monkeypatch.setattr(background.os, "_exit", codes.append)

    def wait(stop: threading.Event) -> None:
        stop.wait(10)

    def die(_stop: threading.Event) -> None:
        raise RuntimeError("no more")

    process = Background(Settings())
    process.run(die, "learner-home")
    process._threads[0].join(5)
    assert codes == [1]
    process.run(wait, "archiver-home")
    process._stop.set()
    process._threads[1].join(5)
    assert codes == [1]
