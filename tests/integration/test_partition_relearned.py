"""The weights of signals change: each partition learns its own log anew, and merges add that up."""

import time

import msgspec
import pytest
import redis
from support.logs import decision
from support.partition_loops import (
    COUNT,
    KEYS,
    SALT,
    SPECS,
    WINDOW_S,
    learned,
    make_all,
    served,
    settle,
    verdicts,
)

from bandits.features.hashing import partition_of
from bandits.log.codec import digest
from bandits.log.positions import START
from bandits.log.records import RewardRecord, WarmStartRecord
from policies.fold.partition import PartitionFold
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec
from serve_app.store.event_log import RedisLog

pytestmark = pytest.mark.usefixtures("hurried_learner")


def reward(client: redis.Redis, spec: PolicySpec, prefix: str, count: int = 12) -> None:
    """Decisions that are clicked, hidden, both, or neither; their windows are over afterwards."""
    for n in range(count):
        event, named = f"{prefix}{n}", {"spec": spec.digest, "catalogue": Catalogue().digest}
        reader = RedisLog(client, KEYS[partition_of(event, COUNT)])
        reader.put_blob(Catalogue().digest, Catalogue().encoded)
        reader.append(decision(event, chosen=(n % 3,), **named))
        for signal in ((), ("click",), ("hide",), ("click", "hide"))[n % 4]:
            reader.append(RewardRecord(event, 1.0, signal=signal))
    time.sleep(WINDOW_S + 0.01)


def test_each_partition_learns_its_log_anew_and_all_together_verify(client):
    old = msgspec.structs.replace(SPECS["ridge"], signals={"click": 1.0, "hide": 2.0})
    loops = make_all(client, old)
    settle(loops, client)
    reward(client, old, "old")
    settle(loops, client)
    for loop in loops:
        loop.lease.release()

    new = msgspec.structs.replace(old, signals={"click": 3.0, "hide": -1.0}, on_change="relearn")
    loops, deadline = make_all(client, new), time.monotonic() + 60
    reward(client, new, "new")
    while not all(loop.fold.relearned for loop in loops):
        assert time.monotonic() < deadline, "not all were learned anew"
        settle(loops, client)
    reward(client, old, "late")  # a replica that has not heard of it
    settle(loops, client)

    # Each is as if it had known the new weights from the start, and so is what they give.
    for loop in loops:
        history = loop.log.history
        beside = PartitionFold(
            history.blob,
            salt=SALT,
            partition=loop.log.keys.partition,
            merged=lambda _: b"",
            past=loop.log.past,
            weigh_by=new.digest,
        )
        beside.apply(history.encoded(START))
        assert loop.fold.learner.checkpoint() == beside.learner.checkpoint()
        assert loop.fold.join.signals == beside.join.signals
    assert served(client).learned == learned(loops) == 36
    assert set(verdicts(client)) == {"identical"}

    # And whoever resumes goes on with it.
    before = [loop.fold.learner.checkpoint() for loop in loops]
    for loop in loops:
        loop.lease.release()
    again = make_all(client, new)
    settle(again, client)
    assert [loop.fold.learner.checkpoint() for loop in again] == before
    assert not any(loop.fold.is_mixed for loop in again)


def test_what_rests_on_what_others_have_learned_is_kept(client):
    """A warm start that names what a log taught anew is refused, and the model stays."""
    loops = make_all(client, SPECS["vw"])
    settle(loops, client)
    log = RedisLog(client, KEYS[1])
    log.put_blob(digest(b"any"), b"any")
    log.append(WarmStartRecord(digest(b"any"), loops[1].fold.position))
    settle(loops, client)
    assert loops[1].fold.refused_warm_starts == 1
    assert set(verdicts(client)) == {"identical"}
