"""Candidate sources.

``load_sources`` makes them from a trained artifact and what the policy spec says of each.

A new kind of source that is trained needs a model (its entry in ``policies.sources.local``) and a
fit (its entry in ``policies.training.fits``). One that is configured needs a struct in
``policies.spec.sources`` and its line in ``_load``.
"""

from collections.abc import Mapping, Sequence

from bandits.errors import SpecError
from bandits.values import FeatureMap
from policies.artifacts.source_artifact import Artifact, Calibration, TrainedSource
from policies.sources.base import (
    Candidates,
    CandidateSource,
    ComparingSource,
    ContextScorer,
    OfferingFollower,
    Source,
    SourceRequest,
)
from policies.sources.live.content import LiveContent
from policies.sources.live.encoders import load_encoder
from policies.sources.live.fresh import FreshItems
from policies.sources.live.item_encoder import ItemEncoder, steps_of
from policies.sources.live.trending import LiveTrending
from policies.sources.local import ContextModel, LocalSource, Model, load_model
from policies.sources.places import ItemOrder
from policies.sources.remote import HttpSource
from policies.sources.rl import RlScorer
from policies.sources.scorers.artifact_scorer import (
    SCORERS,
    ArtifactScorer,
    CataloguedScorer,
    load_scorer,
)
from policies.sources.similar import ComparingModel, SimilarItems
from policies.sources.towers.live import LiveTowers
from policies.sources.vectors import LargeVectorModel
from policies.spec import (
    ArtifactSource,
    ContentSource,
    FreshSource,
    RemoteSource,
    RlSource,
    TrendingSource,
)
from policies.spec import Source as SourceConfig
from policies.typed_yaml import nearest

__all__ = [
    "ArtifactScorer",
    "CandidateSource",
    "Candidates",
    "CataloguedScorer",
    "ComparingSource",
    "ContextModel",
    "ContextScorer",
    "FreshItems",
    "HttpSource",
    "ItemOrder",
    "LiveContent",
    "LiveTrending",
    "LocalSource",
    "Model",
    "OfferingFollower",
    "RlScorer",
    "Source",
    "SourceRequest",
    "load_model",
    "load_sources",
    "model_of",
]


def load_sources(
    artifact: Artifact | None,
    configs: Sequence[SourceConfig] | None = None,
    before: Mapping[str, Source] | None = None,
) -> dict[str, Source]:
    """Make the sources that a policy spec lists, by name and in its order.

    Args:
        artifact: what ``banditloop train`` wrote, if the spec names any.
        configs: the spec's sources; without it, all that the artifact holds.
        before: those that served with another artifact; what is not of it goes on.

    Raises:
        SpecError: the spec asks for a source the artifact lacks.
        ArtifactError: the artifact's arrays do not fit the source's kind, or an rl model's file is
            not the one named.
        SnapshotError: an rl model is damaged.
    """
    if configs is None:
        configs = [ArtifactSource(name) for name in artifact.sources] if artifact else []

    items = ItemOrder(artifact.items if artifact else ())
    known = before or {}
    return {
        config.name: _load(config, artifact, items, known.get(config.name)) for config in configs
    }


def _load(
    config: SourceConfig, artifact: Artifact | None, items: ItemOrder, before: Source | None
) -> Source:
    if isinstance(config, RemoteSource):
        # Connections are of the event loop that asks, and outlive an artifact.
        if isinstance(before, HttpSource):
            return before.naming(items.ids)
        return HttpSource(config, items.ids)
    if isinstance(config, RlSource):
        return before if isinstance(before, RlScorer) else RlScorer(config)
    if isinstance(config, ArtifactSource):
        return _trained(config, artifact, items)
    return _live(config, items)


def _live(config: FreshSource | TrendingSource | ContentSource, items: ItemOrder) -> Source:
    if isinstance(config, FreshSource):
        return FreshItems(config, items)
    if isinstance(config, TrendingSource):
        return LiveTrending(config, items)

    encoder = None if config.encoder is None else load_encoder(config.encoder)
    vectors = {} if config.vector is None else {config.vector: 0}
    made = ItemEncoder(tuple(config.text), encoder, vectors)
    return LiveContent(config.name, made, Calibration(), items)


def _trained(config: ArtifactSource, artifact: Artifact | None, items: ItemOrder) -> Source:
    if artifact is None or config.name not in artifact.sources:
        held = f"it holds {', '.join(artifact.sources)}" if artifact else "there is none"
        hint = nearest(config.name, list(artifact.sources if artifact else ()))
        raise SpecError(f"the artifact has no source {config.name!r}: {hint}{held}", "sources")

    trained = artifact.sources[config.name]
    if trained.kind in {"content", "content_tuned"}:
        vectors = trained.array("vectors", len(items), None)
        made_of, steps = ItemEncoder.load(trained), steps_of(trained)
        return LiveContent(config.name, made_of, trained.scale, items, vectors, steps)
    if trained.kind == "towers":
        return LiveTowers(config.name, trained, items)
    if trained.kind in SCORERS:
        scorer = load_scorer(trained, len(items))
        return ArtifactScorer(config.name, scorer, items, trained.scale)
    model = load_model(trained, len(items))
    compares = isinstance(model, ComparingModel | LargeVectorModel)
    made = SimilarItems if compares else LocalSource
    return made(config.name, model, items, trained.scale)


def model_of(
    source: TrainedSource, items: Sequence[str], features: Mapping[str, FeatureMap]
) -> Model | CataloguedScorer:
    """Return a trained source as a model of all items: also one that proposes none of them.

    Args:
        source: what was trained.
        items: the artifact's, in their order.
        features: by id, the features of items.

    Raises:
        ArtifactError: its arrays do not fit its kind.
    """
    if source.kind in SCORERS:
        return CataloguedScorer(load_scorer(source, len(items)), items, features)
    return load_model(source, len(items))
