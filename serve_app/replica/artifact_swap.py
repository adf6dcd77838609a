"""The artifact that serves in one replica: the one that the log says, as soon as it can be read."""

import logging
import time
from collections.abc import Mapping

from banditloop_client.schemas import Trouble
from bandits.errors import ArtifactError, BanditloopError, plain
from policies.artifacts.fetch import load_artifact, load_version
from policies.artifacts.profile_file import open_profiles
from policies.artifacts.profiles import Profiles
from policies.artifacts.source_artifact import Artifact
from policies.sources import Source, load_sources
from policies.sources.source_set import SourceSet
from policies.spec import PolicySpec
from policies.spec.activities import types_looked_at
from serve_app.store.replicas.artifacts import ServedArtifact

RETRY_S = 5.0
"""Time between two attempts to load a version, in seconds."""
MAX_REASON = 300

log = logging.getLogger("banditloop.artifacts")


class ArtifactSwap:
    """Loads the artifact of a policy, and another when the log says so.

    ``loaded`` are the sources of the newest version that could be loaded; ``wanted`` is the version
    that the log says. While they differ, ``trouble`` says why, and the ones that are loaded serve
    on. ``failures`` counts the attempts that failed.

    Its owner calls it from one thread at a time, off the path of requests.

    Args:
        spec: the policy. Where it names an artifact, the version that is current there serves until
            the log says which; where it names none, there is nothing to load.
        salt: the key of the pseudonyms of profiles.

    Raises:
        ArtifactError, SpecError, SnapshotError: not even that one can be loaded.
    """

    def __init__(self, spec: PolicySpec, salt: bytes) -> None:
        self._spec, self._salt = spec, salt
        self._prepared: SourceSet | None = None
        self._failed: tuple[str, float] | None = None
        self.failures = 0
        self.trouble: Trouble | None = None

        trained = load_artifact(spec.artifact, needs="replica") if spec.artifact else None
        self.loaded = self._made(trained, {})
        self.wanted = self.loaded.artifact

    @property
    def is_behind(self) -> bool:
        """Whether another version serves than the log says."""
        return self.wanted != self.loaded.artifact

    def follow(self, version: str | None) -> SourceSet:
        """Return the sources of a version; those of the one before while it cannot be loaded.

        Args:
            version: the one that the log says; None: it says none, and what serves is right.
        """
        self.wanted = version if version and self._spec.artifact else self.loaded.artifact
        if self.wanted is not None and self.is_behind:
            found = self._found(self.wanted)
            if found is not None:
                self.loaded, self._prepared = found, None
                log.info("policy %s: artifact %s serves", self._spec.name, version)
        return self.loaded

    def has_work(self, asked: str) -> bool:
        """Return whether ``prepare`` or ``follow`` would do anything; see ``prepare``."""
        prepared = None if self._prepared is None else self._prepared.artifact
        idle = asked == (prepared or "") or (not prepared and asked == self.loaded.artifact)
        return not idle or self.is_behind or (not asked and self.trouble is not None)

    def prepare(self, version: str) -> None:
        """Load a version that is asked for, beside what serves; "": none is asked for any more."""
        if version in {"", self.loaded.artifact}:
            self._prepared = None
            self.trouble = self.trouble if self.is_behind else None
        elif self._spec.artifact:
            self._prepared = self._found(version)

    def report(self) -> ServedArtifact:
        """Return what others are told."""
        prepared = None if self._prepared is None else self._prepared.artifact
        failed = self._failed[0] if self.trouble is not None and self._failed is not None else None
        reason = "" if self.trouble is None else self.trouble.reason
        at_ms = 0 if self.trouble is None else int(1000 * self.trouble.at_s)
        return ServedArtifact(self.loaded.artifact, prepared, failed, reason, at_ms)

    def _found(self, version: str) -> SourceSet | None:
        """Return the sources of a version, None if it cannot be loaded; at most each RETRY_S."""
        if self._prepared is not None and self._prepared.artifact == version:
            return self._prepared
        tried = self._failed
        if tried is not None and tried[0] == version and time.monotonic() - tried[1] < RETRY_S:
            return None

        began, of_processor = time.monotonic(), time.thread_time()
        try:
            before = {each.name: each for each in self.loaded.all}
            loaded = load_version(str(self._spec.artifact), version, needs="replica")
            found = self._made(loaded, before)
        except Exception as error:  # noqa: BLE001 - whatever is wrong, the one before serves on
            self._note_failure(version, error)
            return None

        self._failed = self.trouble = None
        log.info(
            "policy %s: artifact %s is loaded, in %.2f s, %.2f s of them of a processor",
            self._spec.name,
            version,
            time.monotonic() - began,
            time.thread_time() - of_processor,
        )
        return found

    def _made(self, trained: Artifact | None, before: Mapping[str, Source]) -> SourceSet:
        sources = load_sources(trained, self._spec.sources, before)
        version = None if trained is None else trained.version
        return SourceSet.of(list(sources.values()), self._profiles(trained), version)

    def _profiles(self, trained: Artifact | None) -> Profiles | None:
        """Return what is known of users; a file that is of no use costs no more than that."""
        try:
            profiles, note = open_profiles(
                self._spec.profiles, trained, self._salt, types_looked_at(self._spec)
            )
        except ArtifactError as error:
            profiles, note = None, error.message
        if note:
            log.error("policy %s: %s", self._spec.name, note)
        return profiles

    def _note_failure(self, version: str, error: Exception) -> None:
        self.failures += 1
        reason = error.message if isinstance(error, BanditloopError) else plain(error)
        if not isinstance(error, BanditloopError):
            reason = f"{type(error).__name__}: {reason}"
        reason = reason[:MAX_REASON]

        # Each attempt would say the same.
        if self.trouble is None or self.trouble.reason != reason:
            serves = self.loaded.artifact
            log.error(
                "policy %s: artifact %s cannot be loaded (%s): %s serves on",
                self._spec.name,
                version,
                reason,
                serves,
            )
        self.trouble, self._failed = Trouble(reason, time.time()), (version, time.monotonic())
