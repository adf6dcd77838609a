"""Sources answer, and the holdout is served by the policy that the spec names."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from bandits.log.records import DecisionRecord, LogEntry
from policies.decisions.holdout import FixedPolicy
from policies.spec import UNIFORM, Holdout
from simulator.doctor.checks.findings import (
    Figure,
    Finding,
    grade_share,
    make_finding,
    nothing_to_check,
    percent,
)
from simulator.doctor.checks.references import ReferencedBlobs

FAILING = 0.01
"""Share of the decisions without some source, above which it is a warning."""
UNSERVED = 0.01
"""Share of the decisions held out that their policy did not make, above which it is a warning."""


class Sources:
    """Counts the decisions that a source failed, and those held out that their policy did not make.

    In logs whose records do not say so, the scores in the record tell: without any of its source a
    decision held out was uniform.
    """

    def __init__(self, stored: ReferencedBlobs) -> None:
        self._stored = stored
        self._with_sources = self._uncredited = self._held = self._unserved = self._unmarked = 0
        self._failures: Counter[str] = Counter()
        self._empty: Counter[str] = Counter()
        self._reasons: dict[str, str] = {}
        self._holdout: Holdout | None = None
        self._first: str | None = None

    def add(self, entry: LogEntry) -> None:
        """Look at a decision."""
        record = entry.record
        if not isinstance(record, DecisionRecord):
            return

        self._with_sources += bool(record.scores or record.failed)
        for name, reason in (record.failed or {}).items():
            self._failures[name] += 1
            self._reasons[name] = reason
        self._empty.update(
            name for name, scores in record.source_scores().items() if np.isnan(scores).all()
        )

        # A mixture credits a source for every decision, but for those held out.
        spec = self._stored.spec(record.spec)
        mixed = spec is not None and spec.kind == "mixture"
        chose = len(record.chosen) > 0 and not record.holdout
        self._uncredited += mixed and record.credit is None and chose

        if spec is not None and spec.holdout is not None:
            self._holdout = spec.holdout
        if record.holdout and record.chosen:
            self._count_held_out(entry.id, record, spec.holdout if spec is not None else None)

    def _count_held_out(
        self, entry_id: str, record: DecisionRecord, holdout: Holdout | None
    ) -> None:
        """Count a decision that was held out, and whether its policy made it."""
        self._held += 1
        policy = FixedPolicy(UNIFORM if holdout is None else holdout.policy)
        unmarked = not record.unserved and not policy.served(record.source_scores(), record.chosen)

        self._unmarked += unmarked
        self._unserved += record.unserved or unmarked
        if record.unserved or unmarked:
            self._first = self._first or entry_id

    def findings(self) -> Iterator[Finding]:
        """Yield one of the sources, if any was asked, and one of the holdout, if there is one."""
        if self._with_sources or self._uncredited:
            yield self._sources_finding()
        if self._held or self._holdout is not None:
            yield self._holdout_finding()

    def _sources_finding(self) -> Finding:
        worst = self._failures.most_common(1)
        name, count = worst[0] if worst else ("", 0)
        message = f"no source failed in {self._with_sources:,} decisions that asked any"
        if worst:
            message = (
                f"source {name} failed in {count:,} of {self._with_sources:,} decisions,"
                f" {percent(count, self._with_sources)}; last because of: {self._reasons[name]}"
            )
        for source, times in sorted(self._empty.items()):
            message += f"; {source} proposed nothing in {times:,}"
        if self._uncredited:
            message += (
                f"; {self._uncredited:,} decisions of a mixture had no source to choose by: they"
                " teach nothing"
            )

        # The worst source decides, not their sum: one decision may lack several.
        bad, asked = max(count, self._uncredited), self._with_sources + self._uncredited
        figures: dict[str, Figure] = {"decisions": asked, "uncredited": self._uncredited}
        figures |= {f"failed {source}": times for source, times in self._failures.items()}
        figures |= {f"empty {source}": times for source, times in self._empty.items()}
        return make_finding(
            "sources",
            grade_share(bad, asked, warn=FAILING, fail=None),
            message,
            cause="a source does not answer in time, or not validly: the decisions were made"
            " without it; or actions were sent to a mixture without the scores of its sources:"
            " they were chosen uniformly",
            action="see GET /v1/policies/{policy} and banditloop_source_failures; mend the source,"
            " or give it more time (timeout_ms); send scores with the actions",
            figures=figures,
        )

    def _holdout_finding(self) -> Finding:
        if not self._held:
            return nothing_to_check(
                "holdout",
                "no decision was held out",
                action="read more of the log, or see that requests carry the holdout's field",
            )

        message = (
            f"{self._unserved:,} of {self._held:,} decisions held out,"
            f" {percent(self._unserved, self._held)}, were not made by its policy"
        )
        if self._unmarked:
            message += (
                f"; {self._unmarked:,} records do not say so, so leave them out of the control by"
                " their scores"
            )
        message += f"; the first is {self._first}" if self._first else ""

        # Unmarked decisions are worth a warning, however few: they pass for the control.
        severity = grade_share(self._unserved, self._held, warn=UNSERVED, fail=None)
        return make_finding(
            "holdout",
            "warning" if self._unmarked else severity,
            message,
            cause="its source failed, or had no candidates for a user or for every slot: chance"
            " chose instead",
            action="mend the source, or hold out by one that answers for everyone (popular,"
            " uniform); the control is what is held out and not unserved",
            figures={
                "held_out": self._held,
                "unserved": self._unserved,
                "unmarked": self._unmarked,
                "first": self._first,
            },
        )
