"""What a source is fitted on, and how its fit is to go."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from bandits.values import FeatureMap
from policies.artifacts.histories import Histories
from policies.training.cf import Step
from policies.training.content.descriptions import Descriptions

if TYPE_CHECKING:
    from policies.training.neural.checkpoints import Arrays
    from policies.training.neural.team import Team


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


class FitCheckpoints(Protocol):
    """Where a training keeps how far each network has come."""

    def due(self, name: str) -> bool:
        """Return whether it is time for a network's next checkpoint.

        Args:
            name: the network's.
        """
        ...

    def read(self, name: str) -> "Arrays | None":
        """Return a network's last checkpoint, None if there is none.

        Args:
            name: the network's.
        """
        ...

    def write(self, name: str, state: "Arrays") -> None:
        """Keep a checkpoint in the place of the one before.

        Args:
            name: the network's.
            state: arrays, by name.
        """
        ...


@dataclass(frozen=True, slots=True)
class Course:
    """How a fit is to go.

    ``seed``: of all random numbers; ``step``: told (done, total) after each step;
    ``checkpoints``: where a long fit keeps how far it has come, and goes on from what lies there;
    None: it begins anew and keeps nothing. ``team``: the workers that fit each network together,
    all of them by the same calls; None: there is no other.
    """

    seed: int = 0
    step: Step = _nobody
    checkpoints: FitCheckpoints | None = None
    team: "Team | None" = None


def features_of(catalogue: tuple[Mapping[str, Any], ...]) -> dict[str, FeatureMap]:
    """Return the features of each item, by id.

    Args:
        catalogue: ``{"id", "features"}`` each.
    """
    return {item["id"]: item.get("features", {}) for item in catalogue}
