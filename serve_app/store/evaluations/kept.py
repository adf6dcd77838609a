"""The evaluations of a policy and its feature importances, by the ids that callers gave them.

Each is done by one replica, which says so as long as it runs. One that nobody is at any more is
taken over by another.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from serve_app.store.clients import Redis
from serve_app.store.evaluations.series import Series, delete_series, write_series
from serve_app.store.keys import Keys

Kind = Literal["evaluations", "importances"]
MOST = 100
"""How many are kept of a policy and kind: the oldest go."""
AT_WORK_S = 20
"""A replica that has not said for so long that it is at something is at it no more."""


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


class FeatureWeight(msgspec.Struct, frozen=True):
    """How much a feature matters, beside the one that matters most, which has 1."""

    namespace: str
    name: str
    score: float


class KeptEvaluation(msgspec.Struct, frozen=True):
    """An evaluation: what was asked, how it stands, and what it found. Times as they were sent.

    Attributes:
        asked: by name, the arguments of further policies.
        scores: what was found of feature importances.
        base: the arguments that a better policy is looked for from; empty: none is looked for.
        minutes: the widths of the windows of its series.
        best: the name of a policy that is better than what was served; empty: none is known to be.
    """

    id: str
    name: str
    start: str
    end: str
    made_ms: int
    status: str
    found: list[JudgedPolicy] = []
    said: str = ""
    asked: Mapping[str, str] = {}
    scores: list[FeatureWeight] = []
    base: str = ""
    minutes: list[int] = []
    best: str = ""

    @property
    def job(self) -> str:
        """What no other of the same id is called, also after this one was deleted."""
        return f"{self.made_ms}:{self.id}"


_kept = msgspec.json.Decoder(KeptEvaluation)


def read_evaluation(
    client: Redis, policy: str, name: str, kind: Kind = "evaluations"
) -> KeptEvaluation | None:
    """Return an evaluation; None: there is none of this id.

    Args:
        client: a connection.
        policy: the policy's name.
        name: the evaluation's id.
        kind: what it is.
    """
    data: Any = client.hget(_key(policy, kind), name)
    return None if data is None else _kept.decode(data)


def read_evaluations(
    client: Redis, policy: str, kind: Kind = "evaluations"
) -> list[KeptEvaluation]:
    """Return the evaluations of a policy, the newest first.

    Args:
        client: a connection.
        policy: the policy's name.
        kind: which.
    """
    data: Any = client.hgetall(_key(policy, kind))
    kept = [_kept.decode(each) for each in data.values()]
    return sorted(kept, key=lambda each: (-each.made_ms, each.id))


def begin_evaluation(
    client: Redis, policy: str, kept: KeptEvaluation, kind: Kind = "evaluations"
) -> bool:
    """Keep a new evaluation; return whether its id was free.

    Args:
        client: a connection.
        policy: the policy's name.
        kept: the evaluation.
        kind: what it is.
    """
    key = _key(policy, kind)
    if not client.hsetnx(key, kept.id, msgspec.json.encode(kept)):
        return False
    for old in read_evaluations(client, policy, kind)[MOST:]:
        _forget(client, policy, old, kind)
    return True


def end_evaluation(
    client: Redis,
    policy: str,
    kept: KeptEvaluation,
    kind: Kind = "evaluations",
    *,
    series: Mapping[str, Series] = MappingProxyType({}),
) -> None:
    """Keep how an evaluation has ended, unless it was deleted meanwhile.

    Args:
        client: a connection.
        policy: the policy's name.
        kept: the evaluation.
        kind: what it is.
        series: by policy, what it earns over time.
    """
    now = read_evaluation(client, policy, kept.id, kind)
    if now is not None and now.job == kept.job:
        if series:
            write_series(client, policy, kept.job, series)
        client.hset(_key(policy, kind), kept.id, msgspec.json.encode(kept).decode())
    client.delete(Keys(policy).at_work(kept.job))


def delete_evaluation(client: Redis, policy: str, name: str, kind: Kind = "evaluations") -> bool:
    """Delete an evaluation; return whether there was one.

    Args:
        client: a connection.
        policy: the policy's name.
        name: the evaluation's id.
        kind: what it is.
    """
    kept = read_evaluation(client, policy, name, kind)
    return kept is not None and _forget(client, policy, kept, kind)


def _forget(client: Redis, policy: str, kept: KeptEvaluation, kind: Kind) -> bool:
    delete_series(client, policy, kept.job)
    return bool(client.hdel(_key(policy, kind), kept.id))


def take(client: Redis, policy: str, kept: KeptEvaluation) -> bool:
    """Say that this process is at an evaluation, unless another is; return whether it is so.

    Args:
        client: a connection.
        policy: the policy's name.
        kept: the evaluation.
    """
    return bool(client.set(Keys(policy).at_work(kept.job), b"1", nx=True, ex=AT_WORK_S))


def stay_at(client: Redis, policy: str, kept: KeptEvaluation) -> None:
    """Say that this process is still at an evaluation.

    Args:
        client: a connection.
        policy: the policy's name.
        kept: the evaluation.
    """
    client.set(Keys(policy).at_work(kept.job), b"1", ex=AT_WORK_S)


def _key(policy: str, kind: Kind) -> str:
    keys = Keys(policy)
    return keys.evaluations if kind == "evaluations" else keys.importances
