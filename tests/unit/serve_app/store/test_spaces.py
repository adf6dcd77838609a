"""A space: what its members say, what follows from all of them, and what is refused."""

import msgspec
import pytest

from bandits.errors import SpecError
from policies.profiles.options import ProfileOptions, Times
from policies.spec import PolicySpec
from serve_app.store.keys import Keys
from serve_app.store.spaces import (
    Member,
    Space,
    check_members,
    decode_space,
    moved,
    space_of_specs,
)

HOME = PolicySpec(
    "home",
    space="shop",
    partitions=2,
    profile=ProfileOptions(items=50, types={"view": 1.0, "purchase": 3.0}),
    repeat={"purchased": "never", "shown": Times(3, "1d")},
)
MAIL = PolicySpec(
    "mail",
    space="shop",
    profile=ProfileOptions(items=20, types={"purchase": 5.0, "open": 0.5}),
)
BASKET = PolicySpec("basket", space="shop")
ALONE = PolicySpec("news")


def test_of_several_members_follows_the_most_that_any_asks_for():
    space = space_of_specs("shop", [MAIL, HOME, ALONE, BASKET])
    assert [member.policy for member in space.members] == ["basket", "home", "mail"]
    assert [member.policy for member in space.profiled] == ["home", "mail"]
    assert space.items == 50
    assert space.types == {"open": 0.5, "purchase": 5.0, "view": 1.0}
    assert space.repeated == {"purchase"}
    assert space.logs == [Keys("home", 0), Keys("home", 1), Keys("mail", 0)]
    assert space.parts == ["activity", "home.0", "home.1", "mail.0"]


def test_a_signal_is_something_that_users_do_too():
    spec = PolicySpec("home", profile=ProfileOptions(types={"click": 2.0}))
    spec = msgspec.structs.replace(spec, signals={"click": 1.0, "hide": -2.0})
    members = Member.of(spec), Member("mail", items=9, signals={"open": 1.0})
    assert members[0].signals == {"click": 1.0, "hide": -2.0}
    assert Space("shop", members).types == {"click": 2.0, "hide": 0.0, "open": 0.0}


def test_nothing_is_kept_where_no_member_uses_profiles():
    space = space_of_specs("shop", [BASKET])
    assert (space.items, space.types, space.repeated) == (0, {}, frozenset())
    assert space.logs == space.parts == []


def test_what_a_newer_build_says_besides_is_passed_over_and_what_nobody_can_read():
    member = Member.of(HOME)
    newer = msgspec.to_builtins(member) | {"colour": "red"}
    raw = {b"mail": b"\xff", b"home": msgspec.msgpack.encode(newer), b"a": b""}
    assert decode_space("shop", raw) == Space("shop", (member,))


def test_members_of_one_deployment_say_one_profile():
    with pytest.raises(SpecError, match=r"home and mail share the space shop") as error:
        check_members([HOME, BASKET, MAIL])
    assert error.value.target == "profile.items"

    types = msgspec.structs.replace(MAIL, profile=ProfileOptions(items=50))
    with pytest.raises(SpecError) as error:
        check_members([HOME, types])
    assert error.value.target == "profile.types"

    same = msgspec.structs.replace(MAIL, profile=HOME.profile)
    elsewhere = msgspec.structs.replace(MAIL, name="other", space="other")
    check_members([HOME, BASKET, same, elsewhere, ALONE])


def test_who_has_moved_is_told_the_ways_there_are():
    assert "leave out space" in moved(HOME, "home").message
    error = moved(ALONE, "shop")
    assert (error.target, "set space to shop" in error.message) == ("space", True)
