"""Whether tastes tell items apart is measured, not assumed."""

import numpy as np

from policies.artifacts.histories import Histories
from policies.sources.live.text_vectors import unit
from policies.training.content import projection
from policies.training.content.descriptions import ContentConfig
from policies.training.content.projection import choose_projection, fit_projection

ITEMS, USERS, KINDS = 400, 600, 8
CONFIG = ContentConfig(factors=8)


def alike(vectors: np.ndarray, kind: np.ndarray) -> float:
    """The share of each item's ten nearest that are of its kind."""
    products = unit(vectors) @ unit(vectors).T
    np.fill_diagonal(products, -1)
    nearest = np.argsort(-products, axis=1)[:, :10]
    return float((kind[nearest] == kind[:, None]).mean())


def shop(seed: int) -> tuple[np.ndarray, Histories, np.ndarray]:
    """Users like one kind of items; what is said of items is of their kind, and of other things."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(KINDS, size=ITEMS)
    noise = rng.normal(size=(ITEMS, 20))
    said = np.concatenate([np.eye(KINDS)[kind], noise], axis=1)
    rows = [
        np.sort(rng.choice(np.flatnonzero(kind == user % KINDS), 12, replace=False))
        for user in range(USERS)
    ]
    histories = Histories(
        items=tuple(map(str, range(ITEMS))),
        users=tuple(map(str, range(USERS))),
        starts=np.arange(0, 12 * USERS + 1, 12),
        indices=np.concatenate(rows).astype(np.int32),
        weights=np.ones(12 * USERS, np.float32),
    )
    return unit((said - said.mean(axis=0)).astype(np.float32)), histories, kind


def test_what_users_do_not_care_for_is_projected_away():
    said, histories, kind = shop(1)
    found = choose_projection(said, histories, CONFIG, seed=0)
    assert found is not None
    assert alike(said @ found, kind) > alike(said, kind) + 0.2


def test_a_projection_that_finds_nothing_better_is_left_out(monkeypatch):
    said, histories, _ = shop(1)
    monkeypatch.setattr(projection, "_found", lambda *_: 0.5)
    assert choose_projection(said, histories, CONFIG, seed=0) is None


def test_few_items_with_events_teach_no_tastes():
    said, histories, _ = shop(1)
    few = Histories(
        histories.items, ("u",), np.array([0, 12]), histories.indices[:12], histories.weights[:12]
    )
    assert fit_projection(said, few, CONFIG, seed=0) is None
    assert choose_projection(said, few, CONFIG, seed=0) is None
