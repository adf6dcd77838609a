"""The weights of signals change under a learner: the log is learned anew beside, and taken over."""

import time

import msgspec
import pytest
import redis
from support.logs import decision
from support.loops import KEYS, SALT, SPECS, WINDOW_S, make, settle, stats, verdicts

from bandits.log.positions import START
from bandits.log.records import RewardRecord, WarmStartRecord
from policies.fold.checkpoint import decode_state
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec
from serve_app.store.event_log import RedisLog
from serve_app.workers.learner import LearnerLoop

BEFORE = {"click": 1.0, "hide": 2.0}
AFTER = {"click": 3.0, "hide": -1.0}


def reward(client: redis.Redis, spec: PolicySpec, prefix: str, count: int = 12) -> None:
    """Decisions that are clicked, hidden, both, or neither; their windows are over afterwards."""
    reader = RedisLog(client, KEYS)
    reader.put_blob(Catalogue().digest, Catalogue().encoded)
    for n in range(count):
        event, chosen = f"{prefix}{n}", (n % 3,)
        named = {"spec": spec.digest, "catalogue": Catalogue().digest}
        reader.append(decision(event, chosen=chosen, **named))
        for signal in ((), ("click",), ("hide",), ("click", "hide"))[n % 4]:
            reader.append(RewardRecord(event, 1.0, signal=signal))
    time.sleep(WINDOW_S + 0.01)


def relearned(loop: LearnerLoop, spec: PolicySpec) -> None:
    deadline = time.monotonic() + 60
    while loop.fold.relearned is None or loop.fold.relearned.by != spec.digest:
        assert time.monotonic() < deadline, "it never was learned anew"
        settle(loop)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.usefixtures("hurried_learner")
def test_new_weights_hold_for_the_whole_log_to_the_byte(client, name):
    old = msgspec.structs.replace(SPECS[name], signals=BEFORE)
    if old.rule.learn == "as_it_arrives" and not old.learner.corrects:
        pytest.skip("such a learner waits for all signals")
    loop = make(client, old)
    settle(loop)
    reward(client, old, "old")
    settle(loop)
    loop.lease.release()

    new = msgspec.structs.replace(old, signals=AFTER, on_change="relearn")
    loop = make(client, new)
    settle(loop)
    reward(client, new, "new")
    relearned(loop, new)
    reward(client, old, "late")  # a replica that has not heard of it
    settle(loop)

    # The fold beside, made here, through the entry by which it was taken over.
    entries = list(loop.log.history.encoded(START))
    at = next(n for n, e in enumerate(entries) if isinstance(e.record, WarmStartRecord))
    through = entries[at].record.through
    there = next(n for n, e in enumerate(entries) if e.id == through)
    first = Fold(loop.log.history.blob, salt=SALT, past=loop.log.past, weigh_by=new.digest)
    first.apply(entries[: there + 1])
    beside = Fold(loop.log.history.blob, salt=SALT, past=loop.log.past, weigh_by=new.digest)
    beside.resume(decode_state(msgspec.msgpack.encode(first.state())), loop.log.past)
    beside.apply(entries[there + 1 :])
    assert loop.fold.snapshot() == beside.snapshot()
    assert loop.fold.join.signals == beside.join.signals
    assert set(verdicts(client)) == {"identical"}
    assert stats(client).signals["click"][0] > 0

    # And whoever resumes goes on with it.
    before = loop.fold.snapshot()
    loop.lease.release()
    again = make(client, new)
    settle(again)
    assert again.fold.snapshot().payload == before.payload
    assert not again.fold.is_mixed


@pytest.mark.usefixtures("hurried_learner")
def test_weights_that_are_kept_change_nothing_that_was_learned(client):
    old = msgspec.structs.replace(SPECS["ridge"], signals=BEFORE)
    loop = make(client, old)
    settle(loop)
    reward(client, old, "old")
    settle(loop)
    learned = loop.fold.learner.checkpoint()
    loop.lease.release()

    kept = make(client, msgspec.structs.replace(old, signals=AFTER))
    settle(kept, at_least=8)
    assert kept.fold.is_mixed
    assert kept.fold.relearned is None
    assert kept.fold.learner.checkpoint() == learned


@pytest.mark.usefixtures("hurried_learner")
def test_whoever_leads_next_begins_again(client):
    old = msgspec.structs.replace(SPECS["ridge"], signals=BEFORE)
    loop = make(client, old)
    settle(loop)
    reward(client, old, "old")
    settle(loop)
    loop.lease.release()

    new = msgspec.structs.replace(old, signals=AFTER, on_change="relearn")
    dies, deadline = make(client, new), time.monotonic() + 60
    while dies._relearning._work is None:
        assert time.monotonic() < deadline, "it never began"
        dies.lease.acquire()
        dies.attempt()
    dies.lease.release()
    dies.attempt()
    assert dies._relearning._work is None

    again = make(client, new)
    settle(again)
    relearned(again, new)
    assert set(verdicts(client)) == {"identical"}
