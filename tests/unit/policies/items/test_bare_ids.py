"""Ids that are found in the text of a request are those that a decoder reads, or none."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.items import bare_ids
from policies.items.bare_ids import BareIds
from policies.items.catalogue import Catalogue
from policies.requests import MAX_ACTIONS, ActionRequest, Item

CATALOGUE = Catalogue([Item("a"), Item("b"), Item("item-1"), Item("")])
decode = msgspec.json.Decoder(list[ActionRequest]).decode


def found(ids: BareIds, *texts: bytes, catalogue: Catalogue = CATALOGUE) -> list[list[str] | None]:
    passes = ids._passes
    answers = ids.find(texts, catalogue)
    for text, answer in zip(texts, answers, strict=True):
        if answer is not None:
            assert answer.rows.tolist() == catalogue.rows(answer.ids).tolist()
        if not passes and not ids._passes:
            alone = ids.find_one(text, catalogue)
            if answer is None or "" in answer.ids:
                assert alone is None
            else:
                assert alone is not None
                assert (alone.ids, [*alone.rows]) == (answer.ids, [*answer.rows])
    return [None if answer is None else answer.ids for answer in answers]


def test_texts_are_read_whatever_white_space_they_have():
    texts = (
        b'[{"id":"a"},{"id":"new"}]',
        b' [ {"id" : "b" } ,\n{ "id"\t:"a"}\r] ',
        b'[{"id":""}]',
        b'[{"id":"a"}]',
        b'[{"id":"c"}, {"id":"d"}, {"id":"e"},{"id":"f"} , {"id":"g"}, {"id":"h"}]',
    )
    ids = BareIds()
    for _ in range(2):  # all of them new, and then none
        assert found(ids, *texts) == [["a", "new"], ["b", "a"], [""], ["a"], [*"cdefgh"]]


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"null",
        b'[{"id":"a"},{"id":"a"}]',
        b'[{"id":"a","features":{}}]',
        b'[{"features":{},"id":"a"}]',
        b'[{"id":"\\u0061"}]',
        '[{"id":"ä"}]'.encode(),
        b'[{"id":1}]',
        b'[{"ID":"a"}]',
        b'[{"id":"a"},]',
        b'[{"id":"a"}',
        b'[{"id":"a"}]]',
        b'[{"id":"a"}{"id":"b"}]',
        b'[{"id":"a"},{"id":"b"},{"id":"c"},{"id":"',
        b'[{"id":"a"},{"id":"b"},{"id":"c"},{"ID":"d"}]',
        b'[{"id":"a"},{"id":"b"},{"id":"a"}]',
        b'[{"id":"a',
        b'[{"id":"a\n"}]',
        b'[{"id"',
        b'[{"id":"a"} ,',
        b"[{}]",
        b'{"id":"a"}',
        b'["a"]',
        b" ",
    ],
)
def test_what_is_written_in_another_way_is_left_to_a_decoder(text):
    assert found(BareIds(), b'[{"id":"b"}]', text, b'[{"id":"a"}]') == [["b"], None, ["a"]]


def test_more_actions_than_may_be_are_left_to_who_refuses_them():
    text = msgspec.json.encode([ActionRequest(str(at)) for at in range(MAX_ACTIONS + 1)])
    assert found(BareIds(), text) == [None]


@given(
    st.lists(
        st.lists(st.text(max_size=4), min_size=1, max_size=5, unique=True), min_size=1, max_size=4
    )
)
def test_whatever_is_found_is_what_a_decoder_reads(lists):
    texts = [msgspec.json.encode([ActionRequest(each) for each in ids]) for ids in lists]
    for text, ids in zip(texts, found(BareIds(), *texts), strict=True):
        assert ids is None or ids == [action.id for action in decode(text)]


def test_ids_of_every_length_are_told_apart_and_what_is_strange_is_seen_at_every_place():
    """Eight bytes are read at a time: the end of an id may stand anywhere among them."""
    ids = BareIds()
    alike = [*("item-0123456789abcdefghi"[:size] for size in range(1, 24)), *"abc"]
    sent = msgspec.json.encode([ActionRequest(each) for each in alike])
    for _ in range(2):
        for gap in (b"},{", b"} , {", b"}\n,\t{"):
            text = sent.replace(b"},{", gap)
            assert found(ids, text) == [alike]
            assert found(ids, b'[{"id":"x"}]', text, b'[{"id":"y"}]') == [["x"], alike, ["y"]]

    strange = b"\\", b"\x00", b"\x1f", b"\x7f\x80", "ä".encode()
    for size in range(1, 20):
        for at in range(size):
            for each in strange:
                one = b"x" * at + each + b"x" * (size - at - 1)
                assert found(ids, b'[{"id":"a"},{"id":"%b"},{"id":"b"}]' % one) == [None]
        # A quote ends an id wherever it stands: what follows it is no id.
        broken = b'[{"id":"a"},{"id":"%b"x"}]' % (b"y" * size)
        assert found(ids, broken, b'[{"id":"b"}]') == [None, ["b"]]


def test_ids_of_one_text_are_found_whether_they_are_new_or_were_seen():
    ids, longer = BareIds(), Catalogue([Item("new"), Item("b")])
    for text in (b'[{"id":"a"},{"id":"new"}]', b'[{"id":"b"}]', b'[{"id":"a"},{"id":"b"}]'):
        for catalogue in (CATALOGUE, longer, longer, CATALOGUE):
            one = ids.find_one(text, catalogue)
            assert one is not None
            assert one.ids == [action.id for action in decode(text)]
            assert [*one.rows] == [*catalogue.rows(one.ids)]
            assert one.are_known is (min(one.rows.tolist()) >= 0)


def test_another_catalogue_has_other_rows():
    ids, other = BareIds(), Catalogue([Item("new"), Item("b")])
    text = b'[{"id":"a"},{"id":"b"},{"id":"new"}]'
    assert found(ids, text) == found(ids, text, catalogue=other) == [["a", "b", "new"]]


def test_ids_are_kept_up_to_a_number_and_those_that_are_new_each_time_are_not_learned(monkeypatch):
    monkeypatch.setattr(bare_ids, "MOST", 100)
    monkeypatch.setattr(bare_ids, "ROOM", 32)
    ids, rng = BareIds(), np.random.default_rng(1)
    passed = 0
    for number in range(200):
        drawn = [f"{at}" for at in rng.permutation(10_000)[:20]]
        (answer,) = found(ids, msgspec.json.encode([ActionRequest(each) for each in drawn]))
        assert answer in (None, drawn)
        passed += answer is None
        assert len(ids._ids) <= 100, number
    assert passed > 150
