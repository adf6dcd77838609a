"""The version of the fold: a log's builds decide how the entries after them are folded."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import SALT, FakeLog, FakePast
from support.logs import (
    RANDOM_LOGS,
    RANDOM_RECORDS,
    RULE,
    WINDOW,
    archived,
    decision,
    log_of,
    stream,
)

from bandits.errors import NewerBuildError
from bandits.exploration import LinTs
from bandits.log import records
from bandits.log.join import Join
from bandits.log.records import (
    ActivationRecord,
    BuildRecord,
    CheckpointRecord,
    LogEntry,
    LogRecord,
    RewardRecord,
    TickRecord,
)
from bandits.log.versions import FOLD, fold_version
from bandits.ridge.config import RidgeConfig
from policies.fold.checkpoint import decode_state
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec
from simulator.logs.archive.pieces import archive_pieces

OUTCOMES = ("joined", "duplicate", "late", "orphan", "invalid", "unactivated", "early")
RULES = [
    RULE,
    msgspec.structs.replace(RULE, learn="as_it_arrives", aggregation="sum"),
    msgspec.structs.replace(RULE, learn="as_it_arrives", late="correct"),
]
BUILDS = st.sampled_from(
    [BuildRecord({}), BuildRecord({"fold": "2"}), BuildRecord({"fold": "1", "numpy": "2"})]
)
CHANGING_LOGS = st.lists(st.tuples(st.integers(0, 6000), RANDOM_RECORDS | BUILDS), max_size=60)


def joined(log: list[LogEntry], version: int) -> Join:
    join = Join(lambda _: RULE, RULE, fold=version)
    for entry in log:
        join.apply(entry)
    return join


@pytest.mark.parametrize("rule", RULES)
@given(CHANGING_LOGS)
def test_every_reward_has_exactly_one_outcome_at_every_moment(rule, steps):
    """Whatever the order of the log, and wherever builds take over from one another."""
    join, rewards, activations = Join(lambda _: rule, rule), 0, 0
    for entry in stream([*steps, (5 * WINDOW, TickRecord())]):
        join.apply(entry)
        rewards += isinstance(entry.record, RewardRecord)
        activations += isinstance(entry.record, ActivationRecord)
        assert sum(join.counts[outcome] for outcome in OUTCOMES) == rewards
        assert min(join.counts.values(), default=0) >= 0
        assert join.counts["early_activation"] + join.counts["orphan_activation"] <= activations
    assert join.counts["early"] == join.counts["early_activation"] == 0


REWARDS = st.builds(
    RewardRecord, st.sampled_from("abcd"), st.just(1.0), st.sampled_from(["r1", "r2", "r3"])
)


@given(
    st.lists(REWARDS, max_size=12),
    st.lists(st.builds(ActivationRecord, st.sampled_from("abcd")), max_size=4),
    st.lists(
        st.builds(decision, st.sampled_from("abcd"), deferred=st.booleans()),
        max_size=4,
        unique_by=lambda d: d.event_id,
    ),
    st.randoms(use_true_random=False),
)
def test_within_a_window_the_order_of_the_log_changes_no_outcome(
    rewards, activations, decisions, random
):
    """A reward is joined if its decision is there and activated, whatever came first."""
    entries: list[LogRecord] = [*rewards, *activations, *decisions]
    random.shuffle(entries)
    steps = [(1, record) for record in entries]
    join = joined(
        list(stream([(0, BuildRecord({"fold": "2"})), *steps, (3 * WINDOW, TickRecord())])), 1
    )
    known, activated = (
        {each.event_id: each for each in decisions},
        {each.event_id for each in activations},
    )
    expected: Counter[str] = Counter()
    for each in {(each.event_id, each.reward_id) for each in rewards}:
        made = known.get(each[0])
        if made is not None:
            expected["unactivated" if made.deferred and each[0] not in activated else "joined"] += 1
    expected["orphan"] = sum(each.event_id not in known for each in rewards)
    expected["duplicate"] = len(rewards) - expected.total()
    assert {name: join.counts[name] for name in OUTCOMES} == {
        name: expected[name] for name in OUTCOMES
    }
    waiting = sum(each.deferred and each.event_id not in activated for each in decisions)
    assert (join.counts["not_activated"], join.counts["closed"]) == (
        waiting,
        len(decisions) - waiting,
    )
    assert join.counts["orphan_activation"] == sum(
        each.event_id not in known for each in activations
    )


DEFERRED = decision("e", deferred=True)
CASES: dict[str, tuple[list[LogRecord], dict[str, int], dict[str, int]]] = {
    "never activated": (
        [
            DEFERRED,
            RewardRecord("e", 1.0, "r"),
            RewardRecord("e", 1.0, "s"),
            RewardRecord("e", 1.0, "s"),
        ],
        {"joined": 2, "duplicate": 1, "not_activated": 1, "decisions": 1},
        {"unactivated": 2, "duplicate": 1, "not_activated": 1, "decisions": 1},
    ),
    "an early reward of one that is never activated": (
        [RewardRecord("e", 1.0), DEFERRED],
        {"joined": 1, "not_activated": 1, "decisions": 1},
        {"unactivated": 1, "not_activated": 1, "decisions": 1},
    ),
    "an early activation": (
        [ActivationRecord("e"), DEFERRED, RewardRecord("e", 1.0)],
        {"joined": 1, "not_activated": 1, "decisions": 1, "orphan_activation": 1},
        {"joined": 1, "closed": 1, "decisions": 1},
    ),
    "an early activation and an early reward": (
        [RewardRecord("e", 1.0), ActivationRecord("e"), ActivationRecord("e"), DEFERRED],
        {"joined": 1, "not_activated": 1, "decisions": 1, "orphan_activation": 2},
        {"joined": 1, "closed": 1, "decisions": 1},
    ),
    "an activation of nothing": (
        [ActivationRecord("e")],
        {"orphan_activation": 1},
        {"orphan_activation": 1},
    ),
    "an activation in time": (
        [DEFERRED, RewardRecord("e", 1.0), ActivationRecord("e")],
        {"joined": 1, "closed": 1, "decisions": 1},
        {"joined": 1, "closed": 1, "decisions": 1},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_entries_are_folded_by_the_rule_that_the_newest_build_before_them_says(case):
    steps, old, new = CASES[case]
    for build, expected in [
        ({}, old),
        ({"fold": "1"}, old),
        ({"fold": "2"}, new),
        ({"fold": "02", "x": "y"}, new),
    ]:
        log = [LogEntry("1-0", BuildRecord(build)), *stream([(2, each) for each in steps])]
        log.append(LogEntry(f"{5 * WINDOW}-0", TickRecord()))
        counts = joined(log, 1).counts
        assert {name: count for name, count in counts.items() if count} == expected


def test_what_began_under_one_rule_ends_under_the_other_with_nothing_counted_twice():
    reward, build = RewardRecord("e", 1.0, "r"), BuildRecord({"fold": "2"})
    later = RewardRecord("e", 1.0, "s")
    up = joined(
        list(
            stream([(1, DEFERRED), (1, reward), (1, build), (1, later), (3 * WINDOW, TickRecord())])
        ),
        1,
    )
    # what the old rule counted stays as it was
    assert (up.counts["joined"], up.counts["unactivated"]) == (1, 1)
    down = [
        (1, build),
        (1, DEFERRED),
        (1, reward),
        (1, ActivationRecord("f")),
        (1, BuildRecord({})),
    ]
    join = joined(list(stream(down)), 1)
    assert {name: count for name, count in join.counts.items() if count} == {
        "decisions": 1,
        "joined": 1,
        "orphan_activation": 1,
    }


SPEC = PolicySpec("home", learner=RidgeConfig(), exploration=LinTs(draws=3), join=RULE)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=30)
@given(steps=CHANGING_LOGS, checkpoints=st.lists(st.integers(0, 60), min_size=1, max_size=4))
def test_a_checkpoint_carries_the_version_and_all_that_waits(rule, steps, checkpoints):
    """Whoever resumes ends where the fold of the whole log ends, in the same bytes."""
    steps = list(steps)
    for at in sorted(checkpoints, reverse=True):
        steps.insert(at, (0, CheckpointRecord()))
    log = log_of(steps, msgspec.structs.replace(SPEC, join=rule))
    past = FakePast(log)
    whole = Fold(log.blobs.__getitem__, salt=SALT, past=past, on_checkpoint=past.keep)
    whole.apply(log.entries)
    expected = msgspec.msgpack.encode(whole.state())
    for position, data in past.checkpoints.items():
        resumed = Fold(log.blobs.__getitem__, salt=SALT, past=past)
        resumed.resume(decode_state(data), past)
        resumed.apply(past.entries(position, log.entries[-1].id))
        assert resumed.version == whole.version
        assert msgspec.msgpack.encode(resumed.state()) == expected


@given(RANDOM_LOGS)
def test_a_log_whose_builds_say_no_version_is_folded_as_by_a_build_that_knew_of_none(steps):
    log = log_of(steps, SPEC)
    plain = log.fold()
    log.entries.insert(0, LogEntry("0-1", BuildRecord({"numpy": "2", "machine": "x86_64"})))
    again = log.fold()
    assert (plain.version, again.version) == (1, 1)
    assert again.join.state() == plain.join.state()
    assert not {"unactivated", "early_activation"} & set(plain.join.counts)


@pytest.mark.parametrize(
    "said", [str(FOLD + 1), "10", "99999999999999999999", "x", "", "-1", "2.0", " 2", "٢"]
)
def test_a_fold_stops_where_a_newer_build_goes_on(said):
    log = FakeLog(SPEC)
    fold = log.fold()
    before = msgspec.msgpack.encode(fold.state())
    newer = LogEntry(f"{9 * WINDOW}-0", BuildRecord({"fold": said}))
    with pytest.raises(NewerBuildError, match="newer build"):
        fold.apply([newer])
    assert msgspec.msgpack.encode(fold.state()) == before
    state = msgspec.structs.replace(fold.state(), build={"fold": said})
    with pytest.raises(NewerBuildError):
        Fold(log.blobs.__getitem__, salt=SALT).resume(state, FakePast(log))


def test_this_build_reads_its_own_version_and_every_earlier_one():
    assert [fold_version({"fold": str(each)}) for each in range(1, FOLD + 1)] == list(
        range(1, FOLD + 1)
    )
    assert fold_version({}) == 1


KINDS = {
    "decision": (
        "event_id policy spec snapshot_id catalogue context action_ids features scores pmf chosen"
        " user deferred"
        " holdout credit unserved failed artifact profile rules apprentice"
    ),
    "activation": "event_id",
    "reward": "event_id value reward_id slot action_id",
    "tick": "",
    "spec": "digest salt_id",
    "catalogue": "digest",
    "artifact": "version",
    "build": "build",
    "checkpoint": "",
    "pin": "snapshot_id",
    "rollback": "snapshot_id position",
    "warm_start": "digest",
    "prior": "digest strength",
    "cut": "number",
    "merge": "number inputs digest model restores",
    "items": "changes",
    "items_base": "digest version",
    "activity": "user item event_type value time_ms id",
    "merge_users": "user into",
    "erasure": "user erasure",
    "root": "position digest profiles",
    "control": "prices",
    "reranked": "event_id decision",
}
"""Of fold 7.

A build that knows others says a higher version, so that one which does not know them stops there.
"""


def test_a_new_kind_of_record_comes_with_a_new_version_of_the_fold():
    known = {each.__struct_config__.tag: each for each in records.Record.__subclasses__()}
    assert set(known) == set(KINDS), (
        "another kind of record: add one to FOLD, then it to this table"
    )
    assert FOLD == 7
    for tag, names in KINDS.items():
        own = known[tag].__struct_fields__
        assert own[: len(names.split())] == tuple(names.split()), "fields are only ever appended"
        added = known[tag].__struct_fields__[len(names.split()) :]
        for name, default in zip(
            reversed(added), reversed(known[tag].__struct_defaults__), strict=False
        ):
            assert default is not msgspec.NODEFAULT, (
                f"{tag}.{name} has no default: an older log lacks it"
            )


@pytest.mark.parametrize("shards", [1, 2, 5])
@pytest.mark.parametrize("changes", [{}, {120: "2"}, {90: "2", 200: "1", 260: "2"}])
def test_a_replay_of_the_archive_joins_by_the_rule_of_each_part_however_it_is_cut(
    tmp_path, shards, changes
):
    """Of deferred decisions whose activation came first: rows under fold 2, none under fold 1."""
    log, rows, version = FakeLog(SPEC), [], "1"
    for number in range(300):
        at = 10 + 1000 * number
        if number in changes:
            version = changes[number]
            log.append(BuildRecord({"fold": version}), at=at - 5)
        name = f"e{number}"
        if number % 3 == 0:
            log.append(ActivationRecord(name), at=at - 1)
        made = decision(
            name, deferred=number % 2 == 0, spec=SPEC.digest, catalogue=Catalogue().digest
        )
        log.append(made, at=at)
        log.append(RewardRecord(name, float(number)), at=at + 2)
        if number % 2 or (number % 3 == 0 and version == "2"):
            rows.append((name, float(number)))
    log.append(TickRecord(), at=10**6)
    root = archived(tmp_path, log.entries, SPEC, 12)
    pieces = archive_pieces(str(root), "p", shards)
    assert len(pieces) == shards
    found = [
        (row.event_id, row.reward)
        for piece in pieces
        for batch in piece.batches()
        for row in batch.decisions
    ]
    assert found == rows
