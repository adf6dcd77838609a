"""A policy's report: the same numbers as replay's, and an answer whatever the log is like."""

import math
import re
from collections import Counter, defaultdict

import msgspec
import numpy as np
import pytest
from support.fakes import FakeLog
from support.logs import archived, decision, write_archive

from bandits.log.join import JoinRule
from bandits.log.positions import START, is_after
from bandits.log.records import RewardRecord, TickRecord
from bandits.statistics.sequences import MixtureSequence
from policies.archive.archive import ArchiveWriter
from policies.items.catalogue import Catalogue
from policies.spec import Holdout, PolicySpec
from simulator.logs.archive.pieces import policy_pieces
from simulator.ope.targets import LoggingTarget
from simulator.replay.evaluate import OpeQuestion, evaluate
from simulator.replay.parse_policy import parse_policy
from simulator.report.closer import distance_of, distance_of_numbers, look_closely
from simulator.report.comparing import uplift_of
from simulator.report.gather import PolicyRows, read_policy
from simulator.report.judge import cautions_beside
from simulator.report.make import policy_report_of
from simulator.report.page import policy_page
from simulator.report.report import Drift
from simulator.report.verdicts import CAUTIONS, VERDICTS

SPEC = PolicySpec("p", join=JoinRule(window_s=2.0), holdout=Holdout(0.3))
EMPTY = Catalogue()
SCRIPT = "<script>alert(1)</script>"


def log_of(
    count=2000,
    *,
    users=300,
    spec=SPEC,
    uplift=0.3,
    held=0.3,
    rewards=True,
    equal=False,
    leap_ms=0,
    slots=1,
    seed=0,
):
    """Decisions of users, each of whom is held out or not, with rewards that are worth it."""
    rng, log, now = np.random.default_rng(seed), FakeLog(spec), 10
    log.blobs[EMPTY.digest] = EMPTY.encoded
    kept = rng.random(users) < held
    for number in range(count):
        now += int(rng.integers(20, 200)) + (leap_ms if number == count // 2 else 0)
        user = int(rng.integers(users))
        record = decision(
            f"e{number}",
            chosen=tuple(range(slots)),
            spec=spec.digest,
            catalogue=EMPTY.digest,
            context={"device": ("phone", SCRIPT)[user % 2], "new": user % 3 == 0, "hour": 3.0},
            user=f"u{user}" if users < count else None,
            holdout=bool(kept[user]),
        )
        log.append(record, at=now)
        chance = 1.0 if equal else 0.3 + (0.0 if kept[user] else uplift)
        for slot in range(slots if rewards else 0):
            if rng.random() < chance:
                log.append(RewardRecord(f"e{number}", 1.0, slot=slot, signal="click"), at=now + 1)
    log.append(TickRecord(), at=now + 10_000)
    return log


def reported(root, log, spec=SPEC, **options):
    archived(root, log.entries, spec, blobs=log.blobs)
    return policy_report_of("p", read_policy(str(root), "p"), **options)


@pytest.mark.parametrize("slots", [1, 2])
def test_its_numbers_are_those_of_replay_and_of_each_record(tmp_path, slots):
    log = log_of(slots=slots)
    found = reported(tmp_path, log)
    replayed = evaluate(OpeQuestion([LoggingTarget()]), policy_pieces(str(tmp_path), "p", 3))
    assert found.range.rows == replayed.log.rows
    assert found.range.mean_reward == pytest.approx(replayed.log.mean_reward, rel=1e-12)
    assert (found.range.first_ms, found.range.last_ms) == (
        replayed.log.first_ms,
        replayed.log.last_ms,
    )

    # The same from the records, one by one.
    earned, made, units = defaultdict(float), defaultdict(int), defaultdict(set)
    held = {}
    for entry in log.entries:
        record = entry.record
        if hasattr(record, "holdout"):
            held[record.event_id] = record.holdout
            made[record.holdout] += 1
            units[record.holdout].add(record.user)
        elif isinstance(record, RewardRecord):
            earned[held[record.event_id]] += record.value
    for group, held_out in ((found.uplift.policy, False), (found.uplift.holdout, True)):
        assert group.decisions == made[held_out]
        assert group.units == len(units[held_out])
        assert group.mean == pytest.approx(earned[held_out] / made[held_out], rel=1e-12)
        assert group.per_unit == pytest.approx(earned[held_out] / len(units[held_out]), rel=1e-12)
    assert found.signals[0].signal == "click"
    assert found.signals[0].total == sum(earned.values())


def test_a_large_uplift_is_found_and_holds_in_segments(tmp_path):
    found = reported(tmp_path, log_of())
    assert found.verdict.code == "better"
    assert found.uplift.low < 0.3 < found.uplift.high
    assert found.uplift.p_value < 0.05
    assert found.uplift.answer_s == 0.0
    assert {(each.field, each.value) for each in found.segments} == {
        ("device", "phone"),
        ("device", SCRIPT),
        ("new", "true"),
        ("new", "false"),
    }
    # Intervals of segments are wider: they hold all at once, of fewer users.
    assert all(
        each.high - each.low > found.uplift.high - found.uplift.low for each in found.segments
    )
    assert (
        sum(each.policy.decisions for each in found.segments) == 2 * found.uplift.policy.decisions
    )


def test_segments_are_of_the_fields_that_are_asked_for(tmp_path):
    log = log_of(400)
    archived(tmp_path, log.entries, SPEC, blobs=log.blobs)
    rows = read_policy(str(tmp_path), "p", by=["new"])
    assert list(rows.fields) == ["new"]


def test_only_decisions_past_a_position_are_read_with_the_rewards_of_each(tmp_path):
    log = log_of(600)
    archived(tmp_path, log.entries, SPEC, blobs=log.blobs)
    whole = read_policy(str(tmp_path), "p")
    at = next(entry.id for entry in log.entries if entry.time_ms >= int(whole.ms[250]))
    part = read_policy(str(tmp_path), "p", after=at)
    assert 300 < len(part) < 360
    np.testing.assert_array_equal(part.reward, whole.reward[-len(part) :])
    np.testing.assert_array_equal(part.ms, whole.ms[-len(part) :])
    for rows, first in ((whole, START), (part, at)):
        came = [entry.id for entry in log.entries if isinstance(entry.record, RewardRecord)]
        events = sum(is_after(each, first) for each in came)
        assert rows.signals == {"click": (events, float(events))}


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("no_decisions", {"count": 0}),
        ("no_rewards", {"count": 50, "users": 9, "rewards": False}),
        ("rewards_all_equal", {"count": 50, "users": 9, "equal": True}),
        ("holdout_empty", {"count": 50, "users": 9, "held": 0.0}),
        ("holdout_empty", {"count": 50, "users": 2, "held": 0.5}),
        ("too_early", {"count": 200, "users": 40}),
        ("assignment_broken", {"held": 0.8}),
        ("worse", {"uplift": -0.25}),
        ("undecided", {"uplift": 0.0}),
    ],
)
def test_every_log_has_an_answer(tmp_path, code, changes):
    found = reported(tmp_path, log_of(**changes))
    assert found.verdict.code == code
    assert found.verdict.action == VERDICTS[code].action
    if code == "no_decisions":
        assert "no decision was logged" in found.verdict.message
    if code == "too_early":
        assert found.uplift.answer_s is found.uplift.worth_finding_s is None
    msgspec.json.encode(found)
    page = policy_page(found)
    assert SCRIPT not in page
    assert f">{code}<" in page
    assert not re.search(r"\bnan\b", re.sub(r"<style.*?</style>", "", page, flags=re.DOTALL))


def test_without_a_holdout_it_says_how_to_have_one(tmp_path):
    spec = PolicySpec("p", join=JoinRule(window_s=2.0))
    found = reported(tmp_path, log_of(100, users=9, spec=spec), spec)
    assert found.verdict.code == "no_holdout"
    assert found.uplift is None
    assert found.assignment is None


def test_users_are_units_only_where_the_holdout_is_by_user(tmp_path):
    """A field of the context makes units of its own; a decision without it is one by itself."""
    by_device = PolicySpec("p", join=SPEC.join, holdout=Holdout(0.3, field="device"))
    found = reported(tmp_path / "a", log_of(100, users=20, spec=by_device), by_device)
    assert found.assignment.units <= 4
    alone = reported(tmp_path / "b", log_of(100, users=100))
    assert alone.assignment.units == 100


def test_a_spec_with_another_holdout_begins_the_comparison_anew(tmp_path):
    log = log_of(200, users=20)
    later = PolicySpec("p", join=SPEC.join, holdout=Holdout(0.5))
    log.configure(later, at=log.entries[-1].time_ms + 1)
    found = reported(tmp_path, log)
    assert found.range.decisions == 200
    assert found.uplift.policy.decisions == found.uplift.holdout.decisions == 0
    assert found.assignment.unserved == 0
    assert found.choices["holdout"].choices > 0
    assert "holdout_changed" in [each.code for each in found.cautions]


def test_a_clock_that_leaps_is_told(tmp_path):
    found = reported(tmp_path, log_of(300, leap_ms=10**9))
    assert [each.code for each in found.cautions] == ["clock_jumped"]
    paused = reported(tmp_path / "paused", log_of(300, leap_ms=60_000))
    assert [each.code for each in paused.cautions] == []
    assert sum(each.decisions for each in found.times) == 300
    assert all(each.code in CAUTIONS for each in found.cautions)


def test_looks_are_those_of_whoever_looked_then(tmp_path):
    """The last look is the report's own, and each says only what was known by then."""
    log = log_of()
    found = reported(tmp_path, log)
    last = found.uplift.looks[-1]
    assert (last.low, last.high) == (found.uplift.low, found.uplift.high)
    assert last.decisions == found.range.decisions
    assert math.exp(-max(each.evidence for each in found.uplift.looks)) == found.uplift.p_value


def test_the_price_of_exploration_is_what_replay_says_of_the_greedy_policy(tmp_path):
    """Half of the choices were uniform among three; the likeliest is always the best one."""
    rng, log, now = np.random.default_rng(0), FakeLog(SPEC), 10
    log.blobs[EMPTY.digest] = EMPTY.encoded
    pmf = np.array([[0.6, 0.2, 0.2]])
    for number in range(3000):
        now += 20
        chosen = int(rng.choice(3, p=pmf[0]))
        record = decision(
            f"e{number}",
            chosen=(chosen,),
            spec=SPEC.digest,
            catalogue=EMPTY.digest,
            scores={"cf": np.array([1, 2, np.nan], "<f4").tobytes()},
            context={"age": 1.0 if number < 1500 else 2.0, "device": "tv"},
            pmf=pmf.tobytes(),
        )
        log.append(record, at=now)
        if rng.random() < (0.8, 0.4, 0.2)[chosen]:
            log.append(RewardRecord(f"e{number}", 1.0), at=now + 1)
    log.append(TickRecord(), at=now + 10_000)
    archived(tmp_path, log.entries, SPEC, blobs=log.blobs)

    closer = look_closely(str(tmp_path), "p")
    found = closer.exploration
    assert found.low < 0.8 - (0.6 * 0.8 + 0.2 * 0.4 + 0.2 * 0.2) < found.high
    assert found.verdict == "reliable"
    question = OpeQuestion([parse_policy("greedy"), LoggingTarget()], estimators=["dr"])
    replayed = evaluate(question, policy_pieces(str(tmp_path), "p", 1)).comparisons[0].result
    assert found.price == pytest.approx(replayed.difference, rel=1e-12)

    assert (closer.coverage.candidates, closer.coverage.chosen) == (3, 3)
    (source,) = closer.sources
    assert (source.proposed, source.candidates) == (1.0, 2.0)
    assert source.chosen == source.alone == pytest.approx(0.8, abs=0.03)
    assert source.earned > source.others
    moved = {(each.what, each.name): each for each in closer.drifts}
    assert moved["context", "age"].distance == 1.0
    assert moved["context", "device"].distance == moved["candidates", ""].distance == 0.0
    assert moved["reward", ""].distance < 3 * moved["reward", ""].by_chance

    report = policy_report_of("p", read_policy(str(tmp_path), "p"), closer=closer)
    assert "context_drift" in [each.code for each in report.cautions]
    assert "likeliest" in policy_page(report)


def test_nothing_is_looked_at_where_there_is_nothing(tmp_path):
    log = log_of(0)
    archived(tmp_path, log.entries, SPEC, blobs=log.blobs)
    assert look_closely(str(tmp_path), "p") is None


def test_partitions_are_one_policy_in_the_order_of_time(tmp_path):
    """A user's decisions are spread over partitions, and the user is one unit all the same."""
    log = log_of(400, users=60)
    whole = reported(tmp_path / "whole", log)
    for number in (0, 1):
        mine = [
            entry
            for entry in log.entries
            if int(getattr(entry.record, "event_id", f"e{number}")[1:]) % 2 == number
        ]
        writer = ArchiveWriter(tmp_path / "two", f"p/partition={number}")
        write_archive(writer, mine, 3, log.blobs)
    parts = policy_report_of("p", read_policy(str(tmp_path / "two"), "p"))
    assert parts.uplift == whole.uplift
    for one, other in zip(parts.segments, whole.segments, strict=True):
        assert one.difference == pytest.approx(other.difference)
        assert one.holdout.stderr == pytest.approx(other.holdout.stderr)
    assert parts.times == whole.times
    assert parts.assignment == whole.assignment


def test_how_long_an_answer_takes_is_what_it_takes():
    """Of independent users that come evenly, four times as precise is four times as long."""
    rows = PolicyRows(spec=SPEC)
    rng, count = np.random.default_rng(0), 20_000
    rows.ms = np.arange(count) * 1000
    rows.unit = np.arange(count, dtype=np.int32)
    rows.group = rows.compared = (rng.random(count) < 0.3).astype(np.int8)
    rows.slots = np.ones(count, np.int16)
    rows.reward = (rng.random(count) < 0.1).astype(np.float64)
    uplift = uplift_of(rows, 0.05)
    assert uplift.low < 0.0 < uplift.high
    variance = uplift.policy.stderr**2 + uplift.holdout.stderr**2
    needed = MixtureSequence(uplift.worth_finding).information_to_find(uplift.worth_finding)
    expected = count * (needed * variance - 1.0)
    assert uplift.worth_finding_s == pytest.approx(expected, rel=0.05)
    assert uplift.answer_s > uplift.worth_finding_s


def test_a_few_decisions_do_not_make_a_drift():
    """In 500 logs of 40 decisions of one kind, at most a hundredth is told of one by chance."""
    rng, told = np.random.default_rng(0), 0
    for _ in range(500):
        first, newest = (Counter(rng.choice(["tv", "pc", "phone"], 20).tolist()) for _ in range(2))
        drift = Drift("context", "device", *distance_of(first, newest))
        told += bool(list(cautions_beside([drift], [])))
    assert told <= 5
    assert distance_of({"tv": 50}, {"pc": 50})[0] == 1.0
    assert distance_of({"tv": 50}, {}) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("old", "new", "distance"),
    [([0, 0, 0, 1], [0, 1, 1, 1], 0.5), ([2], [2], 0.0), (range(50), range(50, 100), 1.0)],
)
def test_numbers_of_which_there_are_two_drift_as_those_of_which_there_are_many(old, new, distance):
    """A reward that is 0 or 1, and a flag that callers send as a number."""
    found, _ = distance_of_numbers(np.array(old, np.float64), np.array(new, np.float64))
    assert found == distance
