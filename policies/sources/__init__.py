"""Candidate sources.

``load_sources`` makes them from a trained artifact and what the policy spec says of each.
"""

from collections.abc import Sequence

from bandits.errors import SpecError
from policies.artifacts.source_artifact import Artifact
from policies.sources.base import Candidates, CandidateSource, SourceRequest
from policies.sources.local import LocalSource, Model, load_model
from policies.sources.remote import HttpSource
from policies.sources.rl import RlScorer
from policies.spec import ArtifactSource, RemoteSource, RlSource, Source
from policies.typed_yaml import nearest

__all__ = [
    "CandidateSource",
    "Candidates",
    "HttpSource",
    "LocalSource",
    "Model",
    "RlScorer",
    "SourceRequest",
    "load_model",
    "load_sources",
]


def load_sources(
    artifact: Artifact | None, configs: Sequence[Source] | None = None
) -> dict[str, CandidateSource | RlScorer]:
    """The sources a policy spec lists, by name and in its order.

    Without ``configs``, all the artifact holds.

    Raises: SpecError: the spec asks for a source the artifact lacks. ArtifactError: the artifact's
        arrays do not fit the source's kind, or an rl model's file is not the one named.
        SnapshotError: an rl model is damaged.
    """
    if configs is None:
        configs = [ArtifactSource(name) for name in artifact.sources] if artifact else []
    histories = artifact.histories if artifact else None
    sources: dict[str, CandidateSource | RlScorer] = {}
    for config in configs:
        if isinstance(config, RemoteSource):
            sources[config.name] = HttpSource(config, histories)
        elif isinstance(config, RlSource):
            sources[config.name] = RlScorer(config)
        elif artifact is None or config.name not in artifact.sources:
            held = f"it holds {', '.join(artifact.sources)}" if artifact else "there is none"
            hint = nearest(config.name, list(artifact.sources if artifact else ()))
            raise SpecError(f"the artifact has no source {config.name!r}: {hint}{held}", "sources")
        else:
            found = artifact.sources[config.name]
            model = load_model(found, len(artifact.histories.items))
            sources[config.name] = LocalSource(config.name, model, artifact.histories, found.scale)
    return sources
