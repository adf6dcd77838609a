"""The frozen worlds by name."""

from collections.abc import Mapping
from typing import Any

from simulator.worlds.frozen.attackers import AttackersWorld
from simulator.worlds.frozen.base import FrozenWorld
from simulator.worlds.frozen.committed import frozen_parameters
from simulator.worlds.frozen.drift import DriftWorld
from simulator.worlds.frozen.positions import PositionsWorld
from simulator.worlds.frozen.segments import SegmentsWorld
from simulator.worlds.frozen.shop.world import ShopWorld

FROZEN_WORLDS: Mapping[str, type[FrozenWorld]] = {
    world.name: world
    for world in (ShopWorld, DriftWorld, AttackersWorld, PositionsWorld, SegmentsWorld)
}


def frozen_world(name: str, seed: int = 0, **changes: Any) -> FrozenWorld:
    """Return a frozen world: ``frozen_world("shop", seed=3, users=1000)``.

    Args:
        name: One of FROZEN_WORLDS.
        seed: Seed of all that is drawn.
        changes: Parameters other than the committed ones.

    Raises:
        InvalidFieldError: There is no such world or parameter, or a value is outside of its range.
    """
    parameters = frozen_parameters(name, changes)
    build: Any = FROZEN_WORLDS[name]
    world: FrozenWorld = build(parameters, seed)
    return world
