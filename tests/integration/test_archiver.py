"""Stream and archive on a real server: whatever fails, every entry is there once, in order."""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec
import pytest
import redis
from pyarrow import fs
from support.faults import Calls, CountingClient, CountingFolder, DroppingClient, KilledError, kill

from bandits.errors import ArchiveError, LogGapError, MissingBlobError
from bandits.log.codec import digest, encode
from bandits.log.positions import has_reached, is_after, position_ms
from bandits.log.records import CatalogueRecord, RewardRecord, SpecRecord, TickRecord
from policies.archive.archive import ArchiveReader
from policies.archive.range_file import Range
from serve_app.admin.whole_logs import whole_log
from serve_app.replica.metrics import Metrics
from serve_app.replica.scrape import collect
from serve_app.store.archiving.archived import COMMIT, MARK, Committed
from serve_app.store.event_log import FIELD
from serve_app.store.history import History
from serve_app.store.keys import Keys
from serve_app.store.stats import Stats
from serve_app.workers.archiver import Archiver

KEYS = Keys("home")
SPEC = b"a spec"
AT_ONCE: dict[str, Any] = {"max_entries": 10, "max_age_s": 0.0, "retain_s": 0.0}
HOUR_MS = 3_600_000
OLD = 1_700_000_000_000

Log = list[tuple[str, bytes]]


def fill(client: redis.Redis, count: int, *, start: int = OLD, step: int = 1) -> Log:
    """Append a log whose blob is stored; returns it."""
    client.set(KEYS.blob(digest(SPEC)), SPEC)
    log = [(f"{start}-1", encode(SpecRecord(digest(SPEC), "salt")))]
    log += [
        (f"{start + (i + 1) * step}-0", encode(RewardRecord(f"e{i}", float(i))))
        for i in range(count - 2)
    ]
    log.append((f"{start + (count - 1) * step}-0", b"junk"))
    pipeline = client.pipeline()
    for entry_id, data in log:
        pipeline.xadd(KEYS.log, {FIELD: data}, id=entry_id)
    pipeline.execute()
    return log


def stream(client: redis.Redis) -> Log:
    return [(entry_id.decode(), fields[FIELD]) for entry_id, fields in client.xrange(KEYS.log)]


def together(client: redis.Redis, root: Any) -> Log:
    """Archive, then what the stream has past it."""
    archived = list(ArchiveReader(root, "home").raw())
    end = archived[-1][0] if archived else "0-0"
    return archived + [entry for entry in stream(client) if is_after(entry[0], end)]


def finish(archiver: Archiver) -> None:
    while archiver.step():
        pass


def test_everything_is_archived_exactly_as_it_is_in_the_stream(client, tmp_path):
    log = fill(client, 37)
    archiver = Archiver(client, "home", tmp_path, **AT_ONCE)
    finish(archiver)
    reader = ArchiveReader(tmp_path, "home")
    assert list(reader.raw()) == log == stream(client)
    assert [each.range.count for each in reader.ranges()] == [10, 10, 10, 7]
    assert reader.blob(digest(SPEC)) == SPEC
    assert not archiver.step()


def test_an_entry_without_a_record_keeps_all_its_fields(client, tmp_path):
    client.xadd(KEYS.log, {b"other": b"x", b"more": b"y"})
    finish(Archiver(client, "home", tmp_path, **AT_ONCE))
    ((_, data),) = ArchiveReader(tmp_path, "home").raw()
    assert b"other" in data
    assert b"y" in data
    (entry,) = ArchiveReader(tmp_path, "home").entries()
    assert entry.record == TickRecord()


def test_a_range_ends_with_its_hour_its_age_or_its_size(client, tmp_path):
    """What is young and short of the limit waits."""
    fill(client, 6, start=OLD - OLD % HOUR_MS, step=HOUR_MS // 4)
    young = [client.xadd(KEYS.log, {FIELD: encode(TickRecord())}).decode() for _ in range(3)]
    archiver = Archiver(client, "home", tmp_path, max_entries=4, max_age_s=3600.0)
    finish(archiver)
    reader = ArchiveReader(tmp_path, "home")
    assert [each.range.count for each in reader.ranges()] == [4, 2]
    client.xadd(KEYS.log, {FIELD: encode(TickRecord())})
    finish(archiver)
    assert reader.ranges()[-1].range.first == young[0]
    client.xadd(KEYS.log, {FIELD: encode(TickRecord())})
    assert not archiver.step()
    finish(Archiver(client, "home", tmp_path, max_entries=4, max_age_s=0.0))
    assert list(reader.raw()) == stream(client)


@pytest.mark.usefixtures("small_nodes")
def test_what_a_stream_grows_by_is_counted_and_not_read(client, tmp_path):
    """Nor does it matter that somebody has removed an entry, or trimmed what is archived."""
    fill(client, 12)
    client.set(KEYS.needed, "9999999999999-0")
    archiver = Archiver(client, "home", tmp_path, max_entries=400, max_age_s=1e9, retain_s=0.0)

    def add(count: int) -> None:
        pipeline = client.pipeline()
        for _ in range(count):
            pipeline.xadd(KEYS.log, {FIELD: encode(TickRecord())})
        pipeline.execute()

    is_cluster = isinstance(client, redis.RedisCluster)
    where = {"target_nodes": client.get_node_from_key(KEYS.log)} if is_cluster else {}

    def calls() -> int:
        return int(client.info("commandstats", **where)["cmdstat_xrange"]["calls"])

    add(5)
    assert archiver.step()  # what is of an hour before
    assert not archiver.step()
    trimmed = 0
    for _ in range(3):
        add(50)
        before = calls()
        assert not archiver.step()
        assert calls() == before
        trimmed += archiver.trim()
    assert trimmed == 10

    # One that is gone was there when the others were counted; what comes then is read again.
    add(3)
    client.xdel(KEYS.log, stream(client)[-2][0])
    add(20)
    assert not archiver.step()
    add(250)
    finish(archiver)
    finish(Archiver(client, "home", tmp_path, max_entries=400, max_age_s=0.0))
    reader = ArchiveReader(tmp_path, "home")
    assert [*reader.raw()][12:] == [entry for entry in stream(client) if entry[0] > f"{OLD + 11}-0"]
    assert [each.range.count for each in reader.ranges()] == [12, 400, 27]


def test_a_blob_that_nobody_stored_does_not_hold_up_the_log(client, tmp_path):
    client.xadd(KEYS.log, {FIELD: encode(CatalogueRecord(digest(b"unknown")))})
    finish(Archiver(client, "home", tmp_path, **AT_ONCE))
    assert list(ArchiveReader(tmp_path, "home").raw()) == stream(client)
    with pytest.raises(ArchiveError, match="no such blob"):
        ArchiveReader(tmp_path, "home").blob(digest(b"unknown"))


@pytest.fixture
def small_nodes(client) -> Iterator[None]:
    """Streams are trimmed by whole nodes; of a few entries each here."""
    before = client.config_get("stream-node-max-entries")
    client.config_set("stream-node-max-entries", 5)
    yield
    client.config_set("stream-node-max-entries", before["stream-node-max-entries"])


def begin(client: redis.Redis) -> Log:
    """An empty server with a log that a learner needs the last few entries of."""
    client.flushall()
    log = fill(client, 33)
    client.set(KEYS.needed, log[28][0])
    return log


def live(archiver: Archiver) -> None:
    """All that an archiver does, as often as there is something to do."""
    while archiver.step() or archiver.trim():
        pass


@pytest.mark.usefixtures("small_nodes")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("where", ["redis", "files"])
def test_an_archiver_killed_at_any_call_loses_nothing_and_doubles_nothing(
    client, tmp_path, where, after
):
    """At every call there is to Redis or to the file system.

    Its successor ends where an undisturbed one does.
    """
    for n in itertools.count(1):
        log, root = begin(client), tmp_path / str(n)
        root.mkdir()
        calls = Calls(n, kill, after=after)
        victim = Archiver(
            CountingClient(client, calls) if where == "redis" else client,
            "home",
            fs.PyFileSystem(CountingFolder(root, calls)) if where == "files" else root,
            **AT_ONCE,
        )
        with contextlib.suppress(KilledError):
            live(victim)
        assert together(client, root) == log
        live(Archiver(client, "home", root, **AT_ONCE))
        assert together(client, root) == list(ArchiveReader(root, "home").raw()) == log
        assert [
            entry.id for entry in History(client, KEYS, ArchiveReader(root, "home")).encoded("0-0")
        ] == ids(log)
        assert ArchiveReader(root, "home").blob(digest(SPEC)) == SPEC
        assert len(stream(client)) < len(log)
        assert has_reached(log[28][0], stream(client)[0][0])
        if calls.left > 0:
            break
    assert n > 25


@pytest.mark.slow
@pytest.mark.usefixtures("small_nodes")
@pytest.mark.parametrize("where", ["redis", "files"])
def test_an_archiver_that_sleeps_at_any_call_while_another_does_everything_does_no_harm(
    client, tmp_path, where
):
    """Asleep for longer than it takes to archive the whole log and to trim it."""
    for n in itertools.count(1):
        log, root = begin(client), tmp_path / str(n)
        root.mkdir()
        calls = Calls(
            n, partial(live, Archiver(client, "home", root, **{**AT_ONCE, "max_entries": 7}))
        )
        sleeper = Archiver(
            CountingClient(client, calls) if where == "redis" else client,
            "home",
            fs.PyFileSystem(CountingFolder(root, calls)) if where == "files" else root,
            **AT_ONCE,
        )
        live(sleeper)
        assert together(client, root) == list(ArchiveReader(root, "home").raw()) == log
        if calls.left > 0:
            break
    assert n > 25


def ids(log: Log) -> list[str]:
    return [entry_id for entry_id, _ in log]


@contextmanager
def running(*loops: Callable[[], Any]) -> Iterator[list[BaseException]]:
    """Call each over and over, each on a thread of its own; nothing may be raised."""
    stop, raised = threading.Event(), []

    def repeat(loop: Callable[[], Any]) -> None:
        try:
            while not stop.is_set():
                loop()
        except BaseException as error:  # noqa: BLE001 - reported below
            raised.append(error)

    threads = [threading.Thread(target=repeat, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield raised
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
    assert raised == []


def connect(url: str) -> redis.Redis:
    return redis.Redis.from_url(url)


@pytest.mark.slow
@pytest.mark.one_server
@pytest.mark.usefixtures("small_nodes")
def test_two_archivers_race_while_the_log_grows_and_is_read(client, server_url, tmp_path):
    """Every reading is in order and whole: it has all that was acknowledged before it began."""
    archivers = [
        Archiver(connect(server_url), "home", tmp_path, **{**AT_ONCE, "max_entries": limit})
        for limit in (7, 40)
    ]
    written = [client.xadd(KEYS.log, {FIELD: encode(TickRecord())}).decode()]
    client.set(KEYS.needed, written[0])
    readings = 0
    with running(*(partial(_step_and_trim, archiver) for archiver in archivers)) as raised:
        for i in range(60):
            for j in range(10):
                record = RewardRecord(f"e{i}", float(j))
                written.append(client.xadd(KEYS.log, {FIELD: encode(record)}).decode())
            client.set(KEYS.needed, written[-3])
            if i % 3 == 2 and not raised:
                history = History(connect(server_url), KEYS, ArchiveReader(tmp_path, "home"))
                assert [entry.id for entry in history.encoded("0-0")] == written
                assert [entry.id for entry in history.encoded(written[14], written[-5])] == written[
                    15:-4
                ]
                readings += 1
    for archiver in archivers:
        live(archiver)
    assert readings == 20
    assert ids(list(ArchiveReader(tmp_path, "home").raw())) == written
    assert client.xlen(KEYS.log) < 20


def _step_and_trim(archiver: Archiver) -> None:
    archiver.step()
    archiver.trim()


@pytest.mark.usefixtures("small_nodes")
def test_a_history_that_is_overtaken_by_trimming_goes_on_in_the_archive(
    client, tmp_path, monkeypatch
):
    """Between any two of its batches the stream is trimmed to its end."""
    monkeypatch.setattr("serve_app.store.history.BATCH", 4)
    log = begin(client)
    history = History(client, KEYS, ArchiveReader(tmp_path, "home"))
    for moment in range(1, len(log)):
        begin(client)
        root = tmp_path / str(moment)
        history = History(client, KEYS, ArchiveReader(root, "home"))
        entries = history.encoded("0-0")
        read = [next(entries).id for _ in range(moment)]
        live(Archiver(client, "home", root, **AT_ONCE))
        assert read + [entry.id for entry in entries] == ids(log)


@pytest.mark.usefixtures("small_nodes")
@pytest.mark.parametrize("lost", ["no archive", "its files"])
def test_what_neither_holds_is_an_error_and_not_a_shorter_log(client, tmp_path, lost):
    log = begin(client)
    live(Archiver(client, "home", tmp_path, **AT_ONCE))
    archive = None if lost == "no archive" else ArchiveReader(tmp_path / "elsewhere", "home")
    history = History(client, KEYS, archive)
    with pytest.raises(LogGapError, match="gap"):
        list(history.encoded("0-0"))
    with pytest.raises(LogGapError, match="gap"):
        list(history.encoded("0-0", through=log[2][0]))
    assert [entry.id for entry in history.encoded(log[28][0])] == ids(log[29:])


@pytest.mark.usefixtures("small_nodes")
def test_who_reads_from_just_before_what_is_needed_can_do_without_the_archive(client, tmp_path):
    """A learner that resumes includes the needed entry itself, which is kept."""
    log = begin(client)
    live(Archiver(client, "home", tmp_path, **AT_ONCE))
    assert Committed.read(client, KEYS).trimmed == log[28][0]
    before = f"{position_ms(log[28][0]) - 1}-{2**64 - 1}"
    assert [entry.id for entry in History(client, KEYS, None).encoded(before)] == ids(log[28:])


def test_a_blob_is_read_from_redis_and_else_from_the_archive(client, tmp_path):
    fill(client, 5)
    finish(Archiver(client, "home", tmp_path, **AT_ONCE))
    with_archive, without = (
        History(client, KEYS, each) for each in (ArchiveReader(tmp_path, "home"), None)
    )
    assert with_archive.blob(digest(SPEC)) == without.blob(digest(SPEC)) == SPEC
    client.delete(KEYS.blob(digest(SPEC)))
    assert with_archive.blob(digest(SPEC)) == SPEC
    with pytest.raises(MissingBlobError):
        without.blob(digest(SPEC))


@pytest.mark.usefixtures("small_nodes")
@pytest.mark.parametrize("at", [0, 3, 17, 32])
def test_nothing_is_trimmed_that_a_learner_needs(client, tmp_path, at):
    log = fill(client, 33)
    client.set(KEYS.needed, log[at][0])
    archiver = Archiver(client, "home", tmp_path, **AT_ONCE)
    live(archiver)
    kept = stream(client)
    assert kept == log[-len(kept) :]
    assert has_reached(log[at][0], kept[0][0])
    assert len(kept) <= len(log) - at + 5


@pytest.mark.usefixtures("small_nodes")
@pytest.mark.parametrize("why", ["nobody says what is needed", "not written", "young", "nonsense"])
def test_nothing_is_trimmed_without_every_reason(client, tmp_path, why):
    log = fill(client, 33, start=OLD if why != "young" else int(time.time() * 1000) - 100_000)
    if why != "nobody says what is needed":
        client.set(KEYS.needed, "nonsense" if why == "nonsense" else log[-1][0])
    archiver = Archiver(client, "home", tmp_path, max_age_s=0.0, retain_s=900.0)
    if why != "not written":
        finish(archiver)
    if why == "nonsense":
        with pytest.raises(redis.ResponseError):
            archiver.trim()
    else:
        assert archiver.trim() == 0
    assert stream(client) == log


def test_files_that_were_lost_are_written_again_while_the_stream_has_their_entries(
    client, tmp_path
):
    log = fill(client, 33)
    finish(Archiver(client, "home", tmp_path, **AT_ONCE))
    newest = max(tmp_path.rglob("*.parquet"), key=lambda path: path.name)
    newest.unlink()
    finish(Archiver(client, "home", tmp_path, **AT_ONCE))
    assert list(ArchiveReader(tmp_path, "home").raw()) == log


@pytest.mark.usefixtures("small_nodes")
def test_files_that_nobody_can_write_again_are_missed(client, tmp_path):
    begin(client)
    live(Archiver(client, "home", tmp_path, **AT_ONCE))
    with pytest.raises(ArchiveError, match="restore the missing files"):
        Archiver(client, "home", tmp_path / "elsewhere", **AT_ONCE).step()


def test_a_redis_that_lost_its_last_writes_takes_the_files_word(client, tmp_path):
    """As after a failover to a replica that was behind."""
    log = fill(client, 33)
    archiver = Archiver(client, "home", tmp_path, **{**AT_ONCE, "max_entries": 11})
    archiver.step()
    behind = client.hgetall(KEYS.archive)
    finish(archiver)
    client.delete(KEYS.archive)
    client.hset(KEYS.archive, mapping=behind)
    client.xdel(KEYS.log, *ids(log)[20:])
    log.append(
        (client.xadd(KEYS.log, {FIELD: encode(TickRecord())}).decode(), encode(TickRecord()))
    )
    finish(Archiver(client, "home", tmp_path, **AT_ONCE))
    assert list(ArchiveReader(tmp_path, "home").raw()) == log
    history = History(client, KEYS, ArchiveReader(tmp_path, "home"))
    assert [entry.id for entry in history.encoded("0-0")] == ids(log)


@pytest.mark.parametrize("progress", [False, True])
def test_the_archive_of_another_log_is_left_alone(client, tmp_path, progress):
    fill(client, 33)
    finish(Archiver(client, "home", tmp_path, **AT_ONCE))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    client.flushall()
    fill(client, 20, start=OLD + 5)
    if progress:
        Archiver(client, "home", tmp_path / "own", **AT_ONCE).step()
    with pytest.raises(ArchiveError, match="another folder"):
        Archiver(client, "home", tmp_path, **AT_ONCE).step()
    assert {path: path.read_bytes() for path in before} == before


def test_it_outlives_what_it_cannot_reach_and_counts_it(client, tmp_path, monkeypatch):
    """A Redis that drops every seventh call, and a file system that is not there at first."""
    monkeypatch.setattr("serve_app.workers.archiver.RETRY_S", 0.001)
    monkeypatch.setattr("serve_app.workers.archiver.MAX_RETRY_S", 0.002)
    monkeypatch.setattr("serve_app.workers.archiver.POLL_S", 0.001)
    log = fill(client, 33)
    root = tmp_path / "archive"
    root.write_text("in the way")
    archiver = Archiver(DroppingClient(client, 7), "home", root, **AT_ONCE)
    stop = threading.Event()
    thread = threading.Thread(target=archiver.run, args=(stop,))
    thread.start()
    try:
        eventually(lambda: archiver.failures > 5)
        assert client.hget(KEYS.archive, "written") is None
        root.unlink()
        eventually(lambda: ArchiveReader(root, "home").end == log[-1][0])
        eventually(lambda: int(client.hget(KEYS.archive, "failures")) > 5)
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()
    assert list(ArchiveReader(root, "home").raw()) == log


def eventually(condition: Callable[[], Any], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


async def test_metrics_say_how_far_behind_the_archive_is(client, async_client, tmp_path):
    fill(client, 33)
    text = (await collect(async_client, Metrics("p").sample(), ["home"])).decode()
    assert 'banditloop_log_entries{policy="home"} 33.0' in text
    assert 'banditloop_archive_lag_seconds{policy="home"}' not in text
    archiver = Archiver(client, "home", tmp_path, **AT_ONCE)
    archiver.step()
    client.hincrby(KEYS.archive, "failures", 3)
    text = (await collect(async_client, Metrics("p").sample(), ["home"])).decode()
    assert 'banditloop_archive_failures_total{policy="home"} 3.0' in text
    assert time.time() - OLD / 1000 - _value(text, "banditloop_archive_lag_seconds") < 60
    finish(archiver)
    text = (await collect(async_client, Metrics("p").sample(), ["home"])).decode()
    assert _value(text, "banditloop_archive_lag_seconds") == 0.0


async def test_metrics_say_since_when_the_learner_lacks_an_entry(client, async_client):
    """What comes after an hour of silence is not an hour late when it comes."""
    read = client.xadd(KEYS.log, {FIELD: encode(TickRecord())}, id=f"{OLD}-0").decode()
    stats = Stats(read, 0, 1, "s", OLD, {})
    client.set(KEYS.stats, msgspec.msgpack.encode(stats))
    for at, within in ((None, 0.0), (time.time() * 1000 - 5000, 60.0)):
        if at is not None:
            client.xadd(KEYS.log, {FIELD: encode(TickRecord())}, id=f"{int(at)}-0")
        text = (await collect(async_client, Metrics("p").sample(), ["home"], {"home": 1})).decode()
        lag_s = _value(text, "banditloop_learner_lag_seconds")
        assert lag_s <= within
        assert (lag_s >= 5.0) is (at is not None)


def _value(text: str, name: str) -> float:
    return float(text.partition(name + '{policy="home"} ')[2].partition("\n")[0])


def test_only_the_next_range_is_ever_committed(client):
    """Not one that starts elsewhere, and none before the last one has its file."""
    commit = partial(client.eval, COMMIT, 1, KEYS.archive)
    assert commit("5-0", "6-0", "7-0", 2) == 0
    assert commit("0-0", "6-0", "7-0", 2) == 1
    assert commit("0-0", "6-0", "8-0", 3) == 0
    assert commit("7-0", "8-0", "9-0", 2) == 0
    assert client.eval(MARK, 1, KEYS.archive, "6-0") == 0
    assert client.eval(MARK, 1, KEYS.archive, "7-0") == 1
    assert commit("7-0", "8-0", "9-0", 2) == 1
    committed = Committed.read(client, KEYS)
    assert (committed.newest, committed.written, committed.pending) == (
        Range("7-0", "8-0", "9-0", 2),
        "7-0",
        True,
    )


def test_the_whole_log_can_be_read_as_one_archive_also_while_it_is_archived(client, tmp_path):
    log = fill(client, 37, step=HOUR_MS // 9)
    archiver = Archiver(client, "home", tmp_path, **AT_ONCE)
    archiver.step()
    assert 0 < len(list(ArchiveReader(tmp_path, "home").raw())) < 37

    with whole_log(client, "home", str(tmp_path)) as root:
        finish(archiver)  # what is archived from here on is in the folder twice, and read once
        reader = ArchiveReader(root, "home")
        assert list(reader.raw()) == log
        assert reader.blob(digest(SPEC)) == SPEC
    with whole_log(client, "home", "") as root:
        assert list(ArchiveReader(root, "home").raw()) == log
