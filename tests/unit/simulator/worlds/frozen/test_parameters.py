"""The parameters of the frozen worlds: fixed by one file, and every one of them may be overridden."""

import inspect
import math
import re
import tomllib

import msgspec
import pytest

from bandits.errors import InvalidFieldError
from simulator.worlds.frozen.committed import (
    PARAMETERS,
    allowed_values,
    changes_from,
    frozen_parameters,
    parameters_digest,
    parameters_file,
)
from simulator.worlds.frozen.make import FROZEN_WORLDS, frozen_world

DIGEST = "3e281542bdac34f9efde7ef5cdde9fec"
"""Whoever changes a number makes another world: its version is raised, CHANGELOG.md says so."""


def test_the_parameters_are_the_committed_ones():
    assert parameters_digest() == DIGEST


def test_the_file_has_all_parameters_of_all_worlds_and_nothing_else():
    committed = tomllib.loads(parameters_file().decode())
    assert list(committed) == list(PARAMETERS) == list(FROZEN_WORLDS)
    for name, kind in PARAMETERS.items():
        assert sorted(committed[name]) == sorted(kind.__struct_fields__)
        assert msgspec.structs.asdict(frozen_parameters(name)) == committed[name]


@pytest.mark.parametrize("kind", PARAMETERS.values(), ids=PARAMETERS)
def test_every_parameter_says_what_it_means(kind):
    said = "".join(inspect.getdoc(each) or "" for each in kind.__mro__)
    for name in kind.__struct_fields__:
        assert re.search(rf"^    {name}: \S", said, re.MULTILINE), name


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_can_be_overridden(name):
    """With its own value; the world of that is the committed one."""
    same = msgspec.structs.asdict(frozen_parameters(name))
    assert frozen_parameters(name, same) == frozen_parameters(name)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_number_out_of_range_is_refused_with_its_name_and_range(name):
    kind = PARAMETERS[name]
    for field, value in msgspec.structs.asdict(frozen_parameters(name)).items():
        bad = {str: "yesterday", list: [-5.0], int: -1, float: -99.0}[type(value)]
        with pytest.raises(InvalidFieldError) as refused:
            frozen_parameters(name, {field: bad})
        assert refused.value.message.startswith(field), refused.value.message
        if not isinstance(value, str):
            assert allowed_values(kind)[field] in refused.value.message


@pytest.mark.parametrize(
    ("world", "changes", "said"),
    [
        ("sop", {}, "did you mean shop"),
        ("shop", {"user": 5}, "did you mean users"),
        ("shop", {"users": 1.5}, "users: 1.5 is not allowed; it is an integer, 1 to 10,000,000"),
        ("shop", {"users": "many"}, "users: 'many' is not allowed"),
        ("shop", {"taste": math.nan}, "taste: nan is not allowed"),
        ("shop", {"events": 300_000}, "events: at most visits, 250,000"),
        ("shop", {"items": 10}, "categories: at most items, 10"),
        ("shop", {"text_taste": 0.9}, "text_taste: with text_category it is at most 1"),
        ("shop", {"slots": 21}, "slots: at most pool"),
        ("attackers", {"share": 0.3}, "share: 0.3 is not allowed; it is a number, 0 to 0.2"),
        ("attackers", {"targets": 60}, "targets: at most items"),
        ("drift", {"strength": 1.1}, "strength: 1.1 is not allowed; it is a number, 0 to 1"),
        ("segments", {"uplifts": [0.1]}, "uplifts: one for each of the 4 shares"),
        ("segments", {"shares": [0.1] * 4}, "shares: in all 1, not 0.4"),
        ("segments", {"start": "5 May"}, "start: a day"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_and_says_what_can(world, changes, said):
    with pytest.raises(InvalidFieldError, match=re.escape(said)):
        frozen_parameters(world, changes)


def test_changes_are_written_as_on_the_command_line():
    assert changes_from(["users=10", "uplifts=[0, 0.5]", "start=2027-01-01"]) == {
        "users": 10,
        "uplifts": [0, 0.5],
        "start": "2027-01-01",
    }
    for bad in (["users"], ["=3"], ["users=1", "users=2"], ["users=["]):
        with pytest.raises(InvalidFieldError):
            changes_from(bad)


def test_what_makes_a_world_is_in_its_digest():
    worlds = [
        frozen_world("drift", visits=10),
        frozen_world("drift", 1, visits=10),
        frozen_world("drift", visits=10, strength=0.4),
        frozen_world("positions", visits=10),
    ]
    assert len({world.digest for world in worlds}) == 4
    assert frozen_world("drift", visits=10).digest == worlds[0].digest
