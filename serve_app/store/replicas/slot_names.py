"""The slots of pages by the names that callers have for them: rewards name these, the log numbers.

What is kept is forgotten when no reward can join any more.
"""

from collections.abc import Sequence

import msgspec

from bandits.log.codec import digest
from serve_app.store.keys import Keys
from serve_app.store.replicas.shared_wire import SharedWire

_decoder = msgspec.msgpack.Decoder(list[str])


class SlotNames:
    """Remembers the names of the slots of decisions."""

    def __init__(self, wire: SharedWire, *, kept_s: float) -> None:
        """Remember through a connection.

        Args:
            wire: sends what is kept.
            kept_s: how long, in seconds.
        """
        self._wire = wire
        self._kept_ms = round(1000 * kept_s)

    async def remember(self, keys: Keys, event_id: str, names: Sequence[str]) -> None:
        """Keep the names of a decision's slots, unless its event_id has some.

        Args:
            keys: the partition's.
            event_id: the decision.
            names: in the order of the slots.

        Raises:
            LogUnavailableError: not known to be kept.
        """
        data = msgspec.msgpack.encode(list(names))
        await self._wire.send(("SET", _key(keys, event_id), data, "NX", "PX", self._kept_ms), (), 1)

    async def of(self, keys: Keys, event_id: str) -> list[str]:
        """Return the names of a decision's slots; none where none are known.

        Args:
            keys: the partition's.
            event_id: the decision.

        Raises:
            LogUnavailableError: it cannot be found out now.
        """
        data = await self._wire.send(("GET", _key(keys, event_id)), (), 1)
        return [] if data is None else _decoder.decode(data)


def _key(keys: Keys, event_id: str) -> str:
    return keys.slot_names(digest(event_id.encode()))
