"""Users are erased while two replicas answer for them, and while the leaders of the logs change."""

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Iterator

import pytest
from support.fakes import FakeLog
from support.loops import SALT, make, url_of, verdicts

from banditloop_client.space_schemas import ActivityEvent, ErasureState
from bandits.errors import EventConflictError
from bandits.log.join import JoinRule
from bandits.log.positions import is_after
from bandits.log.records import ErasureRecord, LogEntry
from policies.items.catalogue import Catalogue, Item
from policies.profiles.options import ProfileOptions
from policies.profiles.part import ERASED, decode_part
from policies.requests import ActionRequest, RankRequest
from policies.spec import PolicySpec
from serve_app.admin.freshness import read_all
from serve_app.replica.items import ReplicaItems
from serve_app.replica.known_users import KnownUsers
from serve_app.replica.policy_service import RedisPolicyService
from serve_app.replica.space_service import RedisSpaceService
from serve_app.replica.user_exports import UserExports
from serve_app.replica.users import ReplicaUsers
from serve_app.settings import Settings
from serve_app.store.clients import blocking_client
from serve_app.store.erasures.job import erase_person
from serve_app.store.event_log import LogWriter, RedisLog
from serve_app.store.items.history import ItemsHistory
from serve_app.store.keys import ActivityKeys, ItemsKeys, Keys, UsersKeys
from serve_app.store.spaces import Space
from serve_app.workers import activity_leader
from serve_app.workers.activity_leader import ActivityLeader
from serve_app.workers.items_leader import ItemsLeader

SPEC = PolicySpec("home", space="shop", profile=ProfileOptions(), join=JoinRule(window_s=0.05))
USERS = UsersKeys("shop")
LOGS = {"activity": ActivityKeys("shop"), "home.0": Keys("home")}
ACTIONS = [ActionRequest(name) for name in "abc"]
NAMES = [f"u{number}" for number in range(6)]
ERASURES = 14
LONGEST_S = 2.0
"""From asking for an erasure to the moment when nothing can be written under the pseudonym."""
PATIENCE_S = 20.0


class Replica:
    """One replica's service of the policy, and of its space."""

    def __init__(self, async_client) -> None:
        writer = LogWriter(async_client)
        users = ReplicaUsers(writer, USERS, salt=SALT)
        known = KnownUsers(SPEC, SPEC.profile, users, writer.wire, salt=SALT)
        self.policy = RedisPolicyService(
            SPEC, async_client, writer, salt=SALT, replica="r", follow_interval_s=1.0, known=known
        )
        self.policy.ranker.serve("s", FakeLog(SPEC).fold().snapshot())
        self.space = RedisSpaceService(
            "shop",
            [SPEC],
            writer,
            ReplicaItems(
                async_client,
                writer,
                ItemsKeys("shop"),
                lambda *_: None,
                older=Keys("home"),
                brought=False,
            ),
            users,
            client=async_client,
            exports=UserExports("shop", [SPEC], Settings()),
            salt=SALT,
        )

    async def decide(self, user: str, event_id: str | None) -> None:
        """Decide for a user; it is acknowledged."""
        request = RankRequest(user_id=user, actions=ACTIONS, event_id=event_id)
        record, is_logged = await self.policy.rank(request)
        assert is_logged
        assert record.user is not None

    async def note(self, user: str) -> None:
        """Log what a user did; it is acknowledged."""
        await self.space.add_activity([ActivityEvent(user, "a", "view")])


@contextlib.contextmanager
def leaders(client, generation: int = 0) -> Iterator[None]:
    """The processes that lead the two logs, until they die."""
    stop = threading.Event()
    loops = [
        make(blocking_client(url_of(client)), SPEC, generation=generation),
        ActivityLeader(blocking_client(url_of(client)), "shop", salt=SALT, generation=generation),
    ]
    threads = [threading.Thread(target=loop.run, args=(stop,), daemon=True) for loop in loops]
    for thread in threads:
        thread.start()
    yield
    stop.set()
    for thread in threads:
        thread.join()


@pytest.fixture
def shop(client, monkeypatch) -> None:
    """What replicas need to be ready; leaders look at jobs at once."""
    monkeypatch.setattr(activity_leader, "LOOK_S", 0.1)
    items = ItemsKeys("shop")
    ItemsLeader(client, items, ItemsHistory(client, items, None)).begin(
        Catalogue.put([Item("a")]), None
    )
    RedisLog(client, Keys("home")).put_blob(Catalogue().digest, Catalogue().encoded)


async def ended(replica: Replica, begun: list[ErasureState]) -> None:
    """Wait until erasures are complete."""
    deadline = time.monotonic() + PATIENCE_S
    for each in begun:
        while (state := await replica.space.erasure(each.erasure)).state != "complete":
            assert time.monotonic() < deadline, state
            await asyncio.sleep(0.05)


def after_erasure(entries: list[LogEntry]) -> tuple[dict[str, str], list[LogEntry]]:
    """By pseudonym, where its erasure stands; and the entries of erased ones that come later."""
    erased = {
        each.record.user: each.id for each in entries if isinstance(each.record, ErasureRecord)
    }
    later = [
        each
        for each in entries
        if (at := erased.get(getattr(each.record, "user", None) or "")) is not None
        and is_after(each.id, at)
    ]
    return erased, later


async def test_nothing_is_written_under_an_erased_pseudonym_by_any_replica(
    client, async_client, shop
):
    replicas = [Replica(async_client), Replica(async_client)]
    over, asked = asyncio.Event(), itertools.count()

    async def traffic(worker: int) -> None:
        while not over.is_set():
            number = next(asked)
            user = NAMES[number % len(NAMES)]
            # One replica decides for nobody, so nothing tells it who is somebody else by now.
            if worker % 2:
                await replicas[1].note(user)
            else:
                await replicas[0].decide(user, f"e{number}" if number % 3 == 0 else None)

    begun: list[ErasureState] = []
    took_s: list[float] = []
    with leaders(client), contextlib.ExitStack() as later:
        workers = [asyncio.create_task(traffic(worker)) for worker in range(6)]
        for number in range(ERASURES):
            # Others of a later deployment take over in the middle, as from one that died.
            if number == ERASURES // 2:
                later.enter_context(leaders(client, 1))
            await asyncio.sleep(0.06)
            name = NAMES[number % len(NAMES)]
            await replicas[0].decide(name, None)  # so that there is somebody to erase
            before = time.monotonic()
            begun.append(await replicas[number % 2].space.erase(name))
            took_s.append(time.monotonic() - before)
        await asyncio.sleep(0.06)
        over.set()
        await asyncio.gather(*workers)
        await ended(replicas[0], begun)

    assert max(took_s) < LONGEST_S
    for part, keys in LOGS.items():
        entries = list(read_all(client, keys))
        erased, afterwards = after_erasure(entries)
        assert len(erased) == len(begun)
        assert afterwards == []

        # All came back, and every part of what was known is erased.
        named = {getattr(each.record, "user", None) for each in entries} - {None}
        assert len(named) >= len(erased)
        assert {decode_part(client.hget(USERS.profile(each), part)) for each in erased} == {ERASED}
    assert set(verdicts(client)) == {"identical"}


async def test_a_job_goes_on_under_another_leader_when_whoever_began_it_is_gone(
    client, async_client, shop
):
    replica = Replica(async_client)
    with leaders(client):
        await replica.decide("u0", "e0")
        person = await replica.space.users.resolve("u0")

        # The replica dies when the record is destroyed, and then the leaders do.
        steps = erase_person(Space("shop"), person.key)
        destroys = steps.send(client.execute_command(*next(steps)))
        client.execute_command(*destroys)
        steps.close()
    [name] = client.hkeys(USERS.erasures) or [None]

    with leaders(client, 1):
        deadline = time.monotonic() + PATIENCE_S
        while not all(client.exists(keys.erased(person.pseudonym)) for keys in LOGS.values()):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        while client.hlen(USERS.erasures):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
    if name is not None:
        assert (await replica.space.erasure(name.decode())).state == "complete"
    for part, keys in LOGS.items():
        assert [*after_erasure(list(read_all(client, keys)))[0]] == [person.pseudonym]
        assert decode_part(client.hget(USERS.profile(person.pseudonym), part)) == ERASED


async def test_of_an_erased_user_no_decision_is_remembered(client, async_client, shop):
    one, other = Replica(async_client), Replica(async_client)
    request = RankRequest("e0", user_id="u0", actions=ACTIONS)
    first, _ = await one.policy.rank(request)
    assert (await other.policy.rank(request)) == (first, True)

    await one.space.erase("u0")
    for replica in (one, other):
        with pytest.raises(EventConflictError, match="erased"):
            await replica.policy.rank(request)
        [error] = await replica.policy.rank_all([request])
        assert isinstance(error, EventConflictError)
    again, is_logged = await one.policy.rank(RankRequest("e1", user_id="u0", actions=ACTIONS))
    assert is_logged
    assert again.user not in {None, first.user}
