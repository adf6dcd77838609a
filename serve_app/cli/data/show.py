"""``banditloop data show``: what is in a data set, in the terminal and as a page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from serve_app.cli.options import AsJson, out_file
from serve_app.cli.terminal import empty_table, messages, print_report, progress_bar, say

if TYPE_CHECKING:
    from simulator.data.statistics import DataSummary

MOST_DAYS = 14
"""Days that are shown; of more, the last ones."""


def show(
    folder: Annotated[str, typer.Argument(help="The data set: a folder, or a URI")],
    html: Annotated[
        Path | None, out_file("File to write the report to as a self-contained page", "--html")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what is in a data set, and what that means for recommendations."""
    from policies.data.data_set import DataSet
    from simulator.data.page import data_page
    from simulator.data.statistics import summary_of

    data = DataSet.open(folder)
    with progress_bar(console=messages, transient=True) as bar:
        task = bar.add_task("counting events", total=data.manifest.counts.events)
        summary = summary_of(data, lambda count: bar.advance(task, count))

    if html is not None:
        html.write_text(data_page(summary), encoding="utf-8")
    print_report(summary, summary_tables(summary), None, as_json=as_json)
    if html is not None:
        say(f"the page is {html}")


def summary_tables(summary: "DataSummary") -> list[Table | Text]:
    """Return the summary for a person: the figures, then what they mean."""
    from simulator.data.page import columns_read, dropped_rows, facts_of, origin_of

    parts: list[Table | Text] = [Text(f"{summary.name}: {origin_of(summary)}")]
    facts = empty_table("what", "how many", numbers=("how many",), show_header=False)
    for what, how_many in facts_of(summary):
        facts.add_row(what, how_many)
    parts += [facts, _types(summary)]
    if summary.days:
        parts.append(_days(summary))
    parts += [_activity(summary), _popularity(summary)]

    if dropped := dropped_rows(summary):
        table = empty_table(
            "reason",
            "rows",
            "share",
            "an example",
            title=f"Left out of {summary.rows_read:,} rows",
            numbers=("rows", "share"),
        )
        for left_out in dropped:
            table.add_row(*left_out)
        parts.append(table)
    if columns := columns_read(summary):
        table = empty_table("field", "column of the file, or kind of feature", title="Columns")
        for row in columns:
            table.add_row(*row)
        parts.append(table)
    return [*parts, *map(_sentence, (*summary.notes, *summary.remarks))]


def _sentence(text: str) -> Text:
    return Text(f"- {text}")


def _types(summary: "DataSummary") -> Table:
    heads = ("type", "events", "share", "weight")
    table = empty_table(*heads, title="Types of events", numbers=heads[1:])
    for each in summary.types:
        table.add_row(each.type, f"{each.events:,}", f"{each.share:.1%}", f"{each.weight:g}")
    return table


def _days(summary: "DataSummary") -> Table:
    """Return the last days, by the most frequent types."""
    names = [each.type for each in summary.types[:4]]
    shown = list(summary.days.items())[-MOST_DAYS:]
    title = "Events by day (UTC)"
    if len(shown) < len(summary.days):
        title += f", the last {len(shown)} of {len(summary.days):,} with events"
    table = empty_table("day", "events", *names, title=title, numbers=("events", *names))
    for day, counts in shown:
        row = (f"{counts.get(name, 0):,}" for name in names)
        table.add_row(day, f"{sum(counts.values()):,}", *row)
    return table


def _activity(summary: "DataSummary") -> Table:
    heads = ("events of one", "users", "items")
    table = empty_table(*heads, title="How much is known of each", numbers=heads[1:])
    for band in summary.users.bands:
        row = (each.bands[band] for each in (summary.users, summary.items))
        table.add_row(band, *(f"{count:,}" for count in row))
    table.add_row("fewer than 5", f"{summary.users.few:.1%}", f"{summary.items.few:.1%}")
    return table


def _popularity(summary: "DataSummary") -> Table:
    heads = ("most popular items", "share of events")
    table = empty_table(
        *heads,
        title="How popular the popular items are",
        numbers=heads[1:],
        caption=f"Gini index {summary.popularity.gini:.2f}",
    )
    for share, events in summary.popularity.top.items():
        table.add_row(share, f"{events:.1%}")
    return table
