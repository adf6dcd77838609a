"""Which sources are fitted on what, and that whatever is fitted is finite."""

from dataclasses import replace

import numpy as np
import pytest

from bandits.errors import ArtifactError
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import Calibration, TrainedSource
from policies.sources import model_of
from policies.sources.local import MODELS
from policies.sources.scorers.artifact_scorer import SCORERS
from policies.training.calibration import CALIBRATION_USERS, calibrate
from policies.training.cf import AlsConfig
from policies.training.content.descriptions import ContentConfig, describe
from policies.training.deep import DeepConfig
from policies.training.ease import EaseConfig
from policies.training.fits import (
    FITS,
    TrainConfig,
    choose_sources,
    fit_source,
)
from policies.training.popular import fit_popular
from policies.training.scorers.network import ScorerConfig
from policies.training.sequence.gru4rec import Gru4RecConfig
from policies.training.sequence.sasrec import SasRecConfig
from policies.training.towers.ncf import NcfConfig
from policies.training.towers.network import TowersConfig
from policies.training.training_data import Course, TrainingData

CONFIG = TrainConfig(
    als=AlsConfig(factors=4, iterations=2),
    fm=ScorerConfig(factors=4, epochs=2),
    wide_deep=ScorerConfig(factors=4, pairs=False, crosses=8, hidden=(8, 4), epochs=2),
    deepfm=ScorerConfig(factors=4, hidden=(8, 4), epochs=2),
    deep=DeepConfig(hidden=8, epochs=2),
    towers=TowersConfig(factors=4, hidden=8, negatives=8, epochs=2),
    ncf=NcfConfig(factors=4, wide=4, hidden=(4, 2), epochs=2),
    sasrec=SasRecConfig(factors=8, length=3, negatives=2, epochs=2),
    gru4rec=Gru4RecConfig(factors=8, length=3, negatives=2, epochs=2),
)
SAID = describe(
    [{"id": f"{n}", "metadata": {"title": f"item of kind {n % 3}"}} for n in range(20)],
    ContentConfig(),
)
EVERY = tuple(FITS)
TIMED = {"trending", "slit", "sasrec", "gru4rec"}
"""What cannot be fitted without times."""


def make_histories(rows: list[dict[int, float]], n_items: int, *, timed: bool = True) -> Histories:
    """Users' items with their weights; a user's k-th item came on the k-th day."""
    indices = np.array([item for row in rows for item in sorted(row)], np.int32)
    weights = np.array([row[item] for row in rows for item in sorted(row)], np.float32)
    days = np.array([day for row in rows for day in range(len(row))], np.int64)
    return Histories(
        items=tuple(map(str, range(n_items))),
        users=tuple(map(str, range(len(rows)))),
        starts=np.append(0, np.cumsum([len(row) for row in rows])).astype(np.int64),
        indices=indices,
        weights=weights,
        times=days * 86_400_000 if timed else None,
    )


def data_of(rows: list[dict[int, float]], n_items: int, *, timed: bool = True) -> TrainingData:
    return TrainingData(make_histories(rows, n_items, timed=timed), SAID)


CASES = {
    "one user": (make_histories([{0: 1.0, 2: 2.0, 3: 1.0}], 4), EVERY),
    "one item": (make_histories([{0: 1.0}, {0: 1.0}], 1), ("popular", "trending", "content")),
    "one item each": (
        make_histories([{0: 1.0}, {1: 1.0}], 2),
        ("popular", "trending", "content", *SCORERS),
    ),
    "all weights equal": (
        make_histories([{0: 1.0, 1: 1.0}] * 5, 2),
        tuple(name for name in EVERY if name not in SCORERS),
    ),
    "items with no events": (make_histories([{0: 1.0, 7: 3.0}, {7: 1.0, 8: 2.0}], 20), EVERY),
    "users without weight": (
        make_histories([{0: 0.0, 1: 0.0}, {1: 1.0, 2: 1.0}, {0: 0.0}], 3),
        EVERY,
    ),
    "no times": (
        make_histories([{0: 1.0, 1: 1.0}, {1: 1.0, 2: 1.0}], 3, timed=False),
        tuple(name for name in EVERY if name not in TIMED),
    ),
    "huge weights": (make_histories([{0: 1e9, 1: 1e-6}, {1: 1e9, 2: 3.0}], 3), EVERY),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_small_and_odd_data(case: str) -> None:
    """A source is fitted, and finite for every user and a stranger, or is left out with a reason."""
    histories, expected = CASES[case]
    chosen, left_out = choose_sources(["all"], TrainingData(histories, SAID), CONFIG)
    assert set(chosen) == set(expected)
    assert set(chosen) | set(left_out) == set(FITS)
    assert all(left_out.values())

    for name in chosen:
        told: list[tuple[int, int]] = []
        source = fit_source(
            name,
            TrainingData(histories, SAID),
            CONFIG,
            Course(step=lambda *step, told=told: told.append(step)),
        )
        assert told[-1][0] == told[-1][1]
        assert np.isfinite([source.scale.mean, source.scale.std]).all()
        assert all(np.isfinite(array).all() for array in source.arrays.values()), name

        model = model_of(source, histories.items, {})
        sent = np.array([0]), np.ones(1, np.float32)
        for indices, weights in [sent, *map(histories.row, range(len(histories.users)))]:
            if weights.any() or not model.needs_history:
                assert np.isfinite(model.raw(indices, weights)).all(), name


def test_data_without_weight_is_refused_by_every_source() -> None:
    with pytest.raises(ArtifactError, match="popular: no interaction has a weight above 0"):
        choose_sources(None, data_of([{0: 0.0, 1: 0.0}], 2), CONFIG)


def test_a_source_that_is_named_must_be_possible() -> None:
    data = data_of([{0: 1.0, 1: 1.0}], 2, timed=False)
    assert choose_sources(["popular", "als"], data, CONFIG) == (("popular", "als"), {})
    with pytest.raises(ArtifactError, match="trending: the events have no times"):
        choose_sources(["als", "trending"], data, CONFIG)
    with pytest.raises(ArtifactError, match=r"no source 'eas' .* ease"):
        choose_sources(["eas"], data, CONFIG)
    with pytest.raises(ArtifactError, match="no source is named"):
        choose_sources([], data, CONFIG)
    with pytest.raises(ArtifactError, match="'all' stands alone"):
        choose_sources(["all", "als"], data, CONFIG)


def test_ease_is_left_out_where_there_are_many_items() -> None:
    """Named explicitly, the error says what memory it would take; the limit can be raised."""
    data = data_of([{0: 1.0, 999_999: 1.0}], 1_000_000)
    chosen, left_out = choose_sources(None, data, TrainConfig())
    assert "ease" not in chosen
    assert left_out == {
        "ease": "1,000,000 items are more than 20,000: it would take 3,725.3 GiB of memory",
        "deep": "1,000,000 items are more than 100,000: it would take 6.0 GiB of memory, and see too"
        " few users in the time there is",
    }
    with pytest.raises(ArtifactError, match=r"ease: .* 3,725\.3 GiB"):
        choose_sources(["ease"], data, TrainConfig())

    wider = replace(TrainConfig(), ease=EaseConfig(max_items=1_000_000))
    assert choose_sources(["ease"], data, wider) == (("ease",), {})


def test_what_is_fitted_is_what_can_be_served_and_configured() -> None:
    assert set(FITS) == {*MODELS, *SCORERS}
    assert {*CONFIG.__slots__, "popular"} == set(FITS)


def test_scores_that_differ_by_rounding_alone_are_no_scale() -> None:
    histories = make_histories([{0: 1.0}], 49)
    for count in (0.1, 1 / 3, 7.0):
        counts = np.full(49, count, np.float32)
        counts[1:9] *= np.float32(1 + 1e-7)
        source = TrainedSource("popular", {"counts": counts})
        assert calibrate(source, histories) == Calibration()


def test_scores_are_calibrated_on_a_sample_of_many_users() -> None:
    """About what all of them give, the same each time."""
    rng = np.random.default_rng(1)
    rows = [
        dict.fromkeys(rng.choice(200, 20, replace=False, p=None).tolist(), 1.0)
        for _ in range(3 * CALIBRATION_USERS)
    ]
    histories = make_histories(rows, 200)
    source = fit_popular(histories, step=lambda *_: None)
    one, again, other = (calibrate(source, histories, seed=seed) for seed in (1, 1, 2))
    assert one == again != other
    assert one.mean == pytest.approx(other.mean, rel=1e-3)
    assert one.std == pytest.approx(other.std, rel=0.05)
