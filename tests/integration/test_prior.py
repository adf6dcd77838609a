"""A prior on a real server: declared, served before the first decision, verified byte for byte."""

from functools import partial

import msgspec
import pytest
from support import loops as one
from support import partition_loops as several
from support.priors import prior_rows
from typer.testing import CliRunner

from banditloop_client.schemas import PriorInfo
from bandits.log.codec import digest, encode
from bandits.log.records import CheckpointRecord, PriorRecord
from bandits.types import Snapshot
from policies.archive.archive import ArchiveReader, archive_folder
from policies.blend import make_learner
from policies.fold.known_prior import LEARNED_BEFORE
from policies.fold.prior import teach_prior
from policies.items.catalogue import Catalogue
from policies.requests import Item
from policies.spec import PRIOR_STRENGTH, PolicySpec, Prior
from serve_app.admin.freshness import read_all
from serve_app.admin.replayed.verification import LogAddress, verify_policy
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.cli.main import app
from serve_app.replica.metrics import Metrics
from serve_app.replica.policy_service import RedisPolicyService
from serve_app.replica.scrape import collect
from serve_app.store.archiving.sweep import Sweep, is_made
from serve_app.store.event_log import FIELD, LogWriter
from serve_app.store.snapshots import Published
from serve_app.workers.archiver import Archiver

pytestmark = pytest.mark.usefixtures("hurried_learner")

CATALOGUE = Catalogue([Item(name, {"x": float(n)}) for n, name in enumerate("abc")])


_rows = partial(prior_rows, decisions=40, chances=(0.1, 0.4, 0.8))
PRIOR = _rows()
BROUGHT = {"artifact": "v1", "catalogue": CATALOGUE, "prior": PRIOR.encoded}


def _taught(spec: PolicySpec, position: str, strength: float = PRIOR_STRENGTH) -> Snapshot:
    learner = make_learner(spec, salt=one.SALT)
    teach_prior(learner, spec, CATALOGUE, PRIOR, strength)
    return learner.snapshot(position)


def _served(client) -> Published:
    stored = StoredPolicy(client, "home")
    return stored.find(stored.head())[1]


def _kinds(client, keys) -> list[str]:
    return [type(entry.record).__name__ for entry in read_all(client, keys)]


@pytest.mark.parametrize("name", ["ridge, as it arrives", "vw"])
def test_what_is_served_first_knows_the_prior_and_every_snapshot_is_derived_again(
    client, server_url, tmp_path, name
):
    """From the start, from each checkpoint and from the archive; a successor changes nothing."""
    spec = msgspec.structs.replace(one.SPECS[name], artifact="shop")
    loop = one.make(client, spec, **BROUGHT)
    one.settle(loop)
    first = _served(client)
    assert first.payload == _taught(spec, first.position).payload
    assert one.stats(client).learned == 0
    assert one.stats(client).prior.taught.rows == 120

    for part in range(3):
        one.decide(client, 9, spec=spec, prefix=f"{part}.")
        if part:
            client.xadd(one.KEYS.log, {FIELD: encode(CheckpointRecord())})
        one.settle(loop)
    one.decide(client, 9, spec=spec, prefix="last.")
    one.settle(loop)
    assert set(one.verdicts(client)) == {"identical"}
    for checkpoint in StoredPolicy(client, "home").checkpoints.list():
        found = one.verified(client, start=checkpoint)
        assert found
        assert {each.verdict for each in found} == {"identical"}

    # The next leader says nothing twice; a new artifact's prior waits for the next model.
    loop.lease.release()
    again = one.make(client, spec, **BROUGHT)
    one.settle(again)
    assert _kinds(client, one.KEYS).count("PriorRecord") == 1
    learned = again.fold.learner.checkpoint()
    again.lease.release()

    newer = one.make(
        client,
        msgspec.structs.replace(spec, artifact="v2"),
        **{**BROUGHT, "artifact": "v2", "prior": _rows(2).encoded},
    )
    one.settle(newer)
    assert _kinds(client, one.KEYS).count("PriorRecord") == 2
    assert newer.fold.learner.checkpoint() == learned
    assert one.stats(client).prior.reason == LEARNED_BEFORE
    assert one.stats(client).prior.taught.digest == PRIOR.digest
    assert set(one.verdicts(client)) == {"identical"}

    # The doctor says so, too, and the archive keeps the rows.
    done = CliRunner().invoke(app, ["doctor", "--redis-url", server_url, "--json"])
    found = {each["check"]: each for each in msgspec.json.decode(done.stdout)["findings"]}
    assert found["prior"]["severity"] == "ok"
    assert f"was taught 120 rows, each worth {PRIOR_STRENGTH} " in found["prior"]["message"]
    assert found["gaps"]["severity"] == "ok"

    archiver = Archiver(client, "home", tmp_path, max_age_s=0.0, retain_s=3600.0)
    while archiver.step():
        pass
    archive = ArchiveReader(str(tmp_path), archive_folder("home", 0, 1))
    assert archive.blob(PRIOR.digest) == PRIOR.encoded

    # What the archive has may go from Redis, but for the rows that the next model is taught.
    newer.lease.acquire()  # on a busy machine the doctor took longer than a lease lasts
    gone = Sweep(client, one.KEYS, newer.lease, archive).sweep(newer.fold)
    assert PRIOR.digest in gone
    assert _rows(2).digest not in gone
    assert is_made(msgspec.msgpack.encode(newer.fold.state()))
    assert not is_made(PRIOR.encoded)
    client.delete(one.KEYS.blob(PRIOR.digest))
    found = verify_policy(
        LogAddress(one.url_of(client), "home", str(tmp_path), one.SALT),
        StoredPolicy(client, "home").served()[0],
        start=None,
        jobs=1,
        progress=lambda _: None,
    )[0]
    assert {each.verdict for each in found} == {"identical"}


async def test_a_replica_says_what_its_model_was_taught(client, async_client):
    """And so do its metrics."""
    spec = msgspec.structs.replace(one.SPEC, artifact="shop")
    loop = one.make(client, spec, **BROUGHT)
    one.settle(loop)
    served = msgspec.structs.replace(spec, artifact=None)
    service = RedisPolicyService(
        served,
        async_client,
        LogWriter(async_client),
        salt=one.SALT,
        replica="r",
        follow_interval_s=1.0,
    )
    info = await service.info()
    assert info.prior == PriorInfo(120, 0, PRIOR_STRENGTH)
    text = await collect(async_client, Metrics("p").sample(), ["home"], {"home": 1})
    assert b'banditloop_prior_rows{policy="home"} 120.0' in text


def test_a_policy_begins_with_nothing_where_the_spec_says_so_and_takes_a_prior_until_it_learns(
    client,
):
    """--no-prior, then a strength of its own; a model that has learned is left alone."""
    plain = msgspec.structs.replace(one.SPEC, artifact="shop")
    loop = one.make(client, plain.without_prior, **BROUGHT)
    one.settle(loop)
    fresh = make_learner(plain, salt=one.SALT).snapshot(loop.fold.position)
    assert _served(client).learned == fresh.learned == 0
    assert "PriorRecord" not in _kinds(client, one.KEYS)
    loop.lease.release()

    strong = msgspec.structs.replace(plain, prior=Prior(2.0))
    loop = one.make(client, strong, **BROUGHT)
    one.settle(loop)
    first = _served(client)
    assert first.payload == _taught(strong, first.position, 2.0).payload

    one.decide(client, 6, spec=strong)
    one.settle(loop)
    learned = loop.fold.learner.checkpoint()
    loop.lease.release()
    for spec in (plain.without_prior, plain):
        loop = one.make(client, spec, **BROUGHT)
        one.settle(loop)
        loop.lease.release()
        assert loop.fold.learner.checkpoint() == learned
    assert set(one.verdicts(client)) == {"identical"}


@pytest.mark.parametrize("name", ["ridge", "vw"])
def test_the_first_merge_of_partitions_is_the_prior_and_their_logs_give_it_again(client, name):
    """Partition 0 alone is taught it; all have it before the first decision."""
    spec = msgspec.structs.replace(several.SPECS[name], artifact="shop")
    loops = [
        several.make(
            client, number, spec, **{**BROUGHT, "prior": None if number else PRIOR.encoded}
        )
        for number in range(several.COUNT)
    ]
    several.settle(loops, client)
    merges = several.merges(client, 0)
    assert merges[0].inputs[0] is not None
    first = several.served(client)
    assert first.payload == _taught(spec, first.position).payload
    assert [_kinds(client, keys).count("PriorRecord") for keys in several.KEYS] == [1, 0, 0]

    several.decide(client, 30, spec=spec)
    several.settle(loops, client)
    assert several.learned(loops) == 30
    assert several.served(client).learned == 30 + round(PRIOR_STRENGTH * 120)
    assert set(several.verdicts(client)) == {"identical"}


def test_rows_that_are_damaged_in_the_store_stop_learning_until_they_are_put_back(client):
    """A learner that starts puts back what it was deployed with."""
    spec = msgspec.structs.replace(one.SPEC, artifact="shop")
    loop = one.make(client, spec, **BROUGHT)
    one.settle(loop)
    one.decide(client, 6, spec=spec)
    one.settle(loop)
    loop.lease.release()

    client.set(one.KEYS.blob(PRIOR.digest), b"junk")
    again = one.make(client, spec, **BROUGHT)
    one.settle(again)
    assert again.fold.prior.taught.rows == 120
    assert set(one.verdicts(client)) == {"identical"}


def test_an_entry_with_rows_that_are_none_is_refused_and_learning_goes_on(client):
    """Whoever wrote it."""
    loop = one.make(client, one.SPEC)
    one.settle(loop)
    client.set(one.KEYS.blob(digest(b"x")), b"x")
    client.xadd(one.KEYS.log, {FIELD: encode(PriorRecord(digest(b"x"), 0.5))})
    one.decide(client, 6)
    one.settle(loop)
    assert one.stats(client).learned == 6
    assert one.stats(client).outcomes["refused_prior"] == 1
