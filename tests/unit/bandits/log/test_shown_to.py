"""Whom decisions are for, and what they chose, found in their bytes many at a time."""

from hypothesis import given
from hypothesis import strategies as st
from support.logs import decision

from bandits.log.codec import encode
from bandits.log.encoded_decisions import read_entries, shown_to, shown_to_each
from bandits.log.records import EncodedDecision

TEXTS = st.text(min_size=1, max_size=40)


@given(st.data())
def test_what_is_found_in_bytes_is_what_the_record_says(data):
    """Ids of any language, some longer than a byte counts, and so many that an index takes two."""
    records = []
    for number in range(data.draw(st.integers(1, 3))):
        count = data.draw(st.sampled_from([3, 5, 300]))
        places = st.integers(0, count - 1)
        names = [f"{number}-{each}" for each in range(count)]
        for place in data.draw(st.lists(places, max_size=3)):
            names[place] += "/" + data.draw(TEXTS) * data.draw(st.sampled_from([1, 60]))
        chosen = data.draw(st.lists(places, min_size=1, max_size=3, unique=True))
        user = data.draw(st.none() | TEXTS)
        records.append(decision(f"e{number}", ids=tuple(names), chosen=chosen, user=user))

    entries = read_entries([(f"{at}-0", encode(each)) for at, each in enumerate(records)], print)
    expected = [
        (each.user, [] if each.user is None else [each.action_ids[at] for at in each.chosen])
        for each in records
    ]
    assert shown_to_each([entry.record for entry in entries]) == expected
    assert [shown_to(entry.record) for entry in entries] == expected


def test_ordinary_decisions_are_found_in_their_bytes():
    (entry,) = read_entries([("1-0", encode(decision(user="somebody")))], print)
    assert isinstance(entry.record, EncodedDecision)
    assert shown_to(entry.record) == ("somebody", ["a"])
