"""An artifact's scores for decisions that were made with another, by what was known of the user."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from bandits.log.records import DecisionRecord
from bandits.types import Float32
from policies.artifacts.histories import Profile
from policies.artifacts.profile_file import KEPT
from policies.artifacts.source_artifact import Artifact
from policies.data.coded import CodedEvents
from policies.items.catalogue import Catalogue
from policies.pseudonyms import pseudonym
from policies.sources import ArtifactScorer, LocalSource, SourceRequest, load_sources
from policies.spec import ArtifactSource, PolicySpec

NOBODY = (np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.int64))


class PastProfiles:
    """Histories of users at any time, made of the events up to then.

    Args:
        events: users by pseudonym.
        persons: of pseudonyms that were merged into another one, that one.
    """

    def __init__(
        self, events: CodedEvents, persons: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.item_ids, self.events = events.item_ids, events
        self._persons, self._starts = persons, events.starts
        self._rows = {user: row for row, user in enumerate(events.user_ids)}

    def before(
        self, user: str | None, time_ms: int
    ) -> tuple[NDArray[np.int32], Float32, NDArray[np.int64]]:
        """Return the items of a user's events before a time, how strongly each speaks, and when.

        As ``histories_of`` has it: of the events of one type the latest counts, and of several
        types the strongest. An event without a time was always known.

        Args:
            user: the pseudonym.
            time_ms: events before this time count.

        Returns:
            int32[h], codes of items, ascending; float32[h]; int64[h], the time of the last event.
        """
        row = None if user is None else self._rows.get(self._persons.get(user, user))
        if row is None:
            return NOBODY
        first, last = int(self._starts[row]), int(self._starts[row + 1])
        last = first + int(np.searchsorted(self.events.time[first:last], time_ms))
        first = max(first, last - KEPT)
        if first == last:
            return NOBODY

        part = slice(first, last)
        items, weights = self.events.item[part], self.events.weight[part]
        cells = items.astype(np.int64) * len(self.events.types) + self.events.type[part]
        backwards, latest = np.unique(cells[::-1], return_index=True)
        latest = len(cells) - 1 - latest
        codes, begins = np.unique(backwards // len(self.events.types), return_index=True)
        strongest: Float32 = np.maximum.reduceat(weights[latest], begins)
        newest = np.maximum.reduceat(latest, begins)
        return codes.astype(np.int32), strongest, self.events.time[part][newest]


class Rescorer:
    """Scores actions as a policy's sources would with another artifact.

    ``names``: the sources that come from the artifact; scores of others are the log's.
    """

    def __init__(self, artifact: Artifact, spec: PolicySpec, pasts: PastProfiles) -> None:
        """Load the sources.

        Raises:
            SpecError: the spec asks for a source that the artifact lacks.
        """
        self.artifact = artifact
        configs = [source for source in spec.sources if isinstance(source, ArtifactSource)]
        loaded = load_sources(artifact, configs)
        self._sources = {
            name: source for name, source in loaded.items() if isinstance(source, LocalSource)
        }
        self._scorers = {
            name: source for name, source in loaded.items() if isinstance(source, ArtifactScorer)
        }
        self.names = (*self._sources, *self._scorers)
        self._catalogue = Catalogue.of(artifact.catalogue if self._scorers else ())
        self._pasts = pasts
        place = {item: at for at, item in enumerate(artifact.items)}
        self._places = np.array([place.get(item, -1) for item in pasts.item_ids], np.int32)

    def profile(self, user: str | None, time_ms: int) -> Profile:
        """Return what was known of a user before a time, over the artifact's items.

        Args:
            user: the pseudonym.
            time_ms: in ms since 1970.
        """
        codes, weights, times = self._pasts.before(user, time_ms)
        places = self._places[codes]
        kept = np.flatnonzero(places >= 0)
        kept = kept[np.lexsort((places[kept], times[kept]))]
        return Profile("", places[kept], weights[kept])

    def scores(self, record: DecisionRecord, time_ms: int) -> dict[str, Float32]:
        """Return a decision's scores by source, float32[K], with this artifact's.

        Args:
            record: the decision.
            time_ms: when it was made.
        """
        profile = self.profile(record.user, time_ms)
        request = SourceRequest(profile=profile, context=record.context)
        scores = record.source_scores()
        for name, source in self._sources.items():
            scores[name] = _scores_of(source, request, record.action_ids)
        ids, features = record.action_ids, record.features
        for name, scorer in self._scorers.items():
            scores[name] = scorer.score_actions(self._catalogue, request, ids, features, scores)
        return scores


def _scores_of(source: LocalSource, request: SourceRequest, ids: Sequence[str]) -> Float32:
    answer = source.propose(request, 1)
    if answer.score_items is None:
        return np.full(len(ids), np.nan, np.float32)
    return np.asarray(answer.score_items(ids), np.float32)


def under_pseudonyms(events: CodedEvents, salt: bytes) -> CodedEvents:
    """Return a data set's events with the pseudonyms of its users in the place of their ids.

    Args:
        events: users by their own ids.
        salt: the service's.
    """
    return replace(events, user_ids=tuple(pseudonym(salt, user) for user in events.user_ids))
