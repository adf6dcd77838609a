"""The archive in a real S3-compatible server, over HTTP: also one that throttles, or lists late."""

import io
import json
import signal
import threading
from collections.abc import Iterator

import msgspec
import numpy as np
import pyarrow.fs
import pytest
import redis
from support.archives import archive, cut, no_blob, plain
from support.logs import archived, decision
from support.object_stores import BUCKET, Asked, Fault, FaultyStore, faulty, object_store, store_uri
from support.small_artifact import make_artifact
from support.towns import BASE, log_of
from typer.testing import CliRunner

from bandits.errors import ArchiveError, BadRowError, DataUnavailableError, ReplayError
from bandits.log.codec import encode
from bandits.log.join import JoinRule
from policies import storage
from policies.archive import compaction, range_file
from policies.archive.archive import ArchiveReader, ArchiveWriter
from policies.archive.compaction import Compactor
from policies.archive.range_file import Range
from policies.artifacts import fetch
from policies.artifacts.source_artifact import load, write
from serve_app.admin.readable_logs import ArchivedLog
from serve_app.cli.main import app
from serve_app.store.event_log import FIELD
from serve_app.store.keys import Keys
from serve_app.workers.archiver import Archiver
from simulator.logs.archive.pieces import archive_pieces

HOUR = 3_600_000
KEYS = Keys("home")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with object_store() as number:
        yield number


@pytest.fixture(scope="module")
def proxy(port) -> Iterator[FaultyStore]:
    with faulty(port) as made:
        yield made


@pytest.fixture
def store(proxy, monkeypatch) -> FaultyStore:
    """The proxy without faults, and no waiting for what does not come."""
    proxy.forget()
    monkeypatch.setattr(storage, "ASKED_AGAIN_S", (0.05,))
    monkeypatch.setattr(storage, "LISTED_LATE_S", (0.0, 0.05, 0.1, 0.1))
    monkeypatch.setattr(compaction, "SETTLE_S", 0.05)
    return proxy


def run(*arguments: str) -> dict:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    return msgspec.json.decode(done.stdout)


def finish(archiver: Archiver) -> None:
    while archiver.step():
        pass


def fill(client: redis.Redis, start: int, count: int) -> list[tuple[str, bytes]]:
    log = plain(count, start=start, step=HOUR // 40)
    for entry_id, data in log:
        client.xadd(KEYS.log, {FIELD: data}, id=entry_id)
    return log


def test_archiver_show_and_compact(port, store, valkey_url):
    """The archiver goes on after its files were compacted away."""
    client, uri = redis.Redis.from_url(valkey_url), store_uri(port, "service")
    client.flushall()
    log = fill(client, 1_700_000_000_000, 40)
    at_once = {"max_entries": 7, "max_age_s": 0.0}
    finish(Archiver(client, "home", uri, **at_once))
    reader = ArchiveReader(uri, "home")
    assert list(reader.raw()) == log

    shown = run("archive", "show", "--archive", uri)
    assert (shown["entries"], shown["to"]["id"]) == (40, log[-1][0])
    assert shown["record_bytes"] == sum(len(data) for _, data in log)
    files = shown["ranges"]
    planned = run("archive", "compact", "--archive", uri, "--dry-run")
    assert (planned["before"]["files"], planned["after"]["files"]) == (files, 2)
    assert run("archive", "show", "--archive", uri) == shown
    done = run("archive", "compact", "--archive", uri)
    assert (done["after"]["files"], done["written"], done["covered"]["files"]) == (2, 2, files)
    assert list(reader.raw()) == log
    done = run("archive", "compact", "--archive", uri, "--remove")
    assert (done["removed"]["files"], done["covered"]["files"], done["written"]) == (files, 0, 0)
    assert run("archive", "show", "--archive", uri)["ranges"] == 2

    more = fill(client, 1_700_000_000_000 + 40 * HOUR // 40, 20)
    finish(Archiver(client, "home", uri, **at_once))
    assert list(reader.raw()) == log + more
    client.flushall()
    client.close()


def test_a_policy_is_evaluated_from_its_uri_and_alike_once_compacted(port, store, tmp_path):
    uri = store_uri(port, "evaluation")
    spec = msgspec.structs.replace(BASE, join=JoinRule(window_s=0.5))
    archived(uri, log_of("", 200, seed=3, spec=spec), spec, 3)
    reports = []
    for name in ("evaluation", "evaluation/p", "evaluation"):
        arguments = ["--policy", "uniform", "--estimator", "ips", "--out", str(tmp_path / "r.json")]
        log = store_uri(port, name)
        done = CliRunner().invoke(app, ["replay", "--log", log, *arguments])
        assert done.exit_code == 0, (done.output, done.exception)
        results = json.loads((tmp_path / "r.json").read_text())["results"]
        reports.append([result["estimates"]["ips"] for result in results])
        if len(reports) == 2:
            run("archive", "compact", "--archive", uri, "--remove")
    assert reports[0] == reports[1]
    for one, other in zip(reports[0], reports[2], strict=True):
        assert other["n"] == one["n"]
        assert other["value"] == pytest.approx(one["value"], rel=1e-12)
        assert other["stderr"] == pytest.approx(one["stderr"], rel=1e-12)


def decisions(count: int) -> list[tuple[str, bytes]]:
    ids, scores = tuple(f"item{number}" for number in range(20)), np.random.default_rng(0)
    return [
        (f"{1_700_000_000_000 + i}-0", encode(decision(f"e{i}", ids=ids, scores={"cf": each})))
        for i, each in enumerate(map(bytes, scores.random((count, 20), np.float32)))
    ]


def test_two_light_columns_fetch_a_small_part_of_the_file(store, monkeypatch):
    monkeypatch.setattr(range_file, "GROUP_ENTRIES", 4096)
    count = 3 * 4096
    uri, log = store_uri(store.port, "columns"), decisions(count)
    archive(uri, log, count)
    (stored,) = ArchiveReader(uri, "home").ranges()

    store.forget()
    groups = list(ArchiveReader(uri, "home").columns(["event_id", "deferred"]))
    assert sum(len(group.batch) for group in groups) == count
    assert len(groups) == 3
    fetched = [asked for asked in store.asked if asked.range is not None]
    assert store.sent < stored.size / 3  # the footer is 64 kB of it
    assert len(fetched) <= 1 + 3 * len(groups)


FAULTS = {
    "slow down": lambda: Fault("slow down", lambda _: True),
    "drop": lambda: Fault("drop", lambda _: True),
    "hang": lambda: Fault("hang", lambda asked: asked.range is not None, hang_s=4),
}


@pytest.mark.parametrize(
    "kind",
    ["drop", *(pytest.param(each, marks=pytest.mark.slow) for each in FAULTS if each != "drop")],
)
def test_a_store_that_fails_now_and_then_loses_nothing(store, kind):
    """It fails every few requests; a store that hangs does so once, since each costs 3 s."""
    uri, log = store_uri(store.port, f"faults-{kind.replace(' ', '-')}"), plain(12, step=HOUR // 8)
    count = iter(range(10_000))

    def often(_: Asked) -> bool:
        return next(count) % 24 == 23

    store.faults = [FAULTS[kind]() if kind == "hang" else Fault(kind, often, times=float("inf"))]
    archive(uri, log, 2)
    reader = ArchiveReader(uri, "home")
    assert list(reader.raw()) == log
    assert len(list(Compactor(uri, "home").compact())) == 2
    assert sum(each.files for each in Compactor(uri, "home").remove()) == 7
    assert list(reader.raw()) == log
    assert store.faults[0].met >= (1 if kind == "hang" else 3)


def test_a_store_that_goes_on_failing_is_an_error_that_names_the_file(store, monkeypatch):
    """It is not called damaged, and says what to do."""
    monkeypatch.setattr(storage, "ASKED_AGAIN_S", ())
    monkeypatch.setattr(range_file, "GROUP_ENTRIES", 2048)
    uri, log = store_uri(store.port, "down"), decisions(4096)
    (committed,) = archive(uri, log, 4096)
    rows = ArchiveReader(uri, "home").raw()
    next(rows)
    store.faults = [Fault("drop", lambda asked: asked.range is not None, times=float("inf"))]
    with pytest.raises(OSError, match="fewer jobs at a time") as failed:
        list(rows)
    assert str(committed) in str(failed.value)
    assert "damaged" not in str(failed.value)


def unlisted(hidden: str, times: float = 2) -> Fault:
    return Fault("unlisted", lambda asked: asked.lists, times=times, hidden=hidden)


def test_a_file_that_is_listed_late_is_waited_for(store):
    uri, log = store_uri(store.port, "late"), plain(20, step=HOUR // 10)
    parts = archive(uri, log, 4)
    for hidden in (str(parts[1]), str(parts[3]), "hour=23"):
        reader = ArchiveReader(uri, "home")
        store.faults = [unlisted(hidden, 4)]
        assert list(reader.raw()) == log
        assert store.faults[0].met == 4


def test_a_reader_that_saw_the_end_does_not_take_a_stale_listing_for_it(store):
    uri, log = store_uri(store.port, "stale"), plain(12)
    parts = archive(uri, log, 4)
    reader = ArchiveReader(uri, "home")
    assert reader.end == log[-1][0]
    store.faults = [unlisted(str(parts[-1]), 7)]
    assert list(reader.raw("0-0", reader.end_with(log[-1][0]))) == log
    store.faults = [unlisted(str(parts[-1]), float("inf"))]
    with pytest.raises(ArchiveError, match="lists files late"):
        list(reader.raw())


def test_a_file_that_is_never_listed_is_a_gap(store):
    uri = store_uri(store.port, "never")
    parts = archive(uri, plain(12), 4)
    store.faults = [unlisted(str(parts[1]), float("inf"))]
    with pytest.raises(ArchiveError, match="gap") as refused:
        list(ArchiveReader(uri, "home").raw())
    assert str(parts[2]) in refused.value.message
    with pytest.raises(ArchiveError, match="gap"):
        list(Compactor(uri, "home").compact())


def test_an_archiver_that_starts_while_its_files_are_not_listed_writes_none_again(
    store, valkey_url
):
    client, uri = redis.Redis.from_url(valkey_url), store_uri(store.port, "archiver")
    client.flushall()
    log = fill(client, 1_700_000_000_000, 20)
    finish(Archiver(client, "home", uri, max_entries=5, max_age_s=0.0))
    ranges = ArchiveReader(uri, "home").ranges()
    store.faults = [unlisted(str(ranges[-1].range), float("inf"))]
    finish(Archiver(client, "home", uri, max_entries=50, max_age_s=0.0))
    store.faults = []
    assert ArchiveReader(uri, "home").ranges() == ranges
    assert list(ArchiveReader(uri, "home").raw()) == log
    client.flushall()
    client.close()


def test_a_reader_goes_on_where_its_open_file_is_compacted_away(store):
    uri, log = store_uri(store.port, "taken"), decisions(5000)
    parts = cut(log, 5000)
    writer = ArchiveWriter(uri, "home")
    writer.write(*parts[0], no_blob)
    late = [(f"{1_700_000_000_000 + 10_000}-0", log[0][1])]
    writer.write(Range(log[-1][0], late[0][0], late[0][0], 1), late, no_blob)
    rows = ArchiveReader(uri, "home").raw()
    begun = [next(rows) for _ in range(10)]
    list(Compactor(uri, "home").compact())
    list(Compactor(uri, "home").remove())
    assert begun + list(rows) == log + late


def test_an_upload_that_is_interrupted_is_whole_or_not_there(store):
    """Left to itself, pyarrow stores what was sent until then under the file's name."""
    data = b"x" * (16 << 20)

    class Halfway:
        def __init__(self) -> None:
            self.at = 0
            self.interrupted = False

        def tell(self) -> int:
            return self.at

        def seek(self, at: int) -> None:
            self.at = at

        def read(self, count: int) -> bytes:
            # As Ctrl-C does: the main thread stops to wait, wherever this is read.
            if self.at >= len(data) // 2 and not self.interrupted:
                self.interrupted = True
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            part = data[self.at : self.at + count]
            self.at += len(part)
            return part

    files = storage.Storage(store_uri(store.port, "interrupted"), "home")
    # Who started the tests in the background has the signal ignored.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            files.put("file", Halfway())
    finally:
        signal.signal(signal.SIGINT, handler)
    assert files.info("file").size in (None, len(data))


def test_no_credentials_are_shown(store):
    """Neither of an empty folder, nor of rows that cannot be used."""
    uri = store_uri(store.port, "empty")
    done = CliRunner().invoke(app, ["archive", "show", "--archive", uri])
    assert done.exit_code == 1
    assert f"s3://{BUCKET}/empty" in str(done.exception)
    assert "secret" not in str(done.exception)
    assert pyarrow.fs.FileType.NotFound == storage.Storage(uri, "").info("nothing").type

    with pytest.raises(ReplayError, match=f"s3://{BUCKET}/empty") as nothing:
        archive_pieces(uri, "home", 1)
    with pytest.raises(DataUnavailableError, match=f"s3://{BUCKET}/empty") as none:
        ArchivedLog(uri, "home")
    spoiled = store_uri(store.port, "spoiled")
    archive(spoiled, [*plain(3), ("1700000000009-0", b"none")], 10)
    (piece,) = archive_pieces(spoiled, "home", 1)
    with pytest.raises(BadRowError, match=f"s3://{BUCKET}/spoiled/home, entry") as bad:
        list(piece.batches())
    assert not any("secret" in str(raised.value) for raised in (nothing, none, bad))


def test_an_artifact_is_fetched_from_a_uri_with_options(store, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "CACHE", tmp_path / "cache")
    root = tmp_path / "artifact"
    version = write(make_artifact(), root)
    for path in root.rglob("*"):
        if path.is_file():
            at = path.relative_to(root)
            files = storage.Storage(store_uri(store.port, "sources"), str(at.parent))
            files.put(path.name, io.BytesIO(path.read_bytes()))

    uri = store_uri(store.port, "sources")
    assert fetch.load_artifact(uri).version == load(root).version == version
    assert storage.split_name(fetch.pinned(uri)) == (uri, version)
    assert fetch.load_artifact(store_uri(store.port, f"sources/{version}")).version == version
