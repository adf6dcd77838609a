"""Decisions of items that change: each is taught with the features that it saw.

What a fold is compared with is a log in which each decision names a whole catalogue of its own, of
the items as they were.
"""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fake_partitions import BUILD, Partitions
from support.fakes import SALT, FakeLog, FakePast
from support.items import STEPS, MemoryItems, delete, played, put
from support.logs import WINDOW, decision
from support.priors import prior_rows

from bandits.errors import StalledError
from bandits.exploration import EpsilonGreedy, LinTs
from bandits.log.codec import digest, encode
from bandits.log.encoded_decisions import read_entries
from bandits.log.join import JoinRule
from bandits.log.records import (
    CatalogueRecord,
    CheckpointRecord,
    LogEntry,
    PriorRecord,
    RewardRecord,
    RollbackRecord,
    TickRecord,
)
from bandits.ridge.config import RidgeConfig
from bandits.vw.config import VwConfig
from policies.blend import load_policy
from policies.features import featurise_record
from policies.fold.all_partitions import verify_partitions
from policies.fold.checkpoint import decode_state
from policies.fold.fold import Fold
from policies.fold.known_prior import KnownPrior, StoredPrior
from policies.items import past as pasts
from policies.items import timeline as timelines
from policies.items.catalogue import NEVER_PUT, Catalogue, Item
from policies.items.past import ItemsPast
from policies.spec import PolicySpec

RULE = JoinRule(window_s=WINDOW / 1000, default_reward=-1.0)
ARRIVES = JoinRule(
    window_s=WINDOW / 1000,
    default_reward=-1.0,
    learn="as_it_arrives",
    late="correct",
    aggregation="sum",
)
SPECS = {
    "ridge": PolicySpec("home", learner=RidgeConfig(), exploration=LinTs(draws=4), join=RULE),
    "ridge, as it arrives": PolicySpec(
        "home",
        learner=RidgeConfig(interactions=[("context", "features")]),
        exploration=LinTs(draws=4),
        join=ARRIVES,
    ),
    "VW": PolicySpec(
        "home",
        learner=VwConfig("--cb_explore_adf --cb_type mtr -b 8 -q cf"),
        exploration=EpsilonGreedy(),
        join=RULE,
    ),
    "VW, every action": PolicySpec(
        "home",
        learner=VwConfig("--cb_explore_adf --cb_type dr -b 8"),
        exploration=EpsilonGreedy(),
        join=RULE,
    ),
}
DECISIONS = st.lists(
    st.tuples(
        st.integers(0, WINDOW // 2),
        st.floats(0, 1),
        st.integers(0, 2),
        st.none() | st.sampled_from([1.0, -2.0]),
        st.sampled_from(["", "", "", "checkpoint", "rollback"]),
    ),
    min_size=1,
    max_size=40,
)


def decided(
    spec: PolicySpec, items: MemoryItems, then: list[Catalogue], steps
) -> tuple[FakeLog, FakeLog]:
    """A log whose decisions name versions, and the same log with whole catalogues instead."""
    logs = FakeLog(spec), FakeLog(spec)
    now, known = 1, dict(zip(items.versions, then, strict=True))
    known[NEVER_PUT] = Catalogue()
    logs[1].blobs |= {each.digest: each.encoded for each in known.values()}
    for number, (wait, place, chosen, reward, then_what) in enumerate(steps):
        now += 1 + wait
        version = (items.versions or [NEVER_PUT])[int(place * (len(items.versions) - 1))]
        for log, catalogue in zip(logs, (version, known[version].digest), strict=True):
            record = decision(f"e{number}", chosen=(chosen,), spec=spec.digest, catalogue=catalogue)
            log.append(record, at=now)
            if reward is not None and number:
                log.append(RewardRecord(f"e{number - 1}", reward), at=now)
            if then_what == "checkpoint":
                log.append(CheckpointRecord(), at=now)
            elif then_what == "rollback":
                log.append(RollbackRecord("s", log.entries[len(log.entries) // 2].id), at=now)
    for log in logs:
        log.append(CheckpointRecord(), at=now + WINDOW // 2)
        log.append(TickRecord(), at=now + 3 * WINDOW)
    return logs


def encoded(entries) -> list[LogEntry]:
    return read_entries([(e.id, encode(e.record)) for e in entries], lambda *_: None)


def bytes_of(fold: Fold) -> tuple[bytes, bytes]:
    return msgspec.msgpack.encode(fold.state()), fold.snapshot().payload


def fold_of(log: FakeLog, past: FakePast, items, **options) -> Fold:
    return Fold(log.blobs.__getitem__, salt=SALT, past=past, items=ItemsPast(items), **options)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@settings(max_examples=15)
@given(st.lists(STEPS, max_size=15), DECISIONS, st.data())
def test_each_decision_is_taught_with_the_features_that_it_saw(spec, changes, steps, data):
    """Whole or encoded, in any batches, and from every checkpoint, to the same bytes."""
    items, then = played(changes)
    log, whole = decided(spec, items, then, steps)
    expected = bytes_of(whole.fold())

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pasts, "LEAST_READ", 2)
        patched.setattr(pasts, "SLACK_MS", 0)
        patched.setattr(timelines, "LEAST_DEAD", 0)
        past = FakePast(log)
        plain = fold_of(log, past, items, on_checkpoint=past.keep)
        for entry in log.entries:
            plain.apply([entry])
        assert bytes_of(plain) == expected

        at_once = fold_of(log, past, items)
        at_once.join.recent_bytes = data.draw(st.sampled_from([0, 1 << 30]))
        at_once.apply(encoded(log.entries))
        assert bytes_of(at_once) == expected

        start = data.draw(st.sampled_from(sorted(past.checkpoints)))
        resumed = fold_of(log, past, items)
        resumed.resume(decode_state(past.checkpoints[start]), past)
        resumed.apply(encoded(log.past(start, log.entries[-1].id)))
        assert bytes_of(resumed) == expected


@pytest.mark.parametrize("kind", ["ridge", "VW"])
def test_partitions_see_the_same_versions(kind):
    """Folded one by one, from a checkpoint, and all together, also past a rollback."""
    spec, items = msgspec.structs.replace(SPECS[kind], partitions=4), MemoryItems()
    if kind == "VW":
        spec = msgspec.structs.replace(spec, learner=VwConfig("--cb_explore_adf -q cf"))
    items.replace([Item(name, {"x": 1.0}) for name in "abc"])
    split = Partitions(spec, items)
    for number in range(120):
        version = items.append(put(Item("abc"[number % 3], {"x": float(number)})))
        split.decide(f"e{number}", chosen=number % 3, catalogue=version, reward=number % 2)
        if number in (50, 70):
            items.add_base()
        if number in (30, 60, 90):
            split.wait(WINDOW)
            for partition in range(4):
                split.cut(partition)
            split.merge()
            split.checkpoint(number % 4)
        if number == 75:
            split.restore(split.merges[0])

    verdicts = list(verify_partitions(split.together(), split.served, build=BUILD))
    assert len(verdicts) == 4
    assert {each.verdict for each in verdicts} == {"identical"}

    for partition, past in enumerate(split.pasts):
        for position, data in past.checkpoints.items():
            again = split.fold(partition, decode_state(data))
            log = split.logs[partition]
            again.apply(encoded(log.past(position, log.entries[-1].id)))
            assert again.state() == split.folds[partition].state()


def test_decisions_of_many_versions_are_learned_together():
    """Whatever the changes: learning is not slower for them."""
    spec, items = SPECS["ridge"], MemoryItems()
    items.replace([Item(name, {"x": 1.0}) for name in "abc"])
    versions = [items.append(put(Item("abc"[n % 3], {"x": float(n)}))) for n in range(100)]
    log = FakeLog(spec)
    for number in range(1000):
        named = {"spec": spec.digest, "catalogue": versions[number // 10]}
        log.append(decision(f"e{number}", chosen=(number % 3,), **named), at=2 + number)
    log.append(TickRecord(), at=5000 + WINDOW)

    fold = fold_of(log, FakePast(log), items)
    fold.apply([log.entries[0]])
    sizes, learn = [], fold.learner.learn_rows

    def count(rows):
        sizes.append(len(rows))
        learn(rows)

    fold.learner.learn_rows = count
    fold.apply(encoded(log.entries[1:]))
    assert fold.learner.learned == fold.learned == 1000
    assert max(sizes) > 900


@pytest.mark.parametrize("rule", [RULE, ARRIVES], ids=["at close", "as it arrives"])
def test_after_a_week_in_which_its_item_has_changed_a_decision_is_taught_what_it_saw(rule):
    """Of 1,000 changes between a decision and its reward; what nobody needs is forgotten."""
    week = 7 * 86_400_000
    spec = msgspec.structs.replace(
        SPECS["ridge"], join=msgspec.structs.replace(rule, window_s=week / 1000)
    )
    items, start = MemoryItems(), 1_000_000
    items.replace([Item(name, {"x": 0.0}) for name in "abc"], at=start)
    log, wholes = FakeLog(spec), FakeLog(spec)
    for number in range(3000):
        now = start + number * (week // 1000)
        version = items.append(put(Item("a", {"x": float(number)})), at=now)
        for each in (log, wholes):
            if number % 100 == 0:
                each.append(decision(f"e{number}", spec=spec.digest, catalogue=version), at=now)
            if number >= 1000 and number % 100 == 1:
                each.append(RewardRecord(f"e{number - 901}", 1.0), at=now)
        if number % 100 == 0:
            then = Catalogue.decode(items.timeline.encoded)
            wholes.blobs[then.digest] = then.encoded
            record = msgspec.structs.replace(wholes.entries[-1].record, catalogue=then.digest)
            wholes.entries[-1] = LogEntry(wholes.entries[-1].id, record)
    for each in (log, wholes):
        each.append(TickRecord(), at=start + 5 * week)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pasts, "LEAST_READ", 100)
        patched.setattr(timelines, "LEAST_DEAD", 100)
        past = ItemsPast(items)
        fold = Fold(log.blobs.__getitem__, salt=SALT, past=FakePast(log), items=past)
        fold.join.recent_bytes = 0
        rows = []
        for entry in encoded(log.entries):
            fold.apply([entry])
            rows += [era.timeline.newest.features.rows for era in past._eras]
    assert fold.learned == 30
    assert fold.snapshot().payload == wholes.fold().snapshot().payload
    assert rule is ARRIVES or max(rows) < 900


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_pmf_derives_from_a_version_as_from_its_items_alone(spec):
    """To the byte, also where the table is wider for the sake of other items."""
    items = MemoryItems()
    items.replace([Item(name, {"x": 0.3 + n, "y": 0.1}) for n, name in enumerate("abc")])
    then = Catalogue.decode(items.timeline.encoded)
    items.append(put(Item("d", {f"tag{n}": n / 7 for n in range(20)})))
    version = items.append(put(Item("a", {"x": 0.7, "kind": ["new", "red"], "y": 0.1})))
    now = Catalogue.decode(items.timeline.encoded)
    items.append(delete("b"))

    log = FakeLog(spec)
    log.blobs[then.digest] = then.encoded
    for number in range(60):
        record = decision(
            f"e{number}", chosen=(number % 3,), spec=spec.digest, catalogue=then.digest
        )
        log.append(record, at=2 + number)
        log.append(RewardRecord(f"e{number}", float(number % 3 == 1)), at=2 + number)
    log.append(TickRecord(), at=5000 + WINDOW)
    policy = load_policy(spec, log.fold().snapshot())
    pmfs = [
        policy.pmf(*featurise_record(spec, catalogue, decision(ids=("a", "b", "c", "d"))))
        for catalogue in (now, items.timeline.at(version))
    ]
    assert pmfs[0].tobytes() == pmfs[1].tobytes()


def test_a_decision_whose_version_is_not_in_the_log_stops_the_fold():
    spec, items = SPECS["ridge"], MemoryItems()
    items.append(put(Item("a")))
    log = FakeLog(spec)
    version = f"1000-1~{'0' * 32}"
    log.append(decision("e", spec=spec.digest, catalogue=version), at=2)
    log.append(TickRecord(), at=5000 + WINDOW)
    fold = fold_of(log, FakePast(log), items)
    with pytest.raises(StalledError, match=f"no version {version}"):
        fold.apply(encoded(log.entries))


def test_a_prior_takes_the_features_of_the_version_that_its_entry_names():
    """Also when a later model is taught it, after the items have changed; and after a resume."""
    spec, items = SPECS["ridge"], MemoryItems()
    items.replace([Item(name, {"x": float(n)}) for n, name in enumerate("abc")])
    version = items.append(put(Item("a", {"x": 7.0})))
    then = Catalogue.decode(items.timeline.encoded)
    items.append(put(Item("a", {"x": -7.0})))
    data = prior_rows(decisions=10, chances=(0.1, 0.5, 0.9)).encoded

    def taught(named: str, catalogue: str) -> tuple[Fold, FakeLog, FakePast]:
        log = FakeLog(spec)
        log.blobs |= {digest(data): data, then.digest: then.encoded}
        if catalogue:
            log.append(CatalogueRecord(catalogue), at=2)
        log.append(PriorRecord(digest(data), 0.5, named), at=3)
        log.append(CheckpointRecord(), at=4)
        past = FakePast(log)
        fold = fold_of(log, past, items, on_checkpoint=past.keep)
        fold.apply(log.entries)
        return fold, log, past

    fold, log, past = taught(version, "")
    expected, _, _ = taught("", then.digest)
    assert fold.prior.taught.rows > 0
    assert fold.learner.checkpoint() == expected.learner.checkpoint()

    resumed = fold_of(log, past, items)
    resumed.resume(decode_state(next(iter(past.checkpoints.values()))), past)
    assert resumed.prior == fold.prior
    assert resumed.prior.catalogue == version
    other = msgspec.structs.replace(spec, learner=RidgeConfig(l2=3.0))
    for each in (resumed, expected):
        again = FakeLog()
        entry = again.configure(other, at=9)
        log.blobs |= again.blobs
        expected._blobs.fetch = resumed._blobs.fetch = log.blobs.__getitem__
        each.apply([entry])
    assert resumed.learner.checkpoint() == expected.learner.checkpoint()


def test_a_prior_without_a_version_is_in_checkpoints_what_it_was():
    known = KnownPrior("d", 0.5)
    assert msgspec.msgpack.encode(known.stored) == msgspec.msgpack.encode(StoredPrior("d", 0.5))
    assert len(msgspec.msgpack.decode(msgspec.msgpack.encode(known.stored))) == 4
    named = msgspec.structs.replace(known, catalogue="v")
    assert named.stored is named
