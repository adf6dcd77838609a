"""The doctor finds each way in which a log goes wrong, by name, and trusts a log that is right.

All seeds are fixed. A true log fails with a probability of at most 3e-4 by the tests of chance;
whatever else fails a log exceeds its limit by more than chance explains (1e-4).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest
from support.strategies import THOROUGH
from support.towns import BASE, ITEMS, POOL, SPECS, Towns, log_of

from bandits.decide import PURPOSE_ACTION, uniform
from bandits.exploration import Greedy
from bandits.kernels.actions import draw
from bandits.log.codec import digest
from bandits.log.join import JoinRule
from bandits.log.records import (
    BuildRecord,
    CatalogueRecord,
    DecisionRecord,
    LogEntry,
    RewardRecord,
    SpecRecord,
)
from bandits.types import Snapshot
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec
from simulator.doctor.audit import FALSE_ALARM, WeightTest
from simulator.doctor.checks.findings import DoctorReport
from simulator.doctor.checks.propensities import ActionTest, FrequencyTest, chi_square_tail
from simulator.doctor.checks.references import ReferencedBlobs
from simulator.doctor.examine import examine
from simulator.worlds.loop import SALT, Timing, run_loop

SHORT = msgspec.structs.replace(BASE, join=JoinRule(window_s=2))


@dataclass(eq=False)
class Kept:
    """A log with what is stored beside it."""

    spec: PolicySpec
    log: list[LogEntry]
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    salts: dict[str, bytes] = field(default_factory=lambda: {digest(SALT): SALT})

    def report(
        self, log: list[LogEntry] | None = None, *, gone: str = "", derive: bool = False
    ) -> DoctorReport:
        """``derive``: with the snapshots, so that PMFs can be derived again."""
        blobs = {self.spec.digest: self.spec.encoded, Catalogue().digest: Catalogue().encoded}
        blobs.pop(gone, None)
        snapshots = self.snapshots if derive else {}
        stored = ReferencedBlobs(blobs.get, snapshots.get, lambda: snapshots)
        return examine(self.log if log is None else log, salts=self.salts, stored=stored)


def run(kind: str, rounds: int, seed: int = 1, **options) -> Kept:
    snapshots: dict[str, Snapshot] = {}
    log = log_of(
        kind, rounds, seed, publish_every=100, on_snapshot=snapshots.__setitem__, **options
    )
    return Kept(options.get("spec") or SPECS[kind], log, snapshots)


def failures(report: DoctorReport) -> set[str]:
    assert report.trusted is not any(finding.severity == "failure" for finding in report.findings)
    return {finding.check for finding in report.findings if finding.severity == "failure"}


def changed(
    log: list[LogEntry], change: Callable[[DecisionRecord], DecisionRecord]
) -> list[LogEntry]:
    """The log with each decision changed."""
    return [
        LogEntry(e.id, change(e.record)) if isinstance(e.record, DecisionRecord) else e for e in log
    ]


@pytest.fixture(scope="module")
def honest() -> Kept:
    spec = msgspec.structs.replace(SPECS["softmax"], join=SHORT.join)
    return run("softmax", 2500, spec=spec)


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("seed", [2, 3])
def test_a_healthy_log_is_trusted(kind, seed):
    report = run(kind, 400, seed).report(derive=True)
    assert report.trusted, [f for f in report.findings if f.severity == "failure"]
    assert report.decisions == 400
    figures = {finding.check: finding.figures for finding in report.findings}
    assert figures["draws"]["drawn_again"] == 400
    assert figures["derivations"]["same_bytes"] == figures["derivations"]["checked"] == 400


def test_nothing_is_found_in_the_honest_log_that_the_others_are_made_of(honest):
    report = honest.report(derive=True)
    assert {finding.severity for finding in report.findings} == {"ok"}


def other_temperature(record: DecisionRecord) -> DecisionRecord:
    sharper = record.pmfs() ** 1.3
    return msgspec.structs.replace(record, pmf=(sharper / sharper.sum()).tobytes())


def test_the_logged_pmf_of_another_temperature(honest):
    log = changed(honest.log, other_temperature)
    found = failures(honest.report(log, derive=True))
    assert found == {"draws", "derivations", "weights", "action_weights", "frequencies"}


def test_without_the_salt_and_the_snapshots_the_tests_of_chance_still_find_it(honest):
    stranger = Kept(honest.spec, changed(honest.log, other_temperature), salts={})
    report = stranger.report()
    assert failures(report) == {"weights", "action_weights", "frequencies"}
    assert next(f for f in report.findings if f.check == "draws").severity == "nothing"
    assert Kept(honest.spec, honest.log, salts={}).report().trusted


def test_a_best_action_swapped_in_behind_the_policys_back_in_one_decision_of_a_hundred(honest):
    numbers = iter(range(10**9))

    def swap(record: DecisionRecord) -> DecisionRecord:
        best = int(record.pmfs()[0].argmax())
        return (
            msgspec.structs.replace(record, chosen=[best]) if next(numbers) % 100 == 0 else record
        )

    assert failures(honest.report(changed(honest.log, swap))) == {"draws"}


def test_an_action_that_is_always_hidden_and_replaced_by_another(honest):
    """Found without the salt, and named."""
    hidden = ITEMS[2]

    def replace(record: DecisionRecord) -> DecisionRecord:
        if record.action_ids[record.chosen[0]] != hidden:
            return record
        return msgspec.structs.replace(record, chosen=[3])

    stranger = Kept(honest.spec, changed(honest.log, replace), salts={})
    report = stranger.report()
    assert "action_weights" in failures(report)
    found = next(f for f in report.findings if f.check == "action_weights")
    assert found.figures["worst"] in {hidden, ITEMS[3]}


def test_choices_drawn_by_another_salt(honest):
    honest_salt = Kept(honest.spec, honest.log, honest.snapshots, {digest(b"another"): b"another"})
    assert failures(honest_salt.report()) == {"draws"}


def test_a_log_that_names_another_salt_than_was_given_is_not_accused(honest):
    named = [
        LogEntry(e.id, SpecRecord(e.record.digest, digest(SALT)))
        if isinstance(e.record, SpecRecord)
        else e
        for e in honest.log
    ]
    wrong = Kept(honest.spec, named, honest.snapshots, {digest(b"another"): b"another"})
    assert failures(wrong.report()) == set()
    assert next(f for f in wrong.report().findings if f.check == "draws").severity == "nothing"


def test_decisions_that_name_another_snapshot_than_made_them(honest):
    names = list(honest.snapshots)
    wrong = dict(zip(names, names[9:] + names[:9], strict=True))
    log = changed(
        honest.log, lambda r: msgspec.structs.replace(r, snapshot_id=wrong[r.snapshot_id])
    )
    assert failures(honest.report(log, derive=True)) == {"derivations"}


def test_decisions_missing_from_the_log(honest):
    log = [
        e
        for i, e in enumerate(honest.log)
        if not (isinstance(e.record, DecisionRecord) and i % 3 == 0)
    ]
    assert failures(honest.report(log)) == {"join_rate", "orphan_rewards"}


def test_rewards_that_stop_coming(honest):
    half = honest.log[len(honest.log) // 2].time_ms
    log = [e for e in honest.log if not (isinstance(e.record, RewardRecord) and e.time_ms > half)]
    assert failures(honest.report(log)) == {"reward_flow"}


def test_rewards_that_name_what_was_not_chosen(honest):
    numbers = iter(range(10**9))

    def misname(entry: LogEntry) -> LogEntry:
        if isinstance(entry.record, RewardRecord) and next(numbers) % 10 == 0:
            return LogEntry(entry.id, msgspec.structs.replace(entry.record, action_id="elsewhere"))
        return entry

    assert failures(honest.report([misname(e) for e in honest.log])) == {"invalid_rewards"}


def test_a_window_that_is_too_short():
    spec = msgspec.structs.replace(SPECS["softmax"], join=JoinRule(window_s=0.1))
    kept = run("softmax", 1500, spec=spec, timing=Timing(delay_ms=120))
    assert failures(kept.report()) == {"join_rate", "late_rewards", "orphan_rewards"}


def test_exploration_that_has_collapsed():
    spec = msgspec.structs.replace(SHORT, exploration=Greedy(), floor=0.0)
    assert failures(run("greedy", 1000, spec=spec).report()) == {"exploration"}


class Content(Towns):
    def reward(self, request, action_id, rng):
        return 1.0


def test_a_reward_that_is_always_the_same():
    spec = msgspec.structs.replace(SPECS["softmax"], join=JoinRule(window_s=1))
    result = run_loop(
        Content(),
        spec,
        rounds=1500,
        seed=1,
        pools={"0": POOL, "1": POOL},
        timing=Timing(delay_ms=20),
    )
    assert failures(Kept(spec, result.log).report()) == {"constant_rewards"}


def test_blobs_that_are_gone(honest):
    assert "gaps" in failures(honest.report(gone=honest.spec.digest))
    gone = CatalogueRecord("no such catalogue")
    log = [LogEntry(e.id, gone) if isinstance(e.record, CatalogueRecord) else e for e in honest.log]
    assert failures(honest.report(log)) == {"gaps"}
    snapshots = dict(honest.snapshots)
    damaged = ReferencedBlobs(
        {honest.spec.digest: honest.spec.encoded}.get, lambda _: None, lambda: snapshots
    )
    assert failures(examine(honest.log, salts=honest.salts, stored=damaged)) == {"gaps"}


def test_a_log_read_from_the_middle_is_trusted(honest):
    """Rewards whose decisions came before the beginning are not orphans."""
    log = honest.log[len(honest.log) // 2 :]
    report = honest.report(log)
    assert report.trusted
    assert next(f for f in report.findings if f.check == "orphan_rewards").figures["orphan"] == 0


def test_repeated_decisions_are_no_evidence(honest):
    """A thousand requests for one decision get one draw: it must not look like a biased coin."""
    repeated = next(
        e
        for e in honest.log
        if isinstance(e.record, DecisionRecord) and e.record.pmfs()[0].max() < 0.5
    )
    last = honest.log[-1].time_ms
    log = honest.log + [
        LogEntry(f"{last + 1 + i // 10}-{i % 10}", repeated.record) for i in range(1000)
    ]
    assert honest.report(log).trusted


def small_log(seed: int) -> Kept:
    """A few decisions of random PMFs, some nearly certain, some slates.

    Rewards come late, twice or not at all.
    """
    rng = np.random.default_rng(seed)
    spec = PolicySpec("small", join=JoinRule(window_s=1))
    events: list[tuple[int, int, DecisionRecord | RewardRecord]] = []
    count, rate = int(rng.integers(10, 60)), rng.uniform(0, 1)
    for number in range(count):
        actions, slots = int(rng.integers(2, 30)), int(rng.integers(1, 3))
        weights = rng.dirichlet(np.full(actions, rng.choice([0.05, 0.5, 5.0])))
        chosen: list[int] = []
        pmfs = np.zeros((slots, actions))
        for slot in range(slots):
            left = np.delete(np.arange(actions), chosen)
            mass = 0.98 * weights[left] / max(weights[left].sum(), 1e-300) + 0.02 / left.size
            pmfs[slot, left] = mass / mass.sum()
            u = uniform(SALT, spec.name, f"{seed}.{number}", slot, PURPOSE_ACTION)
            chosen.append(draw(pmfs[slot], u))
        ids = [f"i{k}" for k in range(actions)]
        record = DecisionRecord(
            f"{seed}.{number}",
            spec.name,
            spec.digest,
            "s",
            Catalogue().digest,
            {},
            ids,
            None,
            {},
            pmfs.tobytes(),
            chosen,
        )
        time = 100 + 20 * number
        events.append((time, number, record))
        if rng.random() < rate:
            reward = RewardRecord(record.event_id, float(rng.integers(0, 2)), f"{number}")
            repeats = 1 + int(rng.random() < 0.02)
            events.extend(
                (time + int(rng.exponential(250)), number, reward) for _ in range(repeats)
            )
    events.sort(key=lambda event: event[:2])
    log = [LogEntry("1-0", BuildRecord({})), LogEntry("1-1", SpecRecord(spec.digest, "salt"))]
    log += [LogEntry(f"{time}-{i}", record) for i, (time, _, record) in enumerate(events)]
    return Kept(spec, log)


def test_small_healthy_logs_raise_no_alarm():
    """By chance one of 500 fails with a probability below 500 x (3e-4 + 5e-4) = 0.4.

    The seeds are fixed.
    """
    for seed in range(500 if THOROUGH else 100):
        report = small_log(seed).report()
        assert failures(report) == set(), (seed, report)


def test_the_tests_of_chance_do_not_cry_wolf_on_long_logs():
    """Of 200 runs at 1e-2 at most 9 are false alarms: more have a probability below 1e-4."""
    alarms = {"weights": 0, "actions": 0}
    ids = [f"i{k}" for k in range(4)]
    for seed in range(200):
        rng = np.random.default_rng(seed)
        weights, actions = WeightTest(), ActionTest()
        pmf = rng.dirichlet(np.full(4, 0.3)) * 0.9 + 0.025
        for u in rng.random(300):
            index = draw(pmf, u)
            weights.add(pmf, index)
            actions.add(ids, pmf, index)
            pmf = np.roll(pmf, 1) if index == 0 else pmf  # a policy that reacts
        alarms["weights"] += weights.p_value < 1e-2
        alarms["actions"] += actions.finding().figures["p_value"] < 1e-2
    assert max(alarms.values()) <= 9, alarms


def test_the_chi_square_test_holds_its_rate_with_the_fewest_draws_it_accepts():
    """Of 400,000 tables of 50 per bin at most 2e-4 exceed the limit of 1e-4."""
    rng = np.random.default_rng(0)
    bins, per_bin = FrequencyTest.BINS, FrequencyTest.PER_BIN
    limit = next(
        x for x in np.arange(30.0, 100.0, 0.01) if chi_square_tail(x, bins - 1) < FALSE_ALARM
    )
    exceeded = 0
    for _ in range(4):
        counts = rng.multinomial(bins * per_bin, np.full(bins, 1 / bins), size=100_000)
        exceeded += int((((counts - per_bin) ** 2).sum(axis=1) / per_bin > limit).sum())
    assert 5e-5 < exceeded / 4e5 < 2e-4
