"""The worlds by name, and the policies that are tried in them unless others are given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import pi
from pathlib import Path

import msgspec

from bandits.errors import InvalidFieldError
from bandits.exploration import EpsilonGreedy, LinTs
from bandits.ridge.config import RidgeConfig
from bandits.vw.config import VwConfig
from policies.spec import PolicySpec, load_spec
from simulator.worlds.loop import Timing
from simulator.worlds.synthetic import SyntheticWorld


@dataclass(frozen=True, slots=True)
class WorldPreset:
    """A SyntheticWorld in all but its seed, and what happens to its rewards on their way.

    Attributes:
        turn: Radians by which the truth turns over a whole run.
        window_s: How long a decision waits for its reward, whatever the policy's own spec says: a
            round takes only ``timing.round_ms``.
    """

    name: str
    actions: int = 5
    scale: float = 1.0
    offset: float = 0.0
    spread: float = 0.0
    turn: float = 0.0
    timing: Timing = field(default_factory=lambda: Timing(delay_ms=0.0))
    window_s: float = 0.1

    def build(self, seed: int, rounds: int) -> SyntheticWorld:
        """Return the world of this seed, before its first round.

        Args:
            seed: Seed of the world; the same seed gives all worlds the same directions.
            rounds: Rounds of the run, over which the truth makes its turn.
        """
        drift = self.turn / rounds
        return SyntheticWorld(
            [seed, 1],
            actions=self.actions,
            scale=self.scale,
            offset=self.offset,
            spread=self.spread,
            drift=drift,
        )

    def policy(self, spec: PolicySpec) -> PolicySpec:
        """Return the policy as it runs here: with this world's window, and 0 if no reward came."""
        return msgspec.structs.replace(
            spec,
            join=msgspec.structs.replace(spec.join, window_s=self.window_s, default_reward=0.0),
        )


WORLDS: Mapping[str, WorldPreset] = {
    world.name: world
    for world in (
        WorldPreset("steady"),
        WorldPreset("drift", turn=pi / 2),
        WorldPreset("delayed", timing=Timing(delay_ms=500.0), window_s=4.0),
        WorldPreset("missing", timing=Timing(delay_ms=0.0, lost=0.3)),
        WorldPreset("skewed", scale=0.5, offset=-2.0, spread=1.0),
    )
}
_RIDGE = RidgeConfig(interactions=[("context", "item")])
_VW = VwConfig("--cb_explore_adf --cb_type mtr -q ci --learning_rate 0.5")
POLICIES: Mapping[str, PolicySpec] = {
    spec.name: spec
    for spec in (
        PolicySpec("ridge-epsilon", learner=_RIDGE, exploration=EpsilonGreedy(0.2), floor=0.0),
        PolicySpec(
            "ridge-lints", learner=_RIDGE, exploration=LinTs(scale=0.3, draws=50), floor=0.2
        ),
        PolicySpec("vw-epsilon", learner=_VW, exploration=EpsilonGreedy(0.2), floor=0.0),
    )
}


def world_named(name: str) -> WorldPreset:
    """Return one of WORLDS.

    Raises:
        InvalidFieldError: There is no such world.
    """
    if name not in WORLDS:
        raise InvalidFieldError(
            f"--world: there is no world {name!r}; use one of {', '.join(WORLDS)}", "world"
        )
    return WORLDS[name]


def policy_named(text: str) -> PolicySpec:
    """Return one of POLICIES, or the spec in a YAML file.

    Raises:
        InvalidFieldError: It is neither, or a spec that needs candidate sources, which these worlds
            do not have.
        SpecError: The file is no spec.
    """
    if text in POLICIES:
        return POLICIES[text]

    path = Path(text)
    if not path.is_file():
        names = ", ".join(POLICIES)
        raise InvalidFieldError(
            f"--policy: {text!r} is no file; use one of {names}, or a policy's YAML file", "policy"
        )

    # These worlds give the actions themselves, so nobody would ask the sources.
    spec = load_spec(path)
    if spec.sources:
        raise InvalidFieldError(
            f"--policy: {text} has sources, and these worlds give the actions themselves: leave"
            " sources out",
            "policy",
        )
    return spec
