"""Which artifact each replica of a policy serves, and what it says of it; could it serve another.

Whoever wants another version to serve asks the replicas first: they load it beside what serves, and
say that they can, or why not.
"""

from typing import Any

import msgspec

from banditloop_client.schemas import Trouble
from bandits.log.codec import MALFORMED
from serve_app.store.clients import AsyncRedis, Redis, clock_ms, now_ms
from serve_app.store.keys import PROCESSES, Keys

ASKED_S = 120
"""How long replicas keep what they were asked to load."""
SEEN_S = 5.0
"""A replica that has not pushed its metrics for so long is not waited for."""


class ServedArtifact(msgspec.Struct, frozen=True, array_like=True):
    """A replica's report.

    Attributes:
        serves: the version whose sources it asks; None: it has none yet.
        prepared: a version that it was asked to load, and has; None: none.
        wanted: the version that it should serve, or has been asked to load, and cannot; None: there
            is none.
        reason: why it cannot.
        at_ms: when that was.
        vectors: by name how long those of items are, as its sources compare them; 0: no item has
            one yet.
    """

    serves: str | None
    prepared: str | None = None
    wanted: str | None = None
    reason: str = ""
    at_ms: int = 0
    vectors: dict[str, int] = {}

    def can_serve(self, version: str) -> bool:
        """Return whether it serves a version, or has loaded it."""
        return version in {self.serves, self.prepared}


async def report(client: AsyncRedis, keys: Keys, replica: str, served: ServedArtifact) -> str:
    """Write a replica's report; return the version that it is asked to load, "" for none.

    Args:
        client: the replica's.
        keys: those of partition 0.
        replica: its name.
        served: the report.
    """
    pipeline = client.pipeline(transaction=False)
    pipeline.hset(keys.artifacts, replica, msgspec.msgpack.encode(served))
    pipeline.get(keys.artifact_asked)
    asked: Any = (await pipeline.execute())[1]
    return "" if asked is None else bytes(asked).decode()


async def forget(client: AsyncRedis, keys: Keys, replica: str) -> None:
    """Take back the report of a replica that ends.

    Args:
        client: the replica's.
        keys: those of partition 0.
        replica: its name.
    """
    await client.hdel(keys.artifacts, replica)


def ask_to_load(client: Redis, keys: Keys, version: str) -> None:
    """Ask all replicas to load a version, and to go on with what they serve; "": no more of that.

    Args:
        client: of the Redis with the policy's keys.
        keys: those of partition 0.
        version: the version.
    """
    if version:
        client.set(keys.artifact_asked, version, ex=ASKED_S)
    else:
        client.delete(keys.artifact_asked)


def read_reports(client: Redis, keys: Keys) -> dict[str, ServedArtifact]:
    """Return the report of each replica that runs, by its name; None where it has written none."""
    raw: Any = client.hgetall(keys.artifacts)
    return _living(raw, client.zrange(PROCESSES, 0, -1, withscores=True), now_ms(client, keys.log))


def read_vector_lengths(client: Redis, keys: Keys) -> dict[str, int]:
    """Return how long vectors of items are, by name; 0 where no item has one yet.

    Names that matter to nobody are left out, and those of which replicas say different things.

    Args:
        client: of the Redis with the policy's keys.
        keys: those of partition 0.
    """
    said: dict[str, set[int]] = {}
    for each in read_reports(client, keys).values():
        for name, length in each.vectors.items():
            said.setdefault(name, set()).add(length)
    return {name: max(lengths) for name, lengths in said.items() if len(lengths - {0}) < 2}


async def read_artifact_trouble(client: AsyncRedis, keys: Keys) -> Trouble | None:
    """Return what is last wrong in a replica that cannot load what it should; None: nothing is.

    Args:
        client: the caller's.
        keys: those of partition 0.
    """
    raw: Any = await client.hgetall(keys.artifacts)
    processes: Any = await client.zrange(PROCESSES, 0, -1, withscores=True)
    reports = _living(raw, processes, await clock_ms(client, keys.log)).values()
    failed = [each for each in reports if each.wanted is not None]
    newest = max(failed, key=lambda each: each.at_ms, default=None)
    return None if newest is None else Trouble(newest.reason, newest.at_ms / 1000)


def _living(raw: Any, processes: Any, at_ms: int) -> dict[str, ServedArtifact]:
    reports: dict[str, ServedArtifact] = {}
    for name, seen_s in processes:
        data = raw.get(name)
        if data is None or at_ms / 1000 - seen_s > SEEN_S:
            continue
        try:
            reports[name.decode()] = msgspec.msgpack.decode(data, type=ServedArtifact)
        except MALFORMED:  # a later build's
            continue
    return reports
