"""Blobs that nothing refers to go, after the archive has them.

What is still needed stays, or is made to last again.
"""

import time

import msgspec
import pytest
from support.logs import decision
from support.loops import KEYS, SALT, SPEC, SPECS, decide, make, settle, stats, url_of, verdicts

from bandits.log.codec import digest, encode
from bandits.log.records import (
    CatalogueRecord,
    CheckpointRecord,
    RewardRecord,
    TickRecord,
    WarmStartRecord,
)
from policies.archive.archive import ArchiveReader
from policies.artifacts.learner_model import TrainedModel
from policies.blend import make_learner
from policies.items.catalogue import Catalogue, Item
from serve_app.admin.replayed.verification import LogAddress, verify_policy
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.store.archiving.sweep import is_made
from serve_app.store.event_log import FIELD, RedisLog
from serve_app.workers.archiver import Archiver

pytestmark = [pytest.mark.usefixtures("hurried_learner"), pytest.mark.timeout(120)]


def catalogue(number: int) -> Catalogue:
    return Catalogue([Item(name, {"x": float(number), name: 1.0}) for name in "abc"])


def replace(client, new: Catalogue) -> None:
    """As a replica does it."""
    client.set(KEYS.blob(new.digest), new.encoded)
    RedisLog(client, KEYS).append(CatalogueRecord(new.digest))


def expiring(client, names) -> set[str]:
    return {name for name in names if client.ttl(KEYS.blob(name)) >= 0}


def archived(client, folder) -> ArchiveReader:
    """All of the log so far; nothing is trimmed."""
    archiver = Archiver(client, "home", str(folder), max_age_s=0.0, retain_s=3600)
    while archiver.step():
        pass
    return ArchiveReader(str(folder), "home")


def of(new: Catalogue, event_id: str, chosen: int = 0):
    return decision(event_id, spec=SPEC.digest, catalogue=new.digest, chosen=(chosen,))


def test_catalogues_that_nothing_refers_to_go_once_they_are_archived_and_verify_reads_them_there(
    client, tmp_path
):
    reader = ArchiveReader(str(tmp_path), "home")
    loop = make(client, archive=reader)
    settle(loop)
    versions = [catalogue(number) for number in range(30)]
    for number, new in enumerate(versions):
        replace(client, new)
        RedisLog(client, KEYS).append(of(new, f"e{number}", number % 3))
        RedisLog(client, KEYS).append(RewardRecord(f"e{number}", 1.0))
        time.sleep(0.025)
        settle(loop)
    names = [each.digest for each in versions]
    assert loop._sweep.sweep(loop.fold) == []  # the archive has none of it yet
    assert not expiring(client, names)
    archived(client, tmp_path)
    kept = {p.catalogue for _, p in StoredPolicy(client, "home").snapshots()}
    gone = loop._sweep.sweep(loop.fold)
    assert expiring(client, names) == set(names) - kept == set(gone) & set(names)
    assert len(set(names) - kept) >= 5
    assert names[-1] in kept
    assert loop._sweep.sweep(loop.fold) == []  # what is going already is not told again

    for name in expiring(client, names):
        client.delete(KEYS.blob(name))  # its time is over
    decide(client, 6, prefix="later")
    settle(loop)
    assert stats(client).learned == 36
    address = LogAddress(url_of(client), "home", str(tmp_path), SALT)
    stored = StoredPolicy(client, "home", reader)
    results, learned = verify_policy(address, stored.served()[0], jobs=1, progress=lambda _: None)
    assert {each.verdict for each in results} == {"identical"}
    assert learned == 36


def test_what_an_open_decision_refers_to_stays_and_an_old_catalogue_put_again_lasts_again(
    client, tmp_path
):
    spec = msgspec.structs.replace(SPEC, join=msgspec.structs.replace(SPEC.join, window_s=30.0))
    loop = make(client, spec, archive=ArchiveReader(str(tmp_path), "home"))
    loop.lease.acquire()
    old, older, new = catalogue(1), catalogue(2), catalogue(3)
    for _ in range(4):
        loop.attempt()
    for each in (older, old):
        replace(client, each)
    RedisLog(client, KEYS).append(msgspec.structs.replace(of(old, "open"), spec=spec.digest))
    for number in range(22):  # the snapshots of the old ones are forgotten
        replace(client, new if number == 0 else catalogue(10 + number))
        for _ in range(3):
            loop.lease.acquire()
            loop.attempt()
    archived(client, tmp_path)
    loop._sweep.sweep(loop.fold)
    assert expiring(client, [old.digest, older.digest]) == {older.digest}
    replace(client, older)
    for _ in range(3):
        loop.lease.acquire()
        loop.attempt()
    loop._sweep.sweep(loop.fold)
    assert not expiring(client, [older.digest])
    client.expire(KEYS.blob(older.digest), 500)  # as if it were found unneeded in the moment before
    loop._sweep.sweep(loop.fold)
    assert not expiring(client, [older.digest])


def test_a_trained_model_goes_once_it_is_archived_and_what_nothing_archives_stays(client, tmp_path):
    model = TrainedModel(
        spec_bytes=SPEC.encoded, learned=3, checkpoint=make_learner(SPEC, salt=SALT).checkpoint()
    )
    name = digest(model.encoded)
    without, loop = make(client), make(client, archive=ArchiveReader(str(tmp_path), "home"))
    settle(loop)
    client.set(KEYS.blob(name), model.encoded)
    RedisLog(client, KEYS).append(WarmStartRecord(name))
    settle(loop)
    assert without._sweep._named(loop.fold)[0]
    archived(client, tmp_path)
    loop.lease.release()
    settle(without)
    assert without._sweep.sweep(without.fold) == []
    without.lease.release()
    settle(loop)
    assert name in loop._sweep.sweep(loop.fold)
    assert SPEC.digest not in expiring(client, [SPEC.digest])


def test_a_damaged_copy_in_the_archive_is_none(client, tmp_path):
    loop = make(client, archive=ArchiveReader(str(tmp_path), "home"))
    settle(loop)
    for number in range(24):
        replace(client, catalogue(number))
        settle(loop, at_least=2)
    archived(client, tmp_path)
    (tmp_path / "home" / "_blobs" / catalogue(0).digest).write_bytes(b"junk")
    loop._sweep._due = 0.0
    loop._sweep.sweep_if_due(loop.fold)  # says so, and does not stop the learner
    assert not expiring(client, [catalogue(0).digest])


def test_what_an_earlier_build_left_behind_goes(client, tmp_path):
    """Snapshots and checkpoints that no list names: their writer's reply was lost."""
    loop = make(client)
    settle(loop)
    decide(client, 6)
    client.xadd(KEYS.log, {FIELD: encode(CheckpointRecord())})
    settle(loop)
    stored = StoredPolicy(client, "home")
    [checkpoint] = stored.checkpoints.list()
    data = [client.get(KEYS.blob(each)) for each in (checkpoint.digest, checkpoint.snapshot_id)]
    left = [each + b"\xc0" for each in data]  # like them, of other digests
    for each in left:
        client.set(KEYS.blob(digest(each)), each)
    client.set(KEYS.blob(digest(b"{}")), b"{}")
    assert set(loop._sweep.sweep(loop.fold)) == {digest(each) for each in left}
    assert not expiring(client, [checkpoint.digest, checkpoint.snapshot_id, digest(b"{}")])
    assert set(verdicts(client)) == {"identical"}


@pytest.mark.parametrize("name", ["ridge", "vw"])
def test_what_is_made_here_is_told_from_what_an_entry_names(name, client):
    spec, plain = SPECS[name], make_learner(SPECS[name], salt=SALT)
    loop = make(client, spec)
    settle(loop)
    client.xadd(KEYS.log, {FIELD: encode(CheckpointRecord())})
    client.xadd(KEYS.log, {FIELD: encode(TickRecord())})
    settle(loop)
    [checkpoint] = StoredPolicy(client, "home").checkpoints.list()
    for made in (checkpoint.digest, checkpoint.snapshot_id):
        assert is_made(client.get(KEYS.blob(made))[:9])
    assert is_made(plain.checkpoint()[:9])
    trained = TrainedModel(
        spec_bytes=spec.encoded, learned=1, checkpoint=plain.checkpoint()
    ).encoded
    for named in (trained, spec.encoded, Catalogue().encoded, catalogue(1).encoded, b"", b"x"):
        assert not is_made(named[:9])
