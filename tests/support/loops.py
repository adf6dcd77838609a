"""Learners driven step by step: their specs, their logs, and what verification says of them."""

import time

import msgspec
import redis
from support.logs import decision

from bandits.exploration import EpsilonGreedy, LinTs
from bandits.log.join import JoinRule
from bandits.log.records import RewardRecord
from bandits.ridge.config import RidgeConfig
from bandits.vw.config import VwConfig
from policies.fold.verify import Verified
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec
from serve_app.admin.replayed.verification import LogAddress, verify_policy
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.store.clients import FAILURES, blocking_client
from serve_app.store.event_log import RedisLog
from serve_app.store.keys import Keys
from serve_app.store.snapshots import Head
from serve_app.store.stats import Stats
from serve_app.workers.learner import LearnerLoop
from serve_app.workers.learner_factory import learner_of_log

SALT = b"salt of these tests"
KEYS = Keys("home")
WINDOW_S = 0.02
SPEC = PolicySpec(
    "home", learner=RidgeConfig(), exploration=LinTs(draws=8), join=JoinRule(window_s=WINDOW_S)
)
SPECS = {
    "ridge": SPEC,
    "ridge, as it arrives": msgspec.structs.replace(
        SPEC,
        join=JoinRule(window_s=WINDOW_S, learn="as_it_arrives", late="correct", aggregation="sum"),
    ),
    "vw": msgspec.structs.replace(
        SPEC,
        learner=VwConfig("--cb_explore_adf --cb_type mtr -b 10 -q ci"),
        exploration=EpsilonGreedy(0.1),
    ),
}


def make(client: redis.Redis, spec: PolicySpec = SPEC, **options) -> LearnerLoop:
    return learner_of_log(
        client, spec, salt=SALT, publish_interval_s=0.0, checkpoint_interval_s=3600, **options
    )


def settle(loop: LearnerLoop, *, lead: bool = True, at_least: int = 3) -> None:
    """What ``run`` does, in this thread, until nothing is left to do."""
    deadline, steps = time.monotonic() + 60, 0
    while steps < at_least or (lead and not quiet(loop)):
        assert time.monotonic() < deadline, "it never came to rest"
        steps += 1
        if lead:
            try:
                loop.lease.acquire()
            except FAILURES:
                continue
        loop.attempt()
        if loop._profiles is not None:
            loop._profiles.attempt()


def quiet(loop: LearnerLoop) -> bool:
    """Whether the log is read, every window closed, the inbox moved, and all of it published."""
    observer = blocking_client(url_of(loop.log.client))
    with observer:
        newest, raw = observer.xrevrange(KEYS.log, count=1), observer.get(KEYS.stats)
        return bool(
            raw
            and newest[0][0].decode() == loop.fold.position
            and loop.fold.join.oldest_open() is None
            and not observer.xlen(KEYS.inbox)
            and not loop._taken
            and msgspec.msgpack.decode(raw, type=Stats).snapshot_id
            == loop.publisher.snapshots.newest
            and loop.publisher.served is not None
            # Publishing waits for its share of the time, also where only a pin has come or gone.
            and loop.publisher.served[0] == loop.fold.changes
            and loop.publisher.served[-1] == loop.fold.pinned
        )


def decide(
    client: redis.Redis,
    count: int,
    *,
    spec: PolicySpec = SPEC,
    prefix: str = "e",
    users: int | None = None,
) -> None:
    """Decisions with rewards for every second one, as replicas would log them; for some users.

    Their windows are over afterwards.
    """
    reader = RedisLog(client, KEYS)
    reader.put_blob(Catalogue().digest, Catalogue().encoded)
    for i in range(count):
        reader.append(
            decision(
                f"{prefix}{i}",
                spec=spec.digest,
                catalogue=Catalogue().digest,
                chosen=(i % 3,),
                user=f"u{i % users}" if users else None,
            )
        )
        if i % 2:
            reader.append(RewardRecord(f"{prefix}{i}", float(i), f"r{i}"))
    time.sleep(WINDOW_S + 0.01)


def url_of(client: redis.Redis) -> str:
    """Of the server, or the cluster, that a client is connected to."""
    if isinstance(client, redis.RedisCluster):
        return f"redis+cluster://127.0.0.1:{client.get_default_node().port}"
    known = client.connection_pool.connection_kwargs
    return f"redis://{known['host']}:{known['port']}/{known['db']}"


def verified(
    client: redis.Redis, *, salt: bytes = SALT, jobs: int = 1, start=None
) -> list[Verified]:
    address = LogAddress(url_of(client), "home", "", salt)
    return verify_policy(
        address,
        StoredPolicy(client, "home").served()[0],
        start=start,
        jobs=jobs,
        progress=lambda _: None,
    )[0]


def verdicts(client: redis.Redis, *, salt: bytes = SALT) -> list[str]:
    return [each.verdict for each in verified(client, salt=salt)] + StoredPolicy(
        client, "home"
    ).served()[1]


def head(client: redis.Redis) -> str:
    return msgspec.msgpack.decode(client.get(KEYS.head), type=Head).snapshot_id


def stats(client: redis.Redis) -> Stats:
    return msgspec.msgpack.decode(client.get(KEYS.stats), type=Stats)
