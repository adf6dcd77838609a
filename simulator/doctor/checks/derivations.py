"""Logged PMFs derive again from the snapshots, specs and catalogues that their records name."""

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from bandits.decide import Decision, left_after
from bandits.errors import BanditloopError
from bandits.log.records import BuildRecord, DecisionRecord, LogEntry
from bandits.types import ActionSet, Context, Float64, Policy
from policies.decisions.baseline import served_again
from policies.decisions.holdout import FixedPolicy
from policies.decisions.mixture import Mixture
from policies.features import featurise_record
from policies.items.catalogue import Catalogue
from policies.ranker import Ranker
from policies.spec import PolicySpec
from simulator.doctor.audit import redraws
from simulator.doctor.checks.findings import Finding, Severity, make_finding, nothing_to_check
from simulator.doctor.checks.references import ReferencedBlobs

CLOSE = 1e-6
"""The largest difference of a probability between builds (processors, library versions)."""
OTHER_BUILD = 0.05
"""The share of PMFs that may differ by more between builds, where a tie falls the other way."""


class Derivations:
    """Derives PMFs again, byte for byte, from the snapshot, spec and catalogue of their records.

    The sample is the first PER_SNAPSHOT decisions of each snapshot that is still stored, at most
    ``limit`` in all. With one of the ``salts`` a mixture's credits are derived, too. ``build`` is
    this machine's, to compare with the one that the log was learned on.
    """

    PER_SNAPSHOT = 100
    LOADED = 8

    def __init__(
        self,
        stored: ReferencedBlobs,
        *,
        salts: Collection[bytes],
        build: Mapping[str, str] | None,
        limit: int,
    ) -> None:
        self._stored = stored
        self._salts = salts
        self._build = build
        self._limit = limit
        self._log_build: dict[str, str] | None = None
        self._rankers: OrderedDict[tuple[str, str], _SampledRanker] = OrderedDict()
        self._decisions = self._checked = self._same = self._close = 0
        self._first: str | None = None

    def add(self, entry: LogEntry) -> None:
        """Derive a decision's PMF again, if it is one of the sample."""
        record = entry.record
        if isinstance(record, BuildRecord):
            self._log_build = record.build
        if not isinstance(record, DecisionRecord):
            return

        self._decisions += 1
        if self._checked >= self._limit:
            return

        # A decision can be checked only while everything that made it is stored.
        sampled = self._sampled_ranker(record)
        catalogue = self._stored.catalogue(record.catalogue)
        if sampled.ranker is None or catalogue is None or sampled.checked >= self.PER_SNAPSHOT:
            return
        sampled.checked += 1
        self._checked += 1

        salt = next((salt for salt in self._salts if redraws(record, salt)), None)
        difference = max(
            _difference(sampled.ranker, catalogue, record.own(), salt),
            _difference_of_served(sampled.ranker.spec, record),
        )
        if difference == 0.0:
            self._same += 1
        elif difference <= CLOSE:
            self._close += 1
        else:
            self._first = self._first or entry.id

    def findings(self) -> Iterator[Finding]:
        """Yield one: of the decisions that could be checked, how many derive again."""
        if not self._checked:
            yield nothing_to_check(
                "derivations",
                f"of {self._decisions:,} decisions none names a snapshot, spec and catalogue that"
                " are still stored",
                action="run the doctor on the live log while decisions are made, or soon after: the"
                " newest 20 snapshots are kept, and those of checkpoints; an archive holds none",
                figures={"decisions": self._decisions, "checked": 0},
            )
            return

        far = self._checked - self._same - self._close
        both_known = self._build is not None and self._log_build is not None
        other = both_known and self._log_build != self._build

        # Another build explains small differences, and a few large ones where a tie fell otherwise.
        severity: Severity = "ok"
        if far and not (other and far <= OTHER_BUILD * self._checked):
            severity = "failure"
        elif far or self._close:
            severity = "warning"

        message = (
            f"{self._same:,} of {self._checked:,} PMFs derive again byte for byte from their"
            f" snapshot, {self._close:,} more within {CLOSE:g}; of {self._decisions:,} decisions"
            " the others name snapshots no longer stored, or are beyond the sample"
        )
        cause = (
            "the decision was not made by the snapshot, spec or catalogue that it names, or its PMF"
            " was changed"
        )
        action = "compare the version of replicas and learner; do not evaluate from these decisions"
        if severity == "warning":
            cause = (
                "the log was written on another processor or with other library versions than these"
            )
            action = (
                "to compare byte for byte, run the doctor on a machine and versions like the"
                " replicas'"
            )

        yield make_finding(
            "derivations",
            severity,
            message,
            cause=cause,
            action=action,
            figures={
                "decisions": self._decisions,
                "checked": self._checked,
                "same_bytes": self._same,
                "close": self._close,
                "differ": far,
                "other_build": str(other).lower(),
                "first_differing": self._first,
            },
        )

    def _sampled_ranker(self, record: DecisionRecord) -> "_SampledRanker":
        """Return the ranker of a record's snapshot and spec; LOADED of them are held at a time."""
        key = (record.snapshot_id, record.spec)
        if key in self._rankers:
            self._rankers.move_to_end(key)
            return self._rankers[key]

        sampled = self._rankers[key] = _SampledRanker(self._ranker(record))
        if len(self._rankers) > self.LOADED:
            self._rankers.popitem(last=False)
        return sampled

    def _ranker(self, record: DecisionRecord) -> Ranker | None:
        """Return a ranker as it made the decision; None where spec or snapshot are gone."""
        spec = self._stored.spec(record.spec)
        try:
            snapshot = self._stored.snapshot(record.snapshot_id)
            if spec is None or snapshot is None:
                return None
            ranker = Ranker(spec, (), salt=b"")
            ranker.serve(record.snapshot_id, snapshot)
        except BanditloopError:
            return None
        return ranker


@dataclass(slots=True, eq=False)
class _SampledRanker:
    """A ranker, and how many of its decisions have been checked."""

    ranker: Ranker | None
    checked: int = 0


def _difference(
    ranker: Ranker, catalogue: Catalogue, record: DecisionRecord, salt: bytes | None
) -> float:
    """Return the largest difference of a probability; infinite if the credit is another."""
    serving, holdout = ranker.serving, ranker.spec.holdout
    if serving is None:
        return float("inf")
    if not record.chosen:  # all was placed, nothing drawn
        return 0.0

    policy: Policy = FixedPolicy(holdout.policy) if record.holdout and holdout else serving.policy
    context, actions = featurise_record(ranker.spec, catalogue, record)
    pmfs = _derive(policy, context, actions, record)
    difference = float(np.abs(pmfs - record.pmfs()).max())

    # A mixture also credits sources, by draws that take the salt.
    if salt is not None and record.credit is not None and isinstance(policy, Mixture):
        decision = Decision(record.event_id, tuple(record.chosen), pmfs)
        credit = policy.credit(
            context, actions, decision, salt=salt, name=record.policy, page=record.page
        )
        logged = record.credit.sources, record.credit.credited
        if credit is None or (credit.sources, credit.credited) != logged:
            return float("inf")
        difference = max(difference, float(np.abs(credit.pmfs() - record.credit.pmfs()).max()))

    return difference


def _difference_of_served(spec: PolicySpec, record: DecisionRecord) -> float:
    """Return how far what was served beside an apprentice is from what its record says it was.

    What only the caller knows is taken for what it says.
    """
    if record.apprentice is None:
        return 0.0
    pmfs = served_again(record, spec)
    return 0.0 if pmfs is None else float(np.abs(pmfs - record.pmfs()).max())


def _derive(
    policy: Policy, context: Context, actions: ActionSet, record: DecisionRecord
) -> Float64:
    """Return the PMF of each slot, float64[slots, K], given the actions chosen before it."""
    chosen, page = record.chosen, record.page
    pmfs = np.zeros((len(chosen), len(actions)))
    for slot in range(len(chosen)):
        remaining, left = left_after(actions, chosen[:slot], page)
        pmfs[slot, remaining] = policy.pmf(context, left)
    return pmfs
