"""The items of one policy in a replica: their log followed to its end, changed, and looked up."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

from banditloop_client.schemas import ItemResponse, ItemsPage, ItemsQuery, ItemsVersion
from bandits.errors import (
    ArtifactError,
    CodecError,
    InvalidFieldError,
    LogUnavailableError,
    MissingBlobError,
    NotReadyError,
    SnapshotError,
    UnknownItemError,
)
from bandits.log.codec import digest
from bandits.log.encoded_decisions import read_entries
from bandits.log.positions import START, is_after
from bandits.log.records import ItemChange, ItemsBaseRecord, ItemsRecord, LogEntry
from policies.items.catalogue import NEVER_PUT, Catalogue
from policies.items.changes import check_new, checked_patch
from policies.items.listing import ItemListing
from policies.items.timeline import ItemTimeline, RefusedChange
from policies.requests import Item
from serve_app.store.blobs.parts import PART, read_blob_async, write_blob_async
from serve_app.store.clients import FAILURES, AsyncRedis
from serve_app.store.event_log import FIELD, LogWriter
from serve_app.store.items.bases import FIELDS, ItemsBase, append_base
from serve_app.store.keys import ItemsKeys, Keys, LogKeys
from serve_app.store.replicas.shared_wire import reason_of

READ, READ_FIRST = 500, 10
"""Entries at a time: as many as there are, and while it is not known yet how large they are."""
READ_BYTES = 1 << 20
"""About as much at a time: an entry may hold 10,000 items."""
CHANGES_PER_TURN = 50
"""How many items change before requests get their turn: some thousandths of a second."""
TOGETHER = 4 * PART
"""So many bytes of changes are one message to Redis, all or none of which it takes."""
REMEMBERED = 5_000
"""Changes for which a version is remembered at least: decisions that are being made use it."""

log = logging.getLogger("banditloop.items")

OnItems = Callable[[ItemTimeline, Collection[str] | None], None]
"""Is told of the items as they are now, and which have changed; None: any may be another."""


class _Question(NamedTuple):
    """A question to the log: it has a number, and wants so many entries at most."""

    number: int
    most: int


class _Outcome(NamedTuple):
    """The outcome of an entry of this replica's: a version, and the changes that were refused."""

    version: ItemsVersion
    refused: list[RefusedChange]


class ReplicaItems:
    """Keeps one replica at the end of a policy's log of items, and appends to it.

    ``timeline`` has the items as they are now, as far as the log was read.
    """

    def __init__(
        self,
        client: AsyncRedis,
        writer: LogWriter,
        keys: ItemsKeys,
        on_items: OnItems,
        *,
        older: Keys,
        brought: bool,
    ) -> None:
        """Begin with no items.

        Args:
            client: the replica's.
            writer: appends to the log.
            keys: the log's.
            on_items: called on the event loop after each few changes; of all items, at the start
                and when they were replaced, it is told in a thread.
            older: those of the partition in whose log builds without a log of items named whole
                catalogues; ``of_snapshot`` is the one that the served snapshot names.
            brought: whether an artifact brings the items that the log begins with.
        """
        self._client = client
        self._writer = writer
        self._keys = keys
        self._on_items = on_items

        self.timeline = ItemTimeline()
        self.refused = 0
        self.begun = False
        self.of_snapshot = ""
        self._older, self._brought = older, brought
        self._listing = ItemListing(self.timeline)
        self._put: Catalogue | None = None
        self._changes, self._remembered = 0, START

        # Questions have numbers: ``_ended`` is of the newest whose answer was the log's end.
        self._reading, self._taking = asyncio.Lock(), asyncio.Lock()
        self._asked = self._answered = self._ended = 0
        self._count = READ_FIRST
        self._writing = 0
        self._outcomes: dict[str, _Outcome] = {}

    @property
    def loaded(self) -> bool:
        """Whether there are items to serve: the log's, or while it has none yet, a snapshot's."""
        if self.begun:
            return self._ended > 0
        # Nothing was put yet: what an artifact brings is about to be.
        if self._brought and self.of_snapshot == NEVER_PUT:
            return False
        return self.timeline.version == self.of_snapshot

    # Following

    def ask(self, pipeline: Any) -> _Question:
        """Add to a pipeline what there is to ask; return the question."""
        pipeline.xrange(self._keys.log, f"({self.timeline.position}", count=self._count)
        pipeline.hmget(self._keys.base, FIELDS)
        self._asked += 1
        return _Question(self._asked, self._count)

    async def take(self, question: _Question, answers: Sequence[Any]) -> bool:
        """Take what a pipeline has answered; other requests get their turns meanwhile.

        Return whether there was anything new.

        Args:
            question: what it was asked.
            answers: the two that it asked for.

        Raises:
            SnapshotError: a whole catalogue that the log names is not stored, or damaged.
            ArtifactError: it is none.
        """
        raw, base = answers[0], ItemsBase.of(answers[1])
        async with self._taking:
            if base is None:
                await self._begin_older()
                return False
            position = self.timeline.position
            if not await self._goes_on(base, lost=question.number > self._answered + 1):
                await self._begin(base)
                if is_after(position, base.begins):
                    return True  # what was asked for comes behind what is needed now
            self._answered = max(self._answered, question.number)

            entries = [(entry_id.decode(), fields.get(FIELD, b"")) for entry_id, fields in raw]
            await self._apply(read_entries(entries, _skip))
            if len(raw) < question.most:
                self._ended = max(self._ended, question.number)
            if entries:
                size = sum(len(data) for _, data in entries) // len(entries)
                self._count = min(READ, max(1, READ_BYTES // max(1, size)))
            return bool(entries)

    async def catch_up(self) -> None:
        """Read to the end of the log, as of this call; whoever waits shares what is read.

        Raises:
            NotReadyError: the log has not begun.
            LogUnavailableError: Redis does not answer.
        """
        needed = self._asked + 1
        async with self._reading:
            try:
                while self._ended < needed:
                    await self._read()
            except FAILURES as error:
                raise LogUnavailableError(
                    f"the log of items cannot be read ({reason_of(error)}): retry in a moment"
                ) from error

    async def _read(self) -> None:
        pipeline = self._client.pipeline(transaction=False)
        question = self.ask(pipeline)
        await self.take(question, await pipeline.execute())
        if not self.begun:
            raise NotReadyError("the log of items has not begun yet: try again in a moment")

    async def _goes_on(self, base: ItemsBase, *, lost: bool) -> bool:
        """Say whether what comes behind this timeline is in the stream.

        Args:
            base: where readers begin.
            lost: whether a question was not answered before.
        """
        if not self.begun:
            return False
        position = self.timeline.position
        if not lost and not is_after(base.begins, position):
            return True

        # A newer base has come: what is needed by nobody may have been trimmed. Or another server
        # answers by now, which may never have had what the one before did not wait for.
        own: Any = await self._client.xrange(self._keys.log, position, position, count=1)
        return bool(own)

    async def _begin(self, base: ItemsBase) -> None:
        """Begin at the newest whole catalogue."""
        await self._swap(self._keys, base.digest, version=base.version, at=base.begins)
        self.begun = True

    async def _begin_older(self) -> None:
        """Serve what the snapshot names, until its log's leader lets the log of items begin."""
        if not self.loaded and self.of_snapshot:
            await self._swap(self._older, self.of_snapshot)

    async def _swap(
        self, keys: LogKeys, name: str, *, version: str | None = None, at: str = START
    ) -> None:
        """Go on with a whole catalogue, which a thread decodes.

        Args:
            keys: those of the log that has its blob.
            name: the blob's digest.
            version: the version that it is; without one, its digest.
            at: the position of the last entry that is in it.
        """
        put = self._put
        own = put if put is not None and put.digest == name else None
        data = b"" if own is not None else await read_blob_async(self._client, keys, name)
        if data is None:
            raise SnapshotError(f"blob {name} is not stored", "blob")

        def make() -> ItemTimeline:
            if own is None and digest(data) != name:
                raise SnapshotError("the catalogue's bytes do not match its digest", "catalogue")
            catalogue = Catalogue.decode(data) if own is None else own
            timeline = ItemTimeline(catalogue, version=version, at=at)
            self._on_items(timeline, None)
            return timeline

        self.timeline = await asyncio.to_thread(make)
        self._listing = ItemListing(self.timeline)
        self._changes, self._remembered = 0, at

    async def _apply(self, entries: Sequence[LogEntry]) -> None:
        """Apply entries, each at once, and let requests have their turns in between."""
        changed: dict[str, None] = {}
        for entry in entries:
            if not is_after(entry.id, self.timeline.position):
                continue

            record = entry.record
            if isinstance(record, ItemsBaseRecord) and record.version is None:
                self._tell(changed)
                await self._replaced(entry.id, record.digest)
                continue

            refused = self.timeline.apply(entry, _no_blob)
            if isinstance(record, ItemsRecord):
                self._note(entry.id, refused)
                await self._forget(entry.id, len(record.changes))
                changed |= dict.fromkeys(change.id for change in record.changes)
            if len(changed) >= CHANGES_PER_TURN:
                self._tell(changed)
                await asyncio.sleep(0)
        self._tell(changed)

    async def _replaced(self, position: str, name: str) -> None:
        """Go on with a whole catalogue; one that is none changes nothing, for anybody."""
        try:
            await self._swap(self._keys, name, at=position)
        except ArtifactError as error:
            self.refused += 1
            self.timeline.position = position
            log.warning("the items at %s of %s are refused: %s", position, self._keys.log, error)

    async def _forget(self, position: str, changes: int) -> None:
        """Forget the versions that nobody uses any more."""
        self._changes += changes
        if self._changes >= REMEMBERED:
            self.timeline.forget_versions(self._remembered)
            self._changes, self._remembered = 0, position
            if self.timeline.is_due:
                self.timeline.adopt(await asyncio.to_thread(self.timeline.trimmed))

    def _tell(self, changed: dict[str, None]) -> None:
        if changed:
            self._listing.change(changed)
            self._on_items(self.timeline, changed.keys())
            changed.clear()

    def _note(self, position: str, refused: list[RefusedChange]) -> None:
        """Keep what an entry has made, while this replica may be about to ask."""
        self.refused += len(refused)
        for each in refused:
            log.warning(
                "item %r of %s is not changed at %s: %s",
                each.id,
                self._keys.policy,
                position,
                each.reason,
            )
        if self._writing:
            version = ItemsVersion(self.timeline.version, len(self.timeline))
            self._outcomes[position] = _Outcome(version, refused)

    # Changing

    async def change(self, changes: Sequence[ItemChange]) -> ItemsVersion:
        """Append changes; return the version that they have made.

        Where one is refused, none is appended. Many are several entries: whoever applies them has
        its turns in between.

        Args:
            changes: those of several items are puts alone.

        Raises:
            UnknownItemError: an item to patch or to delete is not there.
            InvalidInputError: the item would be none.
            NotReadyError: the log has not begun.
            LogUnavailableError: not known of all that they are logged.
        """
        if not self.begun or any(change.op != "put" for change in changes):
            await self.catch_up()
        made = [each if each.op == "put" else self._of_item(each) for each in changes]

        with self._remembering():
            outcomes = [await self._outcome_of(each) for each in await self._append(made)]
        for outcome in outcomes:
            if outcome.refused:
                _raise(outcome.refused[0], self.timeline)
        return outcomes[-1].version

    async def _append(self, made: Sequence[ItemChange]) -> list[str]:
        """Append changes; return the positions of the entries.

        Of up to TOGETHER bytes Redis takes all or none. More would hold up whoever else writes:
        they are several messages, and where one fails, those before it stay.
        """
        records = [ItemsRecord(each) for each in _parts(made, CHANGES_PER_TURN)]
        if len(records) == 1:
            return [await self._writer.append(self._keys.log, records[0])]

        if sum(len(change.fields) for change in made) <= TOGETHER:
            return await self._writer.append_together(self._keys.log, records)
        return [await self._writer.append(self._keys.log, record) for record in records]

    def _of_item(self, change: ItemChange) -> ItemChange:
        """Return a change of an item that is there, as it is appended.

        Raises:
            UnknownItemError, InvalidInputError: see ``change``.
        """
        item = self._item(change.id)
        if change.op == "delete":
            return change
        return ItemChange("patch", change.id, checked_patch(change.fields, item))

    async def replace(self, items: Sequence[Item]) -> str:
        """Replace all items; return the digest of their catalogue.

        Raises:
            ArtifactError: two items share an id.
            InvalidInputError: one cannot be offered; it names the field.
            NotReadyError, LogUnavailableError: see ``change``.
        """
        catalogue = await asyncio.to_thread(_checked, items)
        await self.catch_up()
        record = ItemsBaseRecord(catalogue.digest)
        command = append_base(self._keys, record, items=len(catalogue))
        self._put = catalogue
        try:
            await write_blob_async(self._client, self._keys, catalogue.digest, catalogue.encoded)
            if await self._writer.append_by(self._keys.log, command) is None:
                raise self._writer.failed("skipped")
            await self.catch_up()
        except FAILURES as error:
            raise self._writer.failed(reason_of(error)) from error
        finally:
            self._put = None
        return catalogue.digest

    @contextlib.contextmanager
    def _remembering(self) -> Iterator[None]:
        """Keep what entries have made: the one of the caller may be read before it is awaited."""
        self._writing += 1
        try:
            yield
        finally:
            self._writing -= 1
            if not self._writing:
                self._outcomes.clear()

    async def _outcome_of(self, position: str) -> _Outcome:
        while position not in self._outcomes:
            await self.catch_up()
            if not is_after(position, self.timeline.position):
                break

        # All items may have been replaced meanwhile, and the log been read from there on.
        now = ItemsVersion(self.timeline.version, len(self.timeline))
        return self._outcomes.get(position) or _Outcome(now, [])

    # Looking up

    def _item(self, item_id: str) -> Item:
        item = self.timeline.item(item_id)
        if item is None:
            raise UnknownItemError(f"there is no item {item_id!r}", "item_id")
        return item

    async def item(self, item_id: str) -> ItemResponse:
        """Return an item as it is now.

        Raises:
            UnknownItemError: there is none.
            NotReadyError, LogUnavailableError: the log cannot be read.
        """
        await self.catch_up()
        return ItemResponse(self.timeline.version, self._item(item_id))

    async def page(self, query: ItemsQuery) -> ItemsPage:
        """Return a page of the items there are now, in the order of their ids.

        Raises:
            NotReadyError, LogUnavailableError: the log cannot be read.
        """
        await self.catch_up()
        version, total = self.timeline.version, len(self.timeline)
        items, after = await self._listing.page(query.after, query.limit, query.contains)
        return ItemsPage(version, total, items, after)


def _raise(refused: RefusedChange, timeline: ItemTimeline) -> NoReturn:
    """Raise what became of a change: another replica was faster."""
    if timeline.item(refused.id) is None:
        raise UnknownItemError(f"there is no item {refused.id!r}", "item_id")
    raise InvalidFieldError(refused.reason, "item")


def _parts(changes: Sequence[ItemChange], most: int) -> Iterator[list[ItemChange]]:
    """Yield changes in their order, in lists of about a megabyte at most.

    Args:
        changes: there is one at least.
        most: how many a list has at most.
    """
    part: list[ItemChange] = []
    size = 0
    for change in changes:
        if part and (len(part) == most or size + len(change.fields) > PART):
            yield part
            part, size = [], 0
        part.append(change)
        size += len(change.fields)
    yield part


def _checked(items: Sequence[Item]) -> Catalogue:
    catalogue = Catalogue.put(items)
    for at, item in enumerate(items):
        check_new(item, f"items[{at}].")
    return catalogue


def _no_blob(name: str) -> bytes:
    raise MissingBlobError(f"a change of items names no blob, so not {name}", "blob")


def _skip(_entry_id: str, _error: CodecError) -> None:
    """Pass over an entry that nobody can decode: it makes no version."""
