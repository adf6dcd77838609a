"""API keys: who may call what, and how often.

A file keeps the keys' hashes, and is read again when it changes.

A key is ``bl_<id>_<secret>``; the secret is 32 random bytes in URL-safe base64. The file (YAML, or
JSON if its name ends so) maps each id to the hash of its secret and to what the key may do:

    shop: {hash: <blake2b-256 of the secret, 64 hex digits>, scopes: [rank, reward], rate: 200,
    policies: [home]}

A plain hash is enough, because a secret is as long as the hash and cannot be guessed from a
dictionary.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from hmac import compare_digest
from math import ceil
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec

from bandits.errors import (
    BanditloopError,
    BodyTimeoutError,
    ForbiddenError,
    InvalidFieldError,
    MethodNotAllowedError,
    RateLimitedError,
    StartupError,
    UnauthorizedError,
)
from policies.typed_yaml import as_type, parse_yaml

ScopeName = Literal["rank", "reward", "activity", "users", "console", "admin"]
SCOPES: tuple[ScopeName, ...] = get_args(ScopeName)
KeyId = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$(?!\n)")]
PREFIX = "bl_"
CHECK_S = 1.0

Headers = Iterable[tuple[bytes, bytes]]

log = logging.getLogger("banditloop.security")


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One key, as the file has it.

    Attributes:
        hash: of the secret, in hex.
        scopes: what it may do; one with ``reward`` alone may be in a web page.
        rate: requests per second over all replicas; None is no limit.
        policies: those it reaches; None is all.
        spaces: those it reaches; None is all, or none where policies are named.
    """

    hash: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
    scopes: list[ScopeName]
    rate: Annotated[float, msgspec.Meta(gt=0, le=1e9)] | None = None
    policies: list[str] | None = None
    spaces: list[str] | None = None

    def check_reach(self, policy: str | None, space: str | None) -> None:
        """Refuse a request about what the key does not reach.

        Args:
            policy: the one that the request is about, if it is about one.
            space: the same of a space.

        Raises:
            ForbiddenError: the key does not reach it.
        """
        if space is None:
            if self.policies is not None and policy not in self.policies:
                raise ForbiddenError("the key does not reach this policy", "authorization")
            return

        # A key for some policies was made before it could reach what others share with them.
        named = self.spaces if self.spaces is not None or self.policies is None else []
        if named is not None and space not in named:
            raise ForbiddenError("the key does not reach this space", "authorization")


def secret_hash(secret: str) -> str:
    """Return what the file keeps of a secret: its BLAKE2b of 32 bytes, in hex."""
    return blake2b(secret.encode("utf-8", "surrogateescape"), digest_size=32).hexdigest()


def read_keys(path: Path) -> dict[str, Key]:
    """Return the keys of a file, by id.

    Raises:
        StartupError: it is missing, writable by everybody, or no file of keys. The message quotes
            nothing of the file, which may hold a secret that somebody put there by mistake.
    """
    try:
        if path.stat().st_mode & 0o002:
            raise StartupError(f"{path} can be written by everybody: chmod 600", "keys_file")

        # An empty file is one without keys: it lets nobody in.
        text = path.read_bytes()
        raw = msgspec.json.decode(text) if path.suffix == ".json" else parse_yaml(text)
        return as_type({} if raw is None else raw, dict[KeyId, Key])
    except OSError as error:
        raise StartupError(f"{path}: {error.strerror}", "keys_file") from error
    except InvalidFieldError as error:
        if error.target is None:
            raise StartupError(f"{path}: not YAML", "keys_file") from None
        at = f"{error.target}: " if error.target else ""
        raise StartupError(f"{path}: {at}{error.message}", "keys_file") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        kind = "JSON" if path.suffix == ".json" else "YAML"
        raise StartupError(f"{path}: not {kind}", "keys_file") from None


class TokenBucket:
    """Lets ``rate`` requests through per second, and as many at once (at least one)."""

    __slots__ = ("_at", "_burst", "_tokens", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._burst = max(1.0, rate)
        self._tokens = self._burst
        self._at = now

    def take(self, now: float) -> float:
        """Return 0 if the request may pass, else the seconds until one may."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self.rate)
        self._at = now

        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self.rate


class KeyRing:
    """The keys of one replica.

    ``admit`` is on the request path; ``follow`` re-reads the file beside it.

    Each replica has buckets of its own, with its share of a key's rate, ``rate / replicas``: the
    load balancer spreads requests evenly, so the total is about the rate.

    Attributes:
        failures: how many changes of the file were not taken over.
    """

    def __init__(self, path: Path, *, replicas: int = 1) -> None:
        self._path = path
        self._replicas = replicas
        self._seen = _signature(path)
        self._keys: Mapping[str, tuple[Key, str, TokenBucket | None]] = {}
        self.failures = 0
        self._take_over(read_keys(path))

    def admit(
        self,
        scope: ScopeName | tuple[ScopeName, ...] | None,
        policy: str | None,
        headers: Headers,
        *,
        space: str | None = None,
    ) -> None:
        """Let a request pass, or refuse it.

        Args:
            scope: what the key must have, or one of several; None where no key is needed.
            policy: the one that the request is about, if it is about one.
            headers: those of the request.
            space: the one that the request is about, if it is about one.

        Raises:
            UnauthorizedError: no key, or one that is not known.
            ForbiddenError: the key lacks the scope, the policy or the space.
            RateLimitedError: the key's rate is used up.
        """
        if scope is None:
            return

        presented = presented_key(headers)
        if presented is None:
            raise UnauthorizedError(
                "an API key is needed: send Authorization: Bearer bl_…, or the key alone in"
                " Ocp-Apim-Subscription-Key or X-API-Key",
                "authorization",
            )

        # The same work is done for an id that is not known, so time does not tell which ids are.
        key_id, _, secret = presented.removeprefix(PREFIX).partition("_")
        key, expected_hash, bucket = self._keys.get(key_id, _NOBODY)
        same = compare_digest(secret_hash(secret), expected_hash)
        if not same or not presented.startswith(PREFIX):
            raise UnauthorizedError(
                "this API key is not known: it may have been revoked", "authorization"
            )

        wanted = (scope,) if isinstance(scope, str) else scope
        if not any(each in key.scopes for each in wanted):
            raise ForbiddenError(
                f"this needs the scope {' or '.join(wanted)}; the key has {', '.join(key.scopes)}",
                "authorization",
            )
        key.check_reach(policy, space)

        # A refused request uses up nobody's rate.
        if bucket is not None and (wait := bucket.take(time.monotonic())):
            raise RateLimitedError(
                "the key's rate is used up", "authorization", retry_after_s=ceil(wait)
            )

    def policies_of(self, headers: Headers) -> list[str] | None:
        """Return the policies that a request's key names; None: it names none, or is not known.

        Whether the key is that of its id, ``admit`` says.
        """
        presented = presented_key(headers) or ""
        key_id, _, _ = presented.removeprefix(PREFIX).partition("_")
        return self._keys.get(key_id, _NOBODY)[0].policies

    async def follow(self) -> None:
        """Look once a second whether the file has changed, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_S)
            await asyncio.to_thread(self.refresh)

    def refresh(self) -> bool:
        """Take over the file's keys if it has changed; return whether they were.

        A file that cannot be read leaves the previous keys.
        """
        signature = _signature(self._path)
        if signature == self._seen:
            return False

        self._seen = signature
        try:
            self._take_over(read_keys(self._path))
        except StartupError as error:
            self.failures += 1
            log.warning(
                "the keys file was not taken over, the previous keys hold: %s", error.message
            )
            return False
        return True

    def _take_over(self, keys: Mapping[str, Key]) -> None:
        now = time.monotonic()
        fresh = {}
        for key_id, key in keys.items():
            rate = None if key.rate is None else key.rate / self._replicas
            bucket = self._keys.get(key_id, _NOBODY)[2]

            # A key whose rate is the same keeps its bucket: a change of the file refills none.
            if rate is None:
                bucket = None
            elif bucket is None or bucket.rate != rate:
                bucket = TokenBucket(rate, now)
            fresh[key_id] = (key, key.hash, bucket)
        self._keys = fresh


def presented_key(headers: Headers) -> str | None:
    """Return the key of a request: a bearer token, or one of two headers that carry it bare."""
    for name, value in headers:
        if name == b"authorization":
            kind, _, token = value.partition(b" ")
            if kind.lower() == b"bearer":
                return token.strip().decode("latin-1")
        elif name in {b"x-api-key", b"ocp-apim-subscription-key"}:
            return value.strip().decode("latin-1")
    return None


def error_headers(error: BanditloopError) -> list[tuple[bytes, bytes]]:
    """Return the headers that go with a refusal."""
    if isinstance(error, UnauthorizedError):
        return [(b"www-authenticate", b'Bearer realm="banditloop"')]
    if isinstance(error, RateLimitedError):
        return [(b"retry-after", str(error.retry_after_s).encode())]
    if isinstance(error, BodyTimeoutError):
        return [(b"connection", b"close")]
    if isinstance(error, MethodNotAllowedError):
        return [(b"allow", error.allowed.encode())]
    return []


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


_NOBODY: tuple[Key, str, TokenBucket | None] = (Key("0" * 64, []), "0" * 64, None)
