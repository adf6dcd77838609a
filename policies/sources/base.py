"""Protocols of sources: one proposes items with its own scores, or scores what others propose."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bandits.log.trends import PublishedTrend
from bandits.types import Float32, Snapshot
from bandits.values import FeatureMap
from policies.artifacts.histories import Profile
from policies.items.catalogue import Catalogue
from policies.items.offering import Offering
from policies.profiles.known_user import LiveHistory
from policies.rules.ruling import Admission

ScoreItems = Callable[[Sequence[str]], Float32]
Passes = Callable[[NDArray[np.intp]], NDArray[np.bool_]]
"""Says which of some items pass a filter, by their rows among the items as rules see them."""


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """The request, as far as a source may look at it.

    ``user_id`` is the caller's raw id; it leaves this process only to a remote source that is
    configured to get it. ``history`` is what the request says of the user, ``live`` what the log
    says, and ``profile`` what was known when the artifact was made. ``context`` has all features of
    the decision, also those that are never logged; it leaves this process as ``user_id`` does.
    ``repeats`` says whether what is known of the user may be proposed again: what may not is
    excluded, as the policy's ``repeat`` has it. ``admission`` says what the policy's and the
    request's filters admit; a source need not ask it, and what it proposes is cut by it.
    """

    user_id: str | None = None
    history: tuple[str, ...] = ()
    exclude: frozenset[str] = field(default_factory=frozenset)
    profile: Profile | None = None
    context: FeatureMap = field(default_factory=dict)
    live: LiveHistory | None = None
    repeats: bool = False
    admission: Admission | None = None

    def barred(self, known: Iterable[str]) -> frozenset[str]:
        """Return what may not be proposed.

        Args:
            known: the items by which the user is known.
        """
        return self.exclude.union(self.history, () if self.repeats else known)


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The proposal of one source: ``ids`` and float32[n] ``scores``, best first.

    Ties stand in the source's order of items. ``score_items`` scores any other items for the same
    request, NaN for an item the source does not know; it is None when the source cannot (a remote
    one). ``trouble`` says what was wrong with an answer that could be used in part. ``admitted``:
    there is nothing among them that the filters refuse.
    """

    ids: tuple[str, ...]
    scores: Float32
    score_items: ScoreItems | None = None
    trouble: str = ""
    admitted: bool = False

    def at(self, places: Sequence[int]) -> "Candidates":
        """Return those at some places, ascending."""
        return replace(
            self,
            ids=tuple(self.ids[place] for place in places),
            scores=self.scores[np.fromiter(places, np.intp)],
        )

    def first(self, limit: int) -> "Candidates":
        """Return so many of them, the best."""
        return self if len(self.ids) <= limit else self.at(range(limit))

    def joined(self, more: "Candidates") -> "Candidates":
        """Return these, and after them what else the same source proposed for the same request."""
        known = frozenset(self.ids)
        new = [at for at, item in enumerate(more.ids) if item not in known]
        if not new:
            return self
        added = more.at(new)
        scores = np.concatenate([self.scores, added.scores])
        return replace(self, ids=self.ids + added.ids, scores=scores)


class CandidateSource(Protocol):
    """Proposes up to ``limit`` items, never an excluded one.

    Returns no candidates for a user it knows nothing of. What may not be offered is dropped from
    its answer; a source that fills its limit all the same is an ``OfferingFollower``.
    """

    name: str

    async def candidates(self, request: SourceRequest, limit: int) -> Candidates:
        """Return candidates, best first.

        Args:
            request: what may be looked at.
            limit: how many at most.

        Raises:
            SourceError: it has no answer. The caller decides without it.
        """
        ...


class ImmediateSource(ABC):
    """Base of sources that wait for nobody: everything that they do is arithmetic."""

    @abstractmethod
    def propose(self, request: SourceRequest, limit: int) -> Candidates:
        """Return candidates, best first, without an event loop.

        Args:
            request: what may be looked at.
            limit: how many at most; none if it is not above 0.
        """

    async def candidates(self, request: SourceRequest, limit: int) -> Candidates:
        """Return candidates, best first, as ``propose`` does.

        Args:
            request: what may be looked at.
            limit: how many at most.
        """
        return self.propose(request, limit)


@runtime_checkable
class OfferingFollower(CandidateSource, Protocol):
    """A candidate source that proposes what may be offered, as much as if nothing else existed."""

    def over(self, offering: Offering) -> Self:
        """Return the source over all that may be offered now.

        It is made when an artifact or a whole catalogue comes, off the path of requests and
        possibly in a thread, while the source itself answers on.
        """
        ...

    def update(self, changed: Collection[str]) -> None:
        """Take in what has changed since: called on the event loop, at the cost of the changes.

        Args:
            changed: items that were put, patched or deleted, and those whose time has come or is
                over. What each is now, the offering tells.
        """
        ...

    @property
    def known(self) -> int | None:
        """How many of the items that may be offered it could propose; None: it cannot say."""
        ...


@runtime_checkable
class DemandFollower(Protocol):
    """A candidate source that goes by what users did outside of decisions, too."""

    def follow(self, demand: Mapping[int, PublishedTrend], at_ms: int) -> None:
        """Go by what is in demand from now on: called on the event loop.

        Args:
            demand: by half-life in milliseconds.
            at_ms: as of when, in milliseconds since 1970.
        """
        ...


@runtime_checkable
class SnapshotFollower(Protocol):
    """A candidate source that goes by what the log's fold has found out, as snapshots bring it."""

    def learn(self, snapshot: Snapshot) -> None:
        """Go by a snapshot from now on: called on the event loop, with each that is served.

        Raises:
            SnapshotError: what it brings cannot be read.
        """
        ...


@runtime_checkable
class ComparingSource(Protocol):
    """A source that can say which items are like another."""

    name: str

    def similar(self, item_id: str, limit: int, passes: Passes | None = None) -> Candidates | None:
        """Return the items most like one, best first, of those that may be offered; not itself.

        Args:
            item_id: the one, whether or not it may be offered.
            limit: how many at most.
            passes: the filter that these pass; None: there is none.

        Returns:
            Items with how alike each is; None where the source does not know the one.
        """
        ...


@runtime_checkable
class VectorReader(Protocol):
    """A source that compares items by vectors that they bring."""

    def vector_lengths(self, but: Collection[str] | None) -> Mapping[str, int]:
        """Return how long the vectors are of all items but some, by the vectors' names.

        Args:
            but: those that are about to be others; None: all. 0 is of what no other item has.
        """
        ...


@runtime_checkable
class ContextScorer(Protocol):
    """Proposes nothing, and scores what is to be chosen from in the context of the decision."""

    name: str

    def score_actions(
        self,
        catalogue: Catalogue,
        request: SourceRequest,
        ids: Sequence[str],
        features: Sequence[FeatureMap | None] | None,
        scores: Mapping[str, Float32],
    ) -> Float32:
        """Score every action of a decision.

        Args:
            catalogue: what the decision's record names.
            request: the features of the decision, and what is known of who asks.
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
