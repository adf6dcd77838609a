"""One policy as a loop of Personalizer: read and changed where it is stored, in threads."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Protocol, TypeVar

import msgspec

from bandits.errors import RefusedError, RetentionError, SnapshotError, StalledError
from bandits.log.positions import START, is_after, position_ms
from bandits.log.records import DecisionRecord
from bandits.vw.config import VwConfig
from bandits.vw.payloads import decode_model
from policies.archive.archive import ArchiveReader, archive_folder
from policies.artifacts.learner_model import TrainedModel
from policies.personalizer.apprentice_metrics import ApprenticeModeMetrics
from policies.spec import PolicySpec
from serve_app.admin.control import stored_spec, warm_start
from serve_app.admin.preflight import validate
from serve_app.admin.replayed.verification import LogAddress
from serve_app.admin.roots.older_files import older_files, remove_older
from serve_app.admin.roots.partitions import state_roots
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.admin.wanted.specs import spec_now, want
from serve_app.personalizer.loops.apprenticeship import count_again, may_count, read_metrics
from serve_app.personalizer.loops.fresh import checkpoint_now
from serve_app.personalizer.loops.model_file import checkpoint_of
from serve_app.personalizer.loops.signing import signed_model
from serve_app.personalizer.refusals import RefusedCall
from serve_app.settings import Settings
from serve_app.store.clients import Redis, blocking_client
from serve_app.store.evaluations.kept import KeptEvaluation, read_evaluation

Times = tuple[int, int]
"""From and to, in milliseconds since 1970."""
Result = TypeVar("Result")
AT_ONCE = 4
"""Calls that are done at a time, in threads of their own: some wait long, and snapshots may not."""
PATIENCE_S = 20.0
"""Seconds to wait for a learner to take over a model."""


class Loop(Protocol):
    """A loop: its spec, its model and its log."""

    async def spec(self) -> PolicySpec:
        """Return the spec that it has, or will have in a moment."""
        ...

    async def change(self, make: Callable[[PolicySpec], PolicySpec]) -> PolicySpec:
        """Have it be another spec, and return that.

        Args:
            make: makes it from the one before.
        """
        ...

    async def model(self) -> bytes:
        """Return the model, as Vowpal Wabbit reads it."""
        ...

    async def signed_model(self) -> bytes:
        """Return a zip of the model, a certificate and a signature."""
        ...

    async def model_times(self) -> Times:
        """Return when the oldest model that is kept was made, and the newest."""
        ...

    async def import_model(self, sent: bytes) -> None:
        """Go on from a model of Vowpal Wabbit."""
        ...

    async def reset_model(self) -> None:
        """Go on from a model that has learned nothing."""
        ...

    async def log_times(self) -> Times | None:
        """Return from when to when there is a log with decisions; None: there is none."""
        ...

    async def delete_log(self) -> None:
        """Delete what nothing open needs."""
        ...

    async def evaluation(self, name: str) -> KeptEvaluation | None:
        """Return an evaluation of the log; None: there is none of this id."""
        ...

    async def apprenticeship(self) -> ApprenticeModeMetrics | None:
        """Return how an apprentice imitates, as far as it was counted; None: not yet."""
        ...


class StoredLoop:
    """The loop of a policy that is served; see Loop."""

    def __init__(self, settings: Settings, served: PolicySpec) -> None:
        """Take a policy.

        Args:
            settings: of the service.
            served: its spec.
        """
        self._settings = settings
        self._served = served
        self._counting: asyncio.Future[None] | None = None
        self._beside = ThreadPoolExecutor(1, "apprenticeship")
        self._pool = ThreadPoolExecutor(AT_ONCE, "loop")

    async def spec(self) -> PolicySpec:
        """Return the spec that it has, or will have in a moment."""
        return await self._done(lambda client: spec_now(client, self._served))

    async def change(self, make: Callable[[PolicySpec], PolicySpec]) -> PolicySpec:
        """Have it be another spec, and return that."""

        def changed(client: Redis) -> PolicySpec:
            spec = make(spec_now(client, self._served))
            validate(self._settings, [spec])
            want(client, self._served, spec)
            return spec

        return await self._done(changed)

    async def model(self) -> bytes:
        """Return the model of the newest checkpoint, as Vowpal Wabbit reads it."""
        return await self._done(lambda client: self._model(self._stored(client)))

    async def signed_model(self) -> bytes:
        """Return a zip of the model, a certificate and a signature; see signing.py."""

        def signed(client: Redis) -> bytes:
            return signed_model(self._model(self._stored(client)), self._settings.data_dir)

        return await self._done(signed)

    async def model_times(self) -> Times:
        """Return when the oldest model that is kept was made, and the newest."""

        def times(client: Redis) -> Times:
            made = [
                position_ms(published.position)
                for _, published in self._stored(client).snapshots()
                if published is not None and published.position != START
            ]
            return (made[0], made[-1]) if made else (0, 0)

        return await self._done(times)

    async def import_model(self, sent: bytes) -> None:
        """Go on from a model of Vowpal Wabbit."""

        def imported(client: Redis) -> None:
            stored = self._stored(client)
            spec = self._in_force(stored)
            self._go_on_from(stored, spec, checkpoint_of(sent, _args_of(spec)), 1)

        await self._done(imported)

    async def reset_model(self) -> None:
        """Go on from a model that has learned nothing."""

        def reset(client: Redis) -> None:
            stored = self._stored(client)
            spec = self._in_force(stored)
            self._go_on_from(stored, spec, self._untaught(spec), 0)

        await self._done(reset)

    async def log_times(self) -> Times | None:
        """Return from when to when there is a log with decisions; None: there is none."""
        return await self._done(self._log_times)

    async def demand_log(self, start: datetime, end: datetime) -> Times:
        """Return from when to when there is a log; refuse a time of which there is none.

        Args:
            start: from when.
            end: until when.

        Raises:
            RefusedCall: there is no log then.
        """
        logged = await self.log_times()
        first_ms, last_ms = 1000 * start.timestamp(), 1000 * end.timestamp()
        if logged is None or first_ms > logged[1] or last_ms < logged[0]:
            raise RefusedCall(
                400, "NoLogsExistInDateRange", "there is no log from then to then", "startTime"
            )
        return logged

    async def delete_log(self) -> None:
        """State a root as of now, and delete the files that nothing open needs."""

        def delete(client: Redis) -> None:
            stored = self._stored(client)
            checkpoint_now(stored, within_s=PATIENCE_S)
            try:
                roots = state_roots(self._address(), stored.log.now_ms())
            except RetentionError as error:
                raise RefusedCall(400, "BadRequest", error.message, "logs") from error
            name, archive = self._served.name, self._settings.archive_root()
            for partition, root in enumerate(roots):
                remove_older(root, archive, archive_folder(name, partition, len(roots)))

        await self._done(delete)

    async def evaluation(self, name: str) -> KeptEvaluation | None:
        """Return an evaluation of the log; None: there is none of this id."""
        return await self._done(lambda client: read_evaluation(client, self._served.name, name))

    async def apprenticeship(self) -> ApprenticeModeMetrics | None:
        """Return how an apprentice imitates, as far as it was counted; it is counted anew beside.

        None: not yet.
        """
        policy = self._served.name

        # One that is to be an apprentice in a moment has nothing to count yet.
        is_one = self._served.imitates

        def known(client: Redis) -> tuple[ApprenticeModeMetrics | None, bool]:
            return read_metrics(client, policy), is_one and may_count(client, policy)

        metrics, is_time = await self._done(known)
        if is_time:
            data = msgspec.msgpack.encode(self._address())
            loop = asyncio.get_running_loop()
            self._counting = loop.run_in_executor(self._beside, self._count, data)
        return metrics

    def _count(self, address: bytes) -> None:
        """Count how an apprentice imitates, which may take long: no client waits for its thread."""
        with self._connected() as client:
            count_again(client, self._served.name, address)

    # Where it is stored

    async def _done(self, do: Callable[[Redis], Result]) -> Result:
        def run() -> Result:
            with self._connected() as client:
                return do(client)

        return await asyncio.get_running_loop().run_in_executor(self._pool, run)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Redis]:
        with contextlib.closing(blocking_client(str(self._settings.redis_url))) as client:
            yield client

    def _address(self) -> LogAddress:
        settings = self._settings
        archive, salt = settings.archive_root(), settings.secret()
        return LogAddress(str(settings.redis_url), self._served.name, archive, salt)

    def _folder(self) -> str:
        return archive_folder(self._served.name, 0, self._served.partitions)

    def _stored(self, client: Redis) -> StoredPolicy:
        root = self._settings.archive_root()
        archive = ArchiveReader(root, self._folder()) if root else None
        return StoredPolicy(client, self._served.name, archive)

    def _log_times(self, client: Redis) -> Times | None:
        stored = self._stored(client)
        root, archive = stored.checkpoints.root(), self._settings.archive_root()

        # Of a log that was deleted what is left of before the root is to be seen no more.
        is_cut = root is not None and not (archive and older_files(root, archive, self._folder()))
        return _log_times(stored, root.position if root is not None and is_cut else START)

    def _in_force(self, stored: StoredPolicy) -> PolicySpec:
        """Return the spec that is learned by: of a change the new one, before that is served."""
        head = stored.head()
        return self._served if head is None else stored_spec(stored, stored.find(head)[1].spec)

    def _model(self, stored: StoredPolicy) -> bytes:
        spec, kept = self._in_force(stored), stored.checkpoints.list()
        _args_of(spec)
        state = stored.checkpoints.state(kept[0]) if kept else None
        if state is None or state.learner is None or state.spec is None:
            return decode_model(self._untaught(spec)).model

        # A checkpoint of before another policy holds what that one goes on from no more.
        is_of_another = stored_spec(stored, state.spec).model_digest != spec.model_digest
        return decode_model(self._untaught(spec) if is_of_another else state.learner).model

    def _untaught(self, spec: PolicySpec) -> bytes:
        return spec.learner.make(spec.exploration, salt=self._settings.secret()).checkpoint()

    def _go_on_from(
        self, stored: StoredPolicy, spec: PolicySpec, checkpoint: bytes, learned: int
    ) -> None:
        model = TrainedModel(
            spec_bytes=spec.encoded, learned=learned, checkpoint=checkpoint, rows=None
        )
        try:
            warm_start(stored, model, within_s=PATIENCE_S)
        except (SnapshotError, RefusedError, StalledError) as error:
            if error.target == "partitions":
                raise RefusedCall(
                    403, "ModelFileAccessDenied", error.message, error.target
                ) from error
            # Most often another policy is about to be served: a client that asks again gets there.
            raise RefusedCall(503, "OperationNotAllowed", error.message, error.target) from error

        # An export is of a checkpoint: the next one is to be of this model.
        checkpoint_now(stored, within_s=PATIENCE_S)


def _args_of(spec: PolicySpec) -> str:
    """Return the arguments of a spec's learner; refuse one that is not Vowpal Wabbit."""
    if not isinstance(spec.learner, VwConfig):
        raise RefusedCall(
            403,
            "ModelFileAccessDenied",
            "the policy is not learned by Vowpal Wabbit: banditloop snapshots shows its models",
            "model",
        )
    return spec.learner.args


def _log_times(stored: StoredPolicy, start: str) -> Times | None:
    first: str | None = None
    archive = stored.history.archive
    if archive is not None:
        entries = archive.entries(start, kinds=["decision"])
        first = next((entry.id for entry in entries), None)

    # What is not archived yet is in the stream.
    position, last = start, first
    while entries_now := stored.log.read(position):
        for entry in entries_now:
            if first is None and isinstance(entry.record, DecisionRecord):
                first = entry.id
            last = entry.id
        position = entries_now[-1].id
    if first is None or last is None:
        return None
    return position_ms(first), position_ms(last if is_after(last, first) else first)
