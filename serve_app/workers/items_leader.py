"""The work of partition 0's leader for the log of items, which all policies of a space share.

It lets the log begin, and puts a whole catalogue into it now and then, so that whoever starts reads
no more than about twice what there is. Nothing of this needs a lease: a second leader, for a
moment, does it alike.
"""

import logging
import threading
from time import monotonic
from typing import Any

from bandits.errors import MissingBlobError
from bandits.log.codec import digest
from bandits.log.positions import START
from bandits.log.records import ItemsBaseRecord, ItemsRecord
from policies.items.catalogue import NEVER_PUT, Catalogue
from policies.items.timeline import ItemTimeline
from serve_app.store.blobs.parts import write_blob
from serve_app.store.clients import FAILURES, Redis
from serve_app.store.event_log import RedisLog
from serve_app.store.items.bases import ItemsBase, append_base, read_base
from serve_app.store.items.history import ItemsHistory
from serve_app.store.items.sweep import ItemsSweep
from serve_app.store.keys import ItemsKeys

LEAST_CHANGES = 1_000
"""Changes after which a whole catalogue is due, where there are not so many items."""
LOOK_S = 2.0
RETRY_S = 60.0
"""Time between two attempts to write a whole catalogue, where one has failed."""
WRITING_S = 60
"""How long other leaders leave a whole catalogue to one that has died while it wrote."""
READ, READ_CHANGES = 500, 10_000
"""So many entries at a time, and about as many changes: an entry may hold 10,000."""

log = logging.getLogger("banditloop.items")


class ItemsLeader:
    """Leads a space's log of items, beside the leaders of the other policies there."""

    def __init__(self, client: Redis, keys: ItemsKeys, history: ItemsHistory) -> None:
        """Lead it.

        Args:
            client: this process's own connection.
            keys: the log's.
            history: reads all of it.
        """
        self._client, self._keys = client, keys
        self._reader = RedisLog(client, keys)
        self._history = history
        self._sweep = ItemsSweep(client, keys, history.archive)
        self._base: ItemsBase | None = None
        self._position = START
        self._changes = 0
        self._count = 1
        self._looked_at = 0.0
        self._writer: threading.Thread | None = None
        self._not_before = 0.0

    def begin(self, of_log: Catalogue, brought: Catalogue | None) -> str:
        """Let the log begin, if it has not; return a version of it.

        Args:
            of_log: the catalogue that the policy's own log names; one of earlier builds does.
            brought: the one that came with the artifact.

        Raises:
            RedisError: not known whether it has begun.
        """
        base = read_base(self._client, self._keys)
        begins = of_log if of_log.limits or brought is None else brought
        # Another policy of the space may have been first, and have brought nothing.
        if base is None or (base.version == NEVER_PUT and begins.limits):
            self._reader.put_blob(begins.digest, begins.encoded)
            record = ItemsBaseRecord(begins.digest)
            self._send(append_base(self._keys, record, items=len(begins), to_empty=True))
            base = read_base(self._client, self._keys)

        # What Redis has lost comes again from whoever has it.
        for catalogue in (of_log, brought):
            if catalogue is not None and base is not None and catalogue.digest == base.digest:
                write_blob(self._client, self._keys, base.digest, catalogue.encoded)
                self._client.persist(self._keys.blob(base.digest))
        return "" if base is None else base.version

    def lead(self) -> None:
        """Do what is due, which takes a moment.

        Raises:
            RedisError: Redis does not answer.
        """
        self._sweep.sweep_if_due()
        if monotonic() - self._looked_at < LOOK_S:
            return

        base = read_base(self._client, self._keys)
        if base is None:
            return
        if base != self._base:
            self._base, self._position, self._changes = base, base.begins, 0

        # While there is more to count, it is counted at every step.
        entries, before = self._reader.read(self._position, count=self._count), self._changes
        if len(entries) < self._count:
            self._looked_at = monotonic()
        for entry in entries:
            record = entry.record
            self._changes += len(record.changes) if isinstance(record, ItemsRecord) else 0
            self._position = entry.id
        if entries:
            each = 1 + (self._changes - before) // len(entries)
            self._count = min(READ, max(1, READ_CHANGES // each))

        is_due = self._changes >= max(LEAST_CHANGES, base.items)
        if is_due and monotonic() >= self._not_before:
            self._write(base)

    def _write(self, base: ItemsBase) -> None:
        """Write a whole catalogue, in a thread: learning goes on."""
        if self._writer is None or not self._writer.is_alive():
            self._writer = threading.Thread(
                target=self._write_alone, args=(base, self._position), name="items", daemon=True
            )
            self._writer.start()

    def _write_alone(self, base: ItemsBase, through: str) -> None:
        """Write it unless another policy's leader does just now; two would do no harm."""
        try:
            if self._client.set(self._keys.lease, through, nx=True, ex=WRITING_S):
                if not self.write_base(base, through):
                    self._not_before = monotonic() + RETRY_S
                self._client.delete(self._keys.lease)
        except FAILURES as error:
            log.warning("space %s: no base of items: %s", self._keys.policy, error)

    def write_base(self, base: ItemsBase, through: str) -> bool:
        """Write the catalogue as of an entry; return whether nothing went wrong.

        Args:
            base: an earlier one.
            through: the entry's position.
        """
        try:
            catalogue = Catalogue.decode(self._history.blob(base.digest))
            timeline = ItemTimeline(catalogue, version=base.version, at=base.begins)
            for entry in self._history.encoded(base.begins, through):
                timeline.apply(entry, self._history.blob)
            self.append(timeline)
        except (*FAILURES, MissingBlobError) as error:
            log.warning("space %s: no base of items: %s", self._keys.policy, error)
            return False
        return True

    def append(self, timeline: ItemTimeline) -> Any:
        """Append the items of a timeline as they are now; return the entry's position."""
        data = timeline.encoded
        name = digest(data)
        write_blob(self._client, self._keys, name, data)
        record = ItemsBaseRecord(name, timeline.version)
        command = append_base(self._keys, record, items=len(timeline), begins=timeline.position)
        return self._send(command)

    def _send(self, command: tuple[Any, ...]) -> Any:
        client: Any = self._client
        return client.execute_command(*command)
