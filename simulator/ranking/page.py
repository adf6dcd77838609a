"""The report of an evaluation of sources as one HTML page that needs nothing else."""

from html import escape

from simulator.pages import STYLE
from simulator.ranking.page_charts import (
    groups_chart,
    legend,
    pools_chart,
    quality_chart,
    trade_chart,
)
from simulator.ranking.report import (
    SIGNIFICANT,
    BlendReport,
    Metric,
    RankingReport,
    blend_sentence,
    metric_names,
    report_facts,
    significance_sentence,
)


def ranking_page(report: RankingReport) -> str:
    """Return the whole page: quality with intervals, groups, what is recommended, pools, tests."""
    users = [group for group, count in report.user_groups.items() if count]
    items = [group for group, share in report.item_groups.items() if share]

    parts = [
        (
            "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport'"
            " content='width=device-width'>"
        ),
        f"<title>Sources on {escape(report.data)}</title><style>{STYLE}",
        ".wide { overflow-x: auto } .wide td, .wide th { white-space: nowrap }",
        "th.n { text-align: right }</style><body>",
        f"<h1>What each source is worth on {escape(report.data)}</h1>",
        f"<p><b>{escape(_begun(significance_sentence(report)))}.</b></p>",
        "".join(f"<p class='soft'>{escape(fact)}.</p>" for fact in report_facts(report)),
        "".join(f"<p class='weak'>{escape(_begun(note))}.</p>" for note in report.notes),
        legend(report),
        f"<h2>Quality: nDCG of lists of {report.k}, with 95% intervals over users</h2>",
        quality_chart(report),
        "<h2>All metrics</h2>",
        _metrics(report),
        f"<h2>By group of users: nDCG</h2><p class='soft'>{escape(report.group_sentence)}.</p>",
        groups_chart(report, users, lambda row: row.user_groups),
        (
            "<h2>By group of items: recall</h2><p class='soft'>head: the most popular items, which"
            " hold half of the training events; middle: the next, up to 80%; tail: the rest. Of the"
            f" relevant items {_shares(report)}.</p>"
        ),
        groups_chart(report, items, lambda row: row.item_groups),
        "<h2>Quality and what is recommended</h2>",
        trade_chart(report, "coverage", "share of all items that anybody was recommended"),
        "<h2>Pools: what sources hold together</h2>",
        _pools(report),
        pools_chart(report.limits) if report.limits else "",
        "<h2>Learners</h2>" if report.learners else "",
        _learners(report) if report.learners else "",
        "" if report.blend is None else _blend(report.blend),
        "<h2>Paired tests</h2>",
        _tests(report),
    ]
    return "\n".join(parts) + "</body></html>\n"


def _begun(sentence: str) -> str:
    """Return a sentence of the terminal's tables with a capital."""
    return sentence[:1].upper() + sentence[1:]


def _shares(report: RankingReport) -> str:
    return ", ".join(f"{share:.0%} are {group}" for group, share in report.item_groups.items())


def _metrics(report: RankingReport) -> str:
    names = metric_names(report)

    lines = [
        "<div class='wide'><table><tr><th>ranked by"
        + "".join(f"<th class='n'>{escape(name)}" for name in names.values())
        + "<th class='n'>ms<th></tr>"
    ]
    for row in report.results:
        cells = "".join(
            f"<td class='n'{_title(row.metrics.get(name))}>{_shown(row.metrics.get(name))}"
            for name in names
        )
        asked = "" if row.ask_ms is None else f"{row.ask_ms:.2f}"
        lines.append(
            f"<tr><td>{escape(row.name)}{cells}<td class='n'>{asked}"
            f"<td class='soft'>{escape(row.note)}</tr>"
        )

    return (
        "\n".join(lines)
        + "</table></div><p class='soft'>Point at a figure for its interval. ms: to answer for one"
        " user, here.</p>"
    )


def _pools(report: RankingReport) -> str:
    lines = [
        "<table><tr><th>pool of"
        + "".join(
            f"<th class='n'>{head}" for head in ("limit", "candidates", "recall", "adds", "nDCG")
        )
        + "</tr>"
    ]

    for rows in (report.pools, report.limits):
        for row in rows:
            name = "all" if rows is report.limits else " + ".join(row.sources)
            gain = "" if rows is report.limits else _shown(row.gain)
            lines.append(
                f"<tr><td>{escape(name)}<td class='n'>{row.limit}<td class='n'>{row.size:.0f}"
                f"<td class='n'>{row.recall:.4f}<td class='n'{_title(row.gain)}>{gain}"
                f"<td class='n'{_title(row.ndcg)}>{_shown(row.ndcg)}</tr>"
            )
    return "\n".join(lines) + (
        "</table><p class='soft'>A pool is what a policy chooses from. Recall: the share of a"
        " user's relevant items that is in it. Adds: recall beyond that of the row above with its"
        " limit raised until it holds as many candidates. nDCG: of the pool in the order of a ridge"
        " regression on the sources' scores. Below, recall by size; figures are limits.</p>"
    )


def _learners(report: RankingReport) -> str:
    lines = ["<table><tr><th>learner<th class='n'>nDCG<th>95% interval<th class='n'>s</tr>"]
    for row in report.learners:
        low, high = row.ndcg.low or 0.0, row.ndcg.high or 0.0
        lines.append(
            f"<tr><td>{escape(row.name)}<td class='n'>{_shown(row.ndcg)}"
            f"<td>{low:.4f} … {high:.4f}<td class='n'>{row.seconds:.1f}</tr>"
        )
    return (
        "<p class='soft'>Each is taught what users of the validation part did with the candidates"
        " of sources that were trained before, and orders the pools of test users.</p>"
        + "\n".join(lines)
        + "</table>"
    )


def _blend(blend: BlendReport) -> str:
    heads = ("reward", "nDCG", "loses reward", "loses nDCG", "ms", "saves", "MB", "saves")
    lines = [
        "<div class='wide'><table><tr><th>blend"
        + "".join(f"<th class='n'>{head}" for head in heads)
        + "<th>verdict</tr>"
    ]

    several = blend.spared is not None and len(blend.spared.without) > 1
    for row in [*blend.rows, *([blend.spared] if several and blend.spared else [])]:
        name = f"without {', '.join(row.without)}" if row.without else "all"
        lost = "".join(
            f"<td class='n'{_title(metric)}>{_signed(metric) if row.without else ''}"
            for metric in (row.lost_reward, row.lost_ndcg)
        )
        saved = (f"{row.saved_ms:.2f}", f"{row.saved_mb:.1f}") if row.without else ("", "")
        lines.append(
            f"<tr><td>{escape(name)}<td class='n'{_title(row.reward)}>{_shown(row.reward)}"
            f"<td class='n'{_title(row.ndcg)}>{_shown(row.ndcg)}{lost}<td class='n'>{row.ms:.2f}"
            f"<td class='n'>{saved[0]}<td class='n'>{row.mb:.1f}<td class='n'>{saved[1]}"
            f"<td>{row.verdict}</tr>"
        )
    return (
        "<h2>What each source is worth to a blend</h2>"
        f"<p><b>{escape(blend_sentence(blend))}.</b></p>"
        + "\n".join(lines)
        + f"</table></div><p class='soft'>A blend of {blend.limit} candidates of each source is"
        " taught what users of the validation part did, and chooses for others. Reward: the share"
        " of users who turned to its first choice. ms: processor time of a decision, its sources"
        " asked afresh. MB: its sources in a replica. Point at a figure for its interval; keep:"
        " what is lost without the source is more than chance; spare: no loss is to be told from"
        " chance; harms: something is won.</p>"
    )


def _tests(report: RankingReport) -> str:
    lines = [
        (
            "<table><tr><th>left less right<th class='n'>nDCG<th>95% interval<th class='n'>p"
            "<th class='n'>p (Holm)</tr>"
        )
    ]
    for test in sorted(report.tests, key=lambda test: test.adjusted):
        weight = "b" if test.adjusted < SIGNIFICANT else "span"
        lines.append(
            f"<tr><td>{escape(test.left)} less {escape(test.right)}"
            f"<td class='n'><{weight}>{test.difference:+.4f}</{weight}>"
            f"<td>{test.low:+.4f} … {test.high:+.4f}"
            f"<td class='n'>{test.p_value:.3g}<td class='n'>{test.adjusted:.3g}</tr>"
        )
    return (
        "<details><summary>Every two rows, on the same users: Fisher's randomisation test"
        "</summary>" + "\n".join(lines) + "</table></details>"
    )


def _shown(metric: Metric | None) -> str:
    return "" if metric is None or metric.value is None else f"{metric.value:.4f}"


def _signed(metric: Metric) -> str:
    return "" if metric.value is None else f"{metric.value:+.4f}"


def _title(metric: Metric | None) -> str:
    if metric is None or metric.low is None or metric.high is None:
        return ""
    return f" title='{metric.low:.4f} … {metric.high:.4f}'"
