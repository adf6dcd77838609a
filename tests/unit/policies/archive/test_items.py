"""The log of items, archived: any version can be read from its files, and nobody takes it for more."""

import pyarrow.dataset as ds
from support.items import MemoryItems, put, said_of
from support.logs import archived_items

from policies.archive.archive import ArchiveReader, archive_folders, archived, items_folder
from policies.archive.compaction import Compactor
from policies.items.catalogue import Catalogue, Item
from policies.items.past import ItemsPast


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
    archived_items(tmp_path, "home", log)
    reader = ArchiveReader(tmp_path, items_folder("home"))
    assert list(reader.encoded()) == log.entries
    assert [entry.id for entry in reader.bases()] == [
        entry.id for entry in log.bases("9" * 15 + "-0")
    ]
    past = ItemsPast(reader)
    for version in dict.fromkeys(log.versions[::-7] + log.versions[:3]):
        assert said_of(past.catalogue(version)) == said_of(ItemsPast(log).catalogue(version))


def test_it_is_beside_the_policys_own_log_and_not_in_it(tmp_path):
    log = a_log()
    archived_items(tmp_path, "home", log)
    assert archived(tmp_path) == ["home"]
    assert archive_folders(tmp_path, "home") == ["home"]
    assert items_folder("home/partition=3") == items_folder("home")
    assert ArchiveReader(tmp_path, "home").end == "0-0"
    assert list(ArchiveReader(tmp_path, "home").raw()) == []
    # Nor does another reader of partitioned files come upon it.
    assert ds.dataset(tmp_path / "home", format="parquet", partitioning="hive").files == []


def test_small_files_of_it_are_compacted(tmp_path):
    log = a_log()
    archived_items(tmp_path, "home", log)
    compactor = Compactor(tmp_path, items_folder("home"))
    assert any(group.is_due for group in compactor.compact())
    reader = ArchiveReader(tmp_path, items_folder("home"))
    assert list(reader.encoded()) == log.entries
    assert ItemsPast(reader).catalogue(log.versions[30]).digest == log.versions[30]


def test_an_archive_without_it_has_whole_catalogues_alone(tmp_path):
    past = ItemsPast(ArchiveReader(tmp_path, items_folder("home")))
    known = Catalogue([Item("a")])
    assert past.catalogue(known.digest, {known.digest: known.encoded}.__getitem__).ids == ("a",)
