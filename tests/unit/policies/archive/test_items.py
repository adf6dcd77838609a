"""The log of items, archived: any version can be read from its files, and nobody takes it for more."""

import pyarrow.dataset as ds
from support.fakes import SALT, FakeLog, FakePast
from support.items import MemoryItems, put, said_of
from support.logs import archive_items, write_archive

from bandits.log.codec import digest
from bandits.log.records import CheckpointRecord, LogEntry, RootRecord, SpecRecord
from policies.archive.archive import (
    ArchiveReader,
    ArchiveWriter,
    archive_folder,
    archive_folders,
    archived,
)
from policies.archive.compaction import Compactor
from policies.archive.shared import archived_items, archived_space, shared_folder
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue, Item
from policies.items.past import ItemsPast
from policies.spec import PolicySpec


def a_log() -> MemoryItems:
    log = MemoryItems()
    log.replace([Item(name, {"x": 1.0}) for name in "abc"], at=1)
    for number in range(60):
        log.append(put(Item("abc"[number % 3], {"x": float(number)})), at=2 + 200_000 * number)
        if number in (20, 40):
            log.add_base(at=3 + 200_000 * number)
    log.replace([Item("d")], at=50_000_000)
    log.append(put(Item("e", {"x": 2.0})), at=50_000_001)
    return log


def test_every_version_is_read_from_an_archive(tmp_path):
    log = a_log()
    archive_items(tmp_path, "home", log)
    reader = ArchiveReader(tmp_path, shared_folder("home", "items"))
    assert list(reader.encoded()) == log.entries
    assert [entry.id for entry in reader.bases()] == [
        entry.id for entry in log.bases("9" * 15 + "-0")
    ]
    past = ItemsPast(reader)
    for version in dict.fromkeys(log.versions[::-7] + log.versions[:3]):
        assert said_of(past.catalogue(version)) == said_of(ItemsPast(log).catalogue(version))


def test_it_is_beside_the_policys_own_log_and_not_in_it(tmp_path):
    log = a_log()
    archive_items(tmp_path, "home", log)
    assert archived(tmp_path) == []  # it says of no policy that there is a log
    assert archive_folders(tmp_path, "home") == ["home"]
    assert ArchiveReader(tmp_path, "home").end == "0-0"
    assert list(ArchiveReader(tmp_path, "home").raw()) == []
    # Nor does another reader of partitioned files come upon it.
    assert ds.dataset(tmp_path / "home", format="parquet", partitioning="hive").files == []


def test_small_files_of_it_are_compacted(tmp_path):
    log = a_log()
    archive_items(tmp_path, "home", log)
    compactor = Compactor(tmp_path, shared_folder("home", "items"))
    assert any(group.is_due for group in compactor.compact())
    reader = ArchiveReader(tmp_path, shared_folder("home", "items"))
    assert list(reader.encoded()) == log.entries
    assert ItemsPast(reader).catalogue(log.versions[30]).digest == log.versions[30]


def test_an_archive_without_it_has_whole_catalogues_alone(tmp_path):
    past = ItemsPast(ArchiveReader(tmp_path, shared_folder("home", "items")))
    known = Catalogue([Item("a")])
    assert past.catalogue(known.digest, {known.digest: known.encoded}.__getitem__).ids == ("a",)


def test_policies_of_a_space_find_the_items_that_they_share(tmp_path):
    log = a_log()
    archive_items(tmp_path, "shop", log)
    for spec in (PolicySpec("home", space="shop", partitions=2), PolicySpec("mail", space="shop")):
        entry = LogEntry("7-0", SpecRecord(spec.digest, ""))
        for number in range(spec.partitions):
            folder = archive_folder(spec.name, number, spec.partitions)
            write_archive(ArchiveWriter(tmp_path, folder), [entry], 1, {spec.digest: spec.encoded})

    # The space itself is no policy's.
    assert sorted(archived(tmp_path)) == ["home", "mail"]
    for folder in ("home", "home/partition=1", "mail"):
        assert archived_space(tmp_path, folder) == "shop"
        assert list(archived_items(tmp_path, folder).encoded()) == log.entries
    assert archived_space(tmp_path, "nobody") == "nobody"


def test_a_policy_whose_spec_is_gone_from_its_archive_has_a_space_of_its_own(tmp_path):
    spec = PolicySpec("home", space="shop")
    entry = LogEntry("7-0", SpecRecord(spec.digest, ""))
    write_archive(ArchiveWriter(tmp_path, "home"), [entry], 1, {spec.digest: spec.encoded})
    blobs = tmp_path / "home" / "_blobs"
    (blobs / spec.digest).unlink()
    assert archived_space(tmp_path, "home") == "home"


def test_a_log_that_begins_at_a_root_says_its_space_all_the_same(tmp_path):
    spec = PolicySpec("home", space="shop")
    log = FakeLog(spec)
    log.append(CheckpointRecord(), at=5)
    states: dict[str, bytes] = {}
    fold = Fold(
        log.blobs.__getitem__,
        salt=SALT,
        past=FakePast(log),
        on_checkpoint=lambda at, data: states.update({at: data()}),
    )
    fold.apply(log.entries)
    [(position, state)] = states.items()
    blobs = {digest(state): state, spec.digest: spec.encoded}
    entry = LogEntry("9-0", RootRecord(position, digest(state)))
    assert fold.spec == spec
    write_archive(ArchiveWriter(tmp_path, "home"), [entry], 1, blobs)
    (tmp_path / "home" / "_blobs" / spec.digest).write_bytes(spec.encoded)  # of an earlier file
    assert archived_space(tmp_path, "home") == "shop"
