"""Remarks on a data set: a sentence for each thing that matters for recommendations."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulator.data.statistics import DataSummary

DAY_MS = 86_400_000


def remarks_on(summary: "DataSummary") -> list[str]:
    """Return the remarks on a data set; none if there is nothing to say."""
    return [*_on_rows(summary), *_on_times(summary), *_on_worth(summary), *_on_spread(summary)]


def _on_rows(summary: "DataSummary") -> Iterator[str]:
    dropped = {reason: each.rows for reason, each in summary.dropped.items() if each.rows}
    if summary.rows_read and sum(dropped.values()) > 0.1 * summary.rows_read:
        worst = max(dropped, key=lambda reason: dropped[reason])
        yield (
            f"{sum(dropped.values()) / summary.rows_read:.0%} of the rows were left out, most of"
            f" them for one reason: {worst.replace('_', ' ')}."
        )
    if summary.events and summary.duplicates > 0.01 * summary.events:
        yield (
            f"{summary.duplicates / summary.events:.0%} of the events equal another one in user,"
            " item, type and time: each counts."
        )


def _on_times(summary: "DataSummary") -> Iterator[str]:
    if summary.first_ms is None or summary.last_ms is None:
        yield (
            "No event has a time: sources cannot be judged by what came later, and what is trending"
            " is not known."
        )
        return
    if summary.untimed:
        yield (
            f"{summary.untimed:,} events have no time: a split by time leaves them out of what"
            " comes later."
        )
    if summary.last_ms - summary.first_ms < 2 * DAY_MS:
        yield "All events are of less than two days: little shows what people return to."


def _on_worth(summary: "DataSummary") -> Iterator[str]:
    if len(summary.types) > 1 and len({each.weight for each in summary.types}) == 1:
        names = ", ".join(f"{each.type}: {number}" for number, each in enumerate(summary.types, 1))
        yield (
            f"Every type of event weighs the same; import again with --weights '{{{names}}}' (your"
            " numbers) if some say more."
        )
    if summary.values is not None and summary.weights.rating_scale is None:
        low, high = summary.values.least, summary.values.most
        yield (
            "The values of events are kept, and count for nothing; import again with"
            f" --rating-scale {low:g}:{high:g} if they are ratings."
        )


def _on_spread(summary: "DataSummary") -> Iterator[str]:
    if summary.users.few > 0.5:
        yield (
            f"{summary.users.few:.0%} of the users have fewer than 5 events: what is popular serves"
            " them best until they do more."
        )
    if summary.items.few > 0.5:
        yield (
            f"{summary.items.few:.0%} of the items have fewer than 5 events: collaborative sources"
            " know little of them."
        )

    if summary.listed_without_events:
        yield (
            f"{summary.listed_without_events:,} of {summary.listed_items:,} items have no event:"
            " only exploration, or a source that reads features, can propose them."
        )

    if summary.popularity.top and summary.popularity.top["1%"] > 0.5:
        yield (
            f"1% of the items have {summary.popularity.top['1%']:.0%} of the events: a source that"
            " proposes what is popular is hard to beat, and says little."
        )

    if summary.users.count == 1 or summary.items.count == 1:
        what = "user" if summary.users.count == 1 else "item"
        yield f"There is one {what}: nothing can be learned from what others did."
