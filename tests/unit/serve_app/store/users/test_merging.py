"""A merge gives one person all that led to the other, and refuses what would join two people."""

import pytest

from bandits.errors import (
    AlreadyMergedError,
    MergeRingError,
    MergeWithItselfError,
    TooManyMergedError,
    UnknownUserError,
)
from serve_app.store.users import merging
from serve_app.store.users.merging import MergePlan, plan_merge
from serve_app.store.users.persons import Person, PersonRecord, alias_of, decode_person

FRESH = PersonRecord(b"f" * 16, 9)


def key(name: str) -> str:
    return name.encode().hex().ljust(32, "0")


class Store(dict):
    """Records by key, as Redis has them."""

    def __missing__(self, _key: str) -> None:
        return None

    def put(self, name: str, since_ms: int = 1) -> str:
        self[key(name)] = PersonRecord(name.encode().ljust(16, b"."), since_ms).encoded
        return name

    def merge(self, user: str, into: str, filed: tuple[bytes, ...] = ()) -> MergePlan:
        plan = plan_merge(key(user), key(into), self, FRESH, filed)
        for changed, (before, after) in plan.swap.items():
            assert self[changed] == before
            self[changed] = after
        return plan

    def person(self, name: str) -> Person:
        alias = alias_of(self[key(name)])
        found = alias[0] if alias else key(name)
        return Person.of(found, self[found])


@pytest.fixture
def store() -> Store:
    found = Store()
    for name in ("a", "b", "c", "d"):
        found.put(name)
    return found


def pseudonym(name: str) -> str:
    return name.encode().ljust(16, b".").hex()


def test_a_visitor_becomes_the_person_whose_pseudonym_stays(store):
    plan = store.merge("a", "b")
    assert (plan.user, plan.into, plan.pseudonyms) == (pseudonym("a"), pseudonym("b"), 2)
    assert store.person("a") == store.person("b")
    assert store.person("a").pseudonyms == (pseudonym("b"), pseudonym("a"))


def test_a_merge_that_is_asked_for_again_changes_nothing_and_says_the_same(store):
    first = store.merge("a", "b")
    before = dict(store)
    again = store.merge("a", "b")
    assert again == first._replace(swap={})
    assert dict(store) == before


def test_whoever_has_just_registered_is_made(store):
    plan = store.merge("a", "new")
    assert plan.into == FRESH.pseudonym.hex()
    assert store.person("new").pseudonyms == (FRESH.pseudonym.hex(), pseudonym("a"))


def test_all_that_led_to_one_leads_to_the_other(store):
    store.merge("a", "b")
    store.merge("b", "c")
    store.merge("d", "a")  # by a name that leads to the same person
    person = store.person("c")
    assert person.pseudonyms == tuple(pseudonym(name) for name in ("c", "d", "b", "a"))
    assert all(store.person(name) == person for name in "abcd")
    assert {each.hex() for each in decode_person(store[key("c")]).ids} == {
        key(name) for name in "abd"
    }


def test_what_files_say_of_one_is_asked_of_the_other(store):
    """Of all ids that were ever merged; a record of a build before is told when it is asked again."""
    store.merge("a", "b")
    assert store.person("a").filed_as == ()
    store.merge("a", "b", (b"B" * 16, b"A" * 16))
    assert store.person("a").filed_as == ((b"B" * 16).hex(), (b"A" * 16).hex())
    assert store.merge("a", "b", (b"B" * 16, b"A" * 16)).swap == {}

    store.merge("b", "c", (b"C" * 16, b"B" * 16))
    assert store.person("a") == store.person("c")
    assert set(store.person("a").filed_as) == {(each * 16).hex() for each in (b"A", b"B", b"C")}


def test_an_alias_remembers_the_pseudonym_it_had(store):
    store.merge("a", "b")
    store.merge("b", "c")
    assert store.merge("a", "c").user == pseudonym("a")
    assert store.merge("b", "c").user == pseudonym("b")


def test_nobody_is_merged_with_themselves_in_a_ring_or_out_of_nothing(store):
    with pytest.raises(MergeWithItselfError) as error:
        store.merge("a", "a")
    assert error.value.target == "into"

    with pytest.raises(UnknownUserError) as error:
        store.merge("nobody", "a")
    assert error.value.target == "user_id"

    store.merge("a", "b")
    store.merge("b", "c")
    for into in ("a", "b"):
        with pytest.raises(MergeRingError):
            store.merge("c", into)


def test_a_shared_device_joins_no_two_people(store):
    store.merge("a", "b")
    with pytest.raises(AlreadyMergedError):
        store.merge("a", "c")


def test_one_person_has_so_many_pseudonyms(store, monkeypatch):
    monkeypatch.setattr(merging, "MAX_PSEUDONYMS", 3)
    store.merge("a", "b")
    store.merge("c", "b")
    with pytest.raises(TooManyMergedError):
        store.merge("d", "b")


def test_an_alias_that_leads_nowhere_is_of_nobody(store):
    store.merge("a", "b")
    del store[key("b")]
    with pytest.raises(UnknownUserError):
        store.merge("a", "c")
    assert store.merge("c", "a").into == FRESH.pseudonym.hex()
    assert store.person("c") == store.person("a")
