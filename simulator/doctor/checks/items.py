"""The log of items says what it seems to: whoever begins at a base has what all entries make."""

from collections.abc import Callable, Iterator

from bandits.errors import BanditloopError
from bandits.log.codec import digest
from bandits.log.positions import START
from bandits.log.records import ItemsBaseRecord, ItemsRecord, LogEntry
from policies.items.past import ItemsLog
from policies.items.timeline import ItemTimeline
from simulator.doctor.checks.findings import Finding, Severity, make_finding

END = f"{2**64 - 1}-{2**64 - 1}"
"""Past every entry."""
FORGET_EVERY = 1_000
"""Entries after which what older versions need is forgotten."""


def items_log(
    log: ItemsLog, progress: Callable[[LogEntry], None] = lambda _: None
) -> Iterator[Finding]:
    """Yield one finding, none of a log without entries.

    Args:
        log: The log of a policy's items.
        progress: Told of each entry.
    """
    timeline = ItemTimeline()
    entries = changes = refused = compared = 0
    wrong: list[str] = []
    try:
        said = _bases(log)
        for entry in log.encoded(START):
            record = entry.record
            entries += 1
            changes += len(record.changes) if isinstance(record, ItemsRecord) else 0
            refused += len(timeline.apply(entry, log.blob))

            data = said.pop(timeline.version, None)
            if data is not None:
                compared += 1
                if digest(timeline.encoded) != data:
                    wrong.append(f"the base of version {timeline.version} has other items")
            if entries % FORGET_EVERY == 0:
                timeline.forget(entry.id)
            progress(entry)
        wrong += [
            f"no entries make version {version}, of which there is a base" for version in said
        ]
    except (BanditloopError, OSError) as error:
        wrong.append(f"it cannot be read past entry {entries:,}: {error}")
    if not entries and not wrong:
        return

    severity: Severity = "failure" if wrong else "warning" if refused else "ok"
    yield make_finding(
        "items",
        severity,
        f"the log of items has {entries:,} entries with {changes:,} changes, of which {refused:,}"
        f" were refused; {compared:,} whole catalogues are what the entries before them make"
        + (f"; {len(wrong):,} faults, the first: {wrong[0]}" if wrong else ""),
        cause="something wrote to the log of items past the service, or a blob is gone or damaged"
        if wrong
        else "changes of items that cannot be made were written past the service's checks",
        action="restore the log of items and its blobs from the archive or a copy"
        if wrong
        else "see that producers put valid items; those that were refused changed nothing",
        figures={
            "entries": entries,
            "changes": changes,
            "refused": refused,
            "compared": compared,
            "faults": len(wrong),
            "first": wrong[0] if wrong else None,
        },
    )


def _bases(log: ItemsLog) -> dict[str, str]:
    """Return the digest of what is said to be each version."""
    records = (entry.record for entry in log.bases(END))
    return {
        record.version: record.digest
        for record in records
        if isinstance(record, ItemsBaseRecord) and record.version is not None
    }
