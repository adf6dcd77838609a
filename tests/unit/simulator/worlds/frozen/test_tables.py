"""Tables of frozen worlds: the same bytes for a seed, cut in time, and a log that can be judged."""

import csv
import hashlib

import numpy as np
import pytest

from simulator.worlds.frozen.make import FROZEN_WORLDS, frozen_world
from simulator.worlds.frozen.oracle import appeal_to_all, value_of_policy
from simulator.worlds.frozen.tables import write_tables

SMALL = {
    "shop": {"users": 200, "items": 150, "visits": 3000, "events": 2000},
    "drift": {"users": 100, "visits": 2000},
    "attackers": {"users": 100, "visits": 2000, "share": 0.2},
    "positions": {"users": 100, "visits": 1000},
    "segments": {"users": 500, "visits": 4000},
}
DIGESTS = {
    "shop": "e0fb581cddf470b8",
    "drift": "8127ac1ab3c32794",
    "attackers": "14310844f47f054f",
    "positions": "c662b167c0337767",
    "segments": "7cf91a7a88ebda76",
}
"""Of all files of seed 5: what has changed a world without a new version is found here."""


def read(folder, name):
    with (folder / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The tables of every world."""
    root = tmp_path_factory.mktemp("worlds")
    for name in FROZEN_WORLDS:
        write_tables(frozen_world(name, 5, **SMALL[name]), root / name, decisions=True)
    return root


@pytest.mark.parametrize("name", SMALL)
def test_the_tables_of_a_seed_are_these_bytes(name, folders, tmp_path):
    whole = hashlib.sha256()
    for file in ("events", "items", "users", "decisions"):
        data = (folders / name / f"{file}.csv").read_bytes()
        whole.update(data)
    write_tables(frozen_world(name, 5, **SMALL[name]), tmp_path, decisions=True)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (folders / name / path.name).read_bytes()
    assert whole.hexdigest()[:16] == DIGESTS[name]


@pytest.mark.parametrize("name", SMALL)
def test_other_seeds_are_other_tables(name, folders, tmp_path):
    write_tables(frozen_world(name, 6, **SMALL[name]), tmp_path)
    assert (tmp_path / "events.csv").read_bytes() != (folders / name / "events.csv").read_bytes()


@pytest.mark.parametrize("name", SMALL)
def test_events_are_in_the_order_of_time_and_of_known_users_and_items(name, folders):
    events, folder = read(folders / name, "events"), folders / name
    times = [event["time"] for event in events]
    assert times == sorted(times)
    assert {event["item"] for event in events} <= {row["item"] for row in read(folder, "items")}
    users = [row["user"] for row in read(folder, "users")]
    assert users == sorted(set(users))
    assert {event["user"] for event in events} <= set(users)
    for event in events:
        assert (event["value"] != "") == (event["type"] == "purchase")


def test_the_shop_exports_as_many_rows_as_it_says_and_no_later_ones(folders):
    events, world = read(folders / "shop", "events"), frozen_world("shop", 5, **SMALL["shop"])
    assert len(events) == 2000
    assert {event["type"] for event in events} == {"view", "click", "cart", "purchase"}
    decisions = read(folders / "shop", "decisions")
    assert max(row["time"] for row in decisions) <= events[-1]["time"]
    views = [event for event in events if event["type"] == "view"]
    assert len(views) * world.slots == len(decisions)
    # the next visit is after the end
    later = np.datetime64(int(world.people.times[len(views)]), "ms")
    assert np.datetime64(events[-1]["time"].removesuffix("Z")) <= later


def test_what_is_sold_out_after_the_export_is_not_told(folders):
    items, end = read(folders / "shop", "items"), read(folders / "shop", "events")[-1]["time"]
    assert len(items) == 150
    until = [row["available_until"] for row in items if row["available_until"]]
    assert until
    assert max(until) <= end
    assert sum(row["available_from"] != "" for row in items) > 30
    assert all(float(row["price"]) > 0 and len(row["text"].split()) == 17 for row in items)


@pytest.mark.parametrize("name", ["shop", "positions"])
def test_propensities_are_those_of_the_choice(name, folders):
    """Each slot's actions are the pool without those above, and 1/propensity averages their number."""
    decisions = read(folders / name, "decisions")
    by_slot: dict[int, list[float]] = {}
    for row in decisions:
        actions = row["actions"].split("|")
        assert row["action"] in actions
        assert len(set(actions)) == len(actions)
        pool = SMALL[name].get("pool", 20 if name == "shop" else 30)
        assert len(actions) == pool - int(row["slot"])
        by_slot.setdefault(int(row["slot"]), []).append(
            1 / (float(row["propensity"]) * len(actions))
        )
    for weights in by_slot.values():
        stderr = np.std(weights) / np.sqrt(len(weights))
        assert abs(np.mean(weights) - 1) < 4 * stderr


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_policy_is_judged_rightly_on_the_log(seed, tmp_path):
    """IPS of slot 0 of ``positions``, of the best for everybody: within 4 standard errors."""
    world = frozen_world("positions", seed, visits=20_000, users=500, slots=1, log_uniform=0.6)
    write_tables(world, tmp_path, decisions=True)
    rows = read(tmp_path, "decisions")
    best = world.people.item_ids[appeal_to_all(world, np.arange(500)).argmax()]
    terms = np.array(
        [(row["action"] == best) * float(row["reward"]) / float(row["propensity"]) for row in rows]
    )
    truth = value_of_policy(
        world,
        lambda _, items: (items == world.indexes([best])[0]).astype(float),
        np.arange(20_000),
    )
    assert truth.stderr == 0.0
    assert abs(terms.mean() - truth.value) < 4 * terms.std() / np.sqrt(len(rows))
