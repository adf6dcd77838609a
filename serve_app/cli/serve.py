"""``banditloop serve``: until a signal comes, and with nothing on the screen but what its user can use."""

import contextlib
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from bandits.errors import BanditloopError, StartupError, plain
from policies.spec import load_spec
from serve_app.admin.preflight import demand_all
from serve_app.cli.terminal import say, screen_of_ours
from serve_app.runtime import serving, serving_on_cluster
from serve_app.settings import Settings

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "home.yaml"
LOG = "serve.log"
FAILED = 128
"""A process that a signal has ended before it was ready exits with this and the signal's number, as a shell has it."""


class Interrupted(BaseException):
    """A signal came before the service was ready."""


class Signals:
    """SIGINT and SIGTERM: the first one ends the start, or sets ``stop``.

    What comes then changes nothing.

    So a second one does not keep a service from stopping in good order.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.number = 0
        self.starting = True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._heard)

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        first, self.number = not self.number, self.number or number
        self.stop.set()
        if first and self.starting:
            raise Interrupted

    def ready(self) -> None:
        """From now on a signal raises nothing."""
        self.starting = False


def run_serve(settings: Settings, paths: Sequence[Path], address: str | None) -> None:
    """Serve the policies of these specs, or the example's, until a signal comes.

    Raises:
        BanditloopError: it does not start; with the reason.
        SystemExit: a signal came before it was ready.
    """
    specs = [load_spec(path) for path in paths or [EXAMPLE]]
    demand_all(settings, specs, address)
    signals, log = Signals(), settings.data_dir / LOG
    try:
        with (
            screen_of_ours(log, also_theirs=settings.log_level == "DEBUG"),
            contextlib.ExitStack() as running,
        ):
            if address is None:
                say("starting: Valkey, Ray, HAProxy, replicas (about 20 s)")
                service = serving(settings, specs)
            else:
                say(f"starting on the Ray cluster at {address}: HAProxy, replicas (about 20 s)")
                service = serving_on_cluster(settings, specs, address)
            url = _entered(running, service, signals, log)
            signals.ready()
            names = ", ".join(spec.name for spec in specs)
            say(("ready", "green"), f"  {url}  policies: {names}  docs: {url}/docs")
            say(f"logs: of replicas and learners /tmp/ray/session_latest/logs, of Ray itself {log}")
            signals.stop.wait()
            say("stopping")
    except Interrupted:
        say("stopped before it was ready")
        sys.exit(FAILED + signals.number)


def _entered(
    running: contextlib.ExitStack,
    service: "contextlib.AbstractContextManager[str]",
    signals: Signals,
    log: Path,
) -> str:
    try:
        return running.enter_context(service)
    except Exception as error:
        traceback.print_exc()
        if signals.number:
            # what is met while half a service is stopped concerns nobody
            raise Interrupted from error
        if isinstance(error, BanditloopError):
            raise
        raise StartupError(
            f"not started: {type(error).__name__}: {plain(error)[:300]}: see {log}", "serve"
        ) from error
