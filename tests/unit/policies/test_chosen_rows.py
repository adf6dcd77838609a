"""The features of chosen actions that compiled loops make of bytes are those of the records."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.logs import decision
from support.strategies import MANY

from bandits.log.codec import encode
from bandits.log.encoded_decisions import starts_of
from bandits.log.records import DecisionRecord
from bandits.types import Row
from policies.features import chosen_rows, rows_of_chosen
from policies.items.catalogue import Catalogue, Item
from policies.spec import PolicySpec

IDS = ("a", "b", "c", "d\u00e9", "")
CATALOGUES = {
    "none": Catalogue(),
    "one": Catalogue([Item("a", {"price": 2.0})]),
    "alike": Catalogue(
        [Item(name, {"price": n / 3, "on": n % 2 == 0}) for n, name in enumerate("abc")]
    ),
    "various": Catalogue(
        [Item("a", {"price": 2.5, "genre": ["x", "y"]}), Item("b", {"genre": ["z"]}), Item("c", {})]
    ),
}
USES = (["context", "item", "features", "scores"], ["item"], ["scores", "context"], ["features"])

names = st.text(max_size=4)
values = st.one_of(
    st.floats(-1e19, 1e19),
    st.text(max_size=40),
    st.booleans(),
    st.lists(st.text(max_size=3), max_size=3),
)
maps = st.dictionaries(names, values, max_size=12)
scores = st.lists(
    st.sampled_from([float("nan"), 1.0, 2.0, -0.0, 0.0]) | st.floats(-9, 9, width=32),
    min_size=5,
    max_size=5,
)


@st.composite
def lessons(draw) -> tuple[DecisionRecord, list[int]]:
    """A decision, and some of its slots."""
    chosen = draw(st.permutations(range(5)))[: draw(st.integers(1, 5))]
    record = decision(
        ids=IDS,
        chosen=tuple(chosen),
        context=draw(maps),
        features=draw(st.none() | st.lists(st.none() | maps, min_size=5, max_size=5)),
        scores={
            name: np.array(column, "<f4").tobytes()
            for name, column in draw(st.dictionaries(names, scores, max_size=3)).items()
        },
    )
    return record, draw(st.lists(st.sampled_from(range(len(chosen))), unique=True, min_size=1))


def as_bytes(row: Row) -> list[tuple[str, bytes, bytes]]:
    """The features of a row, namespaces without any left out."""
    return [
        (space.name, space.hashes.tobytes(), space.values.tobytes())
        for space in row
        if space.values.size
    ]


@pytest.mark.parametrize("use", USES, ids="+".join)
@pytest.mark.parametrize("catalogue", CATALOGUES.values(), ids=CATALOGUES)
@settings(max_examples=MANY // 10)
@given(st.lists(lessons(), min_size=1, max_size=4))
def test_rows_of_bytes_are_those_of_the_records(use, catalogue, taught):
    spec = PolicySpec("home", use=use)
    parts = [encode(record) for record, _ in taught]
    slots = [slot for _, some in taught for slot in some]
    rewards = np.arange(len(slots), dtype=np.float64)
    rows = rows_of_chosen(
        spec,
        catalogue,
        b"".join(parts),
        np.repeat(starts_of(parts)[:-1], [len(some) for _, some in taught]),
        np.array(slots, np.int64),
        rewards,
    )
    assert len(rows) == len(slots)

    expected = [
        (record, slot, action_id, shared, own)
        for record, some in taught
        for slot, (action_id, shared, own) in zip(
            some,
            chosen_rows(spec, catalogue, record, [record.chosen[slot] for slot in some]),
            strict=True,
        )
    ]
    for at, (row, (record, slot, action_id, shared, own)) in enumerate(
        zip(rows, expected, strict=True)
    ):
        assert row.action_id == action_id
        assert as_bytes(row.shared) == as_bytes(shared)
        assert as_bytes(row.own) == as_bytes(own)
        assert (row.available, row.propensity) == (len(IDS) - slot, record.propensity(slot))
        assert row.reward == rewards[at]
