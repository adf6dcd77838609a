"""Persons: a record says whose a pseudonym is, and little enough of it to keep a million."""

import msgspec

from policies.pseudonyms import person_key, pseudonym
from serve_app.store.users.persons import (
    Person,
    PersonRecord,
    alias_of,
    alias_to,
    decode_person,
    new_person,
)

SALT = b"a secret of at least sixteen bytes"


def test_a_record_comes_back_as_it_was_stored():
    record = PersonRecord(b"p" * 16, 1_700_000_000_000, [b"a" * 16, b"b" * 16], [b"k" * 16])
    assert decode_person(record.encoded) == record

    # Who was never merged is stored as before; a record that builds before have made is read.
    assert record.encoded == msgspec.msgpack.encode((*msgspec.structs.astuple(record),)[:4])
    filed = msgspec.structs.replace(record, filed=[b"f" * 16])
    assert decode_person(filed.encoded) == filed

    person = Person.of("k", record.encoded)
    assert person.pseudonyms == tuple((name * 16).hex() for name in (b"p", b"b", b"a"))
    assert person.pseudonym == person.pseudonyms[0]


def test_every_new_person_has_a_pseudonym_of_their_own():
    assert len({new_person().pseudonym for _ in range(1000)}) == 1000
    assert len(new_person().encoded) <= 32


def test_an_alias_is_no_record():
    key = person_key(SALT, "alice")
    assert alias_of(alias_to(key, "a" * 32)) == (key, "a" * 32)
    assert alias_of(new_person().encoded) is None
    assert alias_of(None) is None


def test_what_finds_a_record_is_not_what_older_logs_know_a_user_by():
    assert person_key(SALT, "alice") != pseudonym(SALT, "alice")
    assert person_key(SALT, "alice") != person_key(SALT, "bob")
