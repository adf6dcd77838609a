"""What a source is: it proposes items with its own scores, or scores what others propose."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from bandits.types import Float32
from bandits.values import FeatureMap
from policies.catalogue import Catalogue

ScoreItems = Callable[[Sequence[str]], Float32]


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """What a source may look at.

    ``user_id`` is the caller's raw id; it never leaves this process.
    """

    user_id: str | None = None
    history: tuple[str, ...] = ()
    exclude: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """One source's proposals: ``ids`` and float32[n] ``scores``, best first, ties broken by the source's item order.

    ``score_items`` scores any other items for the same request (NaN for an item the source does not
    know); None when the source cannot (a remote one). ``trouble``: what was wrong with an answer of
    which this could be used.
    """

    ids: tuple[str, ...]
    scores: Float32
    score_items: ScoreItems | None = None
    trouble: str = ""


class CandidateSource(Protocol):
    """Proposes up to ``limit`` items, never an excluded one.

    Returns no candidates for a user it knows nothing of.
    """

    name: str

    def within(self, catalogue: Catalogue) -> "CandidateSource":
        """The same source, of whose items only those that the catalogue holds are candidates.

        Made once for a catalogue, off the path of requests; as many are proposed as if the others
        did not exist.
        """
        ...

    async def candidates(self, request: SourceRequest, limit: int) -> Candidates:
        """Up to ``limit`` candidates, best first."""
        ...


@runtime_checkable
class ContextScorer(Protocol):
    """Proposes nothing, and scores what is to be chosen from in the context of the decision."""

    name: str

    def score_actions(
        self,
        catalogue: Catalogue,
        context: FeatureMap,
        ids: Sequence[str],
        features: Sequence[FeatureMap | None] | None,
        scores: Mapping[str, Float32],
    ) -> Float32:
        """Score every action of a decision.

        Args:
            catalogue: what the decision's record names.
            context: features of the decision.
            ids: the K actions.
            features: the request's own features of each action, if it sent any.
            scores: by candidate source, float32[K], NaN where it has none.

        Returns:
            float32[K].

        Raises:
            SourceError: it cannot. The caller decides without it.
        """
        ...


Source = CandidateSource | ContextScorer
