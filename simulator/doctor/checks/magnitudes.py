"""No numbers are so large that Vowpal Wabbit learns nothing of the decisions that hold them."""

import math
from collections.abc import Iterator

from bandits.log.records import DecisionRecord, LogEntry
from bandits.vw.magnitudes import LARGEST
from policies.features import chosen_rows
from simulator.doctor.checks.findings import Finding, Severity, make_finding, percent
from simulator.doctor.checks.references import ReferencedBlobs


class Magnitudes:
    """Looks at the chosen actions of the first ``limit`` decisions of specs whose learner is VW."""

    def __init__(self, stored: ReferencedBlobs, *, limit: int) -> None:
        self._stored = stored
        self._limit = limit
        self._checked = self._lost = 0
        self._worst, self._where = 0.0, ""

    def add(self, entry: LogEntry) -> None:
        """Look at a decision."""
        record = entry.record
        if self._checked >= self._limit or not isinstance(record, DecisionRecord) or record.holdout:
            return
        spec, catalogue = self._stored.spec(record.spec), self._stored.catalogue(record.catalogue)
        if spec is None or catalogue is None or math.isinf(spec.learner.largest_number):
            return
        if not record.chosen:  # all was placed
            return

        self._checked += 1
        ((_, shared, own),) = chosen_rows(spec, catalogue, record, record.chosen[:1])
        largest, where = spec.learner.magnitude(shared, own)
        self._lost += largest > spec.learner.largest_number
        if largest > self._worst:
            self._worst, self._where = largest, where

    def findings(self) -> Iterator[Finding]:
        """Yield one where any decision is of such a spec; a warning if VW did not learn of any."""
        if not self._checked:
            return

        # VW leaves its weights as they are and raises nothing, so nobody else says it.
        severity: Severity = "warning" if self._lost else "ok"
        share = percent(self._lost, self._checked)
        yield make_finding(
            "magnitudes",
            severity,
            f"{self._lost:,} of {self._checked:,} decisions, {share}, hold numbers too large for"
            f" Vowpal Wabbit; the largest is {self._worst:.3g} ({self._where or 'no number'})",
            cause="VW learns nothing of a decision, not even of its other features, where a number"
            f" or a product of crossed numbers is beyond {LARGEST:.3g}",
            action="scale what is that large before it is sent: days since then instead of a"
            " timestamp, thousands of a price; or take the cross out of the learner's arguments",
            figures={"decisions": self._checked, "not_learned": self._lost, "largest": self._worst},
        )
