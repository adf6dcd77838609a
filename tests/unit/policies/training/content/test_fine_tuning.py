"""Vectors of items are fine-tuned on what came next, where that finds unseen items better."""

from dataclasses import replace

import numpy as np
import torch

from policies.artifacts.histories import Histories
from policies.sources.live.item_encoder import taken_next
from policies.sources.live.text_vectors import unit
from policies.training.content.descriptions import ContentConfig, describe
from policies.training.content.fine_tuning import (
    FineTuneConfig,
    FineTunedModule,
    fit_tuned_content,
    tune,
)
from policies.training.training_data import Course, TrainingData

KINDS, ITEMS, USERS, LENGTH = 5, 100, 150, 8
CONFIG = FineTuneConfig(size=8, batch=64, epochs=4, draws=1500)


def walks(seed: int, *, in_order: bool = True) -> tuple[np.ndarray, Histories]:
    """Users go from a kind to the next; what is said of items is their kind, and other things."""
    rng = np.random.default_rng(seed)
    kind = np.arange(ITEMS) % KINDS
    said = np.concatenate([np.eye(KINDS)[kind], 0.3 * rng.normal(size=(ITEMS, 10))], axis=1)
    rows = []
    for user in range(USERS):
        wanted = (
            (user + np.arange(LENGTH)) % KINDS if in_order else rng.integers(KINDS, size=LENGTH)
        )
        row: list[int] = []
        for each in wanted.tolist():
            row.append(int(rng.choice(np.setdiff1d(np.flatnonzero(kind == each), row))))
        rows.append(row)
    orders = [np.argsort(row) for row in rows]
    histories = Histories(
        items=tuple(map(str, range(ITEMS))),
        users=tuple(map(str, range(USERS))),
        starts=np.arange(0, LENGTH * USERS + 1, LENGTH),
        indices=np.concatenate([np.sort(row) for row in rows]).astype(np.int32),
        weights=np.ones(LENGTH * USERS, np.float32),
        times=np.concatenate(orders).astype(np.int64) * 1000,
    )
    return unit((said - said.mean(axis=0)).astype(np.float32)), histories


def test_what_comes_next_is_found_among_unseen_items_better_than_what_is_alike():
    said, histories = walks(1)
    found, metrics = tune(said, histories, CONFIG, Course(seed=2))
    assert found is not None
    assert metrics["tuned_ndcg"] > 2 * metrics["plain_ndcg"]

    # After items of kind 0 and 1, one of kind 2.
    vectors = unit(said @ found["projection"])
    wanted = taken_next(vectors[[0, 1]], np.ones(2, np.float32), found["steps"])
    best = np.argsort(-(vectors @ wanted))[:10]
    assert (best % KINDS == 2).mean() > 0.7

    again, _ = tune(said, histories, CONFIG, Course(seed=2))
    assert again is not None
    for name, array in found.items():
        assert array.tobytes() == again[name].tobytes()


def test_where_it_finds_nothing_better_vectors_stay_as_they_are(monkeypatch):
    said, histories = walks(1)
    monkeypatch.setattr("policies.training.content.fine_tuning._Judge.of", lambda *_: 0.5)
    found, metrics = tune(said, histories, replace(CONFIG, epochs=1), Course())
    assert found is None
    assert metrics["plain_ndcg"] == metrics["tuned_ndcg"] == 0.5


def test_torch_and_numpy_make_the_same_of_a_history():
    rng = np.random.default_rng(3)
    module = FineTunedModule(np.eye(6, dtype=np.float32), steps=3)
    torch.nn.init.normal_(module.steps, generator=torch.Generator().manual_seed(1))
    steps = module.steps.detach().numpy()
    for length in (1, 2, 9):
        rows = unit(rng.normal(size=(length, 6)).astype(np.float32))
        weights = rng.uniform(0.1, 1.5, length).astype(np.float32)
        last = np.zeros((3, 6), np.float32)
        last[: min(3, length)] = rows[::-1][:3]
        given = (torch.from_numpy(each)[None] for each in (rows, weights, last))
        with torch.no_grad():
            found = module(*given)[0].numpy()
        np.testing.assert_allclose(found, taken_next(rows, weights, steps), atol=1e-5)


def test_items_that_nothing_is_said_of_and_histories_of_one_item_teach_nothing():
    said, histories = walks(2)
    said[::3] = 0.0
    found, _ = tune(said, histories, replace(CONFIG, epochs=1), Course())
    assert found is None or all(np.isfinite(each).all() for each in found.values())

    nobody = replace(
        histories,
        starts=np.arange(0, LENGTH * USERS + 1),
        users=tuple(map(str, range(LENGTH * USERS))),
    )
    assert tune(said, nobody, CONFIG, Course()) == (None, {})
    assert tune(np.zeros_like(said), histories, CONFIG, Course()) == (None, {})


def test_texts_that_are_missing_of_other_languages_or_empty_and_vectors_of_two_lengths():
    _, histories = walks(3)
    words = ["schuhe rot", "обувь красная", "靴 赤い", "zapatos rojos", "shoes red"]
    catalogue = []
    for at in range(ITEMS):
        item: dict = {"id": str(at)}
        if at % 10 > 2:
            item["metadata"] = {"title": "" if at % 10 == 3 else words[at % KINDS]}
        if at % 4:
            item["vectors"] = {"look": [1.0, float(at % KINDS)] if at % 4 > 1 else [1.0]}
        catalogue.append(item)

    content = ContentConfig(size=8)
    data = TrainingData(histories, describe(catalogue, content))
    found = fit_tuned_content(data, content, replace(CONFIG, epochs=1), Course())
    vectors = found.arrays["vectors"]
    # A vector of the wrong length leaves its item out, whatever else is said of it.
    said = [at % 4 != 1 and (at % 10 > 3 or at % 4 > 1) for at in range(ITEMS)]
    np.testing.assert_array_equal(vectors.any(axis=1), said)
    assert all(np.isfinite(each).all() for each in found.arrays.values())
