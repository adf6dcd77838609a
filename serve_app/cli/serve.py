"""``banditloop serve``: serve policies until a signal comes."""

import contextlib
import math
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from bandits.errors import BanditloopError, StartupError, plain
from serve_app.cli.options import Archive, DataDir, KeysFile, NoPrior, one_command
from serve_app.cli.terminal import say, screen_of_ours

if TYPE_CHECKING:
    from policies.spec import PolicySpec
    from serve_app.admin.changes import ApplyAnswer
    from serve_app.host.door import Door
    from serve_app.runtime import RunningService
    from serve_app.settings import Settings

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "home.yaml"
RAY_LOG = "serve.log"
CALL_S = 0.2
"""How often a service that runs looks whether it is to end, in seconds."""
LOOK_S = 1.0
"""How often it looks whether clients have set another spec, in seconds."""
FAILED = 128
"""Added to the number of the signal that ended a start, as a shell reports it."""

app = one_command()


@app.command()
def serve(
    specs: Annotated[
        list[Path] | None,
        typer.Argument(help="Policy specs (YAML) [default: examples/home.yaml]"),
    ] = None,
    port: Annotated[int | None, typer.Option(help="HTTP port [default: 8000]")] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind [default: 127.0.0.1]")] = None,
    replicas: Annotated[
        int | None, typer.Option(help="Number of processes that answer rank [default: 1]")
    ] = None,
    redis_url: Annotated[
        str | None, typer.Option(help="URL of Redis [default: an embedded Valkey]")
    ] = None,
    data_dir: DataDir = None,
    keys_file: KeysFile = None,
    archive: Archive = None,
    address: Annotated[
        str | None,
        typer.Option(help="Serve on this Ray cluster: auto or HOST:PORT [default: one of its own]"),
    ] = None,
    no_prior: NoPrior = False,
) -> None:
    """Serve policies over HTTP until interrupted."""
    from serve_app.settings import Settings

    settings = Settings.with_options(
        port=port,
        host=host,
        replicas=replicas,
        redis_url=redis_url,
        data_dir=data_dir,
        keys_file=keys_file,
        archive=archive,
    )
    run_serve(settings, specs or [EXAMPLE], address, no_prior=no_prior)


class InterruptedStartError(BaseException):
    """A signal came before the service was ready."""


class Signals:
    """SIGINT and SIGTERM: the first one ends the start, or the service once it is ready.

    Any later one changes nothing, so that it does not keep a service from stopping in good order.
    ``number``: of the first one, 0 before it. No lock is taken: a handler comes in the middle of
    whatever this thread does.
    """

    def __init__(self) -> None:
        self.number = 0
        self.starting = True
        self.take()

    def take(self) -> None:
        """Have signals come here, also where a library has taken them meanwhile."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        first = not self.number
        self.number = self.number or number

        if first and self.starting:
            raise InterruptedStartError

    def ready(self) -> None:
        """From now on a signal raises nothing."""
        self.starting = False

    def wait(self, seconds: float = math.inf) -> None:
        """Return once a signal has come, and after some seconds at the latest."""
        until = time.monotonic() + seconds
        while not self.number and time.monotonic() < until:
            self.take()
            time.sleep(CALL_S)


def run_serve(
    settings: "Settings", paths: Sequence[Path], address: str | None, *, no_prior: bool = False
) -> None:
    """Serve the policies of these specs until a signal comes.

    Args:
        settings: Settings of the service.
        paths: Files of the specs.
        address: The Ray cluster to serve on; None starts one of this machine's own.
        no_prior: Whether models begin with nothing, as if the specs said ``prior: none``.

    Raises:
        BanditloopError: The service does not start; the error gives the reason.
        SystemExit: A signal came before it was ready.
    """
    from policies.spec import load_spec
    from serve_app.host.lean_ray import forks_for_ray

    specs = [load_spec(path) for path in paths]
    if no_prior:
        specs = [spec.without_prior for spec in specs]

    # Before anything of this process has a thread.
    with forks_for_ray(settings) if address is None else contextlib.nullcontext() as forks:
        _run_until_signal(settings, specs, address, forks)


def _run_until_signal(
    settings: "Settings", specs: "Sequence[PolicySpec]", address: str | None, forks: str | None
) -> None:
    """Serve policies: see ``run_serve``."""
    from serve_app.admin.changes import notes_on_artifacts
    from serve_app.admin.preflight import demand_all
    from serve_app.admin.ruled_features import notes_on_rules
    from serve_app.admin.wanted.specs import settled_at
    from serve_app.host.door import open_door
    from serve_app.runtime import serving, serving_on_cluster

    # Whatever can be seen to be missing or wrong is reported before anything starts.
    for note in demand_all(settings, specs, address):
        say(note)

    signals, ray_log = Signals(), settings.data_dir / RAY_LOG
    quiet = screen_of_ours(ray_log, also_theirs=settings.log_level == "DEBUG")
    try:
        with quiet, contextlib.ExitStack() as running:
            if address is None:
                say("starting: Valkey, Ray, HAProxy, replicas (about 20 s)")
                service: contextlib.AbstractContextManager[RunningService] = serving(
                    settings, specs, forks
                )
            else:
                say(f"starting on the Ray cluster at {address}: HAProxy, replicas (about 20 s)")
                service = serving_on_cluster(settings, specs, address)
            started = _start(running, service, signals, ray_log)
            signals.ready()
            url = started.url

            names = ", ".join(spec.name for spec in specs)
            say(("ready", "green"), f"  {url}  policies: {names}  docs: {url}/docs")
            say(
                "logs: replicas and learners in /tmp/ray/session_latest/logs,"
                f" Ray itself in {ray_log}"
            )

            notes = settled_at(started.settings, specs)[1]
            notes += notes_on_artifacts(started.settings, started.specs)
            notes += notes_on_rules(started.settings, started.specs, started.specs)
            for note in notes:
                say(note)
            if address is None:
                _answer_calls(started, running.enter_context(open_door(settings.data_dir)), signals)
            else:
                _answer_clients(started, signals)
            say("stopping")
    except InterruptedStartError:
        say("stopped before it was ready")
        sys.exit(FAILED + signals.number)


def _start(
    running: contextlib.ExitStack,
    service: "contextlib.AbstractContextManager[RunningService]",
    signals: Signals,
    ray_log: Path,
) -> "RunningService":
    """Return the started service."""
    try:
        return running.enter_context(service)
    except Exception as error:
        traceback.print_exc()

        # Whatever fails while a half-started service is stopped is of no interest.
        if signals.number:
            raise InterruptedStartError from error

        if isinstance(error, BanditloopError):
            raise
        raise StartupError(
            f"not started: {type(error).__name__}: {plain(error)[:300]}: see {ray_log}", "serve"
        ) from error


def _answer_calls(service: "RunningService", door: "Door", signals: Signals) -> None:
    """Do what ``banditloop apply`` and clients ask, one after the other, until a signal comes."""
    import msgspec

    looked = -LOOK_S
    while not signals.number:
        call = door.next(CALL_S)
        if call is None:
            if time.monotonic() - looked >= LOOK_S:
                signals.take()
                heed_clients(service)
                looked = time.monotonic()
            continue
        try:
            for answer in changed(service, call.asked):
                call.answer(msgspec.json.encode(answer))
        finally:
            call.close()


def _answer_clients(service: "RunningService", signals: Signals) -> None:
    """Do what clients ask, until a signal comes: a cluster's policies change by nothing else."""
    while not signals.number:
        heed_clients(service)
        signals.wait(LOOK_S)


def heed_clients(service: "RunningService") -> None:
    """Serve what clients have set over HTTP since; where it cannot be, what is served stays."""
    import msgspec

    from serve_app.admin.changes import ApplyRequest
    from serve_app.admin.wanted.specs import governed, keep_served

    if governed(service.settings, service.given) in (None, service.specs):
        return
    asked = ApplyRequest([msgspec.Raw(msgspec.json.encode(spec)) for spec in service.given])
    for answer in changed(service, msgspec.json.encode(asked)):
        if answer.code:
            say(f"what clients have set is not served: {answer.note}")
            keep_served(service.settings, service.given, service.specs)


def changed(service: "RunningService", asked: bytes) -> "Iterator[ApplyAnswer]":
    """Change a service, and yield what is to be said of it meanwhile.

    Args:
        service: The service.
        asked: An encoded ``ApplyRequest``.
    """
    import msgspec

    from policies.spec import decode_spec
    from serve_app.admin.changes import ApplyAnswer, ApplyRequest, plan_changes, serve_artifact
    from serve_app.admin.preflight import notes_on_shadows
    from serve_app.admin.ruled_features import notes_on_rules
    from serve_app.admin.wanted.specs import settled_at
    from serve_app.host.environment import run_yielding

    began = time.monotonic()
    try:
        request = msgspec.json.decode(asked, type=ApplyRequest)
        given = [decode_spec(bytes(spec)) for spec in request.specs]
        specs, notes = settled_at(service.settings, given)
        changes = run_yielding(lambda: plan_changes(service.settings, service.specs, specs))
        ruled = run_yielding(lambda: notes_on_rules(service.settings, service.specs, specs))
        yield ApplyAnswer(changes)
        for note in (*notes_on_shadows(specs), *ruled):
            yield ApplyAnswer(note=note)
        if request.dry_run:
            return

        if any(change.redeploys for change in changes):
            for note in notes:
                yield ApplyAnswer(note=note)
            yield ApplyAnswer(note="starting new replicas and learners beside the old ones")
            service.redeploy(specs)
        service.given = given
        for change in changes:
            if change.artifact is not None:
                spec = next(spec for spec in specs if spec.name == change.policy)
                effect = serve_artifact(service.settings, spec, change.artifact[1])
                yield ApplyAnswer(note=f"{change.policy}: {effect}")

        names = ", ".join(spec.name for spec in specs)
        say(("changed", "green"), f"  policies: {names}")
        yield ApplyAnswer(seconds=time.monotonic() - began)
    except Exception as error:  # noqa: BLE001 - the service goes on, whatever a change has met
        traceback.print_exc()
        if isinstance(error, BanditloopError):
            yield ApplyAnswer(code=error.code, note=error.message)
        else:
            yield ApplyAnswer(code="failed", note=f"{type(error).__name__}: {plain(error)}")
