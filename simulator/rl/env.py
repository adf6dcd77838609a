"""``RecSession-v0``: sessions as a gymnasium environment.

Policies that look further than one reward are trained in it.

    gym.make("simulator.rl.env:RecSession-v0", world="satiation", world_seed=1)
    gym.make_vec("simulator.rl.env:RecSession-v0", num_envs=8, world="movielens")

An episode is a session: one decision per step, until the user leaves for good (terminated) or
MAX_STEPS decisions were made (truncated). The features of an observation are built by
``policies.features`` and laid out by the world's ``FeatureSchema``, as those of a served decision
are.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary
from numpy.typing import NDArray

from bandits.types import Float32
from bandits.values import MAX_NUMBER
from simulator.sessions.data_set import DataSetSessions, data_set_sessions
from simulator.sessions.movielens import movielens_sessions
from simulator.sessions.satiation import satiation_world
from simulator.sessions.world import MAX_STEPS, Session, SessionWorld, featurise_session

ENV_ID = "RecSession-v0"
Observation = dict[str, NDArray[Any]]


def session_world(
    name: str, seed: int = 0, data: str = "", sources: Sequence[str] = ()
) -> SessionWorld:
    """Return ``movielens``, which has no seed, ``data``, or one of ``satiation.WORLDS``.

    Args:
        name: The world's name.
        seed: Seed of what the world draws once.
        data: The folder or URI of the data set whose users play in ``data``.
        sources: Those that propose there.

    Raises:
        InvalidFieldError: There is no such world.
        DataUnavailableError: MovieLens cannot be fetched.
        DataSetError, ArtifactError: See ``data_set_sessions``.
    """
    if name == DataSetSessions.name:
        return data_set_sessions(data, tuple(sources), seed)
    return movielens_sessions() if name == "movielens" else satiation_world(name, seed)


class RecSession(gym.Env[Observation, np.int64]):
    """Sessions of a world as episodes.

    Observation: ``features`` float32[max_actions, d], the actions of the decision first, the rest
    0; ``mask`` int8[max_actions], 1 where there is an action. Action: one of max_actions places. To
    choose a place without an action is to show nothing: it earns 0 and the user leaves.

    Args:
        world: The world's name.
        world_seed: Seed of what the world draws once.
        data: The data set whose users play, and ``sources``, those that propose: see
            ``session_world``.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - gymnasium's name and type

    def __init__(
        self,
        world: str = "satiation",
        world_seed: int = 0,
        data: str = "",
        sources: Sequence[str] = (),
    ) -> None:
        self.world = session_world(world, world_seed, data, sources)
        count, width = self.world.max_actions, len(self.world.schema)
        self.observation_space = Dict(
            {
                "features": Box(-MAX_NUMBER, MAX_NUMBER, (count, width), np.float32),
                "mask": MultiBinary(count),
            }
        )
        self.action_space = Discrete(count)
        self._session: Session | None = None
        self._ids: tuple[str, ...] = ()
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin a new session.

        Args:
            seed: Seed of this and all later sessions; None: the generator goes on as it is.
            options: Gymnasium's; there are none here, and they are not looked at.

        Returns:
            The first observation, and an empty dict.
        """
        super().reset(seed=seed, options=options)
        self._session = self.world.session(self.np_random)
        self._steps = 0
        return self._observe(self._session), {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Show an action; return observation, reward, terminated, truncated and an empty dict."""
        assert self._session is not None, "call reset first"  # noqa: S101 - as gymnasium's own

        if not 0 <= action < len(self._ids):
            return self._observe(self._session), 0.0, True, False, {}
        reward, left = self._session.choose(self._ids[int(action)])
        self._steps += 1
        return self._observe(self._session), reward, left, self._steps >= MAX_STEPS and not left, {}

    def _observe(self, session: Session) -> Observation:
        context, actions = featurise_session(self.world, session.request())
        self._ids = actions.ids
        features: Float32 = np.zeros((self.world.max_actions, len(self.world.schema)), np.float32)
        features[: len(actions)] = self.world.schema.matrix(context, actions) / self.world.scale
        mask = np.zeros(self.world.max_actions, np.int8)
        mask[: len(actions)] = 1
        return {"features": features, "mask": mask}


gym.register(ENV_ID, entry_point=f"{__name__}:RecSession")
