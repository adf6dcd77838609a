"""The learner process: read the log, fold, publish snapshots. One writer, one direction."""

import logging
import platform
import threading
import time
from importlib.metadata import version

import msgspec
import redis
from redis.exceptions import RedisError

from bandits.codec import digest
from bandits.records import ArtifactRecord, BuildRecord, CatalogueRecord, SpecRecord, TickRecord
from policies.blend import make_learner
from policies.catalogue import Catalogue
from policies.fold import Fold
from policies.spec import PolicySpec
from serve_app.event_log import LogReader
from serve_app.keys import Keys
from serve_app.snapshots import publish

BLOCK_MS = 50
PUBLISHING_SHARE = 0.25
"""At most this share of the learner's time goes into snapshots, however large they grow."""
RETRY_S = 0.5

log = logging.getLogger("banditloop.learner")


class Stats(msgspec.Struct, frozen=True):
    """What the learner has counted, for metrics and reports. ``outcomes``: of rewards and decisions, by the join."""

    position: str
    learned: int
    snapshots: int
    snapshot_id: str
    published_ms: int
    outcomes: dict[str, int]


class LearnerLoop:
    """Learns one policy. ``artifact`` is the version whose sources serve, ``catalogue`` the one that came with it."""

    def __init__(
        self,
        client: "redis.Redis",
        spec: PolicySpec,
        *,
        salt: bytes,
        publish_interval_s: float,
        artifact: str | None = None,
        catalogue: Catalogue | None = None,
    ) -> None:
        make_learner(spec, salt=salt)  # a spec that cannot be learned is refused before the log names it
        self._client = client
        self._spec = spec
        self._salt = salt
        self._interval_s = publish_interval_s
        self._artifact = artifact
        self._catalogue = catalogue
        self._keys = Keys(spec.name)
        self._log = LogReader(client, self._keys)
        self._fold = Fold(self._log.blob, salt=salt)
        self._published: tuple[int, str, str] | None = None
        self._published_at = 0.0
        self._publish_s = 0.0
        self._snapshots = 0
        self._snapshot_id = ""
        self._published_ms = 0

    def run(self, stop: threading.Event) -> None:
        """Learn until told to stop; outlives an unreachable Redis."""
        configured = False
        while not stop.is_set():
            try:
                if not configured:
                    self.configure()
                    configured = True
                self.step()
            except (RedisError, OSError) as error:
                log.warning("the log cannot be reached (%s): retrying", type(error).__name__)
                stop.wait(RETRY_S)

    def configure(self) -> None:
        """Read the log to its end, then say in it what has changed since: build, spec, artifact, catalogue."""
        while entries := self._log.read(self._fold.position):
            self._fold.apply(entries)
        known = self._fold
        if known.build != build():
            self._log.append(BuildRecord(build()))
        salt_id = digest(self._salt)
        if known.spec is None or (known.spec.digest, known.salt_id) != (self._spec.digest, salt_id):
            self._log.put_blob(self._spec.digest, self._spec.encoded)
            self._log.append(SpecRecord(self._spec.digest, salt_id))
        if self._artifact is not None and known.artifact != self._artifact:
            if self._catalogue is not None:
                self._log.put_blob(self._catalogue.digest, self._catalogue.encoded)
                self._log.append(CatalogueRecord(self._catalogue.digest))
            self._log.append(ArtifactRecord(self._artifact))  # last: a crash before it repeats both

    def step(self) -> None:
        """Read what is new (or let time pass in a quiet log), learn it, publish if it is time."""
        entries = self._log.read(self._fold.position, block_ms=BLOCK_MS)
        if entries:
            self._fold.apply(entries)
        else:
            self._tick()
        self._publish()

    def _tick(self) -> None:
        due = self._fold.join.next_deadline_ms()
        if due is not None and self._log.now_ms() >= due:
            self._log.append(TickRecord())

    def _publish(self) -> None:
        fold = self._fold
        if fold.spec is None:
            return
        state = (fold.learned, fold.spec.digest, fold.catalogue.digest)
        waited = time.monotonic() - self._published_at
        interval = max(self._interval_s, self._publish_s / PUBLISHING_SHARE)
        if waited < interval or (state == self._published and waited < 1.0):
            return
        if state != self._published:
            began = time.monotonic()
            snapshot = fold.snapshot()
            self._snapshots += 1
            self._snapshot_id = publish(
                self._client, self._keys, snapshot, spec=fold.spec.digest, catalogue=fold.catalogue.digest
            )
            self._published_ms = self._log.now_ms()
            self._published = state
            self._publish_s = time.monotonic() - began
        self._published_at = time.monotonic()
        stats = Stats(
            position=fold.position,
            learned=fold.learned,
            snapshots=self._snapshots,
            snapshot_id=self._snapshot_id,
            published_ms=self._published_ms,
            outcomes={**fold.join.counts, "undecodable": self._log.undecodable},
        )
        self._client.set(self._keys.stats, msgspec.msgpack.encode(stats))


def build() -> dict[str, str]:
    """Architecture and library versions, within which a replay is byte-identical."""
    names = ("banditloop", "numpy", "vowpal-wabbit-next")
    return {
        "machine": platform.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }
