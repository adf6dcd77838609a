"""Serve another version of a policy's artifact: what a command does about it.

The replicas that run load it first, beside what serves. Then an entry of the log says that it
serves, and each replica swaps it in with the next snapshot.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bandits.errors import ArtifactError
from bandits.log.codec import digest
from bandits.log.records import ArtifactRecord, PriorRecord
from policies.artifacts.prior import prior_of
from policies.artifacts.source_artifact import Artifact
from policies.items.catalogue import Catalogue
from policies.sources import load_sources
from policies.spec import PRIOR_STRENGTH, PolicySpec
from serve_app.admin.control import Outcome
from serve_app.admin.outcomes import POLL_S, has_become
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.store.replicas.artifacts import ServedArtifact

LOAD_S = 60.0
"""How long replicas may take to load an artifact, in seconds."""


@dataclass(frozen=True, slots=True)
class ItemsLacking:
    """How many of an artifact's items the catalogue in force lacks, of how many."""

    lacking: int
    items: int

    @property
    def said(self) -> str:
        """It in words; "" where it lacks none."""
        if not self.lacking:
            return ""
        return (
            f"the catalogue lacks {self.lacking:,} of its {self.items:,} items: they are not"
            " proposed until somebody puts them"
        )


def items_lacking(artifact: Artifact, catalogue: Catalogue) -> ItemsLacking:
    """Return how many of an artifact's items the catalogue lacks.

    Args:
        artifact: the artifact.
        catalogue: the one in force; none is lacking while none was ever put.
    """
    lacking = len(catalogue.lacking(artifact.items)) if catalogue.limits else 0
    return ItemsLacking(lacking, len(artifact.items))


def use_artifact(
    stored: StoredPolicy,
    spec: PolicySpec,
    artifact: Artifact,
    *,
    within_s: float,
    load_s: float = LOAD_S,
    force: bool = False,
) -> Outcome:
    """Have a version of the policy's artifact serve from now on.

    Args:
        stored: The policy.
        spec: Its spec, as a file says it: whose sources the artifact has to have.
        artifact: The version, as it was loaded from where the spec says.
        within_s: Seconds to wait for a learner.
        load_s: Seconds to wait for the replicas.
        force: Whether it serves although a replica cannot load it: that one serves on with what it
            has.

    Raises:
        SpecError: The artifact lacks a source of the spec.
        ArtifactError: A replica cannot load it, and nothing was changed.
        RefusedError, StalledError: The learner does not do it; the error gives the reason.
    """
    version = artifact.version
    load_sources(artifact, spec.sources)
    if stored.artifact() == version and all(
        each.serves == version for each in stored.served_artifacts().values()
    ):
        return Outcome(stored.keys.policy, done=True, effect=f"artifact {version} serves already")

    stored.ask_for_artifact(version)
    try:
        reports = _awaited(stored, lambda each: _has_answered(each, version), load_s)
        if not force:
            _demand_loaded(reports, version, load_s)

        # What a model that knows nothing is taught comes with the artifact.
        prior = _prior_record(stored, spec, artifact)
        if prior is not None:
            stored.control(prior)
        at = stored.control(ArtifactRecord(version))
        done = has_become(stored, at, "artifact", within_s=within_s)

        # Each replica swaps it in with its next snapshot.
        after = _awaited(stored, lambda each: each.serves == version, within_s) if done else {}
    finally:
        stored.ask_for_artifact("")
    return Outcome(stored.keys.policy, done, _effect(after, version))


def _awaited(
    stored: StoredPolicy, has_come: Callable[[ServedArtifact], bool], within_s: float
) -> Mapping[str, ServedArtifact]:
    """Return the replicas' reports, once all are as they should be or the time is over."""
    deadline = time.monotonic() + within_s
    while True:
        reports = stored.served_artifacts()
        if all(map(has_come, reports.values())) or time.monotonic() >= deadline:
            return reports
        time.sleep(POLL_S)


def _has_answered(report: ServedArtifact, version: str) -> bool:
    return report.can_serve(version) or report.wanted == version


def _demand_loaded(reports: Mapping[str, ServedArtifact], version: str, load_s: float) -> None:
    refused = {
        name: each.reason if each.wanted == version else f"no answer within {load_s:g} s"
        for name, each in reports.items()
        if not each.can_serve(version)
    }
    if refused:
        name, reason = next(iter(refused.items()))
        raise ArtifactError(
            f"{len(refused)} of {len(reports)} replicas cannot load artifact {version}"
            f" ({name}: {reason}): nothing was changed; mend that, or use --force, and these serve"
            " on with what they have",
            "artifact",
        )


def _prior_record(stored: StoredPolicy, spec: PolicySpec, artifact: Artifact) -> PriorRecord | None:
    """Return the entry of the artifact's prior, its blob stored; None if the log knows it."""
    prior = prior_of(spec, artifact)[0]
    if prior is None:
        return None
    strength = PRIOR_STRENGTH if spec.prior_strength is None else spec.prior_strength
    catalogue = stored.catalogue()
    version = catalogue.digest if catalogue.limits else ""
    record, stats = PriorRecord(digest(prior), strength, version), stored.stats()
    if stats is not None and stats.prior is not None and stats.prior.is_of(record):
        return None
    stored.log.put_blob(record.digest, prior)
    return record


def _effect(reports: Mapping[str, ServedArtifact], version: str) -> str:
    serving = sum(each.serves == version for each in reports.values())
    if not reports:
        return f"artifact {version} serves; no replica runs"
    others = ", ".join(name for name, each in reports.items() if each.serves != version)
    behind = f"; {others} serve on with what they have" if others else ""
    return f"artifact {version} serves, in {serving} of {len(reports)} replicas{behind}"
