"""What users do, over a real server: in the log once, or refused by name."""

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from support.activity import AT, KEYS, NOW, SALT, SPECS, USERS, Shop, view

from banditloop_client.schemas import Item
from banditloop_client.space_schemas import ActivityEvent
from bandits import errors
from bandits.log.records import ActivityRecord, ErasureRecord, ItemChange
from policies.archive.archive import ArchiveReader
from policies.items.changes import encode_item
from policies.profiles.options import ProfileOptions
from policies.profiles.part import decode_part
from policies.spec import PolicySpec, TrendingSource
from serve_app.replica.space_metrics import SpaceState, read_states, space_families
from serve_app.store.activity import demand
from serve_app.store.activity.demand import DemandReader
from serve_app.store.clients import blocking_client
from serve_app.store.keys import REMEMBERED_S, UsersKeys
from serve_app.store.profiles.part_state import decode_part_state
from serve_app.store.spaces import register
from serve_app.workers import activity_leader
from serve_app.workers.activity_leader import ActivityLeader
from serve_app.workers.archiver import Archiver


@pytest.fixture
def shop(client, async_client) -> Shop:
    return Shop(client, async_client)


async def test_what_users_did_is_in_the_log_under_their_pseudonyms(shop):
    replica = shop.replica()
    bought = ActivityEvent("v", "b", "buy", 2.5, AT - timedelta(days=400), "n1")
    ids = await replica.add_activity([view(), bought, view(item="b")])
    u, v = (await replica.users.resolve("u")), (await replica.users.resolve("v"))
    assert ids[1] == "n1"
    assert shop.records == [
        ActivityRecord(u.pseudonym, "a", "view", None, None, ids[0]),
        ActivityRecord(v.pseudonym, "b", "buy", 2.5, round((NOW - 400 * 86400) * 1000), "n1"),
        ActivityRecord(u.pseudonym, "b", "view", None, None, ids[2]),
    ]
    assert len(set(ids)) == 3


DAY = timedelta(days=1)
BAD = {
    "nobody": (view(user=""), errors.InvalidUserIdError, "user_id"),
    "an item without a name": (view(item=""), errors.InvalidItemIdError, "item_id"),
    "an unknown item": (view(item="c"), errors.UnknownItemError, "item_id"),
    "a type no spec names": (
        ActivityEvent("u", "a", "lick"),
        errors.UnknownTypeError,
        "type",
    ),
    "no type": (ActivityEvent("u", "a", ""), errors.UnknownTypeError, "type"),
    "a value that is too large": (view(value=1e300), errors.NonFiniteNumberError, "value"),
    "before 1970": (
        view(time=datetime(1969, 12, 31, tzinfo=UTC)),
        errors.TimeOutOfRangeError,
        "time",
    ),
    "the year 1": (view(time=datetime(1, 1, 1, tzinfo=UTC)), errors.TimeOutOfRangeError, "time"),
    "tomorrow": (view(time=AT + DAY), errors.TimeOutOfRangeError, "time"),
    "six minutes ahead": (view(time=AT + DAY / 240), errors.TimeOutOfRangeError, "time"),
    "an empty id": (view(id=""), errors.InvalidFieldError, "id"),
    "a long id": (view(id="ä" * 129), errors.InvalidFieldError, "id"),
}


@pytest.mark.parametrize("case", BAD)
async def test_what_can_be_nothing_that_a_user_did_is_refused_and_all_beside_it(shop, case):
    event, kind, target = BAD[case]
    with pytest.raises(kind) as error:
        await shop.replica().add_activity([view(), event])
    assert error.value.target == f"events[1].{target}"
    assert shop.records == []


async def test_a_type_of_a_policy_that_is_served_elsewhere_is_one_of_the_space(shop):
    replica, licked = shop.replica(), ActivityEvent("u", "a", "lick")
    with pytest.raises(errors.UnknownTypeError):
        await replica.add_activity([licked])
    register(shop.client, PolicySpec("x", space="shop", profile=ProfileOptions(types={"lick": 1})))
    await replica.add_activity([licked])
    assert [record.event_type for record in shop.records] == ["lick"]


async def test_a_clock_may_be_ahead_a_little_and_the_past_is_long(shop):
    times = [AT + timedelta(minutes=4), datetime(1970, 1, 1, tzinfo=UTC)]
    await shop.replica().add_activity([view(time=time) for time in times])
    assert [record.time_ms for record in shop.records] == [round(NOW * 1000) + 240_000, 0]


async def test_a_retry_counts_once_and_an_id_of_something_else_is_refused(shop):
    one, other = shop.replica(), shop.replica()
    events = [view(id="n1"), view(item="b", id="n2")]
    answers = await asyncio.gather(*(each.add_activity(events) for each in (one, other) * 5))
    assert answers == [["n1", "n2"]] * 10
    assert [record.id for record in shop.records] == ["n1", "n2"]

    # What is new beside what is known is appended; within one request as between two.
    assert await other.add_activity([view(id="n3"), *events, view(id="n3")]) == [
        "n3",
        "n1",
        "n2",
        "n3",
    ]
    assert [record.id for record in shop.records] == ["n1", "n2", "n3"]

    for again in (
        view(item="b", id="n1"),
        view(user="v", id="n1"),
        view(value=1, id="n1"),
        view(time=AT, id="n1"),
        ActivityEvent("u", "a", "buy", id="n1"),
    ):
        with pytest.raises(errors.ActivityConflictError) as error:
            await one.add_activity([view(id="n9"), again])
        assert error.value.target == "events[1].id"
    with pytest.raises(errors.ActivityConflictError) as error:
        await one.add_activity([view(id="n9"), view(), view(item="b", id="n9")])
    assert error.value.target == "events[2].id"
    assert len(shop.records) == 3


async def test_an_id_is_remembered_for_ten_minutes_in_one_hash_a_minute(shop):
    await shop.replica().add_activity([view(id=f"n{number}") for number in range(1000)])
    (memory,) = shop.client.scan_iter(match=f"{KEYS.ids_prefix}*")
    assert shop.client.hlen(memory) == 1000
    assert REMEMBERED_S < shop.client.ttl(memory) <= REMEMBERED_S + 120

    # As if the minutes had passed.
    fields = shop.client.hgetall(memory)
    now = int(fields[b"n1"].split(b" ")[0])
    shop.client.hset(memory, "n1", b"%d " % (now - REMEMBERED_S) + fields[b"n1"].split(b" ", 1)[1])
    await shop.replica().add_activity([view(id="n0"), view(id="n1"), view(id="n2")])
    assert [record.id for record in shop.records][1000:] == ["n1"]


async def test_nothing_is_logged_under_the_pseudonym_of_somebody_who_was_erased(shop):
    replica = shop.replica()
    before = await replica.users.resolve("u")
    await replica.add_activity([view(user="v")])

    # Another replica erases: this one still remembers the pseudonym.
    shop.client.delete(UsersKeys("shop").person(before.key))
    shop.client.set(KEYS.erased(before.pseudonym), 1)
    await replica.add_activity([view(user="v"), view()])
    after = await replica.users.resolve("u")
    assert after.pseudonym != before.pseudonym
    assert [record.user for record in shop.records][1:] == [
        (await replica.users.resolve("v")).pseudonym,
        after.pseudonym,
    ]

    # However many of one request were.
    many = [view(user=f"u{n}") for n in range(6)]
    await replica.add_activity(many)
    for event in many:
        who = await replica.users.resolve(event.user_id)
        shop.client.delete(UsersKeys("shop").person(who.key))
        shop.client.set(KEYS.erased(who.pseudonym), 1)
    await replica.add_activity(many)
    assert len({record.user for record in shop.records[3:]}) == 12

    # While the record still leads to what is marked, nothing is accepted.
    shop.client.set(KEYS.erased(after.pseudonym), 1)
    with pytest.raises(errors.LogUnavailableError) as error:
        await replica.add_activity([view(user="v"), view()])
    assert error.value.target == "events[1].user_id"
    assert len(shop.records) == 15


async def test_an_item_that_was_put_a_moment_ago_is_known(shop):
    replica = shop.replica()
    await replica.add_activity([view()])
    other = shop.replica()
    await other.add_activity([view()])
    await other._items.change([ItemChange("put", "c", encode_item(Item("c")))])
    await replica.add_activity([view(item="c")])


# Led


class Leaders:
    """Leaders of the space's log of activity, in threads; they can be crashed."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._running: list[tuple[ActivityLeader, threading.Event, threading.Thread]] = []

    def start(self, archive: ArchiveReader | None = None, generation: int = 0) -> ActivityLeader:
        leader = ActivityLeader(
            blocking_client(self.url), "shop", salt=SALT, archive=archive, generation=generation
        )
        stop = threading.Event()
        thread = threading.Thread(target=leader.run, args=(stop,))
        thread.start()
        self._running.append((leader, stop, thread))
        return leader

    def crash(self) -> None:
        """End the oldest: it says nothing, and releases nothing."""
        leader, stop, thread = self._running.pop(0)
        leader.lease.release = lambda: None
        stop.set()
        thread.join(10)
        leader.lease._client.delete(KEYS.lease)  # as if its time were over

    def end(self) -> None:
        for _, stop, _ in self._running:
            stop.set()
        for *_, thread in self._running:
            thread.join(10)


@pytest.fixture
def leaders(server_url, shop, monkeypatch) -> Iterator[Leaders]:
    monkeypatch.setattr(activity_leader, "LOOK_S", 0.1)
    for spec in SPECS:
        register(shop.client, spec)
    started = Leaders(server_url)
    yield started
    started.end()


async def until(condition, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def state(client):
    return decode_part_state(client.hget(USERS.parts, "activity"))


def is_read(shop: Shop) -> bool:
    """Whether the part says all that is in the log, and nothing is missing."""
    found = state(shop.client)
    return found is not None and found.is_whole and found.position.encode() == newest(shop)


def newest(shop: Shop) -> bytes:
    return shop.client.xrevrange(KEYS.log, count=1)[0][0]


def profiles(client) -> dict[bytes, dict[bytes, bytes]]:
    return {key: client.hgetall(key) for key in client.scan_iter(match=USERS.profile("[0-9a-f]*"))}


async def profile_of(shop: Shop, user: str):
    person = await shop.replica().users.resolve(user)
    raw = shop.client.hget(USERS.profile(person.pseudonym), "activity")
    return [(event.item, event.type) for event in decode_part(raw).events]


async def test_what_users_did_is_in_their_profiles_soon_whoever_leads(shop, leaders):
    replica = shop.replica()
    leaders.start()
    await until(lambda: state(shop.client) is not None)
    await replica.add_activity([view(), view("v", "b"), view(item="b", time=AT - DAY)])
    await until(lambda: is_read(shop))
    assert await profile_of(shop, "v") == [("b", "view")]

    # The next takes over where the one before has ended; it has nothing to read again.
    leaders.start()
    leaders.crash()
    epoch = state(shop.client).epoch
    await replica.add_activity([ActivityEvent("u", "b", "buy", time=AT)])
    await until(lambda: is_read(shop))
    assert state(shop.client).epoch == epoch
    assert await profile_of(shop, "u") == [("b", "buy"), ("b", "view"), ("a", "view")]
    assert shop.client.get(KEYS.needed) is not None


async def test_a_newer_deployment_leads_at_once(shop, leaders):
    leaders.start()
    await until(lambda: state(shop.client) is not None)
    newer = leaders.start(generation=1)
    await until(lambda: newer.lease.token is not None)
    await shop.replica().add_activity([view()])
    await until(lambda: is_read(shop))


async def test_profiles_that_are_gone_come_again_from_the_stream_and_the_archive(
    shop, leaders, tmp_path
):
    replica, reader = shop.replica(), ArchiveReader(tmp_path, "shop/_activity")
    leaders.start(reader)
    for number in range(60):
        events = [view(f"u{each}", "ab"[number % 2], id=f"n{number}-{each}") for each in range(20)]
        await replica.add_activity(events)
    await until(lambda: is_read(shop))
    erased = (await replica.users.resolve("u3")).pseudonym
    shop.log.append(ErasureRecord(erased, "e1"))
    await until(lambda: is_read(shop))
    before = profiles(shop.client)
    assert len(before) == 20

    await until(lambda: shop.client.get(KEYS.needed) == newest(shop))
    archiver = Archiver(
        shop.client,
        "shop",
        tmp_path,
        max_age_s=0.0,
        retain_s=0.0,
        max_entries=100,
        shared="activity",
    )
    while archiver.step():
        pass
    while archiver.trim():
        pass
    assert shop.client.xlen(KEYS.log) < 1201

    # Under traffic of a user of whom nothing was known.
    for key in (*profiles(shop.client), USERS.parts):
        shop.client.delete(key)
    await replica.add_activity([view("new")])
    await until(lambda: is_read(shop))
    after = profiles(shop.client)
    (new,) = set(after) - set(before)
    assert new.decode() == USERS.profile((await replica.users.resolve("new")).pseudonym)
    assert {key: after[key] for key in before} == before


async def test_a_member_that_asks_for_more_has_the_part_made_anew(shop, leaders):
    leaders.start()
    await shop.replica().add_activity([view(), view(item="b")])
    await until(lambda: is_read(shop))
    epoch = state(shop.client).epoch
    register(shop.client, PolicySpec("more", space="shop", profile=ProfileOptions(items=60)))
    await until(lambda: state(shop.client).epoch != epoch and is_read(shop))
    assert await profile_of(shop, "u") == [("b", "view"), ("a", "view")]


# What is in demand


async def test_what_users_do_is_in_demand_at_once_and_no_event_counts_twice(
    shop, leaders, monkeypatch
):
    monkeypatch.setattr(demand, "STORE_S", 0.0)
    monkeypatch.setattr(demand, "PUBLISH_S", 0.0)
    asking = PolicySpec(
        "asks",
        space="shop",
        profile=ProfileOptions(types={"view": 1.0, "hide": -1.0}),
        sources=[TrendingSource("trending", "1h"), TrendingSource("slow", "30d")],
    )
    register(shop.client, asking)
    reader, replica = DemandReader(shop.async_client, KEYS), shop.replica((asking,))
    assert await reader.newer() is None

    async def counts() -> dict[str, float]:
        await until(lambda: shop.client.hget(KEYS.in_demand, "position") == newest(shop))
        found = await reader.newer()
        assert sorted(found) == [3_600_000, 30 * 86_400_000]
        slow = found[30 * 86_400_000]
        return dict(zip(slow.ids, slow.counts, strict=True))

    leaders.start()
    hidden = ActivityEvent("u", "b", "hide")
    await replica.add_activity([view(), view("v", time=AT - DAY), view(item="b"), hidden])
    assert await counts() == pytest.approx({"a": 2.0, "b": 1.0}, abs=1e-3)

    # Another goes on from what was stored last; one that finds nothing counts the log again.
    leaders.start()
    leaders.crash()
    await replica.add_activity([view(item="b")])
    assert await counts() == pytest.approx({"a": 2.0, "b": 2.0}, abs=1e-3)
    leaders.crash()
    shop.client.delete(KEYS.demand)
    leaders.start()
    await replica.add_activity([view(item="b")])
    assert await counts() == pytest.approx({"a": 2.0, "b": 3.0}, abs=1e-3)


# The inbox


def leave(shop: Shop, event) -> None:
    data = event if isinstance(event, bytes) else msgspec.json.encode(event)
    shop.client.xadd(KEYS.inbox, {"json": data})


async def test_what_is_left_in_the_inbox_is_in_the_log_once_and_what_is_none_is_dropped(
    shop, leaders
):
    await shop.replica().add_activity([view(id="n1")])
    for event in (
        view(),
        view(),  # without an id, each is one
        view(id="n1"),  # as over HTTP
        view("v", "b", id="n2", value=3.0, time=AT - 10_000 * DAY),
        view("v", "b", id="n2", value=3.0, time=AT - 10_000 * DAY),
        b"{",
        b'{"user_id": "u"}',
        view(item="c"),
        view(time=AT),  # in 2030
        ActivityEvent("u", "a", "lick"),
        view(item="b", id="n1"),
        view(item="b", id="n3"),
    ):
        leave(shop, event)
    leaders.start()
    await until(lambda: shop.client.xlen(KEYS.inbox) == 0)
    people = shop.replica().users
    u, v = (await people.resolve("u")).pseudonym, (await people.resolve("v")).pseudonym
    assert [(each.user, each.item, each.value, each.id) for each in shop.records] == [
        (u, "a", None, "n1"),
        (u, "a", None, None),
        (u, "a", None, None),
        (v, "b", 3.0, "n2"),
        (u, "b", None, "n3"),
    ]
    await until(lambda: is_read(shop))

    # The parts of the policies' own logs are nobody's here.
    states = await read_states(shop.async_client, ["shop"])
    assert states == {"shop": SpaceState(0.0, 5, 2, {"moved": 6, "refused": 6})}
    families = {family.name: family for family in space_families(states)}
    assert [sample.value for sample in families["banditloop_activity_inbox"].samples] == [6, 6]

    # Nobody leads: the metric says how far behind it is.
    leaders.crash()
    await shop.replica().add_activity([view()])
    await asyncio.sleep(0.05)
    assert (await read_states(shop.async_client, ["shop"]))["shop"].lag_s > 0.04


async def test_a_user_who_was_erased_while_their_activity_waited_comes_back_as_somebody_new(
    shop, leaders
):
    people = shop.replica().users
    before = await people.resolve("u")
    shop.client.set(KEYS.erased(before.pseudonym), 1)
    leave(shop, view())
    leave(shop, view("v"))
    leaders.start()
    await until(lambda: len(shop.records) == 1)
    await asyncio.sleep(0.3)
    assert (shop.client.xlen(KEYS.inbox), len(shop.records)) == (1, 1)

    shop.client.delete(USERS.person(before.key))
    await until(lambda: len(shop.records) == 2)
    after = await shop.replica().users.resolve("u")
    assert shop.records[1].user == after.pseudonym != before.pseudonym
    assert shop.client.hgetall(KEYS.inbox_counts) == {b"moved": b"2"}
