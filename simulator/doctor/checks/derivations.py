"""Logged PMFs derive again from the snapshots, specs and catalogues that their records name."""

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from bandits.decide import Decision
from bandits.errors import BanditloopError
from bandits.log.records import (
    BuildRecord,
    DecisionRecord,
    LogEntry,
)
from bandits.types import ActionSet, Context, Float64, Policy
from policies.catalogue import Catalogue
from policies.features import featurise_record
from policies.guardrails import FixedPolicy
from policies.mixture import Mixture
from policies.ranker import Ranker
from simulator.doctor.audit import redraws
from simulator.doctor.checks.findings import Finding, Severity, make_finding, nothing_to_check
from simulator.doctor.checks.references import ReferencedBlobs

CLOSE = 1e-6
"""Across builds (processors, library versions) a model's arithmetic agrees to this."""
OTHER_BUILD = 0.05
"""Across builds a tie may fall otherwise, and the PMF with it: that explains no larger share of them."""


class Derivations:
    """Derives PMFs again, byte for byte, from the snapshot, spec and catalogue that the record names.

    Of each snapshot that is still stored, the first PER_SNAPSHOT decisions; at most ``limit``
    together. ``salts`` also derive a mixture's credits. ``build``: this machine's, to compare with
    the one the log was learned on.
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
        self._loaded: OrderedDict[tuple[str, str], _Loaded] = OrderedDict()
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
        loaded = self._load(record)
        catalogue = self._stored.catalogue(record.catalogue)
        if loaded.ranker is None or catalogue is None or loaded.checked >= self.PER_SNAPSHOT:
            return
        loaded.checked += 1
        self._checked += 1
        salt = next((each for each in self._salts if redraws(record, each)), None)
        difference = _difference(loaded.ranker, catalogue, record, salt)
        if difference == 0.0:
            self._same += 1
        elif difference <= CLOSE:
            self._close += 1
        else:
            self._first = self._first or entry.id

    def findings(self) -> Iterator[Finding]:
        """One: of the decisions that could be checked, how many derive again."""
        if not self._checked:
            yield nothing_to_check(
                "derivations",
                f"of {self._decisions:,} decisions none names a snapshot, spec and catalogue that"
                " are still stored",
                action="run the doctor on the live log while decisions are made, or soon after: the"
                " newest 20 snapshots"
                " are kept, and those of checkpoints; an archive holds none",
                figures={"decisions": self._decisions, "checked": 0},
            )
            return
        far = self._checked - self._same - self._close
        other = (
            self._build is not None
            and self._log_build is not None
            and self._log_build != self._build
        )
        severity: Severity = "ok"
        if far and not (other and far <= OTHER_BUILD * self._checked):
            severity = "failure"
        elif far or self._close:
            severity = "warning"
        message = (
            f"{self._same:,} of {self._checked:,} PMFs derive again byte for byte from their"
            f" snapshot, {self._close:,}"
            f" more within {CLOSE:g}; of {self._decisions:,} decisions the others name snapshots"
            " no longer stored, or"
            " are beyond the sample"
        )
        cause = "the decision was not made by the snapshot, spec or catalogue that it names, or its PMF was changed"
        action = "compare the version of replicas and learner; do not evaluate from these decisions"
        if severity == "warning":
            cause = (
                "the log was written on another processor or with other library versions than these"
            )
            action = "to compare byte for byte, run the doctor on a machine and versions like the replicas'"
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

    def _load(self, record: DecisionRecord) -> "_Loaded":
        key = (record.snapshot_id, record.spec)
        if key in self._loaded:
            self._loaded.move_to_end(key)
            return self._loaded[key]
        loaded = self._loaded[key] = _Loaded(self._ranker(record))
        if len(self._loaded) > self.LOADED:
            self._loaded.popitem(last=False)
        return loaded

    def _ranker(self, record: DecisionRecord) -> Ranker | None:
        spec = self._stored.spec(record.spec)
        try:
            snapshot = self._stored.snapshot(record.snapshot_id)
            if spec is None or snapshot is None:
                return None
            ranker = Ranker(spec, (), salt=b"")
            ranker.serve(record.snapshot_id, snapshot, Catalogue())
        except BanditloopError:
            return None
        return ranker


@dataclass(slots=True, eq=False)
class _Loaded:
    ranker: Ranker | None
    checked: int = 0


def _difference(
    ranker: Ranker, catalogue: Catalogue, record: DecisionRecord, salt: bytes | None
) -> float:
    """The largest difference of a probability; infinite if the credit is another."""
    serving, holdout = ranker.serving, ranker.spec.holdout
    if serving is None:
        return float("inf")
    policy: Policy = FixedPolicy(holdout.policy) if record.holdout and holdout else serving.policy
    context, actions = featurise_record(ranker.spec, catalogue, record)
    pmfs = _derive(policy, context, actions, record.chosen)
    difference = float(np.abs(pmfs - record.pmfs()).max())
    if salt is not None and record.credit is not None and isinstance(policy, Mixture):
        decision = Decision(record.event_id, tuple(record.chosen), pmfs)
        credit = policy.credit(context, actions, decision, salt=salt, name=record.policy)
        if credit is None or (credit.sources, credit.credited) != (
            record.credit.sources,
            record.credit.credited,
        ):
            return float("inf")
        difference = max(difference, float(np.abs(credit.pmfs() - record.credit.pmfs()).max()))
    return difference


def _derive(policy: Policy, context: Context, actions: ActionSet, chosen: list[int]) -> Float64:
    """The PMF of each slot, given the actions chosen before it."""
    pmfs = np.zeros((len(chosen), len(actions)))
    for slot in range(len(chosen)):
        remaining = np.delete(np.arange(len(actions)), chosen[:slot])
        left = actions if slot == 0 else actions.take(remaining)
        pmfs[slot, remaining] = policy.pmf(context, left)
    return pmfs
