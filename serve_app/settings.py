"""Settings of the service: variables ``BANDITLOOP_*``, or the flags of ``banditloop serve``."""

import contextlib
import os
import re
import secrets
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from bandits.errors import StartupError
from serve_app.store.clients import is_cluster, url_parts
from serve_app.store.keys import REMEMBERED_S

Durability = Literal["always", "everysec", "none"]
MIN_SALT_BYTES = 16
ORIGIN = re.compile(r"\*|https?://[a-z0-9.-]+(:\d+)?|https?://\[[0-9a-f:]+\](:\d+)?")
COLLECTOR = re.compile(r"https?://[^\s/?#@]+(/(?!v1/traces)[^\s?#]*)?")
DEFAULT_DATA_DIR = Path(".banditloop")


class Settings(BaseSettings):
    """How the service runs, as one process sees it.

    Attributes:
        redis_url: the Redis to use; without one, an embedded Valkey starts under the data folder.
            The URL may hold a password, so it is never printed: give it in the environment, because
            every user of the machine can read a command line.
        keys_file: the file with the API keys; without one, only a loopback address may be bound.
        cors_origins: the origins whose web pages may call the service from a browser, separated by
            commas, such as ``https://shop.example``; ``*`` is every page, "" none.
        host: the address to bind.
        port: the port of the HTTP API.
        replicas: how many processes answer ``rank``.
        data_dir: the folder of the embedded Valkey, the salt and the archive.
        salt: the secret that draws and pseudonyms are hashed with; without one, a salt is made and
            kept in the data folder's file ``salt``.
        publish_interval_ms: how often a learner publishes what is new.
        merge_interval_ms: how often the models of a policy in several partitions are merged, and so
            published.
        checkpoint_interval_s: how often a learner keeps a state to resume from.
        follow_interval_ms: how often a replica looks for a new snapshot; where nobody has asked it
            for two seconds, four times a second.
        redis_timeout_s: how long anybody waits for Redis.
        durability: what the embedded Valkey does before it acknowledges a write. ``always`` syncs
            it to disk; ``everysec`` may lose the last second or so when a process or the machine
            dies; ``none`` keeps no file, so all that is not archived is gone with the process.
            Another Redis follows its own settings.
        confirm_replicas: how many replicas of Redis have to hold a write before it is acknowledged.
        max_ongoing_requests: how many requests a replica works on at a time.
        max_queued_requests: how many more may wait; beyond, the answer is 429.
        http_server: what speaks HTTP in a replica: ``own``, this project's server, or ``serve``,
            that of Ray Serve, which takes more processor time.
        replica_cpus: how many cores of a Ray node a replica takes; 0 where everything shares one
            machine. In a cluster this makes the autoscaler add nodes.
        learner_cpus: how many cores of a Ray node a learner takes; the same holds.
        learner_niceness: how much learning and archiving yield to answering: with 0, ``rank`` waits
            while a backlog is learned; with 19, models are fresh later on a crowded machine.
        archive: the folder or URI (any that pyarrow opens) of the archive; without one, the data
            folder's ``archive``. "" or ``none`` archives nothing, and trims nothing from Redis.
        archive_max_age_s: how old an event is when it is archived.
        archive_retain_s: how long an event stays in Redis at least.
        users_backup: the folder or URI of the copies of who users are (of policies with
            ``profile``), which no log could make again; without one, the data folder's ``users``. A
            bucket elsewhere outlives the disk. "" or ``none`` copies nothing.
        users_backup_interval_s: how often they are copied.
        users_backup_retain_s: how long a copy is kept: so long it still says who somebody was that
            has been erased since, though nobody is brought back from it that was.
        console: whether the service has a process of its own that serves the console at
            ``/console`` and answers what takes long: reports, decisions of long ago. Whoever needs
            neither saves its memory.
        otlp_endpoint: the collector that traces of requests are sent to, by OTLP over HTTP, such as
            ``http://127.0.0.1:4318``; without one there are none. It needs the extra ``otlp``.
        otlp_sample: the share of requests that are traced; of one that says itself whether it is
            (by ``traceparent``), that counts.
        log_level: from which level on log lines are written; ``DEBUG`` shows those of Ray, too.
    """

    model_config = SettingsConfigDict(
        env_prefix="BANDITLOOP_", extra="ignore", hide_input_in_errors=True
    )

    redis_url: str | None = Field(None, repr=False)
    keys_file: Path | None = None
    cors_origins: str = ""
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    replicas: int = Field(1, ge=1, le=1000)
    data_dir: Path = DEFAULT_DATA_DIR
    salt: SecretStr | None = None
    publish_interval_ms: int = Field(250, ge=10)
    merge_interval_ms: int = Field(1000, ge=10)
    checkpoint_interval_s: float = Field(60.0, gt=0)
    follow_interval_ms: int = Field(50, ge=5)
    redis_timeout_s: float = Field(2.0, gt=0)
    durability: Durability = "always"
    confirm_replicas: int = Field(0, ge=0, le=10)
    max_ongoing_requests: int = Field(256, ge=1)
    max_queued_requests: int = Field(1024, ge=1)
    http_server: Literal["own", "serve"] = "own"
    replica_cpus: float = Field(0, ge=0)
    learner_cpus: float = Field(0, ge=0)
    learner_niceness: int = Field(10, ge=0, le=19)
    archive: str | None = None
    archive_max_age_s: float = Field(60.0, gt=0)
    archive_retain_s: float = Field(900.0, gt=REMEMBERED_S)
    users_backup: str | None = None
    users_backup_interval_s: float = Field(3600.0, gt=0)
    users_backup_retain_s: float = Field(7 * 86400.0, gt=0)
    console: Literal["on", "off"] = "on"
    otlp_endpoint: str | None = None
    otlp_sample: float = Field(0.1, ge=0, le=1)
    log_level: str = "INFO"

    @field_validator("redis_url")
    @classmethod
    def _well_formed(cls, url: str | None) -> str | None:
        if url is not None:
            try:
                url_parts(url)
            except ValueError:  # whose text may hold a piece of the password
                raise ValueError(
                    "not the URL of a Redis (redis://, rediss://, redis+cluster:// or"
                    " unix://user:password@host:port/0; in a password write / : @ # ? % as %2F %3A"
                    " %40 %23 %3F %25)"
                ) from None
        return url

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, origins: str) -> str:
        for origin in _split(origins):
            if not ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is no origin: write https://shop.example, in lower case, without"
                    " a path; several are separated by commas, and * is every origin"
                )
        return origins

    @field_validator("otlp_endpoint")
    @classmethod
    def _collector(cls, endpoint: str | None) -> str | None:
        if endpoint is not None and not COLLECTOR.fullmatch(endpoint):
            raise ValueError(
                f"{endpoint!r} is no collector: write http://host:4318, without the path /v1/traces"
            )
        return endpoint

    @model_validator(mode="after")
    def _confirmable(self) -> "Settings":
        if self.confirm_replicas and self.redis_url is not None and is_cluster(self.redis_url):
            raise ValueError(
                "confirm_replicas: WAIT counts for one primary, and a cluster has several: set it"
                " to 0, and min-replicas-to-write on the cluster's nodes"
            )
        return self

    @classmethod
    def with_options(cls, **options: Any) -> "Settings":
        """Read the environment's settings, and put over them the options that are not None.

        Raises:
            ValidationError: it names the setting.
        """
        return cls(**{name: value for name, value in options.items() if value is not None})

    def allowed_origins(self) -> frozenset[str]:
        """Return the origins whose pages may call the service; empty where none may."""
        return frozenset(_split(self.cors_origins))

    def archive_root(self) -> str:
        """Return where the archive is: a URI, an absolute path, or "" when nothing is archived."""
        return self._root(self.archive, "archive")

    def shadows_root(self) -> str:
        """Return where shadows keep what they say: in the archive, or else in the data folder."""
        return self.archive_root() or str((self.data_dir / "shadows").resolve())

    def users_backup_root(self) -> str:
        """Return where copies of users are: a URI, an absolute path, or "" when none are made."""
        return self._root(self.users_backup, "users")

    def _root(self, given: str | None, folder: str) -> str:
        if given is None:
            return str((self.data_dir / folder).resolve())
        if given in {"", "none"} or "://" in given:
            return given.removeprefix("none")
        return str(Path(given).resolve())

    def secret(self) -> bytes:
        """Return the salt's bytes, at most 64; one that is not configured is made, and kept.

        Raises:
            StartupError: it is too short.
            OSError: it can neither be read nor made.
        """
        if self.salt is not None:
            return _long_enough(self.salt.get_secret_value().encode(), "BANDITLOOP_SALT")

        # Linked into place whole: of several processes that make one at once, the first wins.
        path = self.data_dir / "salt"
        if not path.exists():
            self.data_dir.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(f"salt.{secrets.token_hex(4)}")
            fresh.touch(mode=0o600)
            fresh.write_text(secrets.token_hex(32))
            with contextlib.suppress(FileExistsError):
                os.link(fresh, path)
            fresh.unlink()
        return _long_enough(path.read_bytes(), str(path))


def _split(origins: str) -> list[str]:
    return [origin for part in origins.split(",") if (origin := part.strip())]


def _long_enough(salt: bytes, where: str) -> bytes:
    if len(salt) < MIN_SALT_BYTES:
        raise StartupError(
            f"{where}: the salt has {len(salt)} bytes; use at least {MIN_SALT_BYTES}", "salt"
        )
    return salt[:64]
