"""What the policies of an evaluation earn over time, kept apart: lists of evaluations need none."""

import zlib
from collections.abc import Mapping
from typing import Any

import msgspec

from serve_app.store.clients import Redis
from serve_app.store.keys import Keys


class SeriesPoint(msgspec.Struct, frozen=True, array_like=True):
    """What a policy earns in one window of time, and from the beginning to that window's end."""

    start_ms: int
    value: float
    low: float
    high: float
    so_far: float
    so_far_low: float
    so_far_high: float


Series = Mapping[int, list[SeriesPoint]]
"""By the width of the windows in minutes, those that have rows, the first ones first."""
_decoder = msgspec.msgpack.Decoder(dict[str, dict[int, list[SeriesPoint]]])


def write_series(client: Redis, policy: str, job: str, series: Mapping[str, Series]) -> None:
    """Keep the series of an evaluation.

    Args:
        client: a connection.
        policy: whose evaluation it is.
        job: the evaluation's; see ``KeptEvaluation.job``.
        series: by policy of the evaluation.
    """
    client.hset(Keys(policy).evaluation_series, job, zlib.compress(msgspec.msgpack.encode(series)))


def read_series(client: Redis, policy: str, job: str) -> Mapping[str, Series]:
    """Return the series of an evaluation; empty: it has none yet.

    Args:
        client: a connection.
        policy: whose evaluation it is.
        job: the evaluation's.
    """
    data: Any = client.hget(Keys(policy).evaluation_series, job)
    return {} if data is None else _decoder.decode(zlib.decompress(data))


def delete_series(client: Redis, policy: str, job: str) -> None:
    """Delete the series of an evaluation.

    Args:
        client: a connection.
        policy: whose evaluation it is.
        job: the evaluation's.
    """
    client.hdel(Keys(policy).evaluation_series, job)
