"""The blend with either artifact on the newest decisions of the log: by doubly robust estimates.

Each decision's actions are scored with the artifact, by what was known of its user then; the
learner's newest model makes a PMF of them, which is the target policy's. Candidates are those of
the log, so what an artifact would have proposed in their place is not measured here: see
``user_comparison.py``.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bandits.decide import left_after
from bandits.errors import ReplayError
from bandits.log.encoded_decisions import whole_record
from bandits.log.join import JoinedDecision
from bandits.log.positions import position_ms
from bandits.log.records import DecisionRecord
from bandits.types import ActionSet, Context, Float32, Pmf, check_pmf
from policies.features import boosted, featurise
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec
from simulator.logs.archive.rows import decision_rows
from simulator.logs.rows import LoggedDecision, MemoryPiece
from simulator.ope.targets import RowTarget
from simulator.refresh.contenders import Contender
from simulator.refresh.report import ALPHA, Measure, ScaleShift
from simulator.replay.evaluate import OpeQuestion, evaluate
from simulator.replay.report import EvaluationReport

SHIFT, RATIO = 0.5, 1.5
"""A scale has moved where a mean is so many standard deviations off, or a deviation so many times
as large or as small."""
CatalogueOf = Callable[[str], Catalogue]
"""Gives the catalogue that a decision names."""
Key = tuple[str, int]


class _Rescored(RowTarget):
    """A blend whose PMFs have been made: they are found by event and slot."""

    def __init__(self, name: str, pmfs: Mapping[Key, Pmf]) -> None:
        super().__init__(name)
        self._pmfs = pmfs

    def pmf(self, row: LoggedDecision) -> Pmf:
        """Return the probabilities of a row's actions; see Target."""
        return self._pmfs[row.event_id, row.slot]


def comparable(joined: JoinedDecision) -> bool:
    """Return whether the blend might have made this decision: it was made from scores, by it."""
    if joined.record.holdout:
        return False
    record = whole_record(joined.record)
    return bool(record.scores) and record.credit is None and record.apprentice is None


class LogComparison:
    """Compares blends on decisions of the log.

    Args:
        spec: the policy.
        catalogue_of: gives the catalogue that a decision names.
        serving: the blend that serves; None if its artifact cannot be had.
        fresh: the blends with the new artifact, by whose weights.
    """

    def __init__(
        self,
        spec: PolicySpec,
        catalogue_of: CatalogueOf,
        serving: Contender | None,
        fresh: Sequence[Contender],
    ) -> None:
        self._spec, self._catalogue_of = spec, catalogue_of
        self._serving, self._fresh = serving, list(fresh)

    def compare(
        self,
        decisions: Sequence[JoinedDecision],
        progress: Callable[[int], None] = lambda _: None,
    ) -> list[Measure]:
        """Return the value of each blend, and how far each fresh one is from that which serves.

        Args:
            decisions: those that are ``comparable``, which no training has seen.
            progress: told how many were looked at.

        Raises:
            ReplayError: there is no decision.
        """
        contenders = [*([] if self._serving is None else [self._serving]), *self._fresh]
        pmfs: dict[str, dict[Key, Pmf]] = {each.name: {} for each in contenders}
        rows: list[LoggedDecision] = []
        for done, joined in enumerate(decisions):
            record, time_ms = whole_record(joined.record), position_ms(joined.position)
            catalogue = self._catalogue_of(record.catalogue)
            slots, page = list(decision_rows(joined, catalogue)), record.page
            for each in contenders:
                scores = each.rescorer.scores(record, time_ms)
                context, actions = _features(self._spec, catalogue, record, scores)
                for row in slots:
                    _, left = left_after(actions, record.chosen[: row.slot], page)
                    pmf = each.policy.pmf(context, left)
                    pmfs[each.name][row.event_id, row.slot] = check_pmf(pmf)
            rows += slots
            progress(done + 1)

        if not rows:
            raise ReplayError("no decision of the log can be compared", "log")
        targets = [_Rescored(name, made) for name, made in pmfs.items()]
        report = evaluate(OpeQuestion(targets, ("snips", "dr"), alpha=ALPHA), [MemoryPiece(rows)])
        return [self._measure(report, each, len(rows)) for each in self._fresh]

    def _measure(self, report: EvaluationReport, fresh: Contender, rows: int) -> Measure:
        values = {result.policy: result.estimates for result in report.results}
        mine = values[fresh.name]
        name = "dr" if "dr" in mine else "snips"
        what = "mean reward (DR)" if name == "dr" else "mean reward (SNIPS)"
        estimate = mine[name]
        if self._serving is None:
            note = estimate.reason if estimate.verdict != "reliable" else ""
            return Measure(
                what,
                "decisions",
                fresh.weights,
                rows,
                None,
                estimate.value,
                decides=False,
                note=note,
            )

        at = next(
            one
            for one in report.comparisons
            if {one.left, one.right} == {fresh.name, self._serving.name}
        )
        low, high = at.result.interval
        if at.left == self._serving.name:
            low, high = -high, -low
        finite = np.isfinite([low, high]).all()
        return Measure(
            what,
            "decisions",
            fresh.weights,
            rows,
            values[self._serving.name][name].value,
            estimate.value,
            low if finite else None,
            high if finite else None,
            note=at.result.reason if at.result.verdict != "reliable" else "",
        )


def scale_shifts(
    serving: Contender, fresh: Contender, decisions: Sequence[JoinedDecision]
) -> list[ScaleShift]:
    """Return how the scores of the same actions moved from one artifact to the other, by source.

    Args:
        serving: the blend that serves.
        fresh: a blend with the new artifact.
        decisions: some of the log.
    """
    sums = {name: np.zeros(5) for name in fresh.rescorer.names}
    for joined in decisions:
        record, time_ms = whole_record(joined.record), position_ms(joined.position)
        old, new = (each.rescorer.scores(record, time_ms) for each in (serving, fresh))
        for name, total in sums.items():
            if name not in old:
                continue
            both = np.isfinite(old[name]) & np.isfinite(new[name])
            a, b = old[name][both].astype(np.float64), new[name][both].astype(np.float64)
            total[:] += (both.sum(), a.sum(), (a * a).sum(), b.sum(), (b * b).sum())

    shifts = []
    for name, total in sums.items():
        n, old_sum, old_squares, new_sum, new_squares = total.tolist()
        if n < 2:
            continue
        spread = _deviation(n, old_sum, old_squares)
        shift = (new_sum - old_sum) / n / spread if spread else 0.0
        ratio = _deviation(n, new_sum, new_squares) / spread if spread else 1.0
        moved = abs(shift) > SHIFT or not 1 / RATIO <= ratio <= RATIO
        shifts.append(ScaleShift(name, shift, ratio, moved))
    return shifts


def _deviation(n: float, total: float, squares: float) -> float:
    return math.sqrt(max(0.0, squares / n - (total / n) ** 2))


def _features(
    spec: PolicySpec, catalogue: Catalogue, record: DecisionRecord, scores: Mapping[str, Float32]
) -> tuple[Context, ActionSet]:
    context, actions = featurise(
        spec, catalogue, record.context, record.action_ids, record.features, scores
    )
    return context, boosted(actions, record.boosts)
