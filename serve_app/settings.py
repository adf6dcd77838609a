"""Settings of the service: environment variables ``BANDITLOOP_*``, or the flags of ``banditloop serve``."""

import os
import secrets
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from bandits.errors import StartupError

MIN_SALT_BYTES = 16
DEFAULT_DATA_DIR = Path(".banditloop")


class Settings(BaseSettings):
    """One process's view of how the service runs.

    ``redis_url`` None starts an embedded Valkey under ``data_dir``. ``salt`` is the secret that draws are hashed with;
    None makes one and keeps it in ``data_dir/salt``. ``learner_niceness`` above 0 makes learning yield to answering:
    rank is steadier on a crowded machine, and models are fresh later.
    """

    model_config = SettingsConfigDict(env_prefix="BANDITLOOP_", extra="ignore")

    redis_url: str | None = None
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    replicas: int = Field(1, ge=1, le=1000)
    data_dir: Path = DEFAULT_DATA_DIR
    salt: SecretStr | None = None
    publish_interval_ms: int = Field(250, ge=10)
    follow_interval_ms: int = Field(50, ge=5)
    redis_timeout_s: float = Field(2.0, gt=0)
    max_ongoing_requests: int = Field(256, ge=1)
    max_queued_requests: int = Field(1024, ge=1)
    learner_niceness: int = Field(0, ge=0, le=19)
    log_level: str = "INFO"

    def secret(self) -> bytes:
        """The salt's bytes, at most 64; made and kept in ``data_dir`` when none is configured."""
        if self.salt is not None:
            salt = self.salt.get_secret_value().encode()[:64]
            if len(salt) < MIN_SALT_BYTES:
                raise StartupError(f"the salt has {len(salt)} bytes; use at least {MIN_SALT_BYTES}", "BANDITLOOP_SALT")
            return salt
        path = self.data_dir / "salt"
        if not path.exists():
            self.data_dir.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_hex(32).encode())
        return path.read_bytes()[:64]
