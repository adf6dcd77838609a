import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.fakes import SALT, FakeLog, fresh_ranker

from bandits.decide import PURPOSE_ACTION, uniform
from bandits.exploration import EpsilonGreedy, Greedy, Softmax, VwExploration
from bandits.kernels.actions import draw
from bandits.log.join import JoinRule
from bandits.log.records import (
    BuildRecord,
    DecisionRecord,
    LogEntry,
    PinRecord,
    RewardRecord,
    SpecRecord,
    TickRecord,
)
from bandits.log.versions import FOLD
from bandits.ridge.config import RidgeConfig
from bandits.vw.config import VwConfig
from policies.candidate_pool import Pool
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue
from policies.ranker import Ranker
from policies.requests import ActionRequest, RankRequest
from policies.spec import PolicySpec
from simulator.doctor.checks.entries import STANDSTILL, Clock, Undecodable
from simulator.doctor.checks.findings import CHANCE, exceeds, grade_share
from simulator.doctor.checks.freshness import LiveStatus, Staleness
from simulator.doctor.checks.propensities import ActionTest, Repeats, chi_square_tail
from simulator.doctor.checks.references import ReferencedBlobs
from simulator.doctor.checks.rewards import Rewards, SilentStretch
from simulator.doctor.examine import examine

ACTIONS = [ActionRequest(name) for name in "abc"]


def severities(check) -> dict[str, str]:
    return {finding.check: finding.severity for finding in check.findings()}


def fed(check, ids: list[str]):
    for entry_id in ids:
        check.add(LogEntry(entry_id, TickRecord()))
    return check


def decision(event_id: str, time_ms: int) -> LogEntry:
    pool = Pool(("a", "b"), None, {})
    record = fresh_ranker(PolicySpec("home")).decide(RankRequest(event_id=event_id), pool)
    return LogEntry(f"{time_ms}-0", record)


@given(st.integers(1, 60), st.integers(0, 60), st.sampled_from([0.01, 0.1, 0.2, 0.5]))
def test_a_share_exceeds_its_limit_only_if_chance_would_not(total, count, rate):
    """The bound never understates the binomial tail, and rarely overstates it a hundredfold."""
    count = min(count, total)
    tail = sum(
        math.comb(total, k) * rate**k * (1 - rate) ** (total - k) for k in range(count, total + 1)
    )
    if exceeds(count, total, rate):
        assert tail <= CHANCE * (1 + 1e-9)
    if tail < CHANCE / 100:
        assert exceeds(count, total, rate)


def test_a_few_bad_rewards_warn_and_many_fail():
    assert grade_share(0, 0, warn=0.01, fail=0.1) == "ok"
    assert grade_share(1, 1, warn=0.01, fail=0.1) == "warning"
    assert grade_share(20, 100, warn=0.01, fail=0.1) == "warning"  # chance, perhaps
    assert grade_share(200, 1000, warn=0.01, fail=0.1) == "failure"
    assert grade_share(900, 1000, warn=0.01, fail=None) == "warning"


def test_the_chi_square_tail_is_that_of_the_tables():
    """Abramowitz & Stegun, table 26.8."""
    for degrees, statistic, tail in [
        (2, 9.21034, 0.01),
        (10, 18.3070, 0.05),
        (20, 37.5662, 0.01),
        (20, 45.3147, 0.001),
    ]:
        assert chi_square_tail(statistic, degrees) == pytest.approx(tail, rel=1e-4)
    assert chi_square_tail(0.0, 20) == 1.0


def test_choices_exactly_as_often_as_expected_lose_every_bet():
    test = ActionTest()
    for number in range(100):
        test.add(["a", "b"], np.array([0.5, 0.5]), number % 2)
    finding = test.finding()
    assert (finding.severity, finding.figures["p_value"], finding.figures["mean_weight"]) == (
        "ok",
        1.0,
        1.0,
    )
    assert ActionTest().finding().severity == "ok"


def test_an_event_id_is_new_once():
    repeats, record = Repeats(), decision("e", 1).record
    other = decision("f", 1).record
    assert [repeats.first(record), repeats.first(other), repeats.first(record)] == [
        True,
        True,
        False,
    ]


def test_time_that_does_not_move_forward_is_found():
    assert severities(fed(Clock(), ["1-0", "1-1", "2-0"])) == {"clock": "ok"}
    assert severities(fed(Clock(), ["1-0", "2-0", "1-5"])) == {"clock": "failure"}
    assert severities(fed(Clock(), ["1-0", "1-0"])) == {"clock": "failure"}


def test_a_clock_that_was_put_back_stands_still():
    """Redis then gives out one millisecond with ever higher sequence numbers."""
    assert severities(fed(Clock(), [f"7-{i}" for i in range(STANDSTILL)])) == {"clock": "ok"}
    assert severities(fed(Clock(), [f"7-{i}" for i in range(STANDSTILL + 1)])) == {
        "clock": "failure"
    }


def test_an_entry_of_the_future_is_found():
    assert severities(fed(Clock(now_ms=1_000_000), ["1059999-0"])) == {"clock": "ok"}
    assert severities(fed(Clock(now_ms=1_000_000), ["1060001-0"])) == {"clock": "failure"}


@pytest.mark.parametrize(("bad", "severity"), [(0, "ok"), (1, "warning"), (2, "failure")])
def test_undecodable_entries_are_counted(bad, severity):
    assert severities(fed(Undecodable(lambda: bad), [f"{i}-0" for i in range(10_000)])) == {
        "undecodable": severity
    }


def test_silence_is_what_whole_windows_went_without():
    gap = SilentStretch()
    for second in range(1000):
        gap.decision(1000 * second, window_ms=10_000)
        if second < 600 and second % 2:
            gap.reward(1000 * second + 1, window_ms=10_000)
    figures = gap.finding().figures
    # of the last 400 decisions, 10 may still be rewarded
    assert 380 <= figures["silent_decisions"] <= 391
    assert gap.finding().severity == "failure"


def test_rewards_that_come_at_the_end_of_each_window_are_no_silence():
    gap = SilentStretch()
    for second in range(1000):
        gap.decision(1000 * second, window_ms=10_000)
        if second % 10 == 9:
            gap.reward(1000 * second + 1, window_ms=10_000)
    assert gap.finding().figures["silent_decisions"] == 0


def live(**changes) -> LiveStatus:
    fields = {
        "position": "100000-0",
        "head": "100000-0",
        "end": "100000-0",
        "clock_ms": 900_000,
        "running": True,
    }
    return LiveStatus(**{**fields, "learned": 5, "snapshots": 2, **changes})


@pytest.mark.parametrize(
    ("changes", "lag", "snapshot"),
    [
        ({}, "ok", "ok"),
        ({"position": "99999-0"}, "failure", "ok"),
        ({"position": "99999-0", "clock_ms": 120_000}, "warning", "ok"),
        ({"position": "99999-0", "running": False}, "ok", "ok"),  # nobody is there to fall behind
        ({"position": None, "head": None}, "failure", "failure"),
        ({"head": "40000-0"}, "ok", "failure"),
    ],
)
def test_how_far_a_live_policy_is_behind(changes, lag, snapshot):
    check = Staleness(live(**changes), lambda: "50000-0")
    assert severities(check) == {"learner_lag": lag, "snapshot_staleness": snapshot}


def test_what_comes_after_a_long_silence_is_not_late_when_it_comes():
    """A learner is behind since the first entry that it lacks, a snapshot since the first lesson."""
    taught = ["50000-0"]
    check = Staleness(live(end="899000-0", head="50000-0"), lambda: taught[-1])
    check.add(LogEntry("50000-0", TickRecord()))
    taught.append("898000-0")
    check.add(LogEntry("898000-0", TickRecord()))
    check.add(LogEntry("899000-0", TickRecord()))
    assert severities(check) == {"learner_lag": "ok", "snapshot_staleness": "ok"}
    lag, stale = check.findings()
    assert (lag.figures["lag_s"], stale.figures["stale_s"]) == (2.0, 2.0)

    # Where the log was not read from there on, nobody knows since when something is lacking.
    check = Staleness(live(end="899000-0", head="50000-0"), lambda: "898000-0")
    check.add(LogEntry("898000-0", TickRecord()))
    assert severities(check) == {"learner_lag": "failure", "snapshot_staleness": "failure"}


def test_a_pinned_snapshot_is_old_by_intention():
    check = Staleness(live(head="40000-0"), lambda: "50000-0")
    check.add(LogEntry("60000-0", PinRecord("s")))
    assert severities(check)["snapshot_staleness"] == "ok"
    check.add(LogEntry("60001-0", PinRecord(None)))
    assert severities(check)["snapshot_staleness"] == "failure"


def test_a_log_without_decisions_cannot_be_examined():
    report = examine([LogEntry("1-0", TickRecord())], policy="home")
    assert report.trusted is None
    assert report.findings[0].message == "the log holds no decisions"


def test_a_holdout_and_a_slate_derive_again():
    spec = PolicySpec("home", join=JoinRule(window_s=1))
    log, ranker = FakeLog(spec), fresh_ranker(spec)
    for number in range(20):
        request = RankRequest(event_id=f"e{number}", actions=ACTIONS, slots=2)
        pool = Pool(("a", "b", "c"), None, {})
        log.append(ranker.decide(request, pool), at=10 + number)
    snapshot = ranker.serving.snapshot
    report = examine(
        log.entries, salts={"salt": SALT}, stored=ReferencedBlobs(log.blobs.get, lambda _: snapshot)
    )
    figures = {finding.check: finding.figures for finding in report.findings}
    assert figures["derivations"]["same_bytes"] == 20
    assert figures["weights"]["draws"] == 40
    assert report.trusted


def test_blobs_whose_bytes_are_not_those_of_their_digest_are_as_good_as_gone():
    spec = PolicySpec("home")
    log, ranker = FakeLog(spec), fresh_ranker(spec)
    record = ranker.decide(RankRequest(event_id="e"), Pool(("a", "b"), None, {}))
    assert isinstance(record, DecisionRecord)
    log.append(record, at=10)
    log.blobs[spec.digest] += b" "
    report = examine(log.entries, salts={"salt": SALT}, stored=ReferencedBlobs(log.blobs.get))
    assert [f.check for f in report.findings if f.severity == "failure"] == ["gaps"]


@pytest.mark.parametrize("actions", [1, 2, 30])
@pytest.mark.parametrize("decisions", [1, 2])
@pytest.mark.parametrize("certain", [False, True])
def test_the_shortest_logs_can_be_examined(actions, decisions, certain):
    spec = PolicySpec("home", join=JoinRule(window_s=1), floor=0.0 if certain else 0.01)
    log, pmf = FakeLog(spec), np.full(actions, 1 / actions)
    if certain:
        pmf = np.eye(actions)[0]
    ids = [f"a{k}" for k in range(actions)]
    for number in range(decisions):
        chosen = draw(pmf, uniform(SALT, "home", f"e{number}", 0, PURPOSE_ACTION))
        record = DecisionRecord(
            f"e{number}",
            "home",
            spec.digest,
            "s",
            Catalogue().digest,
            {},
            ids,
            None,
            {},
            pmf.tobytes(),
            [chosen],
        )
        log.append(record, at=10 + number)
    report = examine(
        log.entries, salts={"salt": SALT}, stored=ReferencedBlobs(log.blobs.get), live=live()
    )
    assert {f.check for f in report.findings if f.severity == "failure"} <= {
        "exploration",
        "learner_lag",
    }
    assert report.findings[0].figures["drawn_again"] == decisions


def living(spec: PolicySpec, rounds: int = 900) -> FakeLog:
    """A log of a policy that decides every 100 ms, is rewarded, learns, and is published."""
    log, ranker = FakeLog(spec), Ranker(spec, [], salt=SALT)
    fold, applied = Fold(log.blobs.__getitem__, salt=SALT), 0
    rng = np.random.default_rng(3)
    for number in range(rounds):
        now = 1000 + 100 * number
        if number % 50 == 0:
            fold.apply(log.entries[applied:])
            applied = len(log.entries)
            ranker.serve(f"s{number}", fold.snapshot())
        record = ranker.decide(RankRequest(event_id=f"e{number}"), Pool(("a", "b", "c"), None, {}))
        log.append(record, at=now)
        if rng.random() < (0.1, 0.8, 0.3)[record.chosen[0]]:
            log.append(RewardRecord(f"e{number}", 1.0), at=now + 50)
    return log


def uniformity(spec: PolicySpec) -> tuple[str, float | str | None]:
    log = living(spec)
    report = examine(log.entries, salts={"salt": SALT}, stored=ReferencedBlobs(log.blobs.get))
    (finding,) = [each for each in report.findings if each.check == "uniformity"]
    return finding.severity, finding.figures.get("uniform")


SOON = JoinRule(window_s=1)
REGCB, PLAIN = VwConfig("--cb_explore_adf -b 10 --regcb"), VwConfig("--cb_explore_adf -b 10")


@pytest.mark.parametrize(
    "spec",
    [
        # as a build before this let it in
        PolicySpec("home", learner=REGCB, exploration=VwExploration(), join=SOON),
        PolicySpec(
            "home",
            learner=VwConfig("--cb_explore_adf -b 10"),
            exploration=Greedy(),
            use=["context"],
            join=SOON,
        ),
        PolicySpec("home", learner=RidgeConfig(action_bias=False), use=["features"], join=SOON),
        PolicySpec(
            "home",
            learner=RidgeConfig(action_bias=False),
            exploration=Softmax(),
            use=["scores"],
            join=SOON,
        ),
    ],
    ids=["regcb", "vw sees no action", "no features", "no scores"],
)
def test_a_policy_that_stays_uniform_while_it_learns_is_found(spec):
    severity, uniform = uniformity(spec)
    assert severity == "warning"
    assert uniform >= 200


@pytest.mark.parametrize(
    ("spec", "severity"),
    [
        (PolicySpec("home", join=SOON), "ok"),
        (
            PolicySpec(
                "home", learner=VwConfig("--cb_explore_adf -b 10"), exploration=Softmax(), join=SOON
            ),
            "ok",
        ),
        (PolicySpec("home", floor=1.0, join=SOON), "nothing"),
        (PolicySpec("home", exploration=EpsilonGreedy(1.0), join=SOON), "nothing"),
        (PolicySpec("home", join=JoinRule(window_s=3600)), "nothing"),  # nothing is learned yet
    ],
    ids=["lints", "vw", "floor", "epsilon", "long window"],
)
def test_a_policy_that_learns_or_is_uniform_by_intention_is_not_accused(spec, severity):
    assert uniformity(spec)[0] == severity


def test_signals_are_counted_and_one_that_nobody_weighs_or_sends_is_found():
    """Half of the rewards name a signal of the spec, some one that it does not weigh."""
    spec = PolicySpec("home", signals={"click": 1.0, "purchase": 10.0})
    checked = Rewards(ReferencedBlobs({spec.digest: spec.encoded}.get))
    made = decision("e", 0).record
    entries: list = [BuildRecord({"fold": str(FOLD)}), SpecRecord(spec.digest, "s")]
    for number in range(1_000):
        entries.append(replace(made, event_id=f"e{number}", spec=spec.digest))
        entries.append(RewardRecord(f"e{number}", 0.5, signal="click"))
        if number % 10 == 0:
            entries.append(RewardRecord(f"e{number}", 1.0, signal="share"))
    for number, record in enumerate(entries):
        checked.add(LogEntry(f"{1 + number}-0", record))

    found = {finding.check: finding for finding in checked.findings()}
    assert found["unknown_signals"].severity == "failure"
    assert found["unknown_signals"].figures["unknown_signal"] == 100
    assert found["signals"].severity == "warning"
    assert found["signals"].figures == {"click_count": 1_000, "click_mean": 0.5}
    assert "purchase, which never came" in found["signals"].message
