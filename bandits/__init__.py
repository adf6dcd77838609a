"""The science: records, PMFs, exploration, posteriors, the join.

No I/O, no clock, no Ray, no Redis.

What is exported here is what a program needs that learns or chooses from arrays of its own:

- a decision: ``Context`` and ``ActionSet``, made of ``Namespace``; ``Policy`` and ``Decision``
- a learner: ``Learner``, ``RidgeLearner`` with its ``RidgeConfig``, ``Interaction``, ``Snapshot``
- exploration: ``LinTs``, ``LinUcb``, ``EpsilonGreedy``, ``Softmax``, ``SquareCB``, ``Greedy``
- the join of decisions with rewards: ``JoinRule``
- ``BanditloopError``, which every error of the four packages is

A name's module is imported when the name is first used.
"""

from typing import TYPE_CHECKING

from bandits.lazy import lazy_names

if TYPE_CHECKING:
    from bandits.decide import Decision
    from bandits.errors import BanditloopError
    from bandits.exploration import EpsilonGreedy, Greedy, LinTs, LinUcb, Softmax, SquareCB
    from bandits.log.join import JoinRule
    from bandits.ridge.config import RidgeConfig
    from bandits.ridge.learner import RidgeLearner
    from bandits.types import (
        ActionSet,
        Context,
        Interaction,
        Learner,
        Namespace,
        Policy,
        Snapshot,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "bandits.decide": ["Decision"],
            "bandits.errors": ["BanditloopError"],
            "bandits.exploration": [
                "EpsilonGreedy",
                "Greedy",
                "LinTs",
                "LinUcb",
                "Softmax",
                "SquareCB",
            ],
            "bandits.log.join": ["JoinRule"],
            "bandits.ridge.config": ["RidgeConfig"],
            "bandits.ridge.learner": ["RidgeLearner"],
            "bandits.types": [
                "ActionSet",
                "Context",
                "Interaction",
                "Learner",
                "Namespace",
                "Policy",
                "Snapshot",
            ],
        },
    )

__all__ = [
    "ActionSet",
    "BanditloopError",
    "Context",
    "Decision",
    "EpsilonGreedy",
    "Greedy",
    "Interaction",
    "JoinRule",
    "Learner",
    "LinTs",
    "LinUcb",
    "Namespace",
    "Policy",
    "RidgeConfig",
    "RidgeLearner",
    "Snapshot",
    "Softmax",
    "SquareCB",
]
