"""The keeper and its processes: which there are, and what becomes of one that dies."""

import threading
from types import SimpleNamespace

import msgspec
import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from bandits.ridge.config import RidgeConfig
from policies.spec import PolicySpec
from serve_app.settings import Settings
from serve_app.workers import actors
from serve_app.workers import keeper as keeping
from serve_app.workers.actors import WorkerActor
from serve_app.workers.keeper import Keeper

SPEC = PolicySpec("home", learner=RidgeConfig(standbys=1))


class Kept(Keeper):
    """Serve awaits what ``__del__`` returns; here nobody does."""

    def __del__(self) -> None:
        pass


@pytest.fixture
def started(monkeypatch) -> list[str]:
    """Names of what was started; nothing is."""
    names: list[str] = []

    def start(
        _settings: Settings, name: str, _kind: type[WorkerActor], _arguments: tuple[object, ...]
    ) -> SimpleNamespace:
        names.append(name)
        return SimpleNamespace(name=name)

    monkeypatch.setattr(actors, "start_worker", start)
    monkeypatch.setattr(keeping, "start_worker", start)
    monkeypatch.setattr(keeping, "keep_replica_on_loopback", lambda: None)
    return names


def test_there_is_a_learner_with_its_standbys_for_each_policy_and_one_archiver(started):
    Kept(Settings(archive="/archive"), [SPEC, PolicySpec("news")], 7)
    assert started == ["learner-home-0.7", "learner-home-1.7", "learner-news-0.7", "archiver.7"]


def test_each_partition_has_its_learners(started):
    Kept(Settings(archive="none"), [msgspec.structs.replace(SPEC, partitions=2)], 7)
    assert started == [
        "learner-home.0-0.7",
        "learner-home.0-1.7",
        "learner-home.1-0.7",
        "learner-home.1-1.7",
    ]


def test_a_deployment_keeps_the_workers_that_are_as_it_wants_them(started):
    settings, news, shop = Settings(archive="/archive"), PolicySpec("news"), PolicySpec("shop")
    before = {"learner-home-0": 5, "learner-home-1": 5, "learner-news-0": 7, "archiver": 7}
    another = msgspec.structs.replace(news, floor=0.2)
    since = actors.kept_since(settings, [SPEC, news], [SPEC, another], before)
    assert since == {"learner-home-0": 5, "learner-home-1": 5, "archiver": 7}
    Kept(settings, [SPEC, another], 9, since)
    assert started == ["learner-home-0.5", "learner-home-1.5", "learner-news-0.9", "archiver.7"]

    # Its logs are others: the archiver is another.
    since = actors.kept_since(settings, [SPEC, news], [SPEC, news, shop], before)
    assert since == {"learner-home-0": 5, "learner-home-1": 5, "learner-news-0": 7}
    since = actors.kept_since(settings, [SPEC, news], [SPEC], before)
    assert since == {"learner-home-0": 5, "learner-home-1": 5}


async def test_what_a_later_deployment_wants_does_not_end_with_an_earlier_one():
    worker = WorkerActor(Settings(learner_niceness=0))
    assert await worker.ping(7) == 7
    assert await worker.ping(9) == 9
    assert await worker.ping(7) == 9
    assert await worker.stop(7) is False
    assert not worker._stop.is_set()
    assert await worker.stop(9) is True
    assert worker._stop.is_set()
    other = WorkerActor(Settings(learner_niceness=0))
    await other.ping(9)
    assert await other.stop() is True


def test_without_an_archive_there_is_no_archiver(started):
    Kept(Settings(archive="none"), [SPEC], 7)
    assert started == ["learner-home-0.7", "learner-home-1.7"]


def test_learners_that_start_before_their_keeper_are_those_it_wants(started):
    actors.start_learners(Settings(archive="/archive"), [SPEC], 7)
    early = started.copy()
    Kept(Settings(archive="/archive"), [SPEC], 7)
    assert early == started[len(early) : -1] == ["learner-home-0.7", "learner-home-1.7"]


@pytest.fixture
def named(monkeypatch) -> list[str]:
    """Names of the processes that Ray knows of; a test adds to them."""
    names: list[str] = []

    def listed(**_):
        return [{"name": name, "namespace": actors.NAMESPACE} for name in names]

    monkeypatch.setattr(keeping.ray.util, "list_named_actors", listed)
    return names


@pytest.mark.parametrize("newer", [False, True])
async def test_what_never_started_is_tried_anew_unless_a_later_deployment_has_begun(
    started, named, newer
):
    keeper = Kept(Settings(archive="none"), [SPEC], 7)
    named += ["learner-home-0.7", *(["learner-home-0.8"] if newer else [])]
    errors = [ActorUnavailableError("restarting", None), ActorDiedError()]

    async def fail(error: Exception) -> int:
        raise error

    for actor, error in zip(keeper._actors.values(), errors, strict=True):
        actor.ping = SimpleNamespace(remote=lambda _, error=error: fail(error))
    await keeper.check_health()
    assert started[2:] == ([] if newer else [started[1]])


async def test_what_an_earlier_deployment_has_left_is_ended_and_what_a_later_one_has_begun_is_not(
    started, named, monkeypatch
):
    keeper = Kept(Settings(archive="none"), [PolicySpec("home")], 7)
    ended: list[str] = []

    async def wanted(generation: int) -> int:
        return generation

    async def ends() -> bool:
        return True

    keeper._actors["learner-home-0.7"].ping = SimpleNamespace(remote=wanted)
    monkeypatch.setattr(
        keeping.ray,
        "get_actor",
        lambda name, _: SimpleNamespace(name=name, stop=SimpleNamespace(remote=ends)),
    )
    monkeypatch.setattr(keeping.ray, "kill", lambda actor: ended.append(actor.name))
    named += ["learner-home-0.7", "learner-home-0.6", "archiver.6"]
    await keeper.check_health()
    assert ended == ["learner-home-0.6", "archiver.6"]
    named.append("learner-home-0.8")
    await keeper.check_health()
    assert len(ended) == 2


async def test_workers_that_were_all_well_are_not_asked_again_for_a_while(started, named):
    """Unless one was not, or there is one too many."""
    keeper = Kept(Settings(archive="none"), [PolicySpec("home")], 7)
    asked: list[int] = []

    async def wanted(generation: int) -> int:
        asked.append(generation)
        if len(asked) == 1:
            raise ActorUnavailableError("restarting", None)
        return generation

    keeper._actors["learner-home-0.7"].ping = SimpleNamespace(remote=wanted)
    named.append("learner-home-0.7")
    for _ in range(4):
        await keeper.check_health()
    assert len(asked) == 2  # the one that was not well at once, and then not
    keeper._well_until = 0.0
    await keeper.check_health()
    assert len(asked) == 3


async def test_a_keeper_whose_workers_a_later_deployment_wants_starts_and_ends_nothing(
    started, named
):
    """One that takes a policy away has begun no worker: its calls of those that it keeps say it."""
    keeper = Kept(Settings(archive="none"), [SPEC], 7)
    named += ["learner-home-0.7", "learner-old-0.6"]
    kept, dead = keeper._actors.values()

    async def wanted(_: int) -> int:
        return 8

    async def gone(_: int) -> int:
        raise ActorDiedError

    kept.ping, dead.ping = SimpleNamespace(remote=wanted), SimpleNamespace(remote=gone)
    await keeper.check_health()
    assert len(started) == 2


def test_a_process_ends_with_a_thread_that_dies_and_not_with_one_that_was_told_to(monkeypatch):
    codes: list[int] = []
    monkeypatch.setattr(actors.os, "_exit", codes.append)

    def wait(stop: threading.Event) -> None:
        stop.wait(10)

    def die(_stop: threading.Event) -> None:
        raise RuntimeError("no more")

    process = WorkerActor(Settings())
    process.run(die, "learner-home")
    process._threads[0].join(5)
    assert codes == [1]
    process.run(wait, "archiver-home")
    process._stop.set()
    process._threads[1].join(5)
    assert codes == [1]
