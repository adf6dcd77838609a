"""Keeping everything but the one HTTP port off the network.

Ray, Serve and HAProxy open about twenty ports of their own. On a machine that runs the whole
service, none of them is for anybody else: all listen on loopback, and only HAProxy's frontend
listens where ``Settings.host`` says.
"""

import contextlib
import ipaddress
import os
import shlex
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from bandits.errors import StartupError
from serve_app.host import haproxy
from serve_app.host.environment import CLUSTERS
from serve_app.host.front import front_folder
from serve_app.settings import Settings

LOOPBACK = "127.0.0.1"
BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach a server at this address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_open_doors(settings: Settings) -> None:
    """Demand that without API keys only this machine can reach the service.

    Raises:
        StartupError: others can; it names the host and says what to do.
    """
    if settings.keys_file is None and not is_loopback(settings.host):
        raise StartupError(
            f"host {settings.host} can be reached from other machines, and there are no API keys:"
            " make one with `banditloop keys create` and give its file as --keys-file, or use"
            " --host 127.0.0.1",
            "host",
        )


def serve_host() -> str:
    """Return where Serve listens for HTTP in the cluster that this process is part of."""
    from ray.serve.context import _get_global_client  # noqa: PLC0415 - only where Ray runs

    return str(_get_global_client().http_config.host)


@contextlib.contextmanager
def ray_on_loopback(settings: Settings) -> Iterator[str]:
    """Set what Ray must find in its environment; yield the host that Serve must be given.

    HAProxy's statistics and metrics have no setting for their address: instead of HAProxy, Ray is
    given a starter, which binds them in the configuration that Ray has written (haproxy.py). Ray
    itself listens on loopback alone because of what ``prepare_environment`` has set.
    """
    configured = os.environ.get(BINARY)
    folder = front_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / haproxy.RUNNING).unlink(missing_ok=True)
    command = [
        sys.executable,
        "-I",
        str(Path(haproxy.__file__).resolve()),
        configured or haproxy.bundled(),
        settings.host,
        str(folder),
    ]
    starter = _starter_of(settings)
    starter.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    starter.chmod(stat.S_IRWXU)

    # Without HAProxy, Serve itself is the front.
    with named_starter(settings):
        yield LOOPBACK if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1" else settings.host


@contextlib.contextmanager
def named_starter(settings: Settings) -> Iterator[None]:
    """Have whoever imports Serve find the starter where it would find HAProxy."""
    configured = os.environ.get(BINARY)
    os.environ[BINARY] = str(_starter_of(settings))
    try:
        yield
    finally:
        os.environ.pop(BINARY)
        if configured is not None:
            os.environ[BINARY] = configured


def _starter_of(settings: Settings) -> Path:
    return settings.data_dir.resolve() / "haproxy"


def check_ray_is_on_loopback(node_address: str) -> None:
    """Demand that Ray, once it has started, listens on loopback alone.

    Whoever allows Ray to form clusters has to keep others from its ports himself.

    Raises:
        StartupError: ray was imported before its environment was prepared.
    """
    if os.environ.get(CLUSTERS) == "0" and not is_loopback(node_address):
        raise StartupError(
            f"Ray listens on {node_address}: set {CLUSTERS}=0 before ray is imported", CLUSTERS
        )


def keep_replica_on_loopback() -> None:
    """Bind the port for calls from other deployments to loopback; for a replica's constructor.

    Serve opens it on every interface, asks nobody who he is, and unpickles what arrives: whoever
    reaches it can run any code. Nothing here makes such calls, and Serve has no setting for its
    address. Serve opens the port after the constructor has returned, by the function that is
    replaced here.
    """
    from ray.serve._private import replica  # noqa: PLC0415 - only where Ray runs

    open_port = replica.add_port_to_grpc_server
    if getattr(open_port, "keeps_to_loopback", False):
        return

    def open_on_loopback(server: object, address: str) -> int:
        return int(open_port(server, address.replace("[::]", LOOPBACK)))

    open_on_loopback.keeps_to_loopback = True  # type: ignore[attr-defined]
    replica.add_port_to_grpc_server = open_on_loopback
