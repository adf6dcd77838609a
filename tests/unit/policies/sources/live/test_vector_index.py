"""The nearest of vectors that come and go are those that a look at all of them finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.sources.live import vector_index
from policies.sources.live.text_vectors import unit
from policies.sources.live.vector_index import HeldVectors, VectorIndex

SIZE = 4
PLACES = {f"i{number}": place for place, number in enumerate(range(0, 60, 2))}
NO_ROWS = np.zeros(0, np.intp)

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put closed", "drop", "close", "open"]),
        st.integers(0, 30),
        st.integers(0, 2**31),
    ),
    max_size=60,
)


def vector_of(seed: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=SIZE).astype(np.float32))


def empty_index() -> VectorIndex:
    none = HeldVectors((), np.zeros((0, SIZE), np.float32), np.zeros(0, np.bool_))
    return VectorIndex(none, places=PLACES)


def play(index: VectorIndex, steps) -> dict[str, tuple[np.ndarray, bool]]:
    """Do the steps to an index, and to a dict that tells what it has to hold."""
    held = {} if len(index) == 0 else {n: (v, o) for n, v, o in zip(*_parts(index), strict=True)}
    for what, number, seed in steps:
        item = f"i{number}"
        if what.startswith("put"):
            is_open = what == "put"
            index.put(item, vector_of(seed), is_open=is_open)
            held[item] = vector_of(seed), is_open
        elif what == "drop":
            index.drop(item)
            held.pop(item, None)
        else:
            index.set_open(item, is_open=what == "open")
            if item in held:
                held[item] = held[item][0], what == "open"
    return held


def _parts(index: VectorIndex):
    held = index.held()
    return held.ids, held.vectors, held.open.tolist()


def check(index: VectorIndex, held, user, *, limit: int) -> None:
    found, products = index.nearest(user, NO_ROWS, limit)
    rows = index.rows(list(held))
    exact = dict(zip(held, index.products(rows, user).tolist(), strict=True))
    for item, (vector, _) in held.items():
        assert exact[item] == pytest.approx(float(vector @ user), abs=1e-6)
    expected = {n: exact[n] for n, (_, is_open) in held.items() if is_open}
    at_places, lacking, strangers = index.rows_at(np.arange(-1, len(PLACES)))
    assert at_places.tolist() == [-1, *index.rows(list(PLACES)).tolist()]
    assert (lacking, strangers) == (np.count_nonzero(at_places < 0), 1)
    best = sorted((value for value in expected.values() if value > 0), reverse=True)[:limit]
    assert products.tolist() == best
    assert [expected[item] for item in found] == best
    assert len(set(found)) == len(found)
    assert index.open_count == len(expected)
    assert len(index) == len(held)


@given(STEPS, st.integers(1, 40), st.integers(0, 99))
def test_the_nearest_are_those_of_all_that_are_open(steps, limit, seed):
    index = empty_index()
    check(index, play(index, steps), vector_of(seed), limit=limit)


@settings(max_examples=40)
@given(STEPS, STEPS, st.integers(0, 99))
def test_blocks_and_what_has_changed_since_are_one_index(before, after, seed):
    first = empty_index()
    play(first, [("put", n, n) for n in range(40)])
    play(first, before)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_index, "EXACT_UP_TO", 8)
        index = VectorIndex(first.held(), places=PLACES)
        assert (index._blocks is not None) == (len(first) > 8)

        # Every block is looked at where there are so few.
        check(index, play(index, after), vector_of(seed), limit=10)


@settings(max_examples=40)
@given(STEPS, STEPS, st.integers(0, 99))
def test_an_index_made_meanwhile_adopts_what_has_changed(before, after, seed):
    index = empty_index()
    play(index, before)
    anew = VectorIndex(index.held(), places=PLACES)
    held = play(index, after)
    anew.adopt(index, [f"i{number}" for _, number, _ in after])
    check(anew, held, vector_of(seed), limit=10)


def test_barred_items_are_not_found_and_the_next_best_are():
    index = empty_index()
    held = play(index, [("put", n, n) for n in range(20)])
    user = vector_of(1)
    all_found, _ = index.nearest(user, NO_ROWS, 20)
    found, _ = index.nearest(user, index.rows(all_found[:2]), 2)
    assert found == all_found[2:4]
    assert len(held) == 20


def test_the_same_vector_once_more_moves_nothing():
    index = empty_index()
    index.put("a", vector_of(1), is_open=True)
    index.put("a", vector_of(1), is_open=False)
    assert index._loose_count == 1
    assert index.open_count == 0
