"""Every family that one loop fits: by teams, and on from wherever it was stopped."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import TrainedSource
from policies.training.content.descriptions import ContentConfig, describe
from policies.training.fits import FITS, TrainConfig
from policies.training.neural.checkpoints import FolderCheckpoints
from policies.training.neural.team import Alone
from policies.training.training_data import Course, TrainingData, features_of

USERS, ITEMS, EACH = 40, 12, 5
NETWORKS = [name for name, fit in FITS.items() if fit.network]


def make_data() -> TrainingData:
    """Users of two tastes, with times, texts, features and contexts."""
    rng = np.random.default_rng(0)
    rows = [rng.permutation(np.arange(user % 2, ITEMS, 2))[:EACH] for user in range(USERS)]
    catalogue = tuple(
        {
            "id": f"{n}",
            "features": {"kind": f"k{n % 3}"},
            "metadata": {"title": f"a thing of kind {n % 2}"},
        }
        for n in range(ITEMS)
    )
    histories = Histories(
        items=tuple(f"{n}" for n in range(ITEMS)),
        users=tuple(f"u{n}" for n in range(USERS)),
        starts=np.arange(0, USERS * EACH + 1, EACH),
        indices=np.concatenate([np.sort(row) for row in rows]).astype(np.int32),
        weights=np.ones(USERS * EACH, np.float32),
        times=rng.permutation(USERS * EACH).astype(np.int64) * 1000,
    )
    contexts = {f"u{n}": {"group": f"g{n % 2}"} for n in range(USERS)}
    return TrainingData(
        histories, describe(catalogue, ContentConfig()), features_of(catalogue), contexts
    )


DATA = make_data()


def short(name: str) -> TrainConfig:
    """The usual hyperparameters, but for few epochs."""
    config: Any = TrainConfig()
    if hasattr(getattr(config, name, None), "epochs"):
        config = replace(config, **{name: replace(getattr(config, name), epochs=4)})
    return config  # type: ignore[no-any-return]


def bytes_of(source: TrainedSource) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in source.arrays.items()}


class Counting(Alone):
    """A team of one that counts its steps."""

    def __init__(self) -> None:
        self.steps = 0

    def average(self, module: nn.Module, loss: Tensor) -> Tensor:
        self.steps += 1
        return super().average(module, loss)


@pytest.mark.parametrize("name", FITS)
def test_what_is_said_to_be_a_network_is_fitted_by_a_team(name: str) -> None:
    """Else its workers would all do the same, or one would do alone what several could."""
    team = Counting()
    FITS[name].fit(DATA, short(name), Course(team=team))
    assert (team.steps > 0) is FITS[name].network


class StoppedError(Exception):
    """The training was stopped."""


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_goes_on_to_the_same_bytes(name: str, tmp_path: Any) -> None:
    """All that a family changes while it is fitted is in its checkpoint."""
    steps = list[int]()
    whole = FITS[name].fit(DATA, short(name), Course(3, lambda done, _total: steps.append(done)))
    stop_at = max(steps) * 3 // 4

    def stop(done: int, _total: int) -> None:
        if done == stop_at:
            raise StoppedError

    course = Course(3, stop, FolderCheckpoints(tmp_path, every_s=0))
    with pytest.raises(StoppedError):
        FITS[name].fit(DATA, short(name), course)
    told = list[int]()
    resumed = FITS[name].fit(
        DATA, short(name), replace(course, step=lambda done, _total: told.append(done))
    )
    assert told[0] > 1, "it began anew"
    assert bytes_of(resumed) == bytes_of(whole)
