"""A policy spec by measurement on the data set itself, each choice with the row it rests on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bandits.errors import DataSetError
from policies.spec import PolicySpec, spec_of
from policies.typed_yaml import encode_yaml
from simulator.ranking.report import Metric, PoolRow, RankingReport

NEARLY: Final = 0.99
"""A limit will do whose pool is ordered nearly as well as the best one."""
ENOUGH: Final = 0.5
"""It also holds so much of the relevant items that the largest pool holds."""

NEW_ITEMS: Final = "content"
"""The source that proposes items of which there are no events."""


@dataclass(frozen=True, slots=True)
class ChosenSpec:
    """A spec, as the fields of its YAML, and by field the rows that it rests on."""

    fields: Mapping[str, Any]
    reasons: Mapping[str, tuple[str, ...]]

    @property
    def spec(self) -> PolicySpec:
        """The spec itself; its paths as they stand in the YAML."""
        return spec_of(dict(self.fields))

    def with_fields(self, **fields: Any) -> "ChosenSpec":
        """Return the same with other fields, such as an exploration that was measured elsewhere."""
        return ChosenSpec({**self.fields, **fields}, self.reasons)

    @property
    def yaml(self) -> str:
        """The text of ``policy.yaml``: every field below the rows that it rests on."""
        lines = [f"# {line}" for line in self.reasons.get("", ())]
        for name, value in self.fields.items():
            lines += [f"# {line}" for line in self.reasons.get(name, ())]
            lines.append(encode_yaml({name: value}).decode().rstrip())
        return "\n".join(lines) + "\n"


def choose_spec(report: RankingReport, *, name: str, artifact: str) -> ChosenSpec:
    """Choose sources, limit and learner by what was measured.

    - Sources: the one with the most relevant items among its candidates; then, in the order of what
      each adds, those that add no less than as many more candidates of the ones before would (up to
      what these users can tell). The best source that answers strangers, if none of these does, and
      the best that knows a user's history, if none of these does; and ``content``, if users turned
      to items that no event had named. Where a blend was judged without each source: those, too,
      that it cannot be without, such as scorers, which hold no items and order them.
    - Limit: the smallest whose pool is ordered nearly as well as any, and holds half of what the
      largest holds.
    - Learner: the usual one, unless another orders pools of test users significantly better.

    Args:
        report: of an evaluation that fused and measured learners.
        name: of the policy.
        artifact: the path or URI that the spec names.

    Raises:
        DataSetError: no source proposes anything.
    """
    if not report.pools:
        raise DataSetError(
            "none of these sources proposes anything: they score what others do, or the actions"
            " that requests bring",
            "",
        )
    sources, why_sources = _sources(report)
    limit, why_limit = _limit(report)
    learned, why_learner = _learner(report)
    split = report.split

    return ChosenSpec(
        {
            "name": name,
            "sources": [{"kind": "artifact", "name": source} for source in sources],
            "artifact": artifact,
            "limit": limit,
            **learned,
        },
        {
            "": (
                (
                    f"Chosen on {report.data} by what {split.evaluated_users:,} users did later:"
                    f" split {split.name},"
                ),
                f"{split.train_events:,} events train, {split.test_events:,} test.",
            ),
            "sources": why_sources,
            "limit": why_limit,
            next(iter(learned), "learner"): why_learner,
        },
    )


def _sources(report: RankingReport) -> tuple[list[str], tuple[str, ...]]:
    taken: list[str] = []
    why = [f"recall of a pool of {report.pools[0].limit} candidates of each:"]
    for number, row in enumerate(report.pools):
        worth = number == 0 or (
            row.recall > report.pools[number - 1].recall and (row.gain.high or 0.0) >= 0
        )
        why.append(f"  {_pool(row)}{'' if worth else ': left out, the others hold as much'}")
        if not worth:
            break
        taken.append(row.sources[-1])

    # Somebody who asks for the first time gets an answer, and everybody else one of their own.
    by_name = {row.name: row for row in report.results if row.kind == "source"}
    for needs, because in (
        (False, "answers users without a history"),
        (True, "knows what each user did: without it, all would be offered the same"),
    ):
        others = [row for row in by_name.values() if row.needs_history is needs]
        if others and all(by_name[source].needs_history is not needs for source in taken):
            best = max(others, key=lambda row: row.metrics["ndcg"].value or 0.0)
            taken.append(best.name)
            why.append(f"  {best.name}: {because} (nDCG {_value(best.metrics['ndcg'])})")

    # Nor is an item offered for the first time by any of the others.
    new = report.split.unknown_items
    if new and NEW_ITEMS in by_name and NEW_ITEMS not in taken:
        taken.append(NEW_ITEMS)
        why.append(f"  {NEW_ITEMS}: offers items without events ({new:,} test events name such)")

    for name, lost in ({} if report.blend is None else report.blend.keeps).items():
        if name not in taken:
            taken.append(name)
            why.append(f"  {name}: taken, a blend without it loses nDCG: {_value(lost)}")
    why += [
        f"  {row.name}: left out, a blend is not seen to lose nDCG without it"
        for row in report.results
        if row.kind == "scorer" and row.name not in taken
    ]
    return taken, tuple(why)


def _limit(report: RankingReport) -> tuple[int, tuple[str, ...]]:
    rows = report.limits
    best = max((row.ndcg.value or 0.0) if row.ndcg else 0.0 for row in rows)
    most = max(row.recall for row in rows)
    chosen = next(
        row
        for row in rows
        if (
            row.recall >= ENOUGH * most
            and (row.ndcg is None or (row.ndcg.value or 0.0) >= NEARLY * best)
        )
        or row is rows[-1]
    )

    return chosen.limit, (
        (
            f"the smallest whose pool is ordered within {1 - NEARLY:.0%} of the best and holds"
            f" {ENOUGH:.0%} of the largest:"
        ),
        *(
            f"  {row.limit:>4}: recall {row.recall:.4f}"
            + (f", nDCG {_value(row.ndcg)}" if row.ndcg else "")
            for row in rows
        ),
    )


def _learner(report: RankingReport) -> tuple[dict[str, Any], tuple[str, ...]]:
    if not report.learners:
        return {}, ()
    better = [row for row in report.learners[1:] if (row.gain.low or 0.0) > 0]
    best = max(better, key=lambda row: row.gain.value or 0.0, default=report.learners[0])
    why = [
        (
            "nDCG on pools of test users, taught what others did before; the first is taken, unless"
            " another"
        ),
        f"is better by more than chance: {best.name}",
    ]
    why += [f"  {row.name}: {_value(row.ndcg)}" for row in report.learners]
    return dict(best.spec), tuple(why)


def _pool(row: PoolRow) -> str:
    """Return a row in a few words."""
    if len(row.sources) == 1:
        return f"{row.sources[0]}: {row.recall:.4f}"
    return f"+ {row.sources[-1]}: {row.recall:.4f}, adds {_value(row.gain)}"


def _value(metric: Metric | None) -> str:
    if metric is None or metric.value is None:
        return "-"
    return f"{metric.value:.4f} ({metric.low or 0.0:.4f} … {metric.high or 0.0:.4f})"
