"""How a replica knows whether learning goes on, also when the learner itself has fallen silent."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from bandits.log.positions import START, is_after, log_order
from policies.fold.checkpoint import Refusal
from policies.spec import PolicySpec
from serve_app.store.clients import FAILURES
from serve_app.store.keys import Keys, partitions
from serve_app.store.progress import (
    LearningHealth,
    Progress,
    Stall,
    decode_progress,
    decode_refusals,
)
from serve_app.store.replicas.shared_pipeline import SharedPipeline
from serve_app.store.replicas.shared_wire import SharedWire

WATCH_S = 1.0
SILENT_S = 60.0
"""A learner that has not moved for so long, while entries wait, stands still, whatever it says."""
SHOWN_REFUSALS = 10

log = logging.getLogger("banditloop.learning")


class _PartitionWatch:
    """The learner of one partition, as it was seen last."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self._position: str | None = None
        self._since = time.monotonic()

    def forget(self) -> None:
        """Count silence anew: while Redis does not answer, nobody is known to be silent."""
        self._since = time.monotonic()

    def judge(self, progress: Progress | None, newest: str | None) -> Stall | None:
        """Return where the learner stands still, if it does.

        Args:
            progress: what it wrote last.
            newest: the position of the log's last entry.
        """
        position = progress.position if progress is not None else None
        waits = newest is not None and (position is None or is_after(newest, position))
        if position != self._position or not waits:
            self._position, self._since = position, time.monotonic()

        if progress is not None and progress.stall is not None:
            return progress.stall

        silent_s = time.monotonic() - self._since
        if silent_s < SILENT_S:
            return None
        reason = f"entries wait, and no learner has read on for {silent_s:.0f} s"
        return Stall(position or START, "entry after", reason, progress.at_ms if progress else 0)


class LearningWatch:
    """Looks at every policy each WATCH_S, off the request path; ``of`` answers from memory."""

    def __init__(self, wire: SharedWire, specs: Sequence[PolicySpec]) -> None:
        self._wire = wire
        self._partitions = {
            spec.name: [_PartitionWatch(keys) for keys in partitions(spec.name, spec.partitions)]
            for spec in specs
        }
        self._health: dict[str, LearningHealth] = {}

    def of(self, policy: str) -> LearningHealth:
        """Return how a policy's learning stood at the last look."""
        return self._health.get(policy, LearningHealth())

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except (*FAILURES, msgspec.MsgspecError):
                self._health.clear()
                for watched in self._partitions.values():
                    for partition in watched:
                        partition.forget()
            await asyncio.sleep(WATCH_S)

    async def look(self) -> None:
        """Look once at every policy, at all of them in one message."""
        every = [partition for watched in self._partitions.values() for partition in watched]
        found = iter(await asyncio.gather(*map(self._look_at, every)))
        for policy, watched in self._partitions.items():
            stalls: list[tuple[Stall, int]] = []
            refused: list[Refusal] = []
            for partition in watched:
                stall, refusals = next(found)
                stalls += [] if stall is None else [(stall, partition.keys.partition)]
                refused += refusals

            # The partitions' lists are each in order; together they are not.
            refused.sort(key=lambda refusal: log_order(refusal.position), reverse=True)
            shown = refused[:SHOWN_REFUSALS]
            self._health[policy] = (
                LearningHealth("stalled", *stalls[0], refused=shown)
                if stalls
                else LearningHealth("ok", refused=shown)
            )

    async def _look_at(self, watched: _PartitionWatch) -> tuple[Stall | None, list[Refusal]]:
        pipeline = SharedPipeline(self._wire)
        pipeline.get(watched.keys.progress)
        pipeline.xrevrange(watched.keys.log, count=1)
        pipeline.lrange(watched.keys.refusals, 0, SHOWN_REFUSALS - 1)
        raw, newest, refused = await pipeline.execute()

        last: Any = newest[0][0].decode() if newest else None
        return watched.judge(decode_progress(raw), last), decode_refusals(refused)
