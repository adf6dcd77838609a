"""Rows that are columns are known again by the hashes that rows as objects have."""

from dataclasses import replace

import mmh3
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.records import random_rows

from bandits.kernels.hashes import hash_contents
from simulator.logs.actions.records import EventIds
from simulator.logs.actions.row_records import records_from_rows
from simulator.logs.rows import LogBatch, batch_of
from simulator.replay.leakage import hashes_of


class Nowhere:
    """A piece of no file."""


def as_columns(batch: LogBatch) -> LogBatch:
    return replace(batch, records=records_from_rows(batch.decisions))


@pytest.mark.parametrize("seed", range(3))
def test_rows_as_columns_have_the_hashes_of_the_same_rows(seed):
    batch = batch_of(random_rows(200, seed))
    expected = hashes_of(Nowhere(), batch)
    for found, wanted in zip(hashes_of(Nowhere(), as_columns(batch)), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_some_of_the_rows_have_the_hashes_they_had_among_all():
    batch = as_columns(batch_of(random_rows(100, 4)))
    some = np.array([5, 17, 3, 60])
    for found, every in zip(
        hashes_of(Nowhere(), batch.take(some)), hashes_of(Nowhere(), batch), strict=True
    ):
        np.testing.assert_array_equal(found, every[some])


@given(
    st.lists(st.tuples(st.binary(max_size=70), st.binary(max_size=70)), max_size=20),
    st.integers(0, 2**40),
)
def test_the_compiled_hash_is_murmurs(rows, time_ms):
    ids, said = [name for name, _ in rows], [content for _, content in rows]
    count = len(rows)
    placed, alone = hash_contents(
        np.frombuffer(b"".join(ids), np.uint8),
        np.cumsum([0, *map(len, ids)]),
        np.frombuffer(b"".join([b"|", *said]), np.uint8),
        np.cumsum([0, 1, *map(len, said)]),
        np.zeros(count, np.int32),
        np.arange(count + 1),
        np.arange(1, count + 1, dtype=np.int32),
        np.full(count, 5),
        np.full(count, 0.25).view(np.uint64),
        np.full(count, 1),
        np.full(count, time_ms),
    )
    tail = b"".join(map(msgspec.msgpack.encode, (5, 0.25, 1, time_ms)))
    for at, (name, content) in enumerate(rows):
        assert placed[at] == mmh3.hash64(name + b"|" + content + tail, signed=False)[0]
        assert alone[at] == mmh3.hash64(content + tail, signed=False)[0]


def test_ids_are_bytes_one_after_the_other():
    names = ["a", "", "größe", "\ud800"]
    ids = EventIds.of(names)
    assert [ids.text(at) for at in range(4)] == names
    assert [ids.take(np.array([2, 0])).text(at) for at in range(2)] == ["größe", "a"]
