"""NCF: what is served is what torch has fitted, with its layers and as a product alone."""

import numpy as np
import pytest
import torch

from bandits.errors import ArtifactError
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import TrainedSource
from policies.sources.towers.ncf import NcfModel
from policies.training.neural.loop import own_random_numbers
from policies.training.towers.ncf import Ncf, NcfConfig, fit_ncf, ncf_arrays
from policies.training.towers.past import PastItems
from policies.training.training_data import Course

KINDS, EACH, USERS = 4, 10, 60
CONFIGS = {
    "layers": NcfConfig(
        factors=6,
        wide=5,
        hidden=(8, 4),
        batch=64,
        epochs=30,
        learning_rate=0.02,
        most=5,
        patience=30,
    ),
    "product": NcfConfig(
        factors=6, hidden=(), batch=64, epochs=30, learning_rate=0.02, most=5, patience=0
    ),
}


def make_histories() -> Histories:
    """Users who each want items of one kind."""
    rng = np.random.default_rng(0)
    rows = [np.sort(rng.choice(EACH, 6, replace=False)) + EACH * (u % KINDS) for u in range(USERS)]
    return Histories(
        items=tuple(map(str, range(KINDS * EACH))),
        users=tuple(map(str, range(USERS))),
        starts=np.arange(0, 6 * USERS + 1, 6),
        indices=np.concatenate(rows).astype(np.int32),
        weights=rng.choice([0.5, 2.0], 6 * USERS).astype(np.float32),
    )


HISTORIES = make_histories()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_what_is_served_is_what_torch_computes(config: NcfConfig) -> None:
    past = PastItems.of(HISTORIES, seed=0)
    with own_random_numbers(2):
        network = Ncf(config, past, KINDS * EACH)
        with torch.no_grad():
            for parameter in network.module.parameters():
                parameter.copy_(torch.randn(parameter.shape))
    network.module.eval()
    model = NcfModel(TrainedSource("ncf", ncf_arrays(network.module), {"most": 5}), KINDS * EACH)
    for at in past.rows[:30].tolist():
        bags = past.around(np.array([at]), 5)
        with torch.no_grad():
            want = network.module.scores(
                network.users(bags), torch.arange(KINDS * EACH)[None]
            ).numpy()[0]
        found = model.raw(bags.items.numpy(), bags.weights.numpy())
        np.testing.assert_allclose(found, want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_history_finds_its_kind_and_the_seed_decides(config: NcfConfig) -> None:
    source, again, other = (fit_ncf(HISTORIES, config, Course(seed)) for seed in (1, 1, 2))
    model = NcfModel.load(source, KINDS * EACH)
    for kind in range(KINDS):
        known = np.array([0, 1]) + EACH * kind
        scores = model.raw(known, np.ones(2, np.float32))
        best = np.argsort(-scores)[:5] // EACH
        assert (best == kind).sum() >= 4, best

    arrays = source.arrays
    assert all(np.array_equal(arrays[name], again.arrays[name]) for name in arrays)
    assert not np.array_equal(arrays["products"], other.arrays["products"])


def test_a_history_of_which_nothing_speaks_gets_the_bias() -> None:
    model = NcfModel.load(fit_ncf(HISTORIES, CONFIGS["layers"], Course(1)), KINDS * EACH)
    assert np.isfinite(model.raw(np.array([3]), np.zeros(1, np.float32))).all()


def test_a_loss_that_is_no_number_stops_the_fit() -> None:
    with pytest.raises(ArtifactError, match=r"ncf: .*no number"):
        fit_ncf(HISTORIES, NcfConfig(hidden=(), learning_rate=1e30, epochs=9), Course())
