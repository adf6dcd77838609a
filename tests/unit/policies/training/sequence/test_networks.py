"""Networks of sequences: served as torch computes them, the same for a seed, and they learn."""

from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from bandits.errors import ArtifactError
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import TrainedSource
from policies.sources import load_model
from policies.sources.vectors import LargeVectorModel
from policies.training.neural.dropout import FastDropout
from policies.training.sequence.gru4rec import (
    Gru4Rec,
    Gru4RecConfig,
    fit_gru4rec,
    gru4rec_arrays,
)
from policies.training.sequence.next_item import NextItem, NextItemFit
from policies.training.sequence.order import in_order
from policies.training.sequence.sasrec import SasRec, SasRecConfig, fit_sasrec, sasrec_arrays
from policies.training.sequence.stretches import stretches_of
from policies.training.training_data import Course

ITEMS = 30
SASREC = SasRecConfig(
    factors=16,
    length=6,
    negatives=12,
    batch=32,
    epochs=12,
    patience=0,
    learning_rate=1e-2,
    dropout=0.2,
)
NETWORKS: dict[str, Any] = {
    "sasrec": (SASREC, SasRec, sasrec_arrays, fit_sasrec),
    "sasrec, two blocks, four heads": (
        replace(SASREC, blocks=2, heads=4),
        SasRec,
        sasrec_arrays,
        fit_sasrec,
    ),
    "gru4rec": (
        Gru4RecConfig(**{each.name: getattr(SASREC, each.name) for each in fields(Gru4RecConfig)}),
        Gru4Rec,
        gru4rec_arrays,
        fit_gru4rec,
    ),
}
each_network = pytest.mark.parametrize("name", NETWORKS)


def in_circles(users: int = 200, weight: float = 1.0) -> Histories:
    """Everybody begins somewhere, and goes on to the next item each time."""
    rng = np.random.default_rng(5)
    lengths = rng.integers(2, 12, users)
    rows = [
        sorted(((int(start) + step) % ITEMS, step) for step in range(length))
        for start, length in zip(rng.integers(ITEMS, size=users), lengths, strict=True)
    ]
    return Histories(
        items=tuple(map(str, range(ITEMS))),
        users=tuple(map(str, range(users))),
        starts=np.append(0, np.cumsum(lengths)),
        indices=np.array([item for row in rows for item, _ in row], np.int32),
        weights=np.full(lengths.sum(), weight, np.float32),
        times=np.array([time for row in rows for _, time in row], np.int64),
    )


@each_network
def test_it_is_served_as_torch_computes_it(name):
    """All scores within 1e-5 of their size, for histories of any length."""
    config, body, arrays, _ = NETWORKS[name]
    torch.manual_seed(3)
    module = NextItem(ITEMS, body(config), config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    kind = name.partition(",")[0]
    model = load_model(TrainedSource(kind, arrays(module), asdict(config)), ITEMS)

    rng = np.random.default_rng(1)
    histories = [rng.permutation(ITEMS)[:length] for length in (1, 2, 5, 6, 7, 20)]
    newest = [torch.tensor(history[-config.length :]) for history in histories]
    lengths = torch.tensor([len(each) for each in newest])
    with torch.no_grad():
        after = module(torch.cat(newest), torch.arange(config.length) < lengths[:, None])
        expected = (after[lengths.cumsum(0) - 1] @ module.vectors.weight.T).numpy()
    for history, scores in zip(histories, expected, strict=True):
        found = model.raw(history, np.ones(history.size, np.float32))
        assert np.abs(found - scores).max() <= 1e-5 * np.abs(scores).max()


@each_network
def test_it_learns_what_comes_next_and_the_same_for_the_same_seed(name):
    config, _, _, fit = NETWORKS[name]
    histories = in_circles()
    fitted, again = (fit(histories, config, Course(seed=1)) for _ in range(2))
    assert all(np.array_equal(fitted.arrays[key], again.arrays[key]) for key in fitted.arrays)
    other = fit(histories, replace(config, epochs=1), Course(seed=2))
    assert not np.array_equal(fitted.arrays["vectors"], other.arrays["vectors"])

    model = load_model(fitted, ITEMS)
    right = []
    for last in range(ITEMS):
        history = np.arange(last - 3, last + 1) % ITEMS
        scores = model.raw(history, np.ones(4, np.float32))
        right.append(scores.argmax() == (last + 1) % ITEMS)
    assert np.mean(right) > 0.8, "chance is 1/30"


def test_it_is_judged_by_the_place_of_what_was_held_out_among_what_was_not_seen():
    windows = stretches_of(in_order(in_circles()), SASREC.length, 1000, seed=0)
    assert len(windows.judged) > 20

    # Who is at an item wants the next: nothing is better, and only what was seen is as good.
    module = NextItem(ITEMS, SasRec(SASREC), SASREC)
    following = torch.roll(torch.eye(ITEMS), 1, 1)

    class Knowing(torch.nn.Module):
        vectors = torch.nn.Embedding.from_pretrained(torch.eye(ITEMS))

        def forward(self, items, there):
            return following[items] + self.wrong * torch.roll(following, self.by, 1)[items]

    knowing = Knowing()
    fit = NextItemFit("knowing", module, windows, SASREC)
    fit.module = knowing
    for by, wrong, expected in (
        (0, 0.0, 1.0),
        (-1, 2.0, 1.0),  # where they are now was seen
        (1, 2.0, 1 / np.log2(3)),  # one item is better
        (0, -2.0, 0.0),  # the worst of all
    ):
        knowing.by, knowing.wrong = by, wrong
        assert fit.quality() == pytest.approx(expected)


@each_network
def test_of_ten_thousand_events_the_newest_count_and_those_without_weight_do_not(name):
    config, body, arrays, _ = NETWORKS[name]
    kind = name.partition(",")[0]
    module = NextItem(ITEMS, body(config), config)
    model = load_model(TrainedSource(kind, arrays(module), asdict(config)), ITEMS)
    long = np.resize(np.arange(ITEMS), 10_000)
    scores = model.raw(long, np.ones(long.size, np.float32))
    assert np.array_equal(scores, model.raw(long[-6:], np.ones(6, np.float32)))

    three = np.array([4, 9, 2])
    scores = model.raw(three, np.array([1, 0, 1], np.float32))
    assert np.array_equal(scores, model.raw(three[[0, 2]], np.ones(2, np.float32)))
    assert not np.array_equal(scores, model.raw(three, np.ones(3, np.float32)))
    assert np.array_equal(model.raw(three, np.zeros(3, np.float32)), np.zeros(ITEMS, np.float32))


@each_network
def test_losses_that_are_no_numbers_stop_it_and_name_the_batch(name):
    config, _, _, fit = NETWORKS[name]
    with pytest.raises(ArtifactError, match=r"the loss of batch 1 of \d+ in epoch 1 is no number"):
        fit(in_circles(weight=3e38), config, Course())


@pytest.mark.parametrize("fit", [fit_sasrec, fit_gru4rec])
def test_of_many_items_the_promising_blocks_are_looked_at(fit, monkeypatch):
    monkeypatch.setattr("policies.training.blocks.BLOCKS_ABOVE", ITEMS - 1)
    kind = fit.__name__.removeprefix("fit_")
    fitted = fit(in_circles(20), replace(NETWORKS[kind][0], epochs=1), Course())
    large = load_model(fitted, ITEMS)
    assert isinstance(large, LargeVectorModel)
    arrays = {name: each for name, each in fitted.arrays.items() if name not in {"order", "starts"}}
    small = load_model(replace(fitted, arrays=arrays), ITEMS)
    history, weights = np.array([3, 8, 1]), np.ones(3, np.float32)
    np.testing.assert_allclose(
        large.raw(history, weights), small.raw(history, weights), rtol=1e-5, atol=1e-6
    )


def test_layers_that_do_not_fit_are_refused():
    config = SASREC
    arrays = sasrec_arrays(NextItem(ITEMS, SasRec(config), config))

    def load(change: dict[str, Any], **numbers: Any) -> None:
        load_model(
            TrainedSource("sasrec", {**arrays, **change}, {**asdict(config), **numbers}), ITEMS
        )

    load({})
    with pytest.raises(ArtifactError, match="3 heads do not divide 16"):
        load({}, heads=3)
    with pytest.raises(ArtifactError, match=r"sasrec.places has shape \[6, 16\]"):
        load({}, length=7)
    with pytest.raises(ArtifactError, match=r"sasrec.ask_bias has shape \[1, 47\]"):
        load({"ask_bias": arrays["ask_bias"][:, 1:]})
    with pytest.raises(ArtifactError, match="blocks must be a whole number above 0"):
        load({}, blocks=0)


def test_dropout_drops_its_share_and_keeps_the_mean():
    dropout, numbers = FastDropout(0.25), torch.ones(100_001)
    torch.manual_seed(0)
    dropped = dropout(numbers)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.02)
    assert torch.equal(dropout.eval()(numbers), numbers)
