"""``banditloop doctor`` on a real server, with a log that the service's own parts have written."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
import redis.asyncio
from support.towns import SPECS, log_of
from typer.testing import CliRunner

from bandits.log.codec import decode, encode
from bandits.log.join import JoinRule
from bandits.log.records import DecisionRecord, RewardRecord, TickRecord
from policies.archive.archive import ArchiveWriter
from policies.archive.range_file import Range
from policies.items.catalogue import Catalogue
from policies.requests import ActionRequest, RankRequest
from policies.spec import PolicySpec
from serve_app.cli.main import app
from serve_app.host.embedded import valkey
from serve_app.replica.policy_service import RedisPolicyService
from serve_app.settings import Settings
from serve_app.store import snapshots
from serve_app.store.event_log import FIELD, LogWriter, RedisLog
from serve_app.store.keys import Keys
from serve_app.store.stats import Stats
from serve_app.workers import learner, publisher
from serve_app.workers.learner_factory import learner_of_log

KEYS = Keys("home")
SALT = b"0123456789abcdef0123456789abcdef"
SPEC = PolicySpec("home", join=JoinRule(window_s=0.3))
ACTIONS = [ActionRequest(name, {"x": x}) for name, x in [("a", 1.0), ("b", 0.5), ("c", -1.0)]]
DECISIONS = 300


def doctor(*arguments: str) -> tuple[int, dict]:
    result = CliRunner().invoke(app, ["doctor", *arguments, "--json"], catch_exceptions=False)
    return result.exit_code, msgspec.json.decode(result.stdout)


def failed(report: dict) -> set[str]:
    return {finding["check"] for finding in report["findings"] if finding["severity"] == "failure"}


async def traffic(url: str) -> None:
    """A replica answers while the learner learns.

    A reward for every third decision, and then a quiet window.
    """
    client = redis.asyncio.Redis.from_url(url)
    service = RedisPolicyService(
        SPEC, client, LogWriter(client), salt=SALT, replica="r", follow_interval_s=0.01
    )
    async with asyncio.timeout(20):
        while not service.ready:
            await service.follower.step()
    service.start()
    for number in range(DECISIONS):
        record, logged = await service.rank(
            RankRequest(context={"n": number % 5 / 5}, actions=ACTIONS)
        )
        assert logged
        if number % 3 == 0:
            await service.log([RewardRecord(record.event_id, float(record.chosen[0] == 0))])
    await service.stop()
    await client.aclose()


def said_position(connection: redis.Redis) -> str:
    """How far the learner says it is; it says so once a second."""
    stats = connection.get(KEYS.stats)
    return "" if stats is None else msgspec.msgpack.decode(stats, type=Stats).position


def end_of_log(connection: redis.Redis) -> str:
    return connection.xinfo_stream(KEYS.log)["last-generated-id"].decode()


@pytest.fixture
def served(client, server_url, tmp_path) -> list[str]:
    """Arguments for the doctor: a log that learner and replica have written, and its salt."""
    RedisLog(client, KEYS).put_blob(Catalogue().digest, Catalogue().encoded)
    connection, stop = redis.Redis.from_url(server_url), threading.Event()
    loop = learner_of_log(connection, SPEC, salt=SALT, publish_interval_s=0.02)
    thread = threading.Thread(target=loop.run, args=(stop,))
    thread.start()
    try:
        asyncio.run(traffic(server_url))
        deadline = time.monotonic() + 30
        while loop.fold.learned < DECISIONS or said_position(connection) != end_of_log(connection):
            assert time.monotonic() < deadline, "it was never learned"
            time.sleep(0.01)
    finally:
        stop.set()
        thread.join(10)
        connection.close()
    (tmp_path / "salt").write_bytes(SALT)
    return ["--redis-url", server_url, "--data-dir", str(tmp_path)]


def decisions(client) -> list[tuple[bytes, DecisionRecord]]:
    found = [(entry_id, decode(fields[FIELD])) for entry_id, fields in client.xrange(KEYS.log)]
    return [(entry_id, record) for entry_id, record in found if isinstance(record, DecisionRecord)]


def test_a_log_as_the_service_writes_it_is_trusted(served):
    status, report = doctor(*served)  # the only policy need not be named
    assert (status, report["policy"], report["decisions"], report["trusted"]) == (
        0,
        "home",
        DECISIONS,
        True,
    ), report
    figures = {finding["check"]: finding["figures"] for finding in report["findings"]}
    assert figures["draws"]["drawn_again"] == DECISIONS
    assert figures["derivations"]["same_bytes"] == figures["derivations"]["checked"] > 0
    assert figures["join_rate"]["joined"] == DECISIONS / 3
    assert figures["learner_lag"]["lag_s"] == figures["snapshot_staleness"]["stale_s"] == 0.0, (
        figures
    )
    text = CliRunner().invoke(app, ["doctor", "home", *served])
    assert text.exit_code == 0
    assert "can be trusted" in text.stdout


def test_a_report_of_what_no_archive_has_yet_counts_all_of_it(served):
    said = CliRunner().invoke(app, ["report", "home", *served, "--json"], catch_exceptions=False)
    report = msgspec.json.decode(said.stdout)
    assert report["range"]["decisions"] == DECISIONS
    assert sum(each["events"] for each in report["signals"]) == DECISIONS / 3
    assert report["verdict"]["code"] == "no_holdout"
    assert report["exploration"]["rows"] == DECISIONS
    # The doctor looked as well, and had the salt.
    assert not [each for each in report["findings"] if each["severity"] == "failure"]


@contextmanager
def busy(url: str, spec: PolicySpec = SPEC) -> Iterator[None]:
    """A learner that publishes as fast as it can, and decisions and rewards all the while."""
    stop = threading.Event()

    async def go_on() -> None:
        async with redis.asyncio.Redis.from_url(url) as client:
            service = RedisPolicyService(
                spec, client, LogWriter(client), salt=SALT, replica="r", follow_interval_s=0.01
            )
            service.start()
            while not stop.is_set():
                await asyncio.sleep(0.003)
                if not service.ready:
                    continue
                record, _ = await service.rank(RankRequest(context={"n": 0.5}, actions=ACTIONS))
                await service.log([RewardRecord(record.event_id, float(record.chosen[0] == 0))])
            await service.stop()

    connection = redis.Redis.from_url(url)
    loop = learner_of_log(
        connection, spec, salt=SALT, publish_interval_s=0.0, checkpoint_interval_s=0.5
    )
    threads = [
        threading.Thread(target=loop.run, args=(stop,)),
        threading.Thread(target=lambda: asyncio.run(go_on())),
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
        connection.close()


def test_a_live_policy_is_not_accused_of_moving_on_and_one_that_lost_a_blob_is(
    client, server_url, tmp_path, monkeypatch
):
    """What is read first is old when the last is read: kept snapshots are replaced meanwhile."""
    (tmp_path / "salt").write_bytes(SALT)
    arguments = ["home", "--redis-url", server_url, "--data-dir", str(tmp_path)]
    monkeypatch.setattr(learner, "PACE_S", 0.0)
    monkeypatch.setattr(publisher, "PUBLISHING_SHARE", 1.0)
    monkeypatch.setattr(snapshots, "KEPT_SNAPSHOTS", 5)
    with busy(server_url):
        deadline = time.monotonic() + 30
        while len(decisions(client)) < 100 or len(client.lrange(KEYS.snapshots, 0, -1)) < 5:
            assert time.monotonic() < deadline, "nothing was published"
            time.sleep(0.05)
        before = set(client.lrange(KEYS.snapshots, 0, -1))
        reports = [doctor(*arguments) for _ in range(8)]
        assert not before & set(client.lrange(KEYS.snapshots, 0, -1)), (
            "else nothing moved, and nothing was tried"
        )
    assert [status for status, _ in reports] == [0] * 8, [failed(report) for _, report in reports]
    for name in client.lrange(KEYS.snapshots, 1, 2):  # now it rests
        client.delete(KEYS.blob(name.decode()))
    status, report = doctor(*arguments)
    gaps = next(finding for finding in report["findings"] if finding["check"] == "gaps")
    assert (status, gaps["severity"], gaps["figures"]["snapshots_gone"]) == (1, "failure", 2)


def test_a_blob_that_is_gone_is_found_although_the_policy_moves_on(client, server_url, tmp_path):
    """One that stays in the list: the looks after the first see the same."""
    (tmp_path / "salt").write_bytes(SALT)
    with busy(server_url):
        deadline = time.monotonic() + 30
        while client.llen(KEYS.snapshots) < 8:
            assert time.monotonic() < deadline, "nothing was published"
            time.sleep(0.05)
        stop = threading.Event()

        def lose() -> None:  # whatever is published, something is missing
            with redis.Redis.from_url(server_url) as other:
                while not stop.is_set():
                    for name in other.lrange(KEYS.snapshots, 2, 4):
                        other.delete(KEYS.blob(name.decode()))

        thread = threading.Thread(target=lose)
        thread.start()
        time.sleep(0.1)
        try:
            found = [
                doctor("home", "--redis-url", server_url, "--data-dir", str(tmp_path))
                for _ in range(3)
            ]
        finally:
            stop.set()
            thread.join(10)
    assert [status for status, _ in found] == [1] * 3
    assert all(failed(report) == {"gaps"} for _, report in found)


def test_a_log_that_is_trimmed_under_its_reader_is_read_again(
    client, server_url, tmp_path, monkeypatch
):
    """Else a whole stretch would be missing, and its rewards would be orphans."""
    (tmp_path / "salt").write_bytes(SALT)
    entries = log_of("softmax", 3000, 1, salt=SALT)
    client.set(KEYS.blob(SPECS["softmax"].digest), SPECS["softmax"].encoded)
    client.set(KEYS.blob(Catalogue().digest), Catalogue().encoded)
    pipeline = client.pipeline(transaction=False)
    for entry in entries:
        pipeline.xadd(KEYS.log, {FIELD: encode(entry.record)}, id=entry.id)
    pipeline.execute()
    client.set(KEYS.stats, msgspec.msgpack.encode(Stats(entries[-1].id, 1, 1, "", 0, {})))
    read, reads = RedisLog.read, 0

    def trimming(self, after, **options):
        nonlocal reads
        reads += 1
        if reads == 2:  # between two reads of the doctor's, once
            middle = entries[len(entries) * 2 // 3].id
            client.xtrim(KEYS.log, minid=middle, approximate=False)
            client.hset(KEYS.archive, mapping={"trimmed": middle, "end": middle, "written": middle})
        return read(self, after, **options)

    monkeypatch.setattr(RedisLog, "read", trimming)
    report = doctor("home", "--redis-url", server_url, "--data-dir", str(tmp_path))[1]
    orphans = next(
        finding for finding in report["findings"] if finding["check"] == "orphan_rewards"
    )
    assert orphans["figures"].get("orphan", 0) == 0
    assert report["decisions"] < 3000 / 2


def test_what_had_nothing_to_check_says_so_and_cron_can_tell(client, server_url, tmp_path):
    """Without a salt and without the snapshots nothing shows that the log is what was drawn."""
    entries = log_of("softmax", 300, 1, salt=SALT)
    client.set(KEYS.blob(SPECS["softmax"].digest), SPECS["softmax"].encoded)
    client.set(KEYS.blob(Catalogue().digest), Catalogue().encoded)
    for entry in entries:
        client.xadd(KEYS.log, {FIELD: encode(entry.record)}, id=entry.id)
    client.set(KEYS.stats, msgspec.msgpack.encode(Stats(entries[-1].id, 1, 1, "", 0, {})))
    arguments = ["home", "--redis-url", server_url, "--data-dir", str(tmp_path)]
    status, report = doctor(*arguments)
    assert (status, report["trusted"]) == (3, None), failed(report)
    assert {"draws", "derivations", "frequencies"} <= set(report["unchecked"])
    for finding in report["findings"]:
        assert (finding["severity"] == "nothing") == finding["message"].startswith(
            "nothing to check: "
        )
        assert (finding["severity"] == "nothing") == (finding["check"] in report["unchecked"])
        if finding["severity"] == "nothing":
            assert finding["action"]
    (tmp_path / "salt").write_bytes(SALT)
    status, report = doctor(*arguments)
    assert (status, report["trusted"]) == (0, True)
    assert (
        {"derivations", "frequencies"}
        <= set(report["unchecked"])
        < {each["check"] for each in report["findings"]}
    )
    assert doctor(*arguments, "--demand", "draws")[0] == 0
    assert doctor(*arguments, "--demand", "derivations")[0] == 3


def test_tampering_with_the_stream_is_found_by_name(served, client):
    record = decisions(client)[-1][1]
    others = [k for k in range(3) if k != record.chosen[0] and record.pmfs()[0, k] > 0]
    client.xadd(KEYS.log, {FIELD: encode(msgspec.structs.replace(record, chosen=others[:1]))})
    client.xadd(KEYS.log, {FIELD: b"not a record"})
    client.delete(KEYS.blob(SPEC.digest))
    client.delete(KEYS.blob(client.lindex(KEYS.snapshots, 0).decode()))
    status, report = doctor("home", *served)
    assert status == 1
    assert report["trusted"] is False
    assert failed(report) == {"draws", "gaps", "undecodable"}
    assert all(
        f["cause"] and f["action"]
        for f in report["findings"]
        if f["severity"] not in {"ok", "nothing"}
    )
    text = CliRunner().invoke(app, ["doctor", "home", *served])
    assert text.exit_code == 1
    assert "cannot be trusted" in text.stdout


def test_a_learner_that_has_published_nothing_is_found(served, client):
    client.delete(KEYS.head, KEYS.stats)
    client.xadd(
        KEYS.log,
        {FIELD: encode(RewardRecord("e", 1.0))},
        id=f"{RedisLog(client, KEYS).now_ms() + 1}-0",
    )
    client.zadd("bl:processes", {"replica": time.time()})
    first = decisions(client)[0][0].decode()
    status, report = doctor("home", *served, "--since", first)
    found = {finding["check"]: finding for finding in report["findings"]}
    assert status == 0  # so far it is only seconds behind
    assert found["learner_lag"]["message"] == "the learner has published nothing"
    assert report["decisions"] == DECISIONS - 1


def test_only_a_part_of_the_log_can_be_read(served):
    assert doctor("home", *served, "--limit", "50")[1]["decisions"] <= 50
    assert doctor("home", *served, "--since", "1h")[1]["decisions"] == DECISIONS
    assert doctor("home", *served, "--since", "2999-01-01")[0] == 2


def test_a_wrong_salt_is_a_warning_that_says_so(served, tmp_path):
    """The log names the salt that draws; with another one nothing can be said of the draws."""
    other = tmp_path / "other"
    other.write_bytes(b"another salt, just as long.")
    status, report = doctor("home", *served, "--salt-file", str(other))
    draws = next(finding for finding in report["findings"] if finding["check"] == "draws")
    assert (status, draws["severity"]) == (0, "nothing")
    assert draws["message"].startswith("nothing to check")
    assert "--salt-file" in draws["action"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nobody"], "no policy 'nobody' has a log here"),
        (["home"], "the log holds no decisions"),
        (["home", "--since", "yesterday"], "--since 'yesterday'"),
        (["home", "--salt-file", "/nowhere/salt"], "/nowhere/salt"),
        (
            ["home", "--redis-url", "redis://:secret@127.0.0.1:1/0"],
            "the Redis at 127.0.0.1:1 cannot be reached (Connection refused)",
        ),
    ],
)
def test_what_could_not_be_examined_says_why(client, server_url, arguments, said):
    client.xadd(KEYS.log, {FIELD: encode(TickRecord())})
    status, report = doctor("--redis-url", server_url, *arguments)
    assert (status, report["trusted"]) == (2, None)
    assert said in report["findings"][0]["message"]
    assert "secret" not in msgspec.json.encode(report).decode()


def test_several_policies_have_to_be_named(client, server_url):
    for name in ("home", "away"):
        client.xadd(Keys(name).log, {FIELD: b""})
    status, report = doctor("--redis-url", server_url)
    assert status == 2
    assert "several policies: name one" in report["findings"][0]["message"]


def test_the_log_of_a_service_is_read_while_it_runs_and_when_it_has_stopped(tmp_path):
    settings = Settings(data_dir=tmp_path)
    assert doctor("home", "--data-dir", str(tmp_path))[0] == 2
    assert not list(tmp_path.iterdir())  # nothing was begun there
    with valkey(settings) as url, redis.Redis.from_url(url) as client:
        client.xadd(KEYS.log, {FIELD: encode(TickRecord())})
        running = doctor("home", "--data-dir", str(tmp_path))
    stopped = doctor("home", "--data-dir", str(tmp_path))
    assert running == stopped
    assert stopped[1]["findings"][0]["message"] == "the log holds no decisions"  # so it was read
    assert not (tmp_path / "salt").exists()


def test_an_archive_is_read_without_redis(tmp_path):
    log = [(entry.id, encode(entry.record)) for entry in log_of("softmax", 300, 1, salt=SALT)]
    blobs = {
        SPECS["softmax"].digest: SPECS["softmax"].encoded,
        Catalogue().digest: Catalogue().encoded,
    }
    (tmp_path / "salt").write_bytes(SALT)
    for name, entries in [("p", log), ("damaged", [*log[:-1], (log[-1][0], b"not a record")])]:
        whole = Range("0-0", entries[0][0], entries[-1][0], len(entries))
        assert ArchiveWriter(tmp_path, name).write(whole, entries, blobs.get) == []
    arguments = ["--archive", str(tmp_path), "--salt-file", str(tmp_path / "salt")]
    status, report = doctor("p", *arguments)
    assert (status, report["decisions"], report["trusted"]) == (0, 300, True), report
    assert failed(doctor("damaged", *arguments)[1]) == {"undecodable"}
    assert doctor("nobody", *arguments)[0] == doctor(*arguments)[0] == 2


def test_an_archive_whose_columns_contradict_its_records_is_not_trusted(tmp_path):
    """By the finding that says where, also when the log cannot be read to its end."""
    log = [(entry.id, encode(entry.record)) for entry in log_of("softmax", 300, 1, salt=SALT)]
    blobs = {
        SPECS["softmax"].digest: SPECS["softmax"].encoded,
        Catalogue().digest: Catalogue().encoded,
    }
    whole = Range("0-0", log[0][0], log[-1][0], len(log))
    ArchiveWriter(tmp_path, "p").write(whole, log, blobs.get)
    path = tmp_path / "p" / whole.path
    file = pq.ParquetFile(path)
    held, table = dict(file.metadata.metadata), file.read()
    for name, expected in (
        ("propensity", {"archive_columns"}),
        ("reward", {"archive_columns", "examination"}),
    ):
        at = table.schema.get_field_index(name)
        values = pa.array([None if x is None else x / 2 + 1e-3 for x in table[name].to_pylist()])
        changed = table.set_column(at, table.schema.field(at), values)
        with pq.ParquetWriter(path, changed.schema, store_schema=False) as writer:
            writer.write_table(changed)
            writer.add_key_value_metadata({k: v for k, v in held.items() if b"banditloop" in k})
        where = ["--archive", str(tmp_path), "--data-dir", str(tmp_path / "data")]
        status, report = doctor("p", *where)
        assert (status, report["trusted"]) == (1, False)
        assert failed(report) == expected
        (finding,) = (each for each in report["findings"] if each["check"] == "archive_columns")
        assert f"{path}, row group 0, entry " in finding["message"]
