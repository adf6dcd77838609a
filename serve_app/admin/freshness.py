"""How fast learning reaches every replica, read off the log and the replicas' own reports."""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any

from bandits.log.positions import START
from bandits.log.records import DecisionRecord, LogEntry
from serve_app.store.clients import Redis
from serve_app.store.event_log import RedisLog
from serve_app.store.keys import Keys, LogKeys


def read_all(client: Redis, keys: LogKeys) -> Iterable[LogEntry]:
    """Yield the whole log in order, read a thousand entries at a time.

    Args:
        client: a connection, used while entries are taken.
        keys: the log's.
    """
    reader, position = RedisLog(client, keys), START
    while entries := reader.read(position):
        yield from entries
        position = entries[-1].id


def freshness_ms(
    client: Redis, keys: Keys, entries: Iterable[LogEntry], window_ms: int
) -> list[float]:
    """Return each decision's lag, in milliseconds.

    It runs from the end of the decision's window until every replica served a model that had
    learned it, on the clock of Redis. A decision that some replica has not caught up with yet is
    left out.

    Args:
        client: a connection.
        keys: those of the policy's one log.
        entries: the log.
        window_ms: the policy's join window, in milliseconds.
    """
    # For each replica, when it began to serve which position.
    loads: dict[bytes, tuple[list[int], list[int]]] = {}
    raw: Any = client.xrange(keys.loads)
    for entry_id, fields in raw:
        positions, times = loads.setdefault(fields[b"replica"], ([], []))
        positions.append(int(fields[b"position"].partition(b"-")[0]))
        times.append(int(entry_id.partition(b"-")[0]))

    lags = []
    for entry in entries:
        if not isinstance(entry.record, DecisionRecord) or entry.record.holdout:
            continue

        # The first model of a replica that is past the window's end counts.
        learnable = entry.time_ms + window_ms
        served = []
        for positions, times in loads.values():
            first = bisect_left(positions, learnable)
            if first == len(positions):
                break
            served.append(times[first] - learnable)
        else:
            if served:
                lags.append(float(max(served)))
    return lags
