"""Who does evaluations: the replica that was asked, and when that has gone, another."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import msgspec

from bandits.log.positions import is_after
from serve_app.settings import Settings
from serve_app.store.archiving.archived import Committed
from serve_app.store.clients import FAILURES, Redis, blocking_client
from serve_app.store.evaluations.kept import (
    AT_WORK_S,
    KeptEvaluation,
    Kind,
    begin_evaluation,
    end_evaluation,
    read_evaluations,
    stay_at,
    take,
)
from serve_app.store.evaluations.series import Series
from serve_app.store.keys import partitions
from serve_app.store.merges import partition_count

LOOK_S = AT_WORK_S / 4
AT_ONCE = 2
"""Evaluations that are done at a time; others wait, in threads of their own: clients do not."""
OVERDUE_MS = 3_600_000
"""After this long nobody goes on with an evaluation any more."""
ARCHIVED_WITHIN_S = 180.0
"""How long the archive is waited for: what is logged is archived within about a minute."""
POLL_S = 0.2
Done = tuple[KeptEvaluation, Mapping[str, Series]]
"""An evaluation that has ended, and by policy what it earns over time."""
Does = Callable[[str, KeptEvaluation], Done]
"""From a policy and an evaluation that was asked for to one that has ended; it may block."""

Result = TypeVar("Result")

log = logging.getLogger("banditloop.evaluations")


class _Job(NamedTuple):
    policy: str
    kind: Kind
    kept: KeptEvaluation

    @property
    def key(self) -> tuple[str, Kind, str]:
        """What no other is called."""
        return self.policy, self.kind, self.kept.job


class EvaluationJobs:
    """Does evaluations beside what the replica answers, and those that another has left."""

    def __init__(self, settings: Settings, policies: Collection[str]) -> None:
        """Do nothing yet: ``does`` says by kind what does one.

        Args:
            settings: of the service.
            policies: those whose evaluations are done here.
        """
        self._settings, self._policies = settings, policies
        self.does: dict[Kind, Does] = {}
        self._pool = ThreadPoolExecutor(AT_ONCE, "evaluations")
        self._running: dict[tuple[str, Kind, str], tuple[_Job, asyncio.Future[None]]] = {}

    async def begin(self, policy: str, kind: Kind, kept: KeptEvaluation) -> bool:
        """Keep a new evaluation and begin it; return whether its id was free.

        Args:
            policy: the policy's name.
            kind: what it is.
            kept: the evaluation.
        """

        def begun(client: Redis) -> tuple[bool, bool]:
            is_new = begin_evaluation(client, policy, kept, kind)
            return is_new, is_new and take(client, policy, kept)

        is_new, is_ours = await self.stored(begun)
        if is_ours:
            self._start(_Job(policy, kind, kept))
        return is_new

    async def follow(self) -> None:
        """Say what this process is at, and take over what nobody is at, until cancelled."""
        while True:
            try:
                for job in await self.stored(self._taken_over):
                    log.info("%s of %s: going on with %r", job.kind, job.policy, job.kept.id)
                    self._start(job)
            except FAILURES as error:
                log.warning("evaluations are not looked after: %s", type(error).__name__)
            await asyncio.sleep(LOOK_S)

    def _taken_over(self, client: Redis) -> list[_Job]:
        running = dict(self._running)
        for job, _ in running.values():
            stay_at(client, job.policy, job.kept)

        left: list[_Job] = []
        now_ms = time.time() * 1000
        for policy in self._policies:
            for kind in self.does:
                left += [
                    _Job(policy, kind, kept)
                    for kept in read_evaluations(client, policy, kind)
                    if kept.status == "Running" and now_ms - kept.made_ms < OVERDUE_MS
                ]
        return [
            job for job in left if job.key not in running and take(client, job.policy, job.kept)
        ]

    def _start(self, job: _Job) -> None:
        doing = asyncio.get_running_loop().run_in_executor(self._pool, self._do, job)
        self._running[job.key] = job, doing
        doing.add_done_callback(lambda _: self._running.pop(job.key, None))

    def _do(self, job: _Job) -> None:
        """Do one, once the archive has what was logged before it was begun."""
        series: Mapping[str, Series] = {}
        try:
            with self._connected() as client:
                lag = self._wait_for_archive(client, job.policy)
            ended, series = self.does[job.kind](job.policy, job.kept)
            if lag:
                ended = msgspec.structs.replace(ended, said=f"{ended.said} {lag}".strip())
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody waits for it any more
            said = f"{type(error).__name__}: {error}"
            ended = msgspec.structs.replace(job.kept, status="Failed", said=said)
        with self._connected() as client:
            end_evaluation(client, job.policy, ended, job.kind, series=series)

    def _wait_for_archive(self, client: Redis, policy: str) -> str:
        """Wait until all is archived that the log says by now; return what to tell if it is not."""
        if not self._settings.archive_root():
            return ""
        ends: dict[Any, str] = {}
        for keys in partitions(policy, partition_count(client, policy)):
            newest: Any = client.xrevrange(keys.log, count=1)
            if newest:
                ends[keys] = newest[0][0].decode()

        deadline = time.monotonic() + ARCHIVED_WITHIN_S
        for keys, end in ends.items():
            while is_after(end, written := Committed.read(client, keys).written):
                if time.monotonic() > deadline:
                    return f"the archive lags: what was logged after {written} is left out"
                time.sleep(POLL_S)
        return ""

    async def stored(self, do: Callable[[Redis], Result]) -> Result:
        """Return what is stored, read in a thread.

        Args:
            do: reads it.
        """

        def run() -> Result:
            with self._connected() as client:
                return do(client)

        return await asyncio.to_thread(run)

    def _connected(self) -> contextlib.closing[Redis]:
        return contextlib.closing(blocking_client(str(self._settings.redis_url)))
