"""Does a learner get on? What it says of itself, and how a replica notices one that says nothing any more."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import redis.asyncio

from bandits.log.positions import log_order
from policies.fold.checkpoint import Refusal
from policies.spec import PolicySpec
from serve_app.api.schemas import Readiness, Stalled
from serve_app.store.clients import FAILURES
from serve_app.store.keys import Keys, partitions

WATCH_S = 1.0
SILENT_S = 60.0
"""A learner that has not moved for so long, while entries wait, stands still, whatever it says."""
KEPT_REFUSALS = 100
SHOWN_REFUSALS = 10

log = logging.getLogger("banditloop.learning")


class Stall(msgspec.Struct, frozen=True):
    """Where learning stands still: at the entry ``position``, of a kind, since when on the log's clock."""

    position: str
    kind: str
    reason: str
    since_ms: int
    attempts: int = 1


class Progress(msgspec.Struct, frozen=True):
    """What whoever leads says each second: it has folded up to ``position``, and perhaps gets no further."""

    position: str
    at_ms: int
    stall: Stall | None = None


class Learning(msgspec.Struct, frozen=True):
    """How a policy's learning stands: ``ok``, ``stalled``, or ``unknown`` while Redis does not say."""

    state: str = "unknown"
    stall: Stall | None = None
    partition: int = 0
    refused: list[Refusal] = []

    def where(self, policy: str) -> Stalled | None:
        """Where it stands still, for everybody: the reason is for those with a key."""
        if self.stall is None:
            return None
        return Stalled(
            policy, self.stall.position, self.stall.kind, self.stall.since_ms, self.partition
        )


def readiness(
    learning: Mapping[str, Learning], status: str | None = None, waiting: Sequence[str] = ()
) -> Readiness:
    """Of all policies together. ``status``: that of their learning, if none is given."""
    stalled = [where for name, each in learning.items() if (where := each.where(name)) is not None]
    unknown = any(each.state == "unknown" for each in learning.values())
    state = "stalled" if stalled else "unknown" if unknown else "ok"
    return Readiness(state if status is None else status, state, list(waiting), stalled)


def decode_progress(raw: bytes | None) -> Progress | None:
    """What was said last."""
    return None if raw is None else msgspec.msgpack.decode(raw, type=Progress)


def decode_refusals(raw: Sequence[bytes]) -> list[Refusal]:
    """Entries that were refused, as they are stored: the newest first."""
    return [msgspec.msgpack.decode(each, type=Refusal) for each in raw]


class _Seen:
    """One partition's learner as it was seen last."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.position: str | None = None
        self.since = time.monotonic()

    def judge(self, progress: Progress | None, newest: str | None) -> Stall | None:
        """Where it stands still, if it does. ``newest``: the log's last entry."""
        position = progress.position if progress is not None else None
        waits = newest is not None and (position is None or log_order(newest) > log_order(position))
        if position != self.position or not waits:
            self.position, self.since = position, time.monotonic()
        if progress is not None and progress.stall is not None:
            return progress.stall
        silent_s = time.monotonic() - self.since
        if silent_s < SILENT_S:
            return None
        reason = f"entries wait, and no learner has read on for {silent_s:.0f} s"
        return Stall(position or "0-0", "entry after", reason, progress.at_ms if progress else 0)


class LearningWatch:
    """Looks every WATCH_S, off the request path; ``of`` answers from memory."""

    def __init__(self, client: "redis.asyncio.Redis", specs: Sequence[PolicySpec]) -> None:
        self._client = client
        self._logs = {
            spec.name: [_Seen(keys) for keys in partitions(spec.name, spec.partitions)]
            for spec in specs
        }
        self._known: dict[str, Learning] = {}

    def of(self, policy: str) -> Learning:
        """How a policy's learning stands, as of the last look."""
        return self._known.get(policy, Learning())

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except (*FAILURES, msgspec.MsgspecError):
                self._known.clear()
                for seen in self._logs.values():
                    for each in seen:
                        each.since = time.monotonic()
            await asyncio.sleep(WATCH_S)

    async def look(self) -> None:
        """Once, at every policy."""
        for policy, seen in self._logs.items():
            stalls: list[tuple[Stall, int]] = []
            refused: list[Refusal] = []
            for each in seen:
                stall, told = await self._look_at(each)
                stalls += [] if stall is None else [(stall, each.keys.partition)]
                refused += told
            newest = sorted(refused, key=lambda told: log_order(told.position), reverse=True)[
                :SHOWN_REFUSALS
            ]
            if stalls:
                self._known[policy] = Learning("stalled", *stalls[0], refused=newest)
            else:
                self._known[policy] = Learning("ok", refused=newest)

    async def _look_at(self, seen: _Seen) -> tuple[Stall | None, list[Refusal]]:
        pipeline = self._client.pipeline(transaction=False)
        pipeline.get(seen.keys.progress)
        pipeline.xrevrange(seen.keys.log, count=1)
        pipeline.lrange(seen.keys.refusals, 0, SHOWN_REFUSALS - 1)
        raw, newest, refused = await pipeline.execute()
        last: Any = newest[0][0].decode() if newest else None
        return seen.judge(decode_progress(raw), last), decode_refusals(refused)
