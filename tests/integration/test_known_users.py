"""What is known of who asks, over a real server: it is read for each decision, and held back before it."""

import asyncio
import time

import msgspec
import pytest
from support.fakes import SALT, FakeLog
from support.servers import Server, binary_of

from bandits.errors import InvalidUserIdError, NoCandidatesError
from bandits.log.positions import START
from bandits.log.records import ActivityRecord, DecisionRecord, LogEntry
from policies.profiles.changes import PartChanges
from policies.profiles.known_user import NOTHING
from policies.profiles.options import ProfileOptions, Times
from policies.profiles.part import CutRule
from policies.requests import ActionRequest, RankRequest
from policies.spec import PolicySpec
from serve_app.admin.freshness import read_all
from serve_app.replica.known_users import KnownUsers
from serve_app.replica.policy_service import RedisPolicyService
from serve_app.replica.user_merges import UserMerges
from serve_app.replica.users import ReplicaUsers
from serve_app.store.clients import asyncio_client
from serve_app.store.event_log import LogWriter
from serve_app.store.keys import ActivityKeys, Keys, UsersKeys, partitions
from serve_app.store.profiles.part_writer import PartWriter
from serve_app.store.replicas import known_appends
from serve_app.store.spaces import part_name, register

SPEC = PolicySpec(
    "home",
    space="shop",
    partitions=2,
    profile=ProfileOptions(items=10),
    repeat={"purchased": "never", "shown": Times(3, "1d")},
)
USERS = UsersKeys("shop")
RULE = CutRule(10, ("purchase", "shown"))
ACTIONS = [ActionRequest(name) for name in "abcdef"]


def replica(async_client, spec: PolicySpec = SPEC) -> RedisPolicyService:
    """A replica with a first snapshot."""
    writer = LogWriter(async_client, timeout_s=1.0)
    users = ReplicaUsers(writer, UsersKeys(spec.shares), salt=SALT)
    known = KnownUsers(spec, spec.profile, users, writer.wire, salt=SALT)
    service = RedisPolicyService(
        spec, async_client, writer, salt=SALT, replica="r", follow_interval_s=1.0, known=known
    )
    service.ranker.serve("s", FakeLog(spec).fold().snapshot())
    return service


def write_parts(client, entries: list[LogEntry], spec: PolicySpec = SPEC) -> None:
    """As leaders write them: what the entries say is of the log of activity."""
    register(client, spec)
    names = [part_name(spec.name, number) for number in range(spec.partitions)]
    for name in ("activity", *names):
        writer = PartWriter(client, USERS, name)
        writer.lead(1, RULE, since=START, at=START)
        changes = PartChanges()
        changes.read(entries if name == "activity" else [])
        writer.write(changes, entries[-1].id if entries else "1-1")


def did(user: str, *done: tuple[str, str]) -> list[LogEntry]:
    now_ms = int(time.time() * 1000)
    return [
        LogEntry(f"{now_ms + n}-0", ActivityRecord(user, item, kind))
        for n, (item, kind) in enumerate(done)
    ]


async def rank(service, user: str | None = "alice", **fields) -> tuple[DecisionRecord, bool]:
    return await service.rank(RankRequest(user_id=user, actions=ACTIONS, **fields))


async def person(service, user: str = "alice"):
    return await service._known._users.resolve(user)


def logged(client, spec: PolicySpec = SPEC) -> list[DecisionRecord]:
    logs = partitions(spec.name, spec.partitions)
    return [entry.record for keys in logs for entry in read_all(client, keys)]


async def test_what_a_user_bought_is_not_chosen_again(client, async_client):
    service = replica(async_client)
    # Before any part is made, a decision says that it knows nothing.
    record, is_logged = await rank(service)
    assert (record.profile, is_logged) == ("", True)

    alice = await person(service)
    assert record.user == alice.pseudonym
    write_parts(client, did(alice.pseudonym, ("a", "purchase"), ("b", "view")))
    service._known._members_until = 0.0
    record, _ = await rank(service)
    assert record.action_ids == list("bcdef")
    assert len(record.profile) == len(NOTHING)
    assert record in logged(client)

    bob, _ = await rank(service, "bob")
    assert (bob.action_ids, bob.profile) == (list("abcdef"), NOTHING)
    nobody, _ = await rank(service, None)
    assert (nobody.user, nobody.profile) == (None, None)
    with pytest.raises(InvalidUserIdError):
        await rank(service, "u" * 300)

    # All profile keys are gone: it says so until they are made anew.
    client.delete(USERS.parts, USERS.profile(alice.pseudonym))
    record, _ = await rank(service)
    assert (record.action_ids, record.profile) == (list("abcdef"), "")


async def test_a_preview_knows_who_asks_and_leaves_nothing_behind(client, async_client):
    service = replica(async_client)
    alice = await person(service)
    write_parts(client, did(alice.pseudonym, ("a", "purchase")))
    before = sorted(client.scan_iter())
    fields = {"actions": ACTIONS, "visit_id": "v", "event_id": "e"}
    hers = await service.preview(RankRequest(user_id="alice", **fields))
    assert {each.id for each in hers.candidates} == set("bcdef")
    assert hers.profile
    stranger = await service.preview(RankRequest(user_id="stranger", **fields))
    assert {each.id for each in stranger.candidates} == set("abcdef")
    assert stranger.profile
    with pytest.raises(InvalidUserIdError):
        await service.preview(RankRequest(user_id="u" * 300, **fields))
    assert sorted(client.scan_iter()) == before
    assert logged(client) == []

    record, _ = await rank(service, visit_id="v", event_id="e")
    assert [each.id for each in hers.chosen] == [record.action_ids[at] for at in record.chosen]


async def test_several_at_once_each_have_their_own(client, async_client):
    service = replica(async_client)
    alice, bob = await person(service), await person(service, "bob")
    bought = did(alice.pseudonym, ("a", "purchase")) + did(bob.pseudonym, ("b", "purchase"))
    write_parts(client, sorted(bought, key=lambda entry: entry.id))
    asked = [
        RankRequest(user_id=user, actions=ACTIONS, event_id=event_id)
        for user, event_id in (("alice", None), ("bob", "e1"), ("u" * 300, None), (None, None))
    ]
    answers = await service.rank_all(asked)
    assert [answers[at][0].action_ids for at in (0, 1, 3)] == [
        list("bcdef"),
        list("acdef"),
        list("abcdef"),
    ]
    assert isinstance(answers[2], InvalidUserIdError)
    assert all(answers[at][1] for at in (0, 1, 3))
    assert len(logged(client)) == 3


async def test_a_visit_shows_nothing_twice_however_soon_the_next_page_is_asked_for(
    client, async_client
):
    one, other = replica(async_client), replica(async_client)
    write_parts(client, [])
    shown: list[str] = []
    for page, service in enumerate((one, other, one)):
        event_id = f"page-{page}" if page % 2 else None
        record, is_logged = await rank(service, slots=2, visit_id="v1", event_id=event_id)
        assert is_logged
        shown += [record.action_ids[k] for k in record.chosen]
    assert sorted(shown) == list("abcdef")
    with pytest.raises(NoCandidatesError, match="repeat"):
        await rank(other, visit_id="v1")

    # A retry of a page is the page, also where nothing is left to choose; another visit, and one without a name, begin anew.
    again, _ = await rank(one, slots=2, visit_id="v1", event_id="page-1")
    assert [again.action_ids[k] for k in again.chosen] == shown[2:4]
    retry = RankRequest("page-1", "alice", actions=ACTIONS, slots=2, visit_id="v1")
    assert await one.rank_all([retry]) == [(again, True)]
    assert len((await rank(one, visit_id="v2"))[0].action_ids) == 6
    assert len((await rank(one))[0].action_ids) == 6
    nobody, _ = await rank(one, None, visit_id="v1-of-nobody")
    next_page, _ = await rank(one, None, visit_id="v1-of-nobody")
    assert len(next_page.action_ids) == 5
    assert (nobody.profile, next_page.profile) == (None, None)

    visits = [key for key in client.scan_iter() if b":visit:" in key]
    assert visits
    assert all(0 < client.ttl(key) <= known_appends.VISIT_S for key in visits)
    assert not any(b"v1" in key.rpartition(b":")[2] for key in visits)  # a keyed hash, 32 digits


async def test_pages_of_one_visit_in_one_request_show_nothing_twice(client, async_client):
    service = replica(async_client)
    write_parts(client, [])
    pages = [
        RankRequest(event_id, "alice", actions=ACTIONS, slots=2, visit_id=visit)
        for event_id, visit in ((None, "v1"), ("p", "v1"), (None, "v2"), (None, "v1"), (None, "v1"))
    ]
    *answers, none_left = await service.rank_all(pages)
    chosen = [[record.action_ids[k] for k in record.chosen] for record, _ in answers]
    assert sorted(chosen[0] + chosen[1] + chosen[3]) == list("abcdef")
    assert len(answers[2][0].action_ids) == 6
    assert isinstance(none_left, NoCandidatesError)
    assert len(logged(client)) == 4


async def test_who_is_erased_while_they_ask_is_decided_for_as_somebody_new(client, async_client):
    service = replica(async_client)
    write_parts(client, [])
    before = await person(service)
    client.delete(USERS.person(before.key))
    for keys in partitions("home", 2):
        client.set(keys.erased(before.pseudonym), "1")

    # As if this replica had looked the person up just before.
    for event_id in (None, "e1"):
        service._known._users.remember("alice", before)
        record, is_logged = await rank(service, event_id=event_id)
        assert is_logged
        assert record.user not in {None, before.pseudonym}

    def under(somebody) -> int:
        return sum(record.user == somebody.pseudonym for record in logged(client))

    # The mark alone is enough: a person who is found under an erased pseudonym is looked up again.
    marked = await person(service)
    assert under(marked) == 2
    for keys in partitions("home", 2):
        client.set(keys.erased(marked.pseudonym), "1")
    record, is_logged = await rank(service)
    assert not is_logged
    client.delete(USERS.person(marked.key))
    service._known._users.remember("alice", marked)
    answers = await service.rank_all([RankRequest(user_id="alice", actions=ACTIONS)] * 3)
    assert all(is_logged and record.user != marked.pseudonym for record, is_logged in answers)
    assert not [record for record in logged(client) if record.user == before.pseudonym]
    assert under(marked) == 2


async def test_who_is_merged_into_another_is_known_by_all_that_both_did(client, async_client):
    service, other = replica(async_client), replica(async_client)
    anonymous, alice = await person(service, "cookie"), await person(service)
    await person(other, "cookie")
    done = did(anonymous.pseudonym, ("a", "purchase")) + did(alice.pseudonym, ("b", "purchase"))
    write_parts(client, sorted(done, key=lambda entry: entry.id))

    writer = LogWriter(async_client)
    users = ReplicaUsers(writer, USERS, salt=SALT)
    await UserMerges(async_client, writer, ActivityKeys("shop"), users).merge("cookie", "alice")
    for each in (service, other):
        for user in ("alice", "cookie"):
            record, _ = await rank(each, user)
            assert record.action_ids == list("cdef")
            assert record.user == alice.pseudonym


@pytest.mark.timeout(60)
async def test_without_redis_it_decides_without_a_profile_and_says_so(tmp_path):
    with Server(binary_of("valkey"), tmp_path / "server") as server:
        async_client = asyncio_client(server.url, timeout_s=1.0)
        service = replica(async_client)
        with server.client() as client:
            alice = await person(service)
            write_parts(client, did(alice.pseudonym, ("a", "purchase")))
        assert (await rank(service))[0].profile

        server.end()
        for user, pseudonym in (("alice", alice.pseudonym), ("bob", None)):
            record, is_logged = await rank(service, user, visit_id="v")
            assert (record.user, record.profile, is_logged) == (pseudonym, "", False)
            assert record.action_ids == list("abcdef")
        record, _ = await rank(service, None, visit_id="v")
        assert record.profile == ""

        # Nobody waits for long: what has failed is not asked again for each request.
        began = time.monotonic()
        await asyncio.gather(*(rank(service, visit_id="v") for _ in range(50)))
        assert time.monotonic() - began < 10.0

        server.start()
        deadline = time.monotonic() + 30.0
        while not (await rank(service))[0].profile:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert (await rank(service))[0].action_ids == list("bcdef")
        await async_client.aclose()


def test_a_policy_without_rules_keeps_no_visits():
    spec = msgspec.structs.replace(SPEC, repeat=msgspec.UNSET)
    known = KnownUsers(spec, spec.profile, None, None, salt=SALT)
    assert known.visit_of(RankRequest(visit_id="v")) == ""
    assert Keys("home").visit("")
