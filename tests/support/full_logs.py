"""Random logs whose decisions have all that decisions can have, some as other builds write them."""

import math

import msgspec
import numpy as np
from hypothesis import strategies as st
from support.strategies import decisions, raw_logs, rewards, texts

from bandits.log.codec import VERSION, encode
from bandits.log.records import SERVED, Apprentice, Credit, DecisionRecord

values = st.one_of(
    texts,
    st.booleans(),
    st.floats(-1e19, 1e19),
    st.sampled_from([0.0, -0.0]),
    st.lists(texts, max_size=3),
)
feature_maps = st.dictionaries(texts, values, max_size=4)


@st.composite
def full_decisions(draw) -> DecisionRecord:
    """Decisions that also have scores with gaps, features of every kind, credits and failures."""
    record = draw(decisions())
    count, slots = len(record.action_ids), len(record.chosen)
    own = Apprentice(
        draw(st.sampled_from(SERVED)),
        record.pmf,
        record.chosen,
    )
    gaps = st.lists(
        st.one_of(st.floats(-9, 9, width=32), st.just(math.nan)), min_size=count, max_size=count
    )
    credit = Credit(
        ["cf", "deep"], np.full((slots, 2), 0.5).tobytes(), [draw(st.integers(0, 1))] * slots
    )
    return msgspec.structs.replace(
        record,
        context=draw(feature_maps),
        features=draw(
            st.none() | st.lists(st.none() | feature_maps, min_size=count, max_size=count)
        ),
        scores={
            name: np.array(draw(gaps), "<f4").tobytes() for name in draw(st.sets(texts, max_size=2))
        },
        credit=draw(st.sampled_from([None, credit])),
        unserved=draw(st.booleans()),
        failed=draw(st.none() | st.dictionaries(texts, texts, max_size=2)),
        artifact=draw(st.none() | texts),
        profile=draw(st.none() | texts),
        apprentice=draw(st.sampled_from([None, own])),
    )


@st.composite
def full_logs(draw) -> list[tuple[str, bytes]]:
    """A log with all that decisions can have, in one hour; some entries as other builds write them."""
    own = st.one_of(full_decisions(), rewards).map(encode)
    data = [each for _, each in draw(raw_logs(max_size=10))]
    before = [own.map(shortened), own.map(without_artifact), own.map(without_profile)]
    before += [own.map(without_rules), own.map(without_apprentice)]
    own = st.one_of(own, *before, own.map(lengthened))
    data += draw(st.lists(own, max_size=10))
    data = draw(st.permutations(data))
    return [(f"1700000000000-{number + 1}", each) for number, each in enumerate(data)]


def shortened(data: bytes) -> bytes:
    """The record as an early build wrote it, which knew only the fields that must be there."""
    fields = msgspec.msgpack.decode(data[1:])
    least = 12 if fields[0] == "decision" else 3
    return bytes([VERSION]) + msgspec.msgpack.encode(fields[:least])


def without_artifact(data: bytes) -> bytes:
    """The record as a build wrote it whose decisions named no artifact."""
    fields = msgspec.msgpack.decode(data[1:])
    known = 18 if fields[0] == "decision" else len(fields)
    return bytes([VERSION]) + msgspec.msgpack.encode(fields[:known])


def without_profile(data: bytes) -> bytes:
    """The record as a build wrote it whose decisions named no profile."""
    fields = msgspec.msgpack.decode(data[1:])
    known = 19 if fields[0] == "decision" else len(fields)
    return bytes([VERSION]) + msgspec.msgpack.encode(fields[:known])


def without_rules(data: bytes) -> bytes:
    """The record as a build wrote it whose decisions said nothing of rules."""
    fields = msgspec.msgpack.decode(data[1:])
    known = 20 if fields[0] == "decision" else len(fields)
    return bytes([VERSION]) + msgspec.msgpack.encode(fields[:known])


def without_apprentice(data: bytes) -> bytes:
    """The record as a build wrote it whose decisions said nothing of apprentices."""
    fields = msgspec.msgpack.decode(data[1:])
    known = 21 if fields[0] == "decision" else len(fields)
    return bytes([VERSION]) + msgspec.msgpack.encode(fields[:known])


def lengthened(data: bytes) -> bytes:
    """The record as a later build may write it."""
    return bytes([VERSION]) + msgspec.msgpack.encode([*msgspec.msgpack.decode(data[1:]), None, "x"])


def same(found: list[dict], expected: list[dict]) -> bool:
    """Whether the rows are equal, and a NaN equal to a NaN."""
    return repr(found) == repr(expected)
