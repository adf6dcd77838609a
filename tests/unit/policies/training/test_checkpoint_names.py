"""A training goes on from its own checkpoints alone: their name is a digest of all it depends on."""

from dataclasses import replace
from typing import Any

import pytest
from support.events import coded_events

from policies.training.ease import EaseConfig
from policies.training.fits import TrainConfig
from policies.training.neural.checkpoints import FolderCheckpoints
from policies.training.train import run_training

EVENTS = coded_events([("u", "a", 1.0, "view", 10), ("u", "b", 1.0, "view", 20)])
ITEMS = ({"id": "a", "features": {}}, {"id": "b", "features": {"kind": "x"}})


def name_of(tmp_path: Any, **changes: Any) -> str:
    """The name under which a training's checkpoints are kept."""
    names = list[str]()

    def kept(digest: str) -> FolderCheckpoints:
        names.append(digest)
        return FolderCheckpoints(tmp_path / digest)

    asked = {"events": EVENTS, "items": ITEMS, **changes}
    run_training(**asked, sources=("popular",), checkpoints=kept)
    (name,) = names
    return name


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"events": replace(EVENTS, time=EVENTS.time + 1)},
        {"events": EVENTS.with_weight(EVENTS.weight * 2)},
        {"items": (*ITEMS, {"id": "c", "features": {}})},
        {"contexts": {"u": {"group": "g"}}},
        {"config": TrainConfig(ease=EaseConfig(regularization=7.0))},
    ],
    ids=["seed", "times", "weights", "items", "contexts", "hyperparameters"],
)
def test_whatever_is_different_has_another_name(tmp_path: Any, change: dict[str, Any]) -> None:
    """The order of a history as well, which some families read."""
    assert name_of(tmp_path) == name_of(tmp_path) != name_of(tmp_path, **change)
