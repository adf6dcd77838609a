"""What a merge of two users makes of their records: decided here, carried out all or not at all."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import msgspec

from bandits.errors import (
    AlreadyMergedError,
    MergeRingError,
    MergeWithItselfError,
    TooManyMergedError,
    UnknownUserError,
)
from serve_app.store.users.persons import (
    MAX_PSEUDONYMS,
    PersonRecord,
    Swap,
    alias_of,
    alias_to,
    decode_person,
)

Held = Mapping[str, bytes | None]
"""By the key of a person, what it holds: of both users, and of those that their aliases lead to."""


class MergePlan(NamedTuple):
    """What a merge comes to.

    Attributes:
        user: the pseudonym that nothing is logged under from here on.
        into: the one that everything is logged under.
        pseudonyms: how many the person has then.
        swap: what the records hold, and are to hold; empty: they were merged before.
    """

    user: str
    into: str
    pseudonyms: int
    swap: Swap


def still_to_read(user: str, into: str, held: Held) -> list[str]:
    """Return the keys that are to be read before a merge can be planned; none: it can.

    Args:
        user: see ``plan_merge``.
        into: see ``plan_merge``.
        held: what was read.
    """
    wanted = [user, into]
    for name in (user, into):
        alias = alias_of(held.get(name))
        if alias is not None:
            wanted.append(alias[0])
    raw = held.get(user)
    if raw is not None and alias_of(raw) is None:
        wanted += [each.hex() for each in decode_person(raw).ids]
    return [name for name in dict.fromkeys(wanted) if name not in held]


def plan_merge(
    user: str, into: str, held: Held, fresh: PersonRecord, filed: Sequence[bytes] = ()
) -> MergePlan:
    """Return what it takes to make two users one person.

    Args:
        user: the key of the user who was somebody else so far: a visitor.
        into: the key of the user who they are.
        held: what is stored.
        fresh: the record of ``into`` if nothing is known of them: whoever has just registered.
        filed: the keyed pseudonyms of the two under which files of profiles may be asked.

    Raises:
        MergeWithItselfError: the two are the same id.
        UnknownUserError: nothing is known of ``user``.
        AlreadyMergedError: ``user`` is somebody else already.
        MergeRingError: ``into`` was merged into ``user`` before.
        TooManyMergedError: the person would have too many pseudonyms.
    """
    if user == into:
        raise MergeWithItselfError("a user is not merged with itself: give two ids", "into")
    from_key, from_raw = _root(user, held)
    into_key, into_raw = _root(into, held)
    if from_raw is None:
        raise UnknownUserError(
            "nothing is known of this user: there is nothing to merge", "user_id"
        )
    one = decode_person(from_raw)
    other = fresh if into_raw is None else decode_person(into_raw)

    alias = alias_of(held[user])
    if alias is not None:
        if from_key != into_key:
            raise AlreadyMergedError(
                "this user was merged into another one before, and is that person: a visitor who is"
                " somebody else now needs an id of their own",
                "user_id",
            )
        # A build before did not note what files know of them by.
        noted = _filed(one.filed, filed)
        again = {} if noted == one.filed else {from_key: (from_raw, _noting(one, noted).encoded)}
        return MergePlan(alias[1], one.pseudonym.hex(), len(one.pseudonyms), again)
    if from_key == into_key:
        raise MergeRingError(
            "the other was merged into this user before: they are one person already", "into"
        )

    count = len(one.pseudonyms) + len(other.pseudonyms)
    if count > MAX_PSEUDONYMS:
        raise TooManyMergedError(
            f"one person has at most {MAX_PSEUDONYMS:,} pseudonyms, and would have {count:,}: give"
            " the visitors of a shared device ids of their own",
            "into",
        )
    return MergePlan(
        one.pseudonym.hex(),
        other.pseudonym.hex(),
        count,
        _swap(user, _noting(one, _filed(one.filed, filed)), into_key, other, held),
    )


def _filed(*named: Iterable[bytes]) -> list[bytes]:
    return list(dict.fromkeys(chain.from_iterable(named)))


def _noting(record: PersonRecord, filed: list[bytes]) -> PersonRecord:
    return msgspec.structs.replace(record, filed=filed)


def _swap(user: str, one: PersonRecord, into_key: str, other: PersonRecord, held: Held) -> Swap:
    """Return the change of the records: one becomes the other, with all that led to it."""
    merged = PersonRecord(
        other.pseudonym,
        other.since_ms,
        [*other.earlier, *one.earlier, one.pseudonym],
        [*other.ids, *one.ids, bytes.fromhex(user)],
        _filed(other.filed, one.filed),
    )
    swap: dict[str, tuple[bytes | None, bytes | None]] = {
        user: (held[user], alias_to(into_key, one.pseudonym.hex())),
        into_key: (held[into_key], merged.encoded),
    }
    for each in one.ids:
        key = each.hex()
        alias = alias_of(held[key])
        if alias is not None:
            swap[key] = held[key], alias_to(into_key, alias[1])
    return swap


def _root(key: str, held: Held) -> tuple[str, bytes | None]:
    """Return the key under which a user's record is, and the record; None if there is none."""
    alias = alias_of(held[key])
    if alias is None or held[alias[0]] is None:
        return key, None if alias else held[key]
    return alias[0], held[alias[0]]
