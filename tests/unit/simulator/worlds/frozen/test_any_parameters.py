"""Whoever runs other parameters gets a world, or an error that names the parameter."""

import warnings
from typing import get_type_hints

import msgspec
import numpy as np
import pytest

from bandits.errors import InvalidFieldError
from simulator.worlds.frozen.committed import PARAMETERS, frozen_parameters
from simulator.worlds.frozen.make import frozen_world
from simulator.worlds.frozen.oracle import best_list, value_of_list
from simulator.worlds.frozen.tables import write_tables

WORLDS_TRIED = 25
SIZES = {"visits": 400, "events": 200, "users": 100, "items": 100}
"""The largest that are tried, for the sake of time; other counts go up to 20."""


def limits_of(hint) -> tuple[float, float]:
    """The least and the largest value that a parameter may have."""
    meta = hint.__metadata__[-1]
    low = meta.ge if meta.ge is not None else meta.gt + 1e-3
    return low, meta.le if meta.le is not None else (meta.lt or 1e9) - 1e-3


def some_changes(name: str, rng: np.random.Generator) -> dict:
    """Small counts, and for two fifths of the others any value or one of its limits."""
    hints = get_type_hints(PARAMETERS[name], include_extras=True)
    changes = {}
    for field, value in msgspec.structs.asdict(frozen_parameters(name)).items():
        if field in SIZES:
            changes[field] = int(rng.integers(1, SIZES[field]))
        elif isinstance(value, int | float) and field != "version" and rng.random() < 0.4:
            low, high = limits_of(hints[field])
            if isinstance(value, int):
                changes[field] = int(rng.integers(low, min(high, 20) + 1))
            else:
                near = min(high, 2.0)
                changes[field] = float(rng.choice([low, high, rng.uniform(low, near)]))
    return changes


def refused(name: str, seed: int, changes: dict, folder) -> str | None:
    """Make a world and ask it everything, or return the parameter for which it was refused."""
    try:
        world = frozen_world(name, seed, **changes)
    except InvalidFieldError as error:
        return str(error.target)

    write_tables(world, folder, decisions=True)
    for number in (0, world.visits - 1):
        expected = world.expected(number)
        assert np.isfinite(expected).all(), changes
        assert (expected >= 0).all(), changes
        best = best_list(world, number)
        assert np.isfinite(value_of_list(world, number, best)), changes
        assert np.isfinite(world.reward(world.outcome(number, best))), changes
    return None


@pytest.mark.parametrize("name", PARAMETERS)
def test_any_parameters_within_their_ranges_make_a_world(name, tmp_path):
    """Without a warning, and with finite numbers; what cannot be together is refused by name."""
    rng, made = np.random.default_rng(5), 0
    for seed in range(WORLDS_TRIED):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            parameter = refused(name, seed, some_changes(name, rng), tmp_path)
        assert parameter is None or parameter in PARAMETERS[name].__struct_fields__
        made += parameter is None
    assert made > WORLDS_TRIED / 5
