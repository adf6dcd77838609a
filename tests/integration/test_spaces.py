"""Policies that share a space: one log of items and one of activity, and a log of decisions for each."""

import asyncio
import json
import time

import msgspec
import pytest
from support.small_artifact import ITEMS, make_artifact
from support.spaces import SpaceShop, until_true
from typer.testing import CliRunner

from bandits.errors import RefusedError, SpecError, UnknownPolicyError
from bandits.log.join import JoinRule
from bandits.log.records import ActivityRecord, ItemsBaseRecord
from policies.artifacts import source_artifact as artifact
from policies.artifacts.fetch import load_artifact
from policies.items.catalogue import NEVER_PUT, Catalogue, Item
from policies.profiles.options import ProfileOptions
from policies.spec import FreshSource, PolicySpec
from serve_app.admin.archives import archive_summary
from serve_app.admin.preflight import check_logs, validate
from serve_app.admin.replayed.verification import LogAddress, verify_policy
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.admin.users.members import leave, member_states
from serve_app.cli.main import app
from serve_app.store.inbox import Inbox
from serve_app.store.items.bases import append_base, read_base
from serve_app.store.items.history import ItemsHistory
from serve_app.store.keys import ActivityKeys, ItemsKeys, Keys, UsersKeys
from serve_app.store.lease import Lease
from serve_app.store.spaces import read_space, space_name
from serve_app.workers import items_leader
from serve_app.workers.items_leader import ItemsLeader

pytestmark = pytest.mark.timeout(120)
KEYS = ItemsKeys("shop")
PROFILE = ProfileOptions(types={"view": 1.0, "purchase": 3.0})


def policy(name: str, **fields) -> PolicySpec:
    return PolicySpec(
        name,
        sources=[FreshSource("new", "7d")],
        space="shop",
        profile=PROFILE,
        join=JoinRule(window_s=0.3),
        **fields,
    )


async def test_policies_of_a_space_share_items_and_activity_and_each_has_its_own_decisions(
    client, server_url, tmp_path
):
    shop = SpaceShop(client, server_url, tmp_path, [policy("home"), policy("mail", partitions=2)])
    with shop.working():
        async with shop.answering() as http:
            # What is put through one is offered by the other, at once.
            for name, item in (("home", "a"), ("mail", "b"), ("home", "c")):
                answer = await http.put(f"/policies/{name}/items/{item}", json={})
                assert answer.status_code == 200, answer.text
            listed = [
                (await http.get(f"/policies/{name}/items")).json() for name in ("home", "mail")
            ]
            assert listed[0] == listed[1]
            assert [item["id"] for item in listed[0]["items"]] == ["a", "b", "c"]

            events = [{"user_id": "u", "item_id": item, "type": "view"} for item in "ab"]
            assert (await http.post("/spaces/shop/activity", json={"events": events})).is_success
            missing = {"events": [{"user_id": "u", "item_id": "d", "type": "view"}]}
            assert (await http.post("/spaces/shop/activity", json=missing)).status_code == 404
            assert (await http.post("/spaces/home/activity", json=missing)).status_code == 404

            for number in range(6):
                for name in ("home", "mail"):
                    event = f"{name}-{number}"
                    asked = {"event_id": event, "user_id": "u"}
                    decided = await http.post(f"/policies/{name}/rank", json=asked)
                    assert decided.json().get("logged"), decided.text
                    rewarded = await http.post(
                        f"/policies/{name}/events/{event}/reward", json={"value": number % 2}
                    )
                    assert rewarded.status_code == 202
            await until_true(
                lambda: all(
                    (served := StoredPolicy(client, name).served()[0])
                    and max(each.snapshot.learned for each in served) == 6
                    for name in ("home", "mail")
                )
            )

        # One person, whoever decides; the activity is in the space's part of their profile.
        activity = [r for r in shop.records(ActivityKeys("shop")) if isinstance(r, ActivityRecord)]
        (user,) = {record.user for record in activity}
        assert {record.user for record in shop.decisions("home")} == {user}
        assert {record.catalogue for record in shop.decisions("home")} == {listed[0]["version"]}
        await until_true(lambda: client.hexists(UsersKeys("shop").profile(user), "activity"))

    members = read_space(client, "shop").members
    assert [(member.policy, member.partitions) for member in members] == [("home", 1), ("mail", 2)]
    root = await asyncio.to_thread(shop.archive)
    for name in ("home", "mail"):
        summary = archive_summary(root, name)
        assert (summary.items.entries, summary.activity.entries) == (4, 2)
        served, corrupt = StoredPolicy(client, name).served()
        address = LogAddress(server_url, name, root, shop.settings.secret())
        results, learned = await asyncio.to_thread(
            verify_policy, address, served, progress=lambda _: None
        )
        assert ({each.verdict for each in results}, corrupt) == ({"identical"}, [])
        assert learned == 6
        assert StoredPolicy(client, name).catalogue().ids == ("a", "b", "c")


async def test_what_was_bought_through_one_policy_no_other_offers_again(
    client, server_url, tmp_path
):
    said = {"signals": {"purchase": 10.0}, "repeat": {"purchased": "never"}}
    specs = [policy("home", **said), policy("mail", **said)]
    shop = SpaceShop(client, server_url, tmp_path, specs)
    with shop.working():
        async with shop.answering() as http:

            async def offered(name: str) -> list[str]:
                asked, deadline = {"user_id": "u", "return_pmf": True}, time.monotonic() + 30
                while True:  # a replica has to hear that the parts are whole
                    body = (await http.post(f"/policies/{name}/rank", json=asked)).json()
                    if (body["profile"], body["repeat"]) == (True, True):
                        break
                    assert time.monotonic() < deadline
                return [each["id"] for each in body["pmf"]]

            for item in "abc":
                await http.put(f"/policies/home/items/{item}", json={})
            assert (await http.get("/policies/mail/items/c")).is_success  # it has read them, too
            await until_true(
                lambda: (
                    not any(m.missing for m in member_states(client, read_space(client, "shop")))
                )
            )
            assert "a" in await offered("mail")
            bought = {"event_id": "e", "user_id": "u", "actions": [{"id": "a"}]}
            assert (await http.post("/policies/home/rank", json=bought)).is_success
            reward = {"value": 1, "signal": "purchase"}
            assert (await http.post("/policies/home/events/e/reward", json=reward)).is_success
            for name in ("mail", "home"):
                deadline = time.monotonic() + 30
                while "a" in await offered(name):
                    assert time.monotonic() < deadline
                assert sorted(await offered(name)) == ["b", "c"]


async def test_a_policy_stays_in_its_space_whoever_shares_it(client, server_url, tmp_path):
    alone = msgspec.structs.replace(policy("home"), space=msgspec.UNSET)
    shop = SpaceShop(client, server_url, tmp_path, [alone])
    with shop.working():
        async with shop.answering():
            pass
    assert space_name(client, "home") == "home"

    with pytest.raises(SpecError, match="have the other policies say space: home") as error:
        check_logs(server_url, [policy("home")])
    assert error.value.target == "space"

    # The way out: the others come to it.
    said = msgspec.structs.replace(alone, space="home")
    guest = msgspec.structs.replace(policy("mail"), space="home")
    both = SpaceShop(client, server_url, tmp_path, [said, guest])
    with both.working():
        async with both.answering() as http:
            assert (await http.put("/policies/mail/items/a", json={})).is_success
            assert (await http.get("/policies/home/items/a")).is_success
    assert [member.policy for member in read_space(client, "home").members] == ["home", "mail"]

    other = msgspec.structs.replace(guest, profile=ProfileOptions(items=3))
    with pytest.raises(SpecError) as error:
        validate(both.settings, [said, other])
    assert error.value.target == "profile.items"


def leader(client) -> ItemsLeader:
    return ItemsLeader(client, KEYS, ItemsHistory(client, KEYS, None))


def test_the_items_are_those_of_the_policy_that_brings_any_whoever_is_first(client, tmp_path):
    artifact.write(make_artifact(), tmp_path / "artifact")
    brought = Catalogue.of(load_artifact(str(tmp_path / "artifact")).catalogue)
    for _ in range(2):
        assert leader(client).begin(Catalogue(), None) == NEVER_PUT
    nothing = ItemsBaseRecord(NEVER_PUT)
    assert client.execute_command(*append_base(KEYS, nothing, items=0, to_empty=True)) is None
    assert leader(client).begin(Catalogue(), brought) == brought.digest
    other = Catalogue.put([Item("x")])
    for begins in (None, brought, other):
        assert leader(client).begin(Catalogue(), begins) == brought.digest
    assert read_base(client, KEYS).items == len(ITEMS)
    assert client.xlen(KEYS.log) == 2


def test_items_that_were_put_before_an_artifact_came_stay(client):
    leader(client).begin(Catalogue(), None)
    client.xadd(KEYS.log, {"r": b"whatever came"})
    assert leader(client).begin(Catalogue(), Catalogue.put([Item("x")])) == NEVER_PUT
    client.delete(KEYS.log, KEYS.base, KEYS.bases)

    # Nor does an artifact bring back what somebody has emptied.
    emptied = Catalogue.put([])
    assert leader(client).begin(emptied, None) == emptied.digest
    assert leader(client).begin(Catalogue(), Catalogue.put([Item("x")])) == emptied.digest


def test_of_several_leaders_of_the_items_one_writes_a_whole_catalogue(client, monkeypatch):
    monkeypatch.setattr(items_leader, "LOOK_S", 0.0)
    monkeypatch.setattr(items_leader, "LEAST_CHANGES", 1)
    leaders = [leader(client), leader(client)]
    for each in leaders:
        each.begin(Catalogue(), Catalogue.put([Item("x")]))
    inbox = Keys("home").inbox
    lease = Lease(client, Keys("home"), "test")
    assert lease.acquire()
    for number in range(3):
        item = {"type": "item", "op": "put", "item": {"id": f"n{number}"}}
        client.xadd(inbox, {"json": msgspec.json.encode(item)})
    assert Inbox(client, Keys("home"), "shop").move(lease) == 3

    client.set(KEYS.lease, "another writes")
    for each in leaders:
        each.lead()
        if each._writer is not None:
            each._writer.join()
    assert client.llen(KEYS.bases) == 1
    client.delete(KEYS.lease)
    leaders[0].lead()
    leaders[0]._writer.join()
    assert client.llen(KEYS.bases) == 2
    assert client.exists(KEYS.lease) == 0
    leaders[1].lead()
    assert client.llen(KEYS.bases) == 2


def test_changes_of_items_in_two_policies_inboxes_are_all_made(client):
    """Their entries have the same ids, which are remembered in the log that they share."""
    leader(client).begin(Catalogue(), None)
    for name in ("home", "mail"):
        lease = Lease(client, Keys(name), "test")
        assert lease.acquire()
        item = {"type": "item", "op": "put", "item": {"id": name}}
        client.xadd(Keys(name).inbox, {"json": msgspec.json.encode(item)}, id="7-0")
        assert Inbox(client, Keys(name), "shop").move(lease) == 1
    changed = [
        record
        for _, fields in client.xrange(KEYS.log)
        if b"items_base" not in (record := fields[b"r"])
    ]
    assert len(changed) == 2


def told(*arguments: str) -> str:
    """What ``banditloop spaces`` prints."""
    done = CliRunner().invoke(app, ["spaces", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


async def test_a_policy_that_is_gone_for_good_leaves_and_nobody_waits_for_it(
    client, server_url, tmp_path
):
    both = SpaceShop(client, server_url, tmp_path, [policy("home"), policy("mail")])
    with both.working():
        async with both.answering() as http:
            assert (await http.put("/policies/home/items/a", json={})).is_success
            for name in ("home", "mail"):
                asked = {"user_id": "u", "actions": [{"id": "a"}]}
                assert (await http.post(f"/policies/{name}/rank", json=asked)).is_success
            found = read_space(client, "shop")
            await until_true(lambda: not any(m.missing for m in member_states(client, found)))
            [user] = {record.user for record in both.decisions("mail")}
            profile = UsersKeys("shop").profile(user)
            await until_true(lambda: client.hexists(profile, "mail.0"))
            with pytest.raises(RefusedError, match="is served"):
                leave(client, found, "mail")

    # Its learner is gone, so an erasure waits for it, and so would profiles that are made anew.
    await until_true(lambda: not client.exists(Keys("mail").lease))
    home = SpaceShop(client, server_url, tmp_path, [policy("home")])
    with home.working():
        async with home.answering() as http:
            asked = await http.delete("/spaces/shop/users/u")
            job = f"/spaces/shop/erasures/{asked.json()['erasure']}"

            async def waits_for() -> list[str]:
                return (await http.get(job)).json()["waiting_for"]

            await until_true(lambda: client.hexists(profile, "mail.0"))
            while await waits_for() != ["mail.0"]:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.05)
            said = told("leave", "mail", "--redis-url", server_url)
            assert "mail has left shop, and 1 profiles" in said
            assert (await http.get(job)).json()["state"] == "complete"
            assert not client.hexists(profile, "mail.0")
    assert [member.policy for member in read_space(client, "shop").members] == ["home"]
    with pytest.raises(UnknownPolicyError):
        leave(client, read_space(client, "shop"), "mail")

    shown = json.loads(told("show", "--redis-url", server_url, "--json"))
    assert [each["policy"] for each in shown["policies"]] == ["home"]

    # Served again, it is back.
    with both.working():
        await until_true(lambda: len(read_space(client, "shop").members) == 2)
