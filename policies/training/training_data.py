"""What a source is fitted on, and how its fit is to go."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bandits.values import FeatureMap
from policies.artifacts.histories import Histories
from policies.training.cf import Step
from policies.training.content.descriptions import Descriptions


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """What there is to fit a source on.

    ``histories``: who interacted with what, and when; ``said``: the texts and vectors of items;
    ``items``: by id, the features of every item of the catalogue; ``contexts``: by user, what a
    caller will say of each with a request.
    """

    histories: Histories
    said: Descriptions
    items: Mapping[str, FeatureMap] = field(default_factory=dict)
    contexts: Mapping[str, FeatureMap] = field(default_factory=dict)


def _nobody(_done: int, _total: int) -> None:
    """Tell nobody of a step."""


@dataclass(frozen=True, slots=True)
class Course:
    """How a fit is to go.

    ``seed``: of all random numbers; ``step``: told (done, total) after each step;
    ``checkpoints``: the folder where a long fit keeps how far it has come, and goes on from what
    lies there; None: it begins anew and keeps nothing.
    """

    seed: int = 0
    step: Step = _nobody
    checkpoints: Path | None = None


def features_of(catalogue: tuple[Mapping[str, Any], ...]) -> dict[str, FeatureMap]:
    """Return the features of each item, by id.

    Args:
        catalogue: ``{"id", "features"}`` each.
    """
    return {item["id"]: item.get("features", {}) for item in catalogue}
