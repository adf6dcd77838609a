"""A check that looked at nothing does not say that all is well."""

import importlib.util
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from support.fakes import SALT, FakeLog, FakeSource, fresh_ranker

from bandits.decide import PURPOSE_ACTION, uniform
from bandits.errors import ReplayError
from bandits.exploration import EpsilonGreedy
from bandits.kernels.actions import draw
from bandits.log.join import JoinRule
from bandits.log.records import DecisionRecord, LogEntry, RewardRecord, SpecRecord, TickRecord
from benchmarks.table import Table
from policies.candidate_pool import Pool
from policies.items.catalogue import Catalogue
from policies.requests import ActionRequest, RankRequest
from policies.spec import ArtifactSource, Holdout, PolicySpec
from serve_app.cli.doctor.command import exit_status as status
from simulator.doctor.audit import audit
from simulator.doctor.checks.derivations import Derivations
from simulator.doctor.checks.entries import Clock, Undecodable
from simulator.doctor.checks.exploration import Exploration, Uniformity
from simulator.doctor.checks.findings import DoctorReport
from simulator.doctor.checks.freshness import (
    LiveStatus,
    PriorReport,
    Staleness,
    StalledLearning,
)
from simulator.doctor.checks.propensities import Draws, FrequencyTest, Propensities
from simulator.doctor.checks.references import ReferencedBlobs
from simulator.doctor.checks.rewards import Rewards, SilentStretch
from simulator.doctor.checks.sources import Sources
from simulator.doctor.examine import combine_reports, examine, unexaminable_report
from simulator.learners.rejection import rejection
from simulator.logs.rows import LoggedDecision, MemoryPiece

SPEC = PolicySpec("home", join=JoinRule(window_s=1))
ACTIONS = [ActionRequest("a"), ActionRequest("b")]


def log_of(
    count: int,
    *,
    ids: tuple[str, ...] = ("a", "b", "c"),
    spec: PolicySpec = SPEC,
    settled: bool = False,
):
    """Decisions as a replica makes them, each by its event_id.

    If ``settled``, with rewards and past their windows.
    """
    log, ranker = FakeLog(spec), fresh_ranker(spec)
    for number in range(count):
        record = ranker.decide(RankRequest(event_id=f"e{number}"), Pool(ids, None, {}))
        log.append(record, at=10 + number)
        if settled:
            log.append(RewardRecord(f"e{number}", float(number % 2)), at=10 + number)
    if settled:
        log.append(TickRecord(), at=100_000)
    return log, ranker.serving.snapshot


def severities(report: DoctorReport) -> dict[str, str]:
    return {finding.check: finding.severity for finding in report.findings}


def live() -> LiveStatus:
    return LiveStatus(
        end="0-0", clock_ms=0, running=True, position="0-0", head="0-0", learned=0, snapshots=0
    )


CHECKS = {
    "draws": lambda: Draws({}),
    "derivations": lambda: Derivations(ReferencedBlobs(), salts=(), build=None, limit=9),
    "weights, action_weights, frequencies": Propensities,
    "exploration": Exploration,
    "uniformity": lambda: Uniformity(ReferencedBlobs()),
    "join_rate, late_rewards, orphan_rewards, unactivated_rewards, invalid_rewards,"
    " unknown_signals, duplicate_rewards": (lambda: Rewards(ReferencedBlobs())),
    "reward_flow, constant_rewards": (lambda: Rewards(ReferencedBlobs())),
    "clock": Clock,
    "snapshot_staleness": lambda: Staleness(live(), lambda: None),
    "prior": lambda: PriorReport(live()),
    "learning, refused": lambda: StalledLearning(replace(live(), position=None)),
}


@pytest.mark.parametrize("names", CHECKS)
def test_of_nothing_no_check_says_that_it_is_well(names):
    """Each check by itself, of an empty log; and again of entries that are none of its business."""
    for entries in ([], [LogEntry("5-0", SpecRecord("s", "salt"))]):
        check = CHECKS[names]()
        for entry in entries:
            check.add(entry)
        found = {finding.check: finding for finding in check.findings()}
        for name in names.split(", "):
            assert found[name].severity == "nothing", name
            assert found[name].message.startswith("nothing to check: ")
            assert found[name].action


def test_no_check_of_the_doctor_was_forgotten():
    """Every check of the smallest log is among those above, or always has something to check."""
    log, _ = log_of(1)
    report = examine(
        log.entries, salts={"salt": SALT}, stored=ReferencedBlobs(log.blobs.get), live=live()
    )
    # a decision names blobs, and is an entry; there is always a lag
    always = {"gaps", "undecodable", "learner_lag"}
    always |= {"learning", "refused"}  # so there is always a learner's word
    ridge = {"columns"}  # only of such a policy; without its snapshots there is nothing to check
    assert severities(report)["columns"] == "nothing"
    assert (
        set(severities(report))
        == {name for names in CHECKS for name in names.split(", ")} | always | ridge
    )


def test_one_case_is_enough_to_say_something():
    log, snapshot = log_of(40, settled=True)
    stored = ReferencedBlobs(log.blobs.get, lambda _: snapshot)
    report = examine(log.entries, salts={"salt": SALT}, stored=stored)
    assert report.trusted
    assert report.unchecked == ["frequencies", "uniformity"]


@pytest.mark.parametrize(
    ("salts", "snapshots", "count", "trusted", "exit_status"),
    [
        (True, True, 30, True, 0),
        (True, False, 30, True, 0),
        (False, True, 30, True, 0),
        (False, False, 30, None, 3),
        (False, False, 1, None, 3),
        (False, False, 1200, True, 0),  # enough draws to compare their frequencies
    ],
)
def test_cron_can_tell_well_from_nothing_was_checked(salts, snapshots, count, trusted, exit_status):
    log, snapshot = log_of(count)
    stored = ReferencedBlobs(log.blobs.get, lambda _: snapshot if snapshots else None)
    report = examine(
        log.entries, policy="home", salts={"salt": SALT} if salts else {}, stored=stored
    )
    assert (report.trusted, status(report)) == (trusted, exit_status)
    assert status(report, ["derivations"]) == (0 if snapshots and trusted else 3)
    assert status(report, ["no such check"]) == 3
    assert status(unexaminable_report("home", "why", "do")) == 2


def test_a_partition_without_decisions_is_no_proof_of_it():
    log, snapshot = log_of(30)
    good = examine(
        log.entries, salts={"salt": SALT}, stored=ReferencedBlobs(log.blobs.get, lambda _: snapshot)
    )
    empty = examine([LogEntry("1-0", TickRecord())])
    report = combine_reports("home", [good, empty])
    assert (report.trusted, report.decisions) == (True, 30)
    assert severities(report)["examination"] == "nothing"
    assert "partition 1: nothing to check: the log holds no decisions" in [
        each.message for each in report.findings
    ]
    assert combine_reports("home", [empty, empty]).trusted is None
    assert status(combine_reports("home", [empty, empty])) == 2
    bare = examine(log.entries, stored=ReferencedBlobs(log.blobs.get))
    assert combine_reports("home", [bare, bare]).trusted is None
    both = combine_reports("home", [good, bare])
    assert (both.trusted, severities(both)["draws"]) == (True, "ok")
    assert (
        "partition 1: nothing to check"
        in next(f for f in both.findings if f.check == "draws").message
    )


@pytest.mark.parametrize("ids", [("a",), ("a", "b")])
def test_choices_that_were_certain_prove_no_probability(ids):
    log = FakeLog(SPEC)
    pmf = np.eye(len(ids))[0]
    for number in range(50):
        chosen = draw(pmf, uniform(SALT, "home", f"e{number}", 0, PURPOSE_ACTION))
        record = DecisionRecord(
            f"e{number}",
            "home",
            SPEC.digest,
            "s",
            Catalogue().digest,
            {},
            list(ids),
            None,
            {},
            pmf.tobytes(),
            [chosen],
        )
        log.append(record, at=10 + number)
    found = severities(examine(log.entries, stored=ReferencedBlobs(log.blobs.get)))
    assert {found[name] for name in ("weights", "action_weights", "frequencies")} == {"nothing"}


def test_an_audit_of_nothing_is_not_sound():
    assert not audit([], salt=SALT).sound
    log, _ = log_of(3)
    assert audit(
        [entry.record for entry in log.entries if isinstance(entry.record, DecisionRecord)],
        salt=SALT,
    ).sound


def test_tests_of_few_say_that_they_are_few():
    few = FrequencyTest()
    for _ in range(FrequencyTest.BINS * FrequencyTest.PER_BIN - 1):
        few.add(np.array([0.5, 0.5]), 0)
    assert few.finding().severity == "nothing"
    few.add(np.array([0.5, 0.5]), 0)
    assert few.finding().severity == "failure"
    assert SilentStretch().finding().severity == "nothing"
    assert next(iter(Undecodable(lambda: 0).findings())).severity == "ok"


def test_a_replay_by_rejection_that_accepted_nothing_has_no_value():
    row = LoggedDecision("e", {}, ("a", "b"), 0, 0.5, 1.0)
    with pytest.raises(ReplayError, match=r"none of \d rows was accepted"):
        rejection(SPEC, [MemoryPiece([msgspec_replace(row, f"e{n}") for n in range(3)])], bound=1e9)


def msgspec_replace(row: LoggedDecision, event_id: str) -> LoggedDecision:
    return LoggedDecision(
        event_id, row.context, row.action_ids, row.chosen, row.propensity, row.reward
    )


# --- the control
# ------------------------------------------------------------


def held_out(*, served: int, unserved: int, marked: bool = True) -> FakeLog:
    spec = PolicySpec(
        "home",
        sources=[ArtifactSource("cf"), ArtifactSource("deep")],
        artifact="a",
        holdout=Holdout(1.0, "cf"),
    )
    log, ranker = FakeLog(spec), fresh_ranker(spec)
    nan = np.full(2, np.nan, np.float32)
    for number in range(served + unserved):
        scores = {
            "deep": np.ones(2, np.float32),
            "cf": np.array([1, 2], np.float32) if number < served else nan,
        }
        failed = None if number < served or not marked else {"cf": "status 500"}
        pool = Pool(("a", "b"), None, scores, failed)
        record = ranker.decide(RankRequest(event_id=f"e{number}"), pool)
        assert record.unserved is (number >= served)
        log.append(
            record if marked else msgspec.structs.replace(record, unserved=False), at=10 + number
        )
    return log


@pytest.mark.parametrize(
    ("served", "unserved", "marked", "severity"),
    [
        (500, 0, True, "ok"),
        (5222, 189, True, "warning"),
        (999, 1, True, "ok"),
        (5, 5, True, "warning"),
        (999, 1, False, "warning"),
    ],
)
def test_a_control_that_is_something_else_is_found_also_in_logs_that_do_not_say_so(
    served, unserved, marked, severity
):
    log = held_out(served=served, unserved=unserved, marked=marked)
    check = Sources(ReferencedBlobs(log.blobs.get))
    for entry in log.entries:
        check.add(entry)
    found = {finding.check: finding for finding in check.findings()}
    figures = found["holdout"].figures
    assert (figures["held_out"], figures["unserved"]) == (served + unserved, unserved)
    assert figures["unmarked"] == (0 if marked else unserved)
    assert found["holdout"].severity == severity
    if unserved and marked:
        assert "status 500" in found["sources"].message
    else:
        assert found["sources"].severity == "ok"


async def test_sources_that_propose_nothing_and_mixtures_that_had_none_are_counted():
    spec = PolicySpec(
        "home",
        kind="mixture",
        sources=[ArtifactSource("cf"), ArtifactSource("deep")],
        artifact="a",
        exploration=EpsilonGreedy(0.1),
    )
    log, ranker = (
        FakeLog(spec),
        fresh_ranker(spec, [FakeSource("cf", {}), FakeSource("deep", {"a": 1.0, "b": 0.5})]),
    )
    for number in range(20):
        log.append(await ranker.rank(RankRequest(event_id=f"s{number}")), at=10)
        if number < 5:
            log.append(
                await ranker.rank(RankRequest(event_id=f"x{number}", actions=ACTIONS)), at=10
            )
    check = Sources(ReferencedBlobs(log.blobs.get))
    for entry in log.entries:
        check.add(entry)
    (finding,) = check.findings()
    assert finding.severity == "warning"
    assert (
        finding.figures["empty cf"],
        finding.figures["uncredited"],
        finding.figures["decisions"],
    ) == (20, 5, 25)
    assert "cf proposed nothing in 20" in finding.message
    assert "5 decisions of a mixture had no source to choose by" in finding.message


def test_a_spec_that_holds_out_nobody_who_came_says_so():
    spec = PolicySpec("home", holdout=Holdout(0.0))
    log, _ = log_of(10, spec=spec)
    check = Sources(ReferencedBlobs(log.blobs.get))
    for entry in log.entries:
        check.add(entry)
    assert {finding.check: finding.severity for finding in check.findings()} == {
        "holdout": "nothing"
    }


async def test_learning_leaves_the_held_out_out_whether_their_policy_served_them_or_not():
    for source in (FakeSource("cf", {"a": 1.0, "b": 0.5}), FakeSource("cf", {})):
        spec = PolicySpec(
            "home",
            sources=[ArtifactSource("cf"), ArtifactSource("deep")],
            artifact="a",
            holdout=Holdout(1.0, "cf"),
            join=JoinRule(window_s=1),
        )
        log, ranker = FakeLog(spec), fresh_ranker(spec, [source, FakeSource("deep", {"b": 1.0})])
        log.append(await ranker.rank(RankRequest(event_id="e")), at=10)
        log.append(RewardRecord("e", 1.0), at=11)
        log.append(TickRecord(), at=5000)
        assert log.fold().learned == 0


# --- scripts
# ------------------------------------------------------------


def loaded(path: str):
    """A script of the repository, as a module."""
    where = Path(__file__).parents[4] / path
    sys.path.insert(0, str(where.parent))
    try:
        spec = importlib.util.spec_from_file_location(f"script_{where.stem}", where)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(where.parent))
    return module


@pytest.mark.parametrize(
    ("kills", "events", "exit_status"), [(0, 5, 3), (3, 0, 3), (0, 0, 3), (3, 5, 0)]
)
def test_chaos_without_kills_or_without_events_has_shown_nothing(
    kills, events, exit_status, capsys
):
    chaos = loaded("tests/chaos/run.py")
    promised = chaos.Promised()
    promised.decisions.update({f"d{n}": 0.0 for n in range(events)})
    promised.rewards.update({f"r{n}": 0.0 for n in range(events)})
    promised.items.update({f"i{n}": 0.0 for n in range(events)})
    damage = chaos.Damage(
        Counter({"leader": kills}) if kills else Counter(), recoveries=[1.0] * kills
    )
    decided = dict.fromkeys(promised.decisions, 1)
    kept = chaos.Kept([], twice=0, after_erasure=0, not_erased=0, apart=0)
    result = chaos.Result(decided, set(promised.rewards), set(promised.items), events, kept)
    assert chaos._report(damage, promised, result, "identical: all 3", 0) == exit_status
    assert ("nothing to check" in capsys.readouterr().out.splitlines()[-1]) is (exit_status == 3)


def test_a_table_of_no_figures_has_reached_no_goal():
    table = Table()
    assert table.finish(None) == 3
    table.add("x", "", 1.0, at_least=0.5)
    assert table.finish(None) == 0
