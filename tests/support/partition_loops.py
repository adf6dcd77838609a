"""Learners of the partitions of one policy driven step by step in the tests: see loops.py."""

import time
from collections.abc import Iterable, Sequence

import msgspec
import redis
from support.logs import decision

from bandits.exploration import EpsilonGreedy, LinTs
from bandits.features.hashing import partition_of
from bandits.log.join import JoinRule
from bandits.log.records import MergeRecord, RewardRecord
from bandits.ridge.config import RidgeConfig
from bandits.vw.config import VwConfig
from policies.fold.all_partitions import AllPartitionsFold, verify_partitions
from policies.fold.verify import Verified
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec
from serve_app.admin.freshness import read_all
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.host.build import this_build
from serve_app.store.clients import FAILURES
from serve_app.store.event_log import RedisLog
from serve_app.store.history import History
from serve_app.store.items.history import ItemsHistory
from serve_app.store.keys import ItemsKeys, partitions
from serve_app.store.snapshots import Published
from serve_app.workers.learner import LearnerLoop
from serve_app.workers.learner_factory import learner_of_partition

SALT = b"salt of these tests"
WINDOW_S = 0.02
COUNT = 3
KEYS = partitions("home", COUNT)
SPEC = PolicySpec(
    "home",
    learner=RidgeConfig(),
    exploration=LinTs(draws=8),
    join=JoinRule(window_s=WINDOW_S),
    partitions=COUNT,
)
SPECS = {
    "ridge": SPEC,
    "ridge, as it arrives": msgspec.structs.replace(
        SPEC,
        join=JoinRule(window_s=WINDOW_S, learn="as_it_arrives", late="correct", aggregation="sum"),
    ),
    "vw": msgspec.structs.replace(
        SPEC,
        learner=VwConfig("--cb_explore_adf --cb_type mtr -q ci"),
        exploration=EpsilonGreedy(0.1),
    ),
}


def make(client: redis.Redis, partition: int, spec: PolicySpec = SPEC, **options) -> LearnerLoop:
    return learner_of_partition(
        client,
        spec,
        salt=SALT,
        partition=partition,
        publish_interval_s=0.0,
        merge_interval_s=0.0,
        checkpoint_interval_s=3600,
        **options,
    )


def make_all(client: redis.Redis, spec: PolicySpec = SPEC) -> list[LearnerLoop]:
    return [make(client, partition, spec) for partition in range(spec.partitions)]


def step(loop: LearnerLoop) -> None:
    """What ``run`` does once, in this thread."""
    try:
        loop.lease.acquire()
    except FAILURES:
        return
    loop.attempt()
    if loop._profiles is not None:
        loop._profiles.attempt()


def settle(loops: Sequence[LearnerLoop], observer: redis.Redis, *, timeout_s: float = 30.0) -> None:
    """Step them in turn until all is read, closed, merged and served."""
    deadline, rounds = time.monotonic() + timeout_s, 0
    while rounds < 3 or not quiet(loops, observer):
        assert time.monotonic() < deadline, "they never came to rest"
        rounds += 1
        for loop in loops:
            step(loop)


def quiet(loops: Sequence[LearnerLoop], observer: redis.Redis) -> bool:
    first = loops[0]
    for loop in loops:
        newest = observer.xrevrange(loop.log.keys.log, count=1)
        fold = loop.fold
        if (
            not newest
            or newest[0][0].decode() != fold.position
            or fold.join.oldest_open() is not None
        ):
            return False
        if (
            fold.uncut
            or fold.cut
            or loop._taken
            or fold.number != first.fold.number
            or fold.rollback
        ):
            return False
        if observer.xlen(loop.log.keys.inbox):
            return False
    stored = StoredPolicy(observer, "home")
    return (
        first.publisher.merger.to_publish is None
        and first.publisher.merger.served is not None
        and stored.head() is not None
    )


def decide(
    client: redis.Redis,
    count: int,
    *,
    spec: PolicySpec = SPEC,
    prefix: str = "e",
    users: int | None = None,
) -> None:
    """Decisions with rewards for every second one, each in the log of its partition; of some users.

    Their windows are over after.
    """
    readers = [RedisLog(client, keys) for keys in partitions("home", spec.partitions)]
    for reader in readers:
        reader.put_blob(Catalogue().digest, Catalogue().encoded)
    for i in range(count):
        name = f"{prefix}{i}"
        reader = readers[partition_of(name, spec.partitions)]
        context = {"hour": float(i % 5)}
        reader.append(
            decision(
                name,
                spec=spec.digest,
                catalogue=Catalogue().digest,
                chosen=(i % 3,),
                context=context,
                user=f"u{i % users}" if users else None,
            )
        )
        if i % 2:
            reader.append(RewardRecord(name, float(i % 7), f"r{i}"))
    time.sleep(WINDOW_S + 0.01)


def merges(client: redis.Redis, partition: int) -> list[MergeRecord]:
    return [
        e.record for e in read_all(client, KEYS[partition]) if isinstance(e.record, MergeRecord)
    ]


def together(client: redis.Redis, *, count: int = COUNT, salt: bytes = SALT) -> AllPartitionsFold:
    return AllPartitionsFold(
        [History(client, keys, None) for keys in partitions("home", count)],
        salt=salt,
        items=ItemsHistory(client, ItemsKeys("home"), None),
    )


def verified(client: redis.Redis, *, count: int = COUNT, salt: bytes = SALT) -> list[Verified]:
    served, corrupt = StoredPolicy(client, "home").served()
    assert not corrupt
    return list(
        verify_partitions(together(client, count=count, salt=salt), served, build=this_build())
    )


def verdicts(client: redis.Redis, *, count: int = COUNT) -> list[str]:
    return [each.verdict for each in verified(client, count=count)]


def served(client: redis.Redis) -> Published:
    stored = StoredPolicy(client, "home")
    return stored.find(stored.head())[1]


def learned(loops: Iterable[LearnerLoop]) -> int:
    return sum(loop.fold.learned for loop in loops)
