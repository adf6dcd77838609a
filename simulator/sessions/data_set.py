"""Sessions made from a data set of one's own, whose users like and leave as the data say.

Sources are trained on the earlier part of the events. A decision is among all that these propose
for a user by what is known of the user until then, as a service asks them: what was taken to in the
session is part of the history, and nothing is shown twice. An item that the user turned to in the
later part earns 1. When users leave is fitted to the sessions of the data (``leaving``).

What users would have done with items that they never met, nobody knows: such items earn 0 here.
"""

import asyncio
import copy
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final, Self

import numpy as np

from bandits.errors import BanditloopError, DataSetError, InvalidFieldError
from bandits.rl.feature_schema import FeatureSchema
from bandits.types import Float64
from bandits.values import FeatureMap
from policies.artifacts.histories import Histories
from policies.artifacts.profiles import Profiles
from policies.artifacts.source_artifact import Artifact
from policies.data.coded import UNTIMED, CodedEvents
from policies.data.data_set import DataSet
from policies.items.catalogue import Catalogue
from policies.none_proposed import NOTHING_PROPOSED
from policies.ranker import Ranker
from policies.requests import ActionRequest, RankRequest
from policies.sources import load_sources
from policies.sources.scorers.artifact_scorer import SCORERS
from policies.spec import ArtifactSource, PolicySpec
from simulator.ranking.evaluate import weighed_part
from simulator.ranking.splits import SPLITS, Split, split_events
from simulator.ranking.task import RankingTask, make_task, speaks_for
from simulator.sessions.leaving import Stay, leaving_of
from simulator.sessions.world import Step

DEFAULT_SOURCES: Final = ("item_knn", "popular")
"""Sources that propose where nobody says which: they are trained in seconds."""
LIMIT: Final = 10
"""Candidates of each source."""
MOST_USERS: Final = 20_000
"""Users whose sessions are played at most; of more, so many are drawn."""
MOST_FEATURES: Final = 250
"""Features of items, and of users, that a network is made for: the most frequent ones."""
TESTED: Final = 5
"""One in so many users is kept for the comparison at the end, and plays no session before."""
PATIENCE: Final = 100
"""Users who are drawn for a session until there is anything to show to one."""
_SALT: Final = b"sessions"
_RANKS: Final = ("score", "rank", "present")


class DataSetSessions:
    """The world of these sessions; see SessionWorld.

    Args:
        data: whose users play.
        sources: that propose.
        seed: of what is fitted, and of the sample of users.

    Raises:
        DataSetError: the events cannot be split, no user has anything in the later part, or none of
            the sources proposes anything.
        ArtifactError: a source cannot be trained on the earlier part.
    """

    name = "data"

    def __init__(self, data: DataSet, sources: Sequence[str], seed: int) -> None:
        from policies.training.prior import contexts_of  # noqa: PLC0415 - torch

        if sources and SCORERS.issuperset(sources):
            raise DataSetError(
                f"{' and '.join(sources)} only score what others propose: name a source that"
                " proposes, such as popular",
                "sources",
            )
        events, items = data.coded(), data.items()
        self.catalogue = Catalogue.of(items)
        self._whole: Self | None = None
        self._contexts = contexts_of(data)
        task, artifact, histories = _trained(data, events, items, sources, seed)

        self.sources = names = list(artifact.sources)
        self.max_actions = LIMIT * len(names)
        configs = [ArtifactSource(name) for name in names]
        spec = PolicySpec("sessions", sources=list(configs), artifact="", limit=LIMIT)
        self._ranker = Ranker(
            spec,
            list(load_sources(artifact, configs).values()),
            salt=_SALT,
            profiles=Profiles.of(histories, _SALT),
        )
        runner = asyncio.Runner()
        self._ask = runner.get_loop().run_until_complete
        weakref.finalize(self, runner.close)

        # Each user, and what the later part shows the user to want.
        self.users = [events.user_ids[code] for code in task.user_codes.tolist()]
        starts, wanted = task.relevant.starts.tolist(), task.relevant.indices.tolist()
        self.wanted = [
            frozenset(artifact.items[at] for at in wanted[first:last])
            for first, last in pairwise(starts)
        ]
        rows = np.random.default_rng([seed, 5]).permutation(len(self.users))
        self._test, self._rows = rows[::TESTED], np.delete(rows, np.s_[::TESTED])
        if not len(self._rows):
            raise DataSetError(f"{len(self.users)} users are too few for sessions", "data")

        scale = data.manifest.weights.rating_scale
        timed = np.where(events.time == UNTIMED, 0, events.time) / 1000
        self.leaving = leaving_of(events.user.astype(np.int64), timed, speaks_for(events, scale))
        people = [self._contexts.get(user, {}) for user in self.users]
        self._widths = {
            "context": _most_frequent(people),
            "features": _most_frequent(item.get("features", {}) for item in items),
        }
        self.schema = FeatureSchema.of(
            context=[*self._widths["context"], "place", "liked"],
            features=list(self._widths["features"]),
            scores=[f"{name}.{kind}" for name in names for kind in _RANKS],
        )

    @property
    def scale(self) -> Float64:
        """What each column is divided by while a network is trained, float64[d]."""
        known = {
            (space, name): largest
            for space, widths in self._widths.items()
            for name, largest in widths.items()
        }
        return np.array([1.0, *(known.get(name, 1.0) for name in self.schema.names)])

    def tested(self) -> Self:
        """Return the same world with the users who play no session of this one."""
        other = copy.copy(self)
        other._whole = self  # noqa: SLF001 - whose event loop it asks in
        other._rows = self._test  # noqa: SLF001
        return other

    def session(self, rng: np.random.Generator) -> "DataSetSession":
        """Begin a session, of a user for whom there is anything to show; see SessionWorld.

        Raises:
            DataSetError: there is hardly a user whom the sources propose anything.
        """
        for row in self._rows[rng.integers(len(self._rows), size=PATIENCE)].tolist():
            if proposed := self.proposed(row, (), ()):
                return DataSetSession(self, row, proposed, rng)
        raise DataSetError(
            f"the sources propose nothing to {PATIENCE} users: take one that answers strangers,"
            " such as popular",
            "sources",
        )

    def person(self, row: int) -> FeatureMap:
        """Return what a caller says of a user with each request."""
        return self._contexts.get(self.users[row], {})

    def proposed(
        self, row: int, history: Sequence[str], shown: Iterable[str]
    ) -> list[ActionRequest]:
        """Return what sources propose to a user, with their scores; [] if that is nothing.

        Args:
            row: the user's.
            history: what the user took to since.
            shown: what is not shown again.
        """
        request = RankRequest(user_id=self.users[row], history=list(history), exclude=list(shown))
        try:
            pool = self._ask(self._ranker.pool(request))
        except NOTHING_PROPOSED:
            return []
        columns = {name: column.tolist() for name, column in pool.scores.items()}
        return [
            ActionRequest(
                item,
                None,
                {name: column[at] for name, column in columns.items() if column[at] == column[at]},
            )
            for at, item in enumerate(pool.ids)
        ]


class DataSetSession:
    """A session of one user; see Session."""

    def __init__(
        self,
        sessions: DataSetSessions,
        row: int,
        actions: list[ActionRequest],
        rng: np.random.Generator,
    ) -> None:
        self._sessions, self._row, self._rng = sessions, row, rng
        self._person = sessions.person(row)
        self._stay = Stay(sessions.leaving)
        self._shown: list[str] = []
        self._liked: list[str] = []
        self._actions = actions

    def request(self) -> RankRequest:
        """Return the decision that is asked for now; see Session."""
        context: FeatureMap = {
            **self._person,
            "place": float(np.log1p(self._stay.place)),
            "liked": self._stay.share,
        }
        return RankRequest(context=context, actions=self._actions)

    def choose(self, action_id: str) -> Step:
        """Show an action of the request, and go on; see Session.

        Raises:
            InvalidFieldError: It is no action of the request.
        """
        if all(action.id != action_id for action in self._actions):
            raise InvalidFieldError(
                f"{action_id!r} is not among the actions that were asked about", "action_id"
            )

        sessions = self._sessions
        liked = action_id in sessions.wanted[self._row]
        self._shown.append(action_id)
        if liked:
            self._liked.append(action_id)
        goes_on = self._stay.goes_on(float(liked), self._rng)

        # Who has been shown all that there is leaves, too.
        proposed = sessions.proposed(self._row, self._liked, self._shown)
        self._actions = proposed or self._actions
        return Step(float(liked), not (goes_on and proposed))


def _trained(
    data: DataSet,
    events: CodedEvents,
    items: Sequence[Mapping[str, object]],
    sources: Sequence[str],
    seed: int,
) -> tuple[RankingTask, Artifact, Histories]:
    """Train sources on the earlier part; return it with the users of the later one.

    Raises:
        DataSetError: no split leaves anybody; it says why of each.
    """
    from policies.training.train import run_training  # noqa: PLC0415 - torch

    weights, reasons = data.manifest.weights, list[str]()
    for name in SPLITS:
        try:
            split: Split = split_events(events, name)
        except BanditloopError as error:
            reasons.append(error.message)
            continue
        early = weighed_part(events, split, weights)
        run = run_training(early, items, sources=list(sources), seed=seed)
        try:
            task = make_task(
                events,
                split,
                run.artifact.items,
                rating_scale=weights.rating_scale,
                most_users=MOST_USERS,
                seed=seed,
            )
        except DataSetError as error:
            reasons.append(error.message)
            continue
        return task, run.artifact, run.histories
    raise DataSetError(f"no sessions can be played: {'; '.join(dict.fromkeys(reasons))}", "data")


def _most_frequent(maps: Iterable[FeatureMap]) -> dict[str, float]:
    """Return the names of the most frequent features, each with the largest value that it has."""
    counts, largest = Counter[str](), dict[str, float]()
    for features in maps:
        for name, value in features.items():
            texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
            named = {f"{name}={text}": 1.0 for text in texts}
            if not isinstance(value, str | list):
                named = {name: abs(float(value))}
            for one, size in named.items():
                counts[one] += 1
                largest[one] = max(largest.get(one, 0.0), size)
    kept = sorted(counts, key=lambda name: (-counts[name], name))[:MOST_FEATURES]
    return {name: largest[name] or 1.0 for name in sorted(kept)}


@lru_cache(maxsize=2)
def data_set_sessions(data: str, sources: tuple[str, ...], seed: int = 0) -> DataSetSessions:
    """Return the world of a data set's sessions.

    Args:
        data: the folder or URI of the data set.
        sources: that propose; none for DEFAULT_SOURCES.
        seed: of what is fitted, and of the sample of users.

    Raises:
        DataSetError: it is no data set, or nobody can play.
        ArtifactError: a source cannot be trained on it.
    """
    return DataSetSessions(DataSet.open(data), sources or DEFAULT_SOURCES, seed)
