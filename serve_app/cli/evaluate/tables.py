"""An evaluation of sources for the terminal."""

from rich.table import Table
from rich.text import Text

from serve_app.cli.terminal import empty_table
from simulator.ranking.report import (
    BlendReport,
    Metric,
    RankingReport,
    blend_sentence,
    metric_names,
    report_facts,
    significance_sentence,
)


def ranking_tables(report: RankingReport) -> list[Table | Text]:
    """Return the report as tables: metrics, groups, pools; and what is to be said of them."""
    parts: list[Table | Text] = [Text(fact) for fact in report_facts(report)]
    parts += [_quality(report)]
    if report.tests:
        parts.append(Text(significance_sentence(report)))
    parts += [_recommended(report), _groups(report), _pools(report)]
    if report.learners:
        parts.append(_learners(report))
    if report.blend is not None:
        parts += [_blend(report.blend), Text(blend_sentence(report.blend))]
    parts += [Text(f"note: {note}", style="yellow") for note in report.notes]
    return parts


_QUALITY = ("graded_ndcg", "recall", "mrr", "auc", "log_loss")
_MOST_QUALITIES = 4
"""The first of them that there are: with more, a table is wider than 80 characters, and cut."""
_WHAT = ("coverage", "gini", "popularity", "novelty", "diversity", "rmse")


def _quality(report: RankingReport) -> Table:
    names = metric_names(report)
    shown = [name for name in _QUALITY if name in names][:_MOST_QUALITIES]
    heads = ["nDCG", "from", "to", *(names[name] for name in shown)]
    table = empty_table(
        "ranked by",
        *heads,
        title=f"Lists of {report.k}: means over {report.split.evaluated_users:,} users",
        caption="from, to: 95% interval of nDCG",
        numbers=heads,
        whole=["ranked by"],
    )

    best = max(result.metrics["ndcg"].value or 0.0 for result in report.results)
    for result in report.results:
        ndcg = result.metrics["ndcg"]
        table.add_row(
            result.name,
            *(_shown(Metric(value)) for value in (ndcg.value, ndcg.low, ndcg.high)),
            *(_shown(result.metrics.get(name)) for name in shown),
            style="bold" if ndcg.value == best else "",
        )
    return table


def _recommended(report: RankingReport) -> Table:
    names = metric_names(report)
    columns = [name for name in _WHAT if name in names]
    table = empty_table(
        "ranked by",
        *(names[name] for name in columns),
        title="What is recommended",
        numbers=[names[name] for name in columns],
        whole=["ranked by"],
    )
    for result in report.results:
        table.add_row(result.name, *(_shown(result.metrics.get(name)) for name in columns))
    return table


def _groups(report: RankingReport) -> Table:
    users = [f"{group} users {count:,}" for group, count in report.user_groups.items() if count]
    items = [f"{group} items {share:.0%}" for group, share in report.item_groups.items()]
    table = empty_table(
        "ranked by",
        *users,
        *items,
        title="By group: nDCG of users, recall of items",
        caption=report.group_sentence,
        numbers=[*users, *items],
        whole=["ranked by"],
    )
    for result in report.results:
        table.add_row(
            result.name,
            *(_shown(result.user_groups[group]) for group, n in report.user_groups.items() if n),
            *(_shown(result.item_groups[group]) for group in report.item_groups),
        )
    return table


def _pools(report: RankingReport) -> Table:
    heads = ["limit", "size", "recall", "adds", "from", "to", "nDCG"]
    table = empty_table(
        "pool of",
        *heads,
        title="Pools: candidates of several sources together",
        caption="adds: recall beyond that of the row above, raised to as many candidates, and its"
        " interval; nDCG: of a ridge regression on the sources' scores",
        numbers=heads,
    )

    for row in report.pools:
        table.add_row(
            " + ".join(row.sources),
            str(row.limit),
            f"{row.size:.0f}",
            f"{row.recall:.4f}",
            *(_shown(Metric(value)) for value in (row.gain.value, row.gain.low, row.gain.high)),
        )

    for row in report.limits:
        cells = (str(row.limit), f"{row.size:.0f}", f"{row.recall:.4f}", "", "", "")
        table.add_row("all", *cells, _shown(row.ndcg))
    return table


def _learners(report: RankingReport) -> Table:
    heads = ["nDCG", "from", "to", "s"]
    table = empty_table(
        "learner",
        *heads,
        title="Learners: taught what users of the validation part did, they order test pools",
        numbers=heads,
        whole=["learner"],
    )
    for row in report.learners:
        ends = (Metric(value) for value in (row.ndcg.value, row.ndcg.low, row.ndcg.high))
        table.add_row(row.name, *map(_shown, ends), f"{row.seconds:.1f}")
    return table


def _blend(blend: BlendReport) -> Table:
    heads = ["reward", "nDCG", "loses", "at most", "ms", "MB"]
    table = empty_table(
        "left out",
        *heads,
        "verdict",
        title=f"A blend of all sources, and without each: {blend.users:,} users",
        caption="reward: users who turned to the first choice; loses: nDCG, and the end of"
        " its interval; ms of a decision and MB of its sources: first of all, then what is saved",
        numbers=heads,
        whole=["left out", "verdict"],
    )

    for row in blend.rows:
        lost = row.lost_ndcg if row.without else Metric(None)
        ends = ("" if end is None else f"{end:+.4f}" for end in (lost.value, lost.high))
        ms, mb = (row.saved_ms, row.saved_mb) if row.without else (row.ms, row.mb)
        table.add_row(
            ", ".join(row.without) or "none",
            _shown(row.reward),
            _shown(row.ndcg),
            *ends,
            *(f"{ms:.2f}", f"{mb:.1f}", row.verdict),
            style="" if row.without else "bold",
        )
    return table


def _shown(metric: Metric | None) -> str:
    """Return a value for a reader; a dash where there is none."""
    return "-" if metric is None or metric.value is None else f"{metric.value:.4f}"
