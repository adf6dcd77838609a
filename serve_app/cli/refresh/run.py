"""The course of ``banditloop refresh`` in a service's Redis and store."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from banditloop_client.schemas import RefreshInfo, RefreshMeasure
from bandits.durations import duration_ms
from bandits.errors import (
    ArchiveError,
    ArtifactError,
    BanditloopError,
    RefreshRunningError,
    StoreUnreadableError,
    plain,
)
from policies.artifacts.fetch import load_version
from policies.artifacts.profile_file import write_profiles
from policies.artifacts.source_artifact import Artifact
from policies.artifacts.versions import root_of, store_version
from policies.spec import PolicySpec
from policies.spec.refresh import Refresh
from policies.storage import Storage, split_name
from policies.training.histories import histories_of
from serve_app.admin.artifacts import use_artifact
from serve_app.admin.control import warm_start
from serve_app.admin.open import opened
from serve_app.admin.refreshes import only_refresh, write_refresh
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.cli.refresh.state import policy_state
from serve_app.cli.terminal import ray_kept_quiet, say
from serve_app.store.clients import Redis, blocking_client
from simulator.refresh.course import PolicyState, Refreshed, RefreshOptions, refresh_sources
from simulator.refresh.report import RefreshReport
from simulator.refresh.rescoring import under_pseudonyms

PATIENCE_S = 10.0
"""Seconds to wait for a learner, and for the replicas after it."""
ELSEWHERE = "its replicas look for artifacts where its spec says, and --out is elsewhere"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshRequest:
    """A refresh that is asked for; the fields are the command's options."""

    spec: PolicySpec
    data: str | None
    window_ms: int
    since: str | None
    root: str | None
    dry_run: bool
    by: str
    options: RefreshOptions

    @classmethod
    def of(
        cls,
        spec: PolicySpec,
        *,
        data: str | None,
        window: str | None,
        since: str | None,
        sources: Sequence[str] | None,
        root: str | None,
        most_lacking: float | None,
        dry_run: bool,
        by: str,
        **options: Any,
    ) -> "RefreshRequest":
        """Return a request: what the options leave open, the spec says.

        Args:
            spec: the policy.
            data: see RefreshRequest.
            window: a duration.
            since: see RefreshRequest.
            sources: what to train.
            root: see RefreshRequest.
            most_lacking: see RefreshOptions.
            dry_run: see RefreshRequest.
            by: see RefreshRequest.
            options: further ones of RefreshOptions.

        Raises:
            InvalidFieldError: the window is no duration.
        """
        said = Refresh() if spec.refresh is msgspec.UNSET else spec.refresh
        lacking = said.most_lacking if most_lacking is None else most_lacking
        return cls(
            spec=spec,
            data=said.data if data is None else data,
            window_ms=duration_ms(said.window if window is None else window),
            since=since,
            root=root,
            dry_run=dry_run,
            by=by,
            options=RefreshOptions(
                sources=said.sources if sources is None else sources,
                most_lacking=lacking,
                **options,
            ),
        )


def run_refresh(
    request: RefreshRequest, redis_url: str | None, data_dir: Path | None, progress: Progress
) -> RefreshReport:
    """Refresh a policy's sources; what becomes of it is stored for whoever asks the service.

    Args:
        request: what is asked for.
        redis_url: of the service; None: that of the environment or of ``data_dir``.
        data_dir: the service's.
        progress: told of steps.

    Raises:
        BanditloopError: it could not be done; the artifact that served serves on.
    """
    name = request.spec.name
    with (
        opened(name, redis_url, data_dir) as (stored, settings),
        contextlib.closing(blocking_client(str(settings.redis_url))) as client,
        _ended(client, stored, request, began_ms := stored.log.now_ms()) as end,
        only_refresh(client, stored.keys, request.by, began_ms) as demand_alone,
        ray_kept_quiet(request.options.address),
    ):
        state = policy_state(
            stored,
            client,
            settings,
            request.spec,
            since=request.since,
            window_ms=request.window_ms,
            data=request.data,
            note=say,
        )
        options = replace(request.options, may_teach=stored.partitions == 1)
        made = refresh_sources(state, options, progress)

        if made.report.outcome != "refused" and not request.dry_run:
            if _store(request, made.artifact):
                _write_profiles(request.spec, made, state)
                demand_alone()
                made = _with(made, "accepted", *_adopt(stored, request.spec, made))
            else:
                made = _with(made, "stored", f"{name} is not changed: {ELSEWHERE}")
        end(made.report)
        return made.report


def _adopt(stored: StoredPolicy, spec: PolicySpec, made: Refreshed) -> list[str]:
    """Have the new artifact served, and the model go on from the one taught for it.

    Returns:
        What is to be said of it.

    Raises:
        StoreUnreadableError: a replica that runs cannot load it, and nothing was changed.
    """
    try:
        used = use_artifact(stored, spec, made.artifact, within_s=PATIENCE_S)
    except ArtifactError as error:
        raise StoreUnreadableError(error.message, "artifact") from error
    outcomes = [used]
    if made.model is not None:
        outcomes.append(warm_start(stored, made.model, within_s=PATIENCE_S))
    return [
        outcome.effect if outcome.done else f"{outcome.effect}, once a learner has read it"
        for outcome in outcomes
    ]


def _with(made: Refreshed, outcome: str, *notes: str) -> Refreshed:
    report = msgspec.structs.replace(
        made.report, outcome=outcome, notes=[*made.report.notes, *notes]
    )
    return made._replace(report=report)


def _store(request: RefreshRequest, artifact: Artifact) -> bool:
    """Store an artifact, and see that every node can read it; return whether the policy's do.

    Raises:
        StoreUnreadableError: it cannot be written, or not be read.
    """
    try:
        own = root_of(str(request.spec.artifact))
        root = request.root or own
        version = store_version(artifact, root)
        load_version(root, version)
    except (ArtifactError, ArchiveError, OSError) as error:
        why = error.message if isinstance(error, BanditloopError) else plain(error)
        raise StoreUnreadableError(
            f"the new artifact cannot be stored and read again: {why}", "artifact"
        ) from error
    return root == own or ("://" not in root and Path(root).resolve() == Path(own).resolve())


def _write_profiles(spec: PolicySpec, made: Refreshed, state: PolicyState) -> None:
    """Write what is known of users now, where the policy's profiles are.

    Where profiles are live, what the log says of users is in these, and the file has what the data
    set says of them.

    Raises:
        StoreUnreadableError: it cannot be written there.
    """
    live, data, salt = spec.profile is not msgspec.UNSET, state.data, state.salt
    if spec.profiles is None or (live and data is None):
        return
    events = under_pseudonyms(data, salt) if live and data is not None else made.events
    histories, version = histories_of(events), made.artifact.version

    def write(path: Path) -> None:
        # The log knows users by their pseudonyms only.
        write_profiles(
            path, histories, salt=salt, artifact=version, known_by=lambda _salt, user: user
        )

    try:
        if "://" not in spec.profiles:
            write(Path(spec.profiles))
            return
        with tempfile.TemporaryDirectory(prefix="banditloop-profiles-") as name:
            path = Path(name) / "profiles.parquet"
            write(path)
            folder, file = split_name(spec.profiles)
            with path.open("rb") as source:
                Storage(folder, "").put(file, source)
    except (ArtifactError, ArchiveError, OSError) as error:
        why = error.message if isinstance(error, BanditloopError) else plain(error)
        raise StoreUnreadableError(f"profiles cannot be written: {why}", "profiles") from error


@contextlib.contextmanager
def _ended(
    client: Redis, stored: StoredPolicy, request: RefreshRequest, began_ms: int
) -> Iterator[Callable[[RefreshReport], None]]:
    """Store what becomes of a refresh, also where it fails; a trial leaves nothing."""
    if request.dry_run:
        yield lambda _: None
        return

    def write(outcome: str, **fields: Any) -> None:
        now_ms = stored.log.now_ms()
        info = RefreshInfo(outcome, began_ms, now_ms, by=request.by, **fields)
        write_refresh(client, stored.keys, info)

    def end(report: RefreshReport) -> None:
        names = RefreshMeasure.__struct_fields__
        measures = [
            RefreshMeasure(**{name: getattr(each, name) for name in names})
            for each in report.measures
            if each.weights == report.weights
        ]
        code = "worse_artifact" if report.outcome == "refused" else ""
        write(
            report.outcome,
            code=code,
            message=report.why,
            artifact=report.artifact,
            measures=measures,
        )

    try:
        yield end
    except RefreshRunningError:  # the other one says what becomes of it
        raise
    except BanditloopError as error:
        write("failed", code=error.code, message=error.message)
        raise
