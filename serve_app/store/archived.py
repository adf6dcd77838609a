"""Which ranges of the log the archive has committed, as Redis says it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bandits.log.positions import START
from policies.archive.range_file import Range
from serve_app.store.keys import Keys

if TYPE_CHECKING:
    import redis


@dataclass(frozen=True, slots=True)
class Committed:
    """What the hash says."""

    newest: Range
    written: str
    trimmed: str

    @classmethod
    def read(cls, client: "redis.Redis", keys: Keys) -> "Committed":
        """As of now; before the first commit everything is "0-0"."""
        names = ("previous", "first", "end", "count", "written", "trimmed")
        held: Any = client.hmget(keys.archive, names)
        previous, first, end, count, written, trimmed = (
            None if each is None else each.decode() for each in held
        )
        newest = Range(previous or START, first or START, end or START, int(count or 0))
        return cls(newest, written or START, trimmed or START)

    @property
    def pending(self) -> bool:
        """Whether the newest range still needs its file."""
        return self.newest.last != self.written
