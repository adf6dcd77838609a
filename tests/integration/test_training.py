"""Training: served scores are the trained models', a seed gives the same bytes, tastes are found."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl
import torch
from implicit.als import AlternatingLeastSquares
from support.events import Row, coded_events

from bandits.errors import ArtifactError
from policies.artifacts import source_artifact as artifact
from policies.artifacts.source_artifact import Artifact
from policies.data.coded import CodedEvents
from policies.sources import LocalSource, SourceRequest, load_model, load_sources
from policies.training.cf import AlsConfig, KnnConfig, fit_als, user_items
from policies.training.deep import DeepConfig, fit_autoencoder, fit_deep
from policies.training.histories import histories_of
from policies.training.train import (
    TrainConfig,
    progress_bars,
    run_training,
)
from policies.training.training_data import Course

N_USERS, N_ITEMS = 120, 60
CONFIG = TrainConfig(
    als=AlsConfig(factors=8, regularization=1.0, alpha=5.0, iterations=5),
    item_knn=KnnConfig(neighbours=10),
    deep=DeepConfig(hidden=16, epochs=30, batch=32, learning_rate=1e-2),
)
CATALOGUE = [{"id": str(i), "features": {"taste": i % 2}} for i in range(N_ITEMS)]


def make_events(seed: int = 0, disliked: float = 0.1) -> CodedEvents:
    """Even users like even items, odd users odd ones: 10 of them weigh 1 or 1.5, 3 others less."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for user in range(N_USERS):
        own = rng.choice(np.arange(user % 2, N_ITEMS, 2), 10, replace=False)
        other = rng.choice(np.arange(1 - user % 2, N_ITEMS, 2), 3, replace=False)
        rows += [(str(user), str(item), rng.choice([1.0, 1.5])) for item in own]
        rows += [(str(user), str(item), disliked) for item in other]
    return coded_events(rows)


@pytest.fixture(scope="module")
def trained() -> Artifact:
    return run_training(make_events(), CATALOGUE, config=CONFIG, seed=1).artifact


@pytest.mark.parametrize("name", ["als", "item_knn", "ease", "rp3beta", "deep"])
def test_tastes_are_found_for_known_users_and_for_strangers(trained: Artifact, name: str) -> None:
    source = load_sources(trained)[name]
    assert isinstance(source, LocalSource)
    right = []
    histories = histories_of(make_events())
    for user in range(N_USERS):
        known = histories.profile(str(user))
        assert known is not None
        liked = tuple(histories.items[i] for i in known.indices[known.weights >= 1])
        for request in (SourceRequest(profile=known), SourceRequest("a stranger", liked)):
            right += [int(item) % 2 == user % 2 for item in source.propose(request, 5).ids]
    assert np.mean(right) > 0.95, "chance is 0.5"


def test_the_autoencoder_is_served_as_torch_computes_it() -> None:
    """Log-probabilities within 1e-5, relative."""
    histories = histories_of(make_events())
    model = load_model(fit_deep(histories, CONFIG.deep, Course(3)), N_ITEMS)
    peer = fit_autoencoder(user_items(histories), CONFIG.deep, Course(3))
    with torch.no_grad():
        expected = torch.log_softmax(
            peer(torch.from_numpy(user_items(histories).toarray())), dim=1
        ).numpy()
    for user in range(N_USERS):
        indices, weights = histories.row(user)
        np.testing.assert_allclose(
            model.raw(indices, weights) - np.log(weights.sum()), expected[user], rtol=1e-5
        )


def test_als_is_served_as_implicit_computes_it() -> None:
    """Against implicit's own recalculate_user."""
    histories = histories_of(make_events())
    source = fit_als(histories, CONFIG.als, seed=3, step=_quiet)
    with threadpoolctl.threadpool_limits(1, "blas"):
        peer = AlternatingLeastSquares(factors=8, regularization=1.0, alpha=5.0)
        peer.item_factors = source.arrays["item_factors"]
        expected = (
            peer.recalculate_user(np.arange(N_USERS), user_items(histories)) @ peer.item_factors.T
        )
    model = load_model(source, N_ITEMS)
    for user in range(N_USERS):
        np.testing.assert_allclose(
            model.raw(*histories.row(user)), expected[user], rtol=1e-3, atol=1e-4
        )


def test_a_large_catalogue_gets_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same factors, and where they are few all are looked at: the same answers."""
    histories = histories_of(make_events())
    plain = fit_als(histories, CONFIG.als, seed=3, step=_quiet)
    monkeypatch.setattr("policies.training.blocks.BLOCKS_ABOVE", N_ITEMS - 1)
    large = fit_als(histories, CONFIG.als, seed=3, step=_quiet)
    assert set(large.arrays) == {"item_factors", "order", "starts"}
    assert np.array_equal(large.arrays["item_factors"], plain.arrays["item_factors"])
    row = histories.row(0)
    np.testing.assert_allclose(
        load_model(large, N_ITEMS).raw(*row),
        load_model(plain, N_ITEMS).raw(*row),
        rtol=1e-4,
        atol=1e-5,
    )
    found = [
        load_sources(Artifact((), histories.items, {"als": source}))["als"]
        for source in (plain, large)
    ]
    one, two = (
        source.propose(SourceRequest(profile=histories.profile("0")), 10).ids
        for source in found
        if isinstance(source, LocalSource)
    )
    assert one == two


def test_the_same_seed_gives_the_same_bytes(trained: Artifact, tmp_path: Path) -> None:
    """Training neither uses nor changes torch's global generator and number of threads."""
    torch.manual_seed(99)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    again = run_training(make_events(), CATALOGUE, config=CONFIG, seed=1).artifact
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert artifact.write(trained, tmp_path) == artifact.write(again, tmp_path)
    assert (
        artifact.write(
            run_training(make_events(), CATALOGUE, config=CONFIG, seed=2).artifact, tmp_path
        )
        != trained.version
    )


@pytest.mark.slow
def test_another_process_with_another_number_of_threads_gives_the_same_bytes(
    trained: Artifact, tmp_path: Path
) -> None:
    code = f"""
import sys, torch; sys.path[:0] = {[str(path) for path in Path(__file__).parents[:2]]!r}; torch.set_num_threads(3)
from pathlib import Path
from test_training import *
trained = run_training(make_events(), CATALOGUE, config=CONFIG, seed=1).artifact
print(artifact.write(trained, Path({str(tmp_path)!r})))
"""
    other = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, timeout=100
    )
    assert other.stdout.decode().strip() == artifact.write(trained, tmp_path)


def test_the_order_of_users_and_events_does_not_matter(trained: Artifact) -> None:
    events = make_events()
    order = np.random.default_rng(0).permutation(len(events))
    users = np.argsort(np.random.default_rng(1).permutation(N_USERS)[events.user[order]])
    shuffled = run_training(
        events.select(order[users]),
        CATALOGUE,
        config=replace(CONFIG, deep=replace(CONFIG.deep, epochs=1)),
        seed=1,
    ).artifact
    assert shuffled.data == trained.data
    assert np.array_equal(
        shuffled.sources["als"].arrays["item_factors"],
        trained.sources["als"].arrays["item_factors"],
    )


@pytest.mark.parametrize("name", ["als", "item_knn", "ease", "rp3beta", "deep", "popular"])
def test_scores_are_calibrated(trained: Artifact, name: str, tmp_path: Path) -> None:
    """Written and loaded, the training users' best candidates have mean 0 and deviation 1."""
    artifact.write(trained, tmp_path)
    source = load_sources(artifact.load(tmp_path))[name]
    assert isinstance(source, LocalSource)
    histories = histories_of(make_events())
    requests = [SourceRequest(profile=histories.profile(user)) for user in histories.users]
    scores = np.concatenate([source.propose(request, 50).scores for request in requests])
    assert abs(scores.mean()) < 1e-3
    assert abs(scores.std() - 1) < 1e-3


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    run_training(make_events(), CATALOGUE, config=CONFIG, progress=lambda *step: told.append(step))
    last = {source: (done, total) for source, done, total in told}
    assert last == {
        "als": (5, 5),
        "item_knn": (1, 1),
        "ease": (3, 3),
        "rp3beta": (1, 1),
        "deep": (120, 120),
        "popular": (1, 1),
    }
    with progress_bars() as show:
        show("als", 1, 2)


def test_seen_but_not_liked(tmp_path: Path) -> None:
    """An interaction of weight 0 teaches nothing, and is still never proposed."""
    events = make_events(disliked=0.0)
    made = run_training(events, CATALOGUE, config=CONFIG).artifact
    histories = histories_of(events)
    assert (histories.weights == 0).sum() == 3 * N_USERS
    assert len(user_items(histories).data) == 10 * N_USERS
    artifact.write(made, tmp_path)
    for name, source in load_sources(artifact.load(tmp_path)).items():
        assert isinstance(source, LocalSource)
        for user in range(N_USERS):
            known = histories.profile(str(user))
            assert known is not None
            seen = {histories.items[at] for at in known.indices}
            assert len(seen) == 13
            request = SourceRequest(profile=known)
            assert not seen & set(source.propose(request, N_ITEMS).ids), name


def test_an_item_of_an_event_must_be_in_the_catalogue() -> None:
    with pytest.raises(ArtifactError, match="item '59' has events, but is not in the catalogue"):
        run_training(make_events(), CATALOGUE[:-1], config=CONFIG)


def _quiet(_done: int, _total: int) -> None:
    pass
