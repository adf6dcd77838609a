"""The files of a log's archive, opened one after the other: none missing, none damaged, none twice.

Files may go while they are read: compaction removes small ones once a larger one holds the same
entries. Folders may list a file late. Both are waited for, and then an error says what is missing.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import msgspec
import pyarrow as pa

from bandits.errors import ArchiveError
from bandits.log.positions import START, has_reached, is_after, log_order
from policies.archive.footers import said_header
from policies.archive.layouts import (
    METADATA,
    RowGroups,
    layout_fault,
    open_parquet,
    record_bytes,
    said_groups,
)
from policies.archive.listing import ListedFile, Listing
from policies.archive.range_file import Range, RangeHeader
from policies.storage import Storage

ASKED_AT_ONCE = 16
"""Files of an object store that are asked at a time what they are."""
FOOTERS = 4
"""Files whose footers are kept decoded."""

Item = TypeVar("Item")


class LookAgainError(Exception):
    """A file is missing that may be there when folders are listed again.

    ``missing``: the error if it is not.
    """

    def __init__(self, missing: ArchiveError) -> None:
        super().__init__(missing.message)
        self.missing = missing


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A range file that was opened: what its name says, what it says of itself, its Parquet.

    ``groups``: what it says of its row groups, None in a file that says nothing of them.
    """

    listed: ListedFile
    header: RangeHeader
    parquet: Any
    groups: RowGroups | None

    @property
    def range(self) -> Range:
        """The range that it says it is."""
        return self.header.range


class SaidRange(NamedTuple):
    """A range file that was asked what it is. ``record_bytes``: of its records in the stream."""

    listed: ListedFile
    header: RangeHeader
    record_bytes: int

    @property
    def range(self) -> Range:
        """The range that it says it is."""
        return self.header.range


class RangeChain:
    """Opens the files of one log's archive in order.

    Methods raise ArchiveError for a file that is damaged or missing, and OSError for an unreachable
    file system.

    ``listing``: which files there are.
    """

    def __init__(self, files: Storage, policy: str) -> None:
        self.listing = Listing(files)
        self._files = files
        self._policy = policy
        self._footers: dict[ListedFile, tuple[Any, RangeHeader, RowGroups | None]] = {}

    def past(self, after: str | None, through: str | None = None) -> Iterator[OpenFile]:
        """Yield each file that goes past a position, in order, without a gap (within ``resumed``).

        Args:
            after: the position; None for the oldest file that is kept.
            through: the last position that is needed; None for all.

        Raises:
            LookAgainError: a file is missing that another listing may show.
        """
        position = after
        before: Range | None = None
        for listed in self.listing.after(after):
            if position is not None and through is not None and has_reached(position, through):
                return

            with self.open(listed) as opened:
                stored = opened.range
                self._demand_next(before, position, stored)
                if through is not None and is_after(stored.first, through):
                    return

                yield opened
                position, before = stored.last, stored

        self._demand_all(position or START, through)

    def headers(self, after: str | None) -> Iterator[SaidRange]:
        """Yield what each file past a position says of itself; only its last bytes are read.

        Args:
            after: the position; None for the oldest file that is kept.

        Raises:
            LookAgainError: as ``past``.
        """
        position = after
        before: Range | None = None
        with ThreadPoolExecutor(ASKED_AT_ONCE) as threads:
            files = self.listing.after(after)
            while some := list(islice(files, 16 * ASKED_AT_ONCE)):
                for said in threads.map(self._said, some):
                    self._demand_next(before, position, said.range)
                    yield said
                    position, before = said.range.last, said.range
        self._demand_all(position or START, None)

    def _said(self, listed: ListedFile) -> SaidRange:
        try:
            with self._files.open(listed.path) as source, self.reading(listed):
                said = said_header(source)
        except FileNotFoundError as error:
            raise LookAgainError(self._gone(listed)) from error

        # Older layouts, and files that are damaged.
        if said is None or self._fault(listed, said[0]) is not None:
            with self.open(listed) as opened:
                said = opened.header, record_bytes(opened.parquet.metadata)
        return SaidRange(listed, *said)

    def resumed(
        self, read: Callable[[Any], Iterator[tuple[str, Item]]], after: str | None
    ) -> Iterator[Item]:
        """Yield all that is read. Where a file goes or is missing, folders are listed again.

        Args:
            read: yields what there is past a position, each with the position that it reaches.
            after: where to begin; None: with the oldest file that is kept.
        """
        position, waits = after, self._files.waits()
        missing: ArchiveError | None = None
        while True:
            try:
                for reached, item in read(position):
                    yield item
                    position, waits, missing = reached, self._files.waits(), None
            except LookAgainError as again:
                missing, wait_s = missing or again.missing, next(waits, None)
                if wait_s is None:
                    raise missing from again.__cause__
                time.sleep(wait_s)
            else:
                return

    @contextlib.contextmanager
    def open(self, listed: ListedFile) -> Iterator[OpenFile]:
        """Open a file, which has to be what its name says.

        Raises:
            LookAgainError: it is not there any more.
        """
        try:
            source = self._files.open(listed.path)
        except FileNotFoundError as error:
            raise LookAgainError(self._gone(listed)) from error

        with source:
            # A log is read twice side by side, its light columns ahead of the others.
            known = self._footers.get(listed)
            if known is not None:
                with self.reading(listed):
                    parquet = open_parquet(source, known[0])
                yield OpenFile(listed, known[1], parquet, known[2])
                return

            with self.reading(listed):
                parquet = open_parquet(source)
                said = (parquet.metadata.metadata or {}).get(METADATA)
                if said is None:
                    raise ValueError(
                        "it is a table of something else: of an archive's files each says in its"
                        f" metadata, under {METADATA.decode()}, which it is"
                    )
                header = msgspec.json.decode(said, type=RangeHeader)
                fault = layout_fault(parquet, header.format, header.range.count)

            fault = fault or self._fault(listed, header)
            if fault is not None:
                raise self.damaged(listed, fault)
            with self.reading(listed):
                groups = said_groups(parquet, header.range.last)
            # Other threads may do the same: a dictionary that is in place is not changed.
            kept = list(self._footers.items())[1 - FOOTERS :]
            self._footers = {**dict(kept), listed: (parquet.metadata, header, groups)}
            yield OpenFile(listed, header, parquet, groups)

    @contextlib.contextmanager
    def reading(self, listed: ListedFile, group: int | None = None) -> Iterator[None]:
        """Raise what goes wrong while a file is read as what it is.

        Args:
            listed: the file.
            group: its row group that is read, from 0; None for no special one.

        Raises:
            ArchiveError: the file is damaged.
            LookAgainError: it was removed or replaced.
        """
        try:
            yield
        except (pa.ArrowException, msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
            raise self._replaced_or_damaged(listed, group, error) from error
        except OSError as error:
            # What the file system itself reports has a number, and is no damage.
            if error.errno is not None and not isinstance(error, FileNotFoundError):
                raise
            raise self._replaced_or_damaged(listed, group, error) from error

    def _fault(self, listed: ListedFile, header: RangeHeader) -> str | None:
        """Return what is wrong where a file does not say that it is what its name says."""
        stored = header.range
        if (header.policy, stored.path) == (self._policy, listed.final_path):
            return None
        return f"it says it is {stored.count} entries of {header.policy}, {stored.path}"

    def full(self, listed: ListedFile) -> str:
        """Return a file's path within its file system."""
        return self._files.full(listed.path)

    def damaged(self, listed: ListedFile, detail: str, group: int | None = None) -> ArchiveError:
        """Return the error of a file that is not what it was.

        Args:
            listed: the file.
            detail: what is wrong with it.
            group: its row group where that is, from 0; None for no special one.
        """
        fix = (
            "delete it, and compact again: what it was made of is beside it"
            if listed.is_compacted
            else "restore it from a copy; the newest file of an archive can also be deleted, it is"
            " written again when the service restarts, if Redis still holds its entries"
        )
        where = "" if group is None else f", row group {group}"
        return ArchiveError(
            f"{self._files.full(listed.path)}{where}: damaged ({detail}): {fix}", "archive"
        )

    def _replaced_or_damaged(
        self, listed: ListedFile, group: int | None, error: Exception
    ) -> Exception:
        if self.listing.is_gone(listed):
            return LookAgainError(self._gone(listed))
        return self.damaged(listed, str(error), group)

    def _gone(self, listed: ListedFile) -> ArchiveError:
        return ArchiveError(
            f"{self._files.full(listed.path)}: this file was listed, and is gone: restore it, or"
            " look what removes files of the archive",
            "archive",
        )

    def _demand_next(self, before: Range | None, position: str | None, stored: Range) -> None:
        """Demand that a file goes on where those before it ended."""
        if position is not None and is_after(stored.previous, position):
            raise LookAgainError(self._break(before, position, stored))
        if before is not None and stored.previous != before.last:
            raise self._break(before, position, stored)

    def _demand_all(self, position: str, through: str | None) -> None:
        """Demand that a listing ends no earlier than one before it, or it is stale."""
        reaches = self.listing.reaches
        wanted = reaches if through is None else min(reaches, through, key=log_order)
        if self._files.is_remote and not has_reached(position, wanted):
            raise LookAgainError(self._cut_short(position))

    def _cut_short(self, position: str) -> ArchiveError:
        return ArchiveError(
            f"the archive of {self._policy} was listed up to {self.listing.reaches}, and is now"
            f" only up to {position}: its store lists files late, or files were deleted, under"
            f" {self._files.full('')}: try again",
            "archive",
        )

    def _break(self, before: Range | None, position: str | None, after: Range) -> ArchiveError:
        reached = f"range {before}" if before is not None else f"position {position}"
        gap = position is None or is_after(after.previous, position)
        kind, fix = (
            ("a gap", "restore the files between them")
            if gap
            else ("an overlap", "remove the one that is wrong")
        )
        late = "; a store that lists files late needs time" if gap and self._files.is_remote else ""
        return ArchiveError(
            f"the archive of {self._policy} has {kind}: {reached} is followed by range {after},"
            f" which continues from {after.previous}: {fix}, under {self._files.full('')}{late}",
            "archive",
        )
