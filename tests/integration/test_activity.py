"""What users do, over a real server: in the log once, or refused by name."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from banditloop_client.schemas import Item
from banditloop_client.space_schemas import ActivityEvent
from bandits import errors
from bandits.log.records import ActivityRecord, ItemChange
from policies.items.catalogue import Catalogue
from policies.items.changes import encode_item
from policies.profiles.options import ProfileOptions
from policies.spec import PolicySpec
from serve_app.replica.items import ReplicaItems
from serve_app.replica.space_service import RedisSpaceService
from serve_app.replica.users import ReplicaUsers
from serve_app.store.event_log import REMEMBERED_S, LogWriter, RedisLog
from serve_app.store.items.history import ItemsHistory
from serve_app.store.keys import ActivityKeys, ItemsKeys, Keys, UsersKeys
from serve_app.workers.items_leader import ItemsLeader

KEYS = ActivityKeys("shop")
SALT = b"a secret of at least sixteen bytes"
SPECS = [
    PolicySpec("home", space="shop", profile=ProfileOptions(types={"view": 1.0})),
    PolicySpec("mail", space="shop", profile=ProfileOptions(types={"view": 1.0, "buy": 5.0})),
]
NOW = 1_900_000_000.0
AT = datetime.fromtimestamp(NOW, UTC)


class Shop:
    """A space with two items, and replicas."""

    def __init__(self, client, async_client) -> None:
        self.client, self.async_client = client, async_client
        self.log = RedisLog(client, KEYS)
        items = ItemsKeys("shop")
        leader = ItemsLeader(client, items, ItemsHistory(client, items, None))
        leader.begin(Catalogue.put([Item("a"), Item("b")]), None)

    def replica(self) -> RedisSpaceService:
        writer, items_keys = LogWriter(self.async_client), ItemsKeys("shop")
        items = ReplicaItems(
            self.async_client,
            writer,
            items_keys,
            lambda *_: None,
            older=Keys("home"),
            brought=False,
        )
        users = ReplicaUsers(writer, UsersKeys("shop"), salt=SALT)
        return RedisSpaceService(
            "shop",
            SPECS,
            writer,
            items,
            users,
            client=self.async_client,
            salt=SALT,
            clock=lambda: NOW,
        )

    @property
    def records(self) -> list[ActivityRecord]:
        return [entry.record for entry in self.log.read("0-0", count=5000)]


@pytest.fixture
def shop(client, async_client) -> Shop:
    return Shop(client, async_client)


def view(user="u", item="a", **fields) -> ActivityEvent:
    return ActivityEvent(user, item, "view", **fields)


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

    # While the record still leads to what is marked, nothing is accepted.
    shop.client.set(KEYS.erased(after.pseudonym), 1)
    with pytest.raises(errors.LogUnavailableError) as error:
        await replica.add_activity([view(user="v"), view()])
    assert error.value.target == "events[1].user_id"
    assert len(shop.records) == 3


async def test_an_item_that_was_put_a_moment_ago_is_known(shop):
    replica = shop.replica()
    await replica.add_activity([view()])
    other = shop.replica()
    await other.add_activity([view()])
    await other._items.change([ItemChange("put", "c", encode_item(Item("c")))])
    await replica.add_activity([view(item="c")])
