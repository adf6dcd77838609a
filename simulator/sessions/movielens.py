"""Sessions made from MovieLens 100K, whose users like and leave as the data say.

A session of the data is a user's ratings with no pause above 30 minutes. Whether a rating was the
last of its session is fitted by a logistic regression on whether it was 4 or more and on the log of
its place; whether another session followed, on the share of such ratings in it. Nothing is chosen
by hand, and nothing is tuned.

A decision is among 12 films the user has not rated in the part that is known, nor been shown in
this session, drawn with chances in proportion to how often they were rated there. A film of the
held-out part that the user rated 4 or more earns 1 (``simulator.worlds.movielens``). The source
``tastes`` scores a film by how much more than usual the user rated its genres.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bandits.errors import InvalidFieldError
from bandits.rl.feature_schema import FeatureSchema
from bandits.types import Float64
from bandits.values import FeatureMap
from policies.items.catalogue import Catalogue
from policies.requests import ActionRequest, RankRequest
from simulator.sessions.leaving import Stay, leaving_of
from simulator.sessions.world import Step
from simulator.worlds.movielens import LIKED, MovieLensWorld, movielens_data

CANDIDATES = 12
SHRINK = 5.0
"""Average ratings that every user's taste in a genre starts from."""


class MovieLensSessions:
    """The world of these sessions; see SessionWorld."""

    name = "movielens"
    max_actions = CANDIDATES
    scale = 1.0

    def __init__(self, world: MovieLensWorld) -> None:
        self.world = world
        self.catalogue = Catalogue.of(world.catalogue)
        self.ids = self.catalogue.ids
        ratings = np.concatenate([world.train_ratings, world.test_ratings])
        ratings = ratings[np.lexsort((ratings["item"], ratings["timestamp"], ratings["user"]))]
        self.leaving = leaving_of(ratings["user"], ratings["timestamp"], ratings["rating"] >= LIKED)
        self.rows = {item: row for row, item in enumerate(self.ids)}

        # The training ratings say how popular an item is; candidates are drawn in proportion.
        rated = world.train_ratings["item"].tolist()
        at = np.array([self.rows[str(item)] for item in rated])
        counts = np.bincount(at, minlength=len(self.ids))
        self.draws: Float64 = counts / counts.sum()
        popular = np.log1p(counts)
        self.popular: Float64 = (popular - popular.mean()) / popular.std()

        genres = sorted({genre for item in world.catalogue for genre in item["features"]["genres"]})
        decades = sorted({item["features"].get("decade", "") for item in world.catalogue} - {""})
        self._genres = np.array(
            [[genre in item["features"]["genres"] for genre in genres] for item in world.catalogue]
        )
        self._tastes = self._tastes_of(at)

        # The columns of a network: a person's group, an item's genres and decade, two sources.
        people = [world.context(user) for user in world.users]
        groups = sorted(
            {f"{name}={person[name]}" for person in people for name in ("age_band", "gender")}
        )
        self.schema = FeatureSchema.of(
            context=[*groups, "place", "liked"],
            features=[
                *(f"genres={genre}" for genre in genres),
                *(f"decade={decade}" for decade in decades),
            ],
            scores=[
                f"{source}.{kind}"
                for source in ("popular", "tastes")
                for kind in ("score", "rank", "present")
            ],
        )

    def session(self, rng: np.random.Generator) -> "MovieLensSession":
        """Begin a session; see SessionWorld."""
        return MovieLensSession(self, rng)

    def tastes(self, user: str) -> Float64:
        """Return float64[items]: how much more than usual the user rated each item's genres."""
        return self._tastes[user]

    def _tastes_of(self, at: NDArray[np.intp]) -> dict[str, Float64]:
        """Return the tastes by user; ``at``: int[ratings], the place of each rating's item."""
        ratings = self.world.train_ratings
        excess = ratings["rating"].astype(np.float64) - ratings["rating"].mean()
        wide = self._genres.astype(np.float64)
        per_item = wide / np.maximum(wide.sum(axis=1, keepdims=True), 1.0)

        tastes = {}
        for user in self.world.users:
            mine = ratings["user"] == int(user)
            total, count = excess[mine] @ wide[at[mine]], wide[at[mine]].sum(axis=0)
            tastes[user] = per_item @ (total / (count + SHRINK))
        return tastes


class MovieLensSession:
    """A session of one user; see Session."""

    def __init__(self, sessions: MovieLensSessions, rng: np.random.Generator) -> None:
        self._sessions, self._rng = sessions, rng
        self._user = sessions.world.draw_user(rng)
        person = sessions.world.context(self._user)
        self._person: FeatureMap = {name: person[name] for name in ("age_band", "gender")}
        self._tastes = sessions.tastes(self._user)
        self._open = sessions.draws.copy()
        self._open[[sessions.rows[item] for item in sessions.world.train_history(self._user)]] = 0.0
        self._stay = Stay(sessions.leaving)
        self._draw()

    def _draw(self) -> None:
        chances = self._open / self._open.sum()
        self.items = self._rng.choice(len(chances), CANDIDATES, replace=False, p=chances)

    def request(self) -> RankRequest:
        """Return the decision that is asked for now; see Session."""
        sessions = self._sessions
        actions = [
            ActionRequest(
                sessions.ids[item],
                None,
                {"popular": float(sessions.popular[item]), "tastes": float(self._tastes[item])},
            )
            for item in self.items.tolist()
        ]

        context: FeatureMap = {
            **self._person,
            "place": float(np.log1p(self._stay.place)),
            "liked": self._stay.share,
        }
        return RankRequest(context=context, actions=actions)

    def choose(self, action_id: str) -> Step:
        """Show an action of the request, and go on; see Session.

        Raises:
            InvalidFieldError: It is no action of the request.
        """
        sessions = self._sessions
        item = sessions.rows.get(action_id, -1)
        if item not in self.items:
            raise InvalidFieldError(
                f"{action_id!r} is not among the actions that were asked about", "action_id"
            )

        reward = sessions.world.reward(self._user, action_id)
        goes_on = self._stay.goes_on(reward, self._rng)
        self._open[item] = 0.0
        self._draw()
        return Step(reward, not goes_on)


@lru_cache(maxsize=1)
def movielens_sessions() -> MovieLensSessions:
    """Return the world, made from the cached data set.

    Raises:
        DataUnavailableError: The data set cannot be fetched.
    """
    return MovieLensSessions(MovieLensWorld.of(movielens_data()))
