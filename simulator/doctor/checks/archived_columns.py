"""The columns of an archive are those that follow from its records."""

from collections.abc import Callable, Iterator

from policies.archive.archive import ArchiveReader
from policies.archive.audit import audit_columns
from simulator.doctor.checks.findings import Finding, make_finding

ROW_GROUPS = 20
"""Row groups that are looked at: the first and the last, and others spread between them."""
NAMED = 3
"""How many of the faults the message names."""


def archived_columns(
    archive: ArchiveReader, progress: Callable[[int, int], None] = lambda *_: None
) -> Iterator[Finding]:
    """Yield one finding, none of an archive without files.

    Args:
        archive: the archive of one log.
        progress: told how many files of the sample are done, and how many there are.
    """
    groups = entries = 0
    faults: list[str] = []
    for audit in audit_columns(archive, ROW_GROUPS, progress):
        groups, entries = groups + 1, entries + audit.entries
        where = f"{audit.file}, row group {audit.number}"
        if audit.error:
            faults.append(audit.error)
        faults += [f"{where}, entry {fault.entry}: {fault.column}" for fault in audit.faults]

    if not groups:
        return
    said = ", and are them"
    if faults:
        named = "; ".join(faults[:NAMED]) + ("; and more" if len(faults) > NAMED else "")
        said = f"; {len(faults):,} contradict them: {named}"
    yield make_finding(
        "archive_columns",
        "failure" if faults else "ok",
        f"of {groups:,} row groups with {entries:,} entries all columns were derived again from the"
        f" records{said}",
        cause="something wrote to the archive's files past the service, or a disk changed them",
        action="restore the named files from a copy; evaluate nothing from them until then",
        figures={
            "row_groups": groups,
            "entries": entries,
            "contradictions": len(faults),
            "first": faults[0] if faults else None,
        },
    )
