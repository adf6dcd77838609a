"""Scorers: torch and numpy say the same, and what was never seen is no reason to fail."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from bandits.errors import ArtifactError
from bandits.features.namespaces import CONTEXT, FEATURES
from bandits.values import FeatureMap
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import Artifact, TrainedSource, load, write
from policies.encoding import coded_rows, namespace_of
from policies.items.catalogue import Catalogue
from policies.sources import ArtifactScorer, SourceRequest, load_sources
from policies.sources.scorers.artifact_scorer import CataloguedScorer, load_scorer
from policies.spec import ArtifactSource
from policies.training.content.descriptions import ContentConfig, describe
from policies.training.fits import TrainConfig, choose_sources, fit_source
from policies.training.logistic import fit_logistic
from policies.training.scorers.encoding import encode_features
from policies.training.scorers.network import ScorerConfig, ScorerNetwork, WhoAsks
from policies.training.scorers.rows import Interactions
from policies.training.training_data import Course, TrainingData

KINDS = {
    "fm": ScorerConfig(factors=4, epochs=5, batch=128, learning_rate=0.02),
    "wide_deep": ScorerConfig(
        factors=4, pairs=False, crosses=16, hidden=(8, 5), epochs=5, batch=128, learning_rate=0.02
    ),
    "deepfm": ScorerConfig(factors=4, hidden=(8, 5), epochs=5, batch=128, learning_rate=0.02),
}
COLOURS = ("red", "green", "blue")
ITEMS = 30


def features_of_items() -> dict[str, FeatureMap]:
    return {
        f"{n}": {"colour": COLOURS[n % 3], "price": float(1 + n % 7), "tags": ["a", f"t{n % 2}"]}
        for n in range(ITEMS)
    }


def shop(users: int = 210, seed: int = 1) -> TrainingData:
    """Users who take items of the colour that they say they like."""
    rng = np.random.default_rng(seed)
    rows, contexts = [], {}
    for user in range(users):
        liked = user % 3
        own = [n for n in range(ITEMS) if n % 3 == liked]
        rows.append(rng.choice(own, 6, replace=False).tolist())
        contexts[f"{user}"] = {"likes": COLOURS[liked], "age": float(20 + user % 40)}
    order = [np.argsort(row) for row in rows]
    histories = Histories(
        items=tuple(map(str, range(ITEMS))),
        users=tuple(map(str, range(users))),
        starts=np.append(0, np.cumsum([len(row) for row in rows])).astype(np.int64),
        indices=np.concatenate([np.sort(row) for row in rows]).astype(np.int32),
        weights=np.ones(sum(map(len, rows)), np.float32),
        times=np.concatenate(order).astype(np.int64) * 1000,
    )
    return TrainingData(histories, describe([], ContentConfig()), features_of_items(), contexts)


def config_of(**fields: Any) -> TrainConfig:
    return TrainConfig(**{kind: replace(KINDS[kind], **fields) for kind in KINDS})


@pytest.fixture(scope="module", params=list(KINDS))
def fitted(request: pytest.FixtureRequest) -> TrainedSource:
    return fit_source(request.param, shop(), config_of(), Course(3))


def scorer_of(fitted: TrainedSource) -> ArtifactScorer:
    data = shop()
    artifact = Artifact((), data.histories.items, {fitted.kind: fitted})
    scorer = load_sources(artifact, [ArtifactSource(fitted.kind)])[fitted.kind]
    assert isinstance(scorer, ArtifactScorer)
    return scorer


def catalogue(**more: FeatureMap) -> Catalogue:
    every = {**features_of_items(), **more}
    return Catalogue.of([{"id": item, "features": told} for item, told in every.items()])


def score(scorer: ArtifactScorer, *ids: str, **request: Any) -> np.ndarray:
    return scorer.score_actions(catalogue(), SourceRequest(**request), ids, None, {})


@pytest.mark.parametrize("kind", KINDS)
def test_numpy_says_what_torch_says(kind: str) -> None:
    """For histories and contexts of any length, and items with and without an id."""
    data = shop()
    items = encode_features([*data.items.values()], FEATURES)
    contexts = encode_features([*data.contexts.values()], CONTEXT)
    torch.manual_seed(5)
    network = ScorerNetwork(items, contexts, KINDS[kind]).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)

    fitted = fit_source(kind, data, config_of(epochs=1), Course(3))
    arrays = {**fitted.arrays, **network.arrays(), "calibration": np.array([1.0, 0.0], np.float32)}
    model = load_scorer(replace(fitted, arrays=arrays), ITEMS)
    served = CataloguedScorer(model, data.histories.items, data.items)

    taken = Interactions.of(data.histories, np.arange(len(data.contexts)))
    rows = torch.tensor([0, 1, 5, 40, 600])
    asked = taken.asked(rows, KINDS[kind].history)
    with torch.no_grad():
        wanted = network(asked, torch.arange(ITEMS).repeat(len(rows), 1)).numpy()
    for at, row in enumerate(rows.tolist()):
        places = taken.item[taken.first[row] : row]
        context = data.contexts[data.histories.users[taken.owner[row]]]
        found = served.raw_in(context, places, np.ones(len(places), np.float32))
        assert np.allclose(found, wanted[at], atol=1e-5, rtol=1e-5)

    # The row behind the last is an item that nobody has seen.
    nobody = WhoAsks(
        torch.tensor([-1]),
        torch.zeros(1, 1, dtype=torch.int64),
        torch.zeros(1, 1),
        -torch.ones(1).long(),
    )
    network.train()
    network.forget = 1.1
    with torch.no_grad():
        unseen = network(nobody, torch.tensor([[4]])).numpy()
    namespace = catalogue().namespace(["4"])
    one = model.items(np.array([-1]), namespace)
    user = model.user(None, np.zeros(0, np.int64), np.zeros(0, np.float32))
    assert np.allclose(model.logits(user, one), unseen[0], atol=1e-5)


def test_the_same_seed_gives_the_same_bytes(fitted: TrainedSource) -> None:
    again = fit_source(fitted.kind, shop(), config_of(), Course(3))
    other = fit_source(fitted.kind, shop(), config_of(), Course(4))
    assert {n: a.tobytes() for n, a in again.arrays.items()} == {
        n: a.tobytes() for n, a in fitted.arrays.items()
    }
    assert other.arrays["item_vectors"].tobytes() != fitted.arrays["item_vectors"].tobytes()


def test_it_learns_who_likes_what(fitted: TrainedSource) -> None:
    """By the context alone, and by the history alone."""
    scorer = scorer_of(fitted)
    red, green = [f"{n}" for n in range(0, 30, 3)], [f"{n}" for n in range(1, 30, 3)]
    for request in ({"context": {"likes": "red"}}, {"history": ("0", "3", "6")}):
        assert score(scorer, *red, **request).mean() > score(scorer, *green, **request).mean() + 0.5
    assert fitted.metrics["auc"] > 0.7
    assert fitted.metrics["log_loss"] < fitted.metrics["log_loss_of_share"]


def test_a_new_item_is_scored_by_its_features(fitted: TrainedSource) -> None:
    """Its own, or those that the request sends; what was never seen counts nothing."""
    scorer, ids = scorer_of(fitted), ("new", "newer")
    known = catalogue(new={"colour": "red"}, newer={"colour": "green"})
    likes = SourceRequest(context={"likes": "red"})
    red, green = scorer.score_actions(known, likes, ids, None, {})
    assert red > green

    sent: list[FeatureMap | None] = [{"colour": "green"}, {"colour": "red"}]
    turned = scorer.score_actions(known, likes, ids, sent, {})
    assert np.allclose(turned, [green, red], atol=1e-5)
    half = scorer.score_actions(known, likes, ids, [None, {"colour": "red"}], {})
    assert np.allclose(half, [red, red], atol=1e-5)

    strange: FeatureMap = {"colour": "puce", "made in": "Ulm", "weight": 1e19, "tags": []}
    plain, odd = scorer.score_actions(known, likes, ids, [{}, strange], {})
    assert plain == odd


def test_contexts_that_were_never_seen_count_nothing(fitted: TrainedSource) -> None:
    scorer = scorer_of(fitted)
    told: FeatureMap = {"likes": "puce", "shoe size": 43.0, "member": True}
    assert np.array_equal(score(scorer, "0", "1", context=told), score(scorer, "0", "1"))
    huge = score(scorer, "0", "1", context={"age": 1e19})
    assert np.isfinite(huge).all()
    assert np.abs(huge).max() < 1000


def test_what_is_kept_of_items_changes_no_score(fitted: TrainedSource) -> None:
    """Neither from one request to the next, nor when a catalogue is another."""
    scorer, ids = scorer_of(fitted), tuple(map(str, range(ITEMS)))
    first = score(scorer, *ids)
    again = score(scorer, *ids[::-1])[::-1]
    assert np.allclose(first, again, atol=1e-6)

    known = catalogue(**{"3": {"colour": "green"}})
    changed = scorer.score_actions(known, SourceRequest(), ids, None, {})
    assert changed[3] != pytest.approx(first[3])
    assert np.allclose(np.delete(changed, 3), np.delete(first, 3), atol=1e-6)

    # An item that the catalogue lacks is known by its id alone.
    bare = scorer.score_actions(Catalogue(), SourceRequest(), ids, None, {})
    assert np.isfinite(bare).all()


def test_the_newest_of_a_long_history_count(fitted: TrainedSource) -> None:
    scorer, newest = scorer_of(fitted), tuple(map(str, range(ITEMS)))
    long = tuple(f"unknown {n}" for n in range(10_000)) + newest
    assert np.array_equal(score(scorer, "7", history=long), score(scorer, "7", history=newest))
    assert np.array_equal(score(scorer, "7", history=("unknown",)), score(scorer, "7"))


def test_a_scorer_is_written_and_read(fitted: TrainedSource, tmp_path: Any) -> None:
    items = shop().histories.items
    write(Artifact((), items, {fitted.kind: fitted}), tmp_path)
    read = load(tmp_path).sources[fitted.kind]
    assert msgspec.to_builtins(read.metrics) == dict(fitted.metrics)
    assert np.array_equal(score(scorer_of(read), "1", "2"), score(scorer_of(fitted), "1", "2"))


def test_arrays_that_do_not_fit_are_refused(fitted: TrainedSource) -> None:
    def without(**changed: np.ndarray) -> TrainedSource:
        return replace(fitted, arrays={**fitted.arrays, **changed})

    vectors = fitted.arrays["item_vectors"]
    with pytest.raises(ArtifactError, match=r"item_vectors has shape \[30, 4\], expected \[31"):
        load_scorer(without(item_vectors=vectors[:-1]), ITEMS)
    hashes = fitted.arrays["feature_hashes"]
    with pytest.raises(ArtifactError, match="feature_hashes are not in order"):
        load_scorer(without(feature_hashes=hashes[::-1]), ITEMS)
    with pytest.raises(ArtifactError, match="a field of feature is outside"):
        load_scorer(without(feature_fields=fitted.arrays["feature_fields"] + 100), ITEMS)
    with pytest.raises(ArtifactError, match="unknown kind of scorer 'als'"):
        load_scorer(replace(fitted, kind="als"), ITEMS)


def test_a_training_set_of_one_class_is_refused() -> None:
    full = Histories(
        ("0", "1"), ("u",), np.array([0, 2]), np.array([0, 1], np.int32), np.ones(2, np.float32)
    )
    data = TrainingData(full, describe([], ContentConfig()))
    with pytest.raises(ArtifactError, match="fm: the training set has one class: every user has"):
        choose_sources(["fm"], data, config_of())
    passed = replace(full, weights=np.zeros(2, np.float32))
    with pytest.raises(ArtifactError, match=r"deepfm: .* one class: no interaction has a weight"):
        choose_sources(["deepfm"], replace(data, histories=passed), config_of())

    # What was looked at and not taken is the other class.
    both = replace(full, weights=np.array([1.0, 0.0], np.float32))
    assert choose_sources(["fm"], replace(data, histories=both), config_of())[0] == ("fm",)


def test_a_loss_that_is_no_number_names_its_batch() -> None:
    with pytest.raises(ArtifactError, match=r"fm: the loss of batch \d+ of \d+ in epoch 1"):
        fit_source("fm", shop(), config_of(learning_rate=1e30), Course(3))


def test_platts_scaling_finds_the_line_that_made_the_labels() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 2, 40_000)
    labels = (rng.random(40_000) < 1 / (1 + np.exp(-(0.5 * logits - 3)))).astype(np.float64)
    slope, intercept = fit_logistic(logits, labels, np.ones(40_000))
    assert slope == pytest.approx(0.5, abs=0.04)  # 5 standard errors: 1 run in a million
    assert intercept == pytest.approx(-3, abs=0.15)

    # Logits that point the wrong way keep their slope: an order is not turned over.
    assert fit_logistic(-logits, labels, np.ones(40_000))[0] == 1.0


def test_features_of_one_field_share_it() -> None:
    """A list of two counts as much as one text; a number is in units of its usual size."""
    encoded = encode_features(
        [{"tags": ["a", "b"], "size": 3.0}, {"tags": ["a"], "size": -3.0}], FEATURES
    )
    assert encoded.vocabulary.fields == 2
    assert sorted(encoded.counts[0].tolist()) == [0.5, 0.5, 1.0]
    assert sorted(encoded.counts[1].tolist()) == [-1.0, 0.0, 1.0]
    hashes, codes, values = coded_rows([{"tags": ["a", "never"]}])
    found = encoded.vocabulary.pooled(encoded.vocabulary.codes(hashes)[codes], values)
    assert sorted(found[0].tolist()) == [0.0, 1.0]
    assert namespace_of({"size": 3.0}, FEATURES).hashes[0] in encoded.vocabulary.hashes
