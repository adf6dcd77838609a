"""The Ray Serve deployment that answers.

Thin: all it does is wire plain objects to a process's life.
"""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from msgspec import UNSET

from banditloop_client.schemas import Trouble
from bandits.log.trends import PublishedTrend
from policies.spec import PolicySpec
from serve_app.api.api_keys import KeyRing
from serve_app.api.asgi import Api
from serve_app.api.cors import CrossOriginApi
from serve_app.api.wire import WHOLE_BODY, Asgi
from serve_app.host.environment import collect_rarely, loads_yield
from serve_app.host.json_logs import configure_logging
from serve_app.host.loopback import keep_replica_on_loopback
from serve_app.host.own_ingress import replace_http_server
from serve_app.office.door import OfficeDoor
from serve_app.personalizer.app import PersonalizerApi
from serve_app.personalizer.evaluations.importances import ImportanceOperations
from serve_app.personalizer.evaluations.jobs import EvaluationJobs
from serve_app.personalizer.evaluations.operations import EvaluationOperations
from serve_app.personalizer.loops.loop import StoredLoop
from serve_app.personalizer.loops.operations import LoopOperations
from serve_app.personalizer.loops.retention import Retention
from serve_app.replica.known_users import KnownUsers
from serve_app.replica.learning_watch import LearningWatch
from serve_app.replica.metrics import Metrics
from serve_app.replica.policy_service import RedisPolicyService
from serve_app.replica.scrape import collect
from serve_app.replica.space_service import OnDemand, RedisSpaceService
from serve_app.replica.user_exports import UserExports
from serve_app.replica.users import ReplicaUsers
from serve_app.settings import Settings
from serve_app.store.clients import asyncio_client
from serve_app.store.event_log import LogWriter
from serve_app.store.keys import UsersKeys
from serve_app.store.replicas.shared_wire import LOG_REASONS
from serve_app.store.snapshots import SNAPSHOT_REASONS

if TYPE_CHECKING:
    from serve_app.replica.tracing.spans import Spans  # of an extra

PATIENCE_S = 60.0
POLL_S = 0.05

log = logging.getLogger("banditloop.replica")


class RankReplica:
    """Answers HTTP for all policies, in one process. Wrapped by ``serve.ingress`` in app.py."""

    def __init__(self, settings: Settings, specs: list[PolicySpec]) -> None:
        configure_logging(settings.log_level)
        keep_replica_on_loopback()
        if settings.http_server == "own":
            replace_http_server(WHOLE_BODY)
        collect_rarely()

        self._settings = settings
        self._specs = specs
        self._name = uuid.uuid4().hex[:12]
        self._tasks: list[asyncio.Task[None]] = []
        self._spans: Spans | None = None

        timeout = settings.redis_timeout_s
        self._client = asyncio_client(str(settings.redis_url), timeout_s=timeout)
        self._writer = LogWriter(
            self._client, timeout_s=timeout, confirm_replicas=settings.confirm_replicas
        )
        self._watch = LearningWatch(self._writer.wire, specs)

        # Of each space in which profiles are kept.
        profiled = sorted({spec.shares for spec in specs if spec.profile is not UNSET})
        self._users = {
            space: ReplicaUsers(self._writer, UsersKeys(space), salt=settings.secret())
            for space in profiled
        }
        self._services = {
            spec.name: RedisPolicyService(
                spec,
                self._client,
                self._writer,
                salt=settings.secret(),
                replica=self._name,
                follow_interval_s=settings.follow_interval_ms / 1000,
                watch=self._watch,
                known=self._known_users(spec),
            )
            for spec in specs
        }
        self._spaces = {
            space: self._space_service(space, [spec for spec in specs if spec.shares == space])
            for space in profiled
        }
        self._keys = (
            KeyRing(settings.keys_file, replicas=settings.replicas) if settings.keys_file else None
        )

        # What others keep is asked for when a sample is taken, not counted twice.
        self._metrics = Metrics(self._name)
        self._metrics.gauges = self._gauges
        self._metrics.troubles = self._troubles
        self._metrics.refresh = self._refresh_counts
        self._begin_counts()

    def _known_users(self, spec: PolicySpec) -> KnownUsers | None:
        """Return what knows the users of a policy; None where it has no profiles."""
        if spec.profile is UNSET:
            return None
        users, salt = self._users[spec.shares], self._settings.secret()
        return KnownUsers(spec, spec.profile, users, self._writer.wire, salt=salt)

    def _space_service(self, space: str, members: list[PolicySpec]) -> RedisSpaceService:
        """Serve what the policies of a space share."""
        items = self._services[members[0].name].items_log
        users, salt = self._users[space], self._settings.secret()
        return RedisSpaceService(
            space,
            members,
            self._writer,
            items,
            users,
            client=self._client,
            exports=UserExports(space, members, self._settings),
            salt=salt,
            on_demand=self._demand_of(members),
        )

    def _demand_of(self, members: list[PolicySpec]) -> OnDemand | None:
        """Return who is to be told of what is in demand in a space; None: nobody."""
        asking = [self._services[each.name].ranker for each in members if each.half_lives_ms]

        def tell(demand: Mapping[int, PublishedTrend], at_ms: int) -> None:
            for ranker in asking:
                ranker.follow(demand, at_ms)

        return tell if asking else None

    async def __serve_build_asgi_app__(self) -> Asgi:
        """Return the application that Serve calls, once it can answer.

        Serve awaits this on the replica's event loop. It sends no request before, and a replica
        that this one will replace goes on answering.
        """
        # Until then others answer, and share the cores with what is loaded.
        with loads_yield():
            app = self.app()
            await self._wait_for_snapshots()
        return app

    async def _wait_for_snapshots(self) -> None:
        """Wait until every policy has a snapshot, as long as there is hope for it."""
        since: float | None = None
        while waiting := [name for name, service in self._services.items() if not service.ready]:
            # A learner that stands still may never publish: the others' policies can be served.
            if all(self._services[name].learning.state == "stalled" for name in waiting):
                log.error(
                    "starting although learning stands still, without a snapshot, for %s",
                    ", ".join(waiting),
                )
                return

            # One policy without a snapshot holds up the rest for PATIENCE_S at most.
            if len(waiting) < len(self._services):
                since = since or time.monotonic()
                if time.monotonic() - since > PATIENCE_S:
                    log.error("starting although there is no snapshot of %s", ", ".join(waiting))
                    return

            await asyncio.sleep(POLL_S)

    def app(self) -> Asgi:
        """Return the HTTP service; its policies begin to follow their snapshots."""
        for service in self._services.values():
            service.start()
        for space in self._spaces.values():
            space.start()

        self._tasks.append(asyncio.ensure_future(self._metrics.push_forever(self._client)))
        self._tasks.append(asyncio.ensure_future(self._watch.run()))
        if self._keys is not None:
            self._tasks.append(asyncio.ensure_future(self._keys.follow()))

        api = Api(
            self._services,
            self._metrics,
            self._scrape,
            self._keys,
            spaces=self._spaces,
            office=OfficeDoor() if self._settings.console == "on" else None,
        )
        loops = {spec.name: StoredLoop(self._settings, spec) for spec in self._specs}
        jobs = EvaluationJobs(self._settings, loops)
        more = (
            *LoopOperations(loops).routes(),
            *EvaluationOperations(self._settings, loops, jobs).routes(),
            *ImportanceOperations(self._settings, loops, jobs).routes(),
        )
        self._tasks.append(asyncio.ensure_future(jobs.follow()))
        retention = Retention(self._settings, self._specs)
        self._tasks.append(asyncio.ensure_future(retention.follow()))
        spoken = PersonalizerApi(api, api.backend, self._keys, more)
        origins = self._settings.allowed_origins()
        app: Asgi = CrossOriginApi(spoken, origins) if origins else spoken
        collector = self._settings.otlp_endpoint
        return app if collector is None else self._traced(app, collector)

    def _traced(self, app: Asgi, collector: str) -> Asgi:
        """Return the service with traces of its requests, sent to a collector."""
        from serve_app.replica.tracing.spans import Spans  # noqa: PLC0415 - of an extra
        from serve_app.replica.tracing.traced import TracedApi, trace_service  # noqa: PLC0415

        spans = self._spans = Spans(collector, self._settings.otlp_sample, self._name)
        for service in self._services.values():
            trace_service(service, spans)
        return TracedApi(app, spans)

    async def _scrape(self) -> bytes:
        partitions = {spec.name: spec.partitions for spec in self._specs}
        learning = {name: service.learning for name, service in self._services.items()}
        return await collect(
            self._client, self._metrics.sample(), self._services, partitions, learning, self._spaces
        )

    def _begin_counts(self) -> None:
        """Have every counter there from the start, for whom its first increase matters."""
        metrics = self._metrics
        for spec in self._specs:
            for logged in ("true", "false"):
                metrics.begin("decisions", spec.name, logged)
            metrics.begin("reward_events", spec.name)
            metrics.begin("profiles_unread", spec.name)
            if spec.artifact is not None:
                metrics.begin("artifact_failures", spec.name)
            for source in spec.sources:
                metrics.begin("source_failures", spec.name, source.name)
                metrics.begin("source_partial", spec.name, source.name)
            for reason in SNAPSHOT_REASONS:
                metrics.begin("snapshot_failures", spec.name, reason)

        for space in self._spaces:
            metrics.begin("activity_events", space)
        for reason in LOG_REASONS:
            metrics.begin("log_failures", reason)

    def _refresh_counts(self) -> None:
        """Take over the counters that others keep."""
        counts = self._metrics.counts
        for name, service in self._services.items():
            for source, failures in service.ranker.proposers.answers.failures.items():
                counts["source_failures", name, source] = failures
            for source, partial in service.ranker.proposers.answers.partial.items():
                counts["source_partial", name, source] = partial
            for reason, failures in service.follower.failures.items():
                counts["snapshot_failures", name, reason] = failures
            if service.artifacts.failures:
                counts["artifact_failures", name] = service.artifacts.failures

        for reason, failures in self._writer.failures.items():
            counts["log_failures", reason] = failures
        if self._keys is not None:
            counts[("keys_file_failures",)] = self._keys.failures

    def _troubles(self) -> Iterable[tuple[str, str, Trouble]]:
        for name, service in self._services.items():
            for source, trouble in service.ranker.proposers.answers.troubles.items():
                yield name, source, trouble

    def _gauges(self) -> Iterable[tuple[str, list[str], float]]:
        for name, service in self._services.items():
            if service.ready:
                yield "snapshot_age_seconds", [name], time.monotonic() - service.loaded_at
            if service.spec.artifact is not None:
                yield "artifact_behind", [name], float(service.artifacts.is_behind)

    async def __del__(self) -> None:
        """Stop; Serve awaits this after the last request was answered."""
        for task in self._tasks:
            task.cancel()
        for service in self._services.values():
            await service.stop()
        for space in self._spaces.values():
            await space.stop()
        with contextlib.suppress(Exception):
            await self._client.aclose()
        if self._spans is not None:
            await asyncio.to_thread(self._spans.close)
