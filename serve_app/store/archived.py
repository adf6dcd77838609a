"""Which ranges of the log the archive has committed, as Redis says it."""

from dataclasses import dataclass
from typing import Any

from bandits.log.positions import START
from policies.archive.range_file import Range
from serve_app.store.clients import Redis
from serve_app.store.keys import Keys


@dataclass(frozen=True, slots=True)
class Committed:
    """The hash ``keys.archive``: see archiver.py. Before the first commit everything is "0-0"."""

    newest: Range
    written: str
    trimmed: str

    @classmethod
    def read(cls, client: Redis, keys: Keys) -> "Committed":
        """Read the hash."""
        names = ("previous", "first", "end", "count", "written", "trimmed")
        fields: Any = client.hmget(keys.archive, names)
        previous, first, end, count, written, trimmed = (
            None if field is None else field.decode() for field in fields
        )
        newest = Range(previous or START, first or START, end or START, int(count or 0))
        return cls(newest, written or START, trimmed or START)

    @property
    def pending(self) -> bool:
        """Whether the newest range still needs its file."""
        return self.newest.last != self.written
