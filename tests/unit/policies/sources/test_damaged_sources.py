"""An artifact's numbers that a source cannot serve by are refused when it is loaded, by name."""

from dataclasses import replace

import numpy as np
import pytest

from bandits.errors import ArtifactError
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import Artifact, TrainedSource
from policies.sources import load_sources
from policies.training.content.descriptions import ContentConfig, describe
from policies.training.fits import TrainConfig, fit_source
from policies.training.scorers.network import ScorerConfig
from policies.training.towers.ncf import NcfConfig
from policies.training.towers.network import TowersConfig
from policies.training.training_data import Course, TrainingData

CONFIG = TrainConfig(
    towers=TowersConfig(factors=4, hidden=8, negatives=8, epochs=1),
    ncf=NcfConfig(factors=4, wide=4, hidden=(4, 2), epochs=1),
    wide_deep=ScorerConfig(factors=4, pairs=False, crosses=8, hidden=(8, 4), epochs=1),
)
N, USERS = 8, 6
NOTHING = describe([], ContentConfig())


@pytest.fixture(scope="module")
def trained() -> dict[str, TrainedSource]:
    places = np.concatenate([(np.arange(4) + user) % N for user in range(USERS)])
    histories = Histories(
        items=tuple(map(str, range(N))),
        users=tuple(map(str, range(USERS))),
        starts=np.arange(0, 4 * USERS + 1, 4, dtype=np.int64),
        indices=places.astype(np.int32),
        weights=np.ones(4 * USERS, np.float32),
        times=np.tile(np.arange(4, dtype=np.int64), USERS),
    )
    said = {str(item): {"kind": f"k{item % 2}"} for item in range(N)}
    contexts = {str(user): {"place": f"p{user % 2}"} for user in range(USERS)}
    data = TrainingData(histories, NOTHING, said, contexts)
    return {
        name: fit_source(name, data, CONFIG, Course()) for name in ("towers", "ncf", "wide_deep")
    }


def load(source: TrainedSource) -> None:
    load_sources(Artifact((), tuple(map(str, range(N))), {"a": source}))


@pytest.mark.parametrize(
    ("kind", "field"),
    [("towers", "most"), ("towers", "recent"), ("ncf", "most"), ("wide_deep", "history")],
)
@pytest.mark.parametrize("value", [None, "x", 0, -1, 1.5, [1], True])
def test_a_length_is_a_whole_number(trained, kind, field, value):
    source = trained[kind]
    load(source)
    with pytest.raises(ArtifactError, match=f"{kind}: {field} must be a whole number") as caught:
        load(replace(source, config={**source.config, field: value}))
    assert caught.value.target == field


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("towers", "item_hashes"),
        ("wide_deep", "feature_hashes"),
        ("wide_deep", "context_fields"),
        ("wide_deep", "crossed_features"),
        ("wide_deep", "crossed_contexts"),
    ],
)
def test_places_and_hashes_are_integers(trained, kind, name):
    source = trained[kind]
    half = {**source.arrays, name: source.arrays[name].astype(np.float32) + 0.5}
    with pytest.raises(ArtifactError, match=f"{kind}.{name} must be integers") as caught:
        load(replace(source, arrays=half))
    assert caught.value.target == name
