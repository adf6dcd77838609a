"""The evaluations of a policy, by the ids that callers gave them."""

from typing import Any

import msgspec

from serve_app.store.clients import Redis
from serve_app.store.keys import Keys

MOST = 100
"""How many are kept of a policy: the oldest go."""


ONLINE = "Online"
"""The source of what was served."""


class JudgedPolicy(msgspec.Struct, frozen=True):
    """One policy of an evaluation: its mean reward, and from where to where that is likely.

    ``arguments``: of one that was asked for; empty of the others.
    """

    name: str
    source: str
    value: float
    low: float
    high: float
    arguments: str = ""


class KeptEvaluation(msgspec.Struct, frozen=True):
    """An evaluation: what was asked, how it stands, and what it found. Times as they were sent."""

    id: str
    name: str
    start: str
    end: str
    made_ms: int
    status: str
    found: list[JudgedPolicy] = []
    said: str = ""
    unsearched: bool = False
    """Whether a better policy was to be looked for, which nobody does."""


_kept = msgspec.json.Decoder(KeptEvaluation)


def read_evaluation(client: Redis, policy: str, name: str) -> KeptEvaluation | None:
    """Return an evaluation; None: there is none of this id.

    Args:
        client: a connection.
        policy: the policy's name.
        name: the evaluation's id.
    """
    data: Any = client.hget(Keys(policy).evaluations, name)
    return None if data is None else _kept.decode(data)


def read_evaluations(client: Redis, policy: str) -> list[KeptEvaluation]:
    """Return the evaluations of a policy, the newest first.

    Args:
        client: a connection.
        policy: the policy's name.
    """
    data: Any = client.hgetall(Keys(policy).evaluations)
    kept = [_kept.decode(each) for each in data.values()]
    return sorted(kept, key=lambda each: (-each.made_ms, each.id))


def begin_evaluation(client: Redis, policy: str, kept: KeptEvaluation) -> bool:
    """Keep a new evaluation; return whether its id was free.

    Args:
        client: a connection.
        policy: the policy's name.
        kept: the evaluation.
    """
    key = Keys(policy).evaluations
    if not client.hsetnx(key, kept.id, msgspec.json.encode(kept)):
        return False
    for old in read_evaluations(client, policy)[MOST:]:
        client.hdel(key, old.id)
    return True


def end_evaluation(client: Redis, policy: str, kept: KeptEvaluation) -> None:
    """Keep how an evaluation has ended, unless it was deleted meanwhile.

    Args:
        client: a connection.
        policy: the policy's name.
        kept: the evaluation.
    """
    key = Keys(policy).evaluations
    if client.hexists(key, kept.id):
        client.hset(key, kept.id, msgspec.json.encode(kept).decode())


def delete_evaluation(client: Redis, policy: str, name: str) -> bool:
    """Delete an evaluation; return whether there was one.

    Args:
        client: a connection.
        policy: the policy's name.
        name: the evaluation's id.
    """
    return bool(client.hdel(Keys(policy).evaluations, name))
