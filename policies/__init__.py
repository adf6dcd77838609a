"""The parts of a policy: the spec, sources, catalogue, features, blending, slates, the holdout.

What is exported here is what a program needs that writes a policy, or serves one in process:

- the spec: ``PolicySpec`` and ``load_spec``; with ``RidgeConfig`` or ``VwConfig``, an exploration
  (``LinTs``, ``LinUcb``, ``EpsilonGreedy``, ``Softmax``, ``SquareCB``, ``Greedy``), ``JoinRule``
  and ``Holdout``
- a decision: ``Ranker``, ``RankRequest`` with its ``ActionRequest``, and ``Catalogue``
- a candidate source of one's own: ``CandidateSource``, ``SourceRequest``, ``Candidates``
- the log as it is kept: ``ArchiveReader``

A name's module is imported when the name is first used.
"""

from typing import TYPE_CHECKING

from bandits.lazy import lazy_names

if TYPE_CHECKING:
    from bandits.exploration import EpsilonGreedy, Greedy, LinTs, LinUcb, Softmax, SquareCB
    from bandits.log.join import JoinRule
    from bandits.ridge.config import RidgeConfig
    from bandits.vw.config import VwConfig
    from policies.archive.archive import ArchiveReader
    from policies.items.catalogue import Catalogue
    from policies.ranker import Ranker
    from policies.requests import ActionRequest, RankRequest
    from policies.sources.base import Candidates, CandidateSource, SourceRequest
    from policies.spec import Holdout, PolicySpec, load_spec
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
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
            "bandits.vw.config": ["VwConfig"],
            "policies.archive.archive": ["ArchiveReader"],
            "policies.items.catalogue": ["Catalogue"],
            "policies.ranker": ["Ranker"],
            "policies.requests": ["ActionRequest", "RankRequest"],
            "policies.sources.base": ["Candidates", "CandidateSource", "SourceRequest"],
            "policies.spec": ["Holdout", "PolicySpec", "load_spec"],
        },
    )

__all__ = [
    "ActionRequest",
    "ArchiveReader",
    "CandidateSource",
    "Candidates",
    "Catalogue",
    "EpsilonGreedy",
    "Greedy",
    "Holdout",
    "JoinRule",
    "LinTs",
    "LinUcb",
    "PolicySpec",
    "RankRequest",
    "Ranker",
    "RidgeConfig",
    "Softmax",
    "SourceRequest",
    "SquareCB",
    "VwConfig",
    "load_spec",
]
