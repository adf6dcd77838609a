"""Hypothesis strategies and small builders that several tests share."""

import math
import os
from dataclasses import replace

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from bandits.features.hashing import hash_feature
from bandits.log import records
from bandits.log.codec import encode
from bandits.types import ActionSet, Context, Interaction, Namespace

THOROUGH = bool(os.environ.get("BANDITLOOP_THOROUGH"))
"""Whether to try as much as there is to try: `make thorough` does."""
MANY = 1000 if THOROUGH else 150
"""Random models of the tests that try thousands."""


def tries(count: int) -> settings:
    """So many examples of a test whose examples are dear; a sixth where not all is asked for."""
    return settings(max_examples=count if THOROUGH else max(5, count // 6), deadline=None)


scores = st.lists(st.floats(-50, 50, allow_nan=False), min_size=1, max_size=30).map(
    lambda x: np.array(x, np.float64)
)
salts = st.binary(min_size=1, max_size=64)


def pmfs(max_size: int = 30):
    """PMFs with some exact zeros."""
    weights = st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1.0)), min_size=1, max_size=max_size)
    return weights.filter(lambda w: sum(w) > 0).map(lambda w: np.array(w) / np.sum(w))


def namespace(
    name: str, rng: np.random.Generator, shape: tuple[int, ...], *, named_columns: bool
) -> Namespace:
    """Random values under names that do not depend on the row, or do."""
    width = shape[-1]
    if named_columns or len(shape) == 1:
        hashes = np.array([hash_feature(name, f"c{j}") for j in range(width)], np.uint32)
    else:
        names = rng.integers(0, 12, shape)
        hashes = np.array([[hash_feature(name, f"f{n}") for n in row] for row in names], np.uint32)
    return Namespace(name, hashes, rng.normal(size=shape).astype(np.float32))


def decision_features(
    seed: int, k: int = 5, *, ids: tuple[str, ...] | None = None
) -> tuple[Context, ActionSet]:
    """A random context and action set, with all four namespaces and scores of two sources."""
    rng = np.random.default_rng(seed)
    ids = ids or tuple(f"item{i}" for i in rng.choice(40, k, replace=False))
    item = np.array([[hash_feature("item", name)] for name in ids], np.uint32)
    scores = {name: rng.normal(size=k).astype(np.float32) for name in ("cf", "deep")}
    scores["deep"][rng.random(k) < 0.3] = np.nan
    return (
        Context((namespace("context", rng, (3,), named_columns=True),)),
        ActionSet(
            ids,
            (
                Namespace("item", item, np.ones((k, 1), np.float32)),
                namespace("features", rng, (k, 4), named_columns=False),
                namespace("scores", rng, (k, 6), named_columns=True),
            ),
            scores,
        ),
    )


def interactions(seed: int, count: int, k: int = 5) -> list[Interaction]:
    """Random interactions over a few dozen items, one a second; every fourth is 5 s older."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(count):
        context, actions = decision_features(seed * 100_003 + i, k)
        chosen = int(rng.integers(k))
        time_ms = 10_000 + 1000 * i - (5000 if i % 4 == 3 else 0)
        reward = float(rng.random() < 0.4)
        out.append(Interaction(f"e{i}", 0, context, actions, chosen, 1.0 / k, reward, time_ms))
    return out


def seen_in_slots(count: int = 60) -> list[Interaction]:
    """Interactions that were seen in five slots, in turn."""
    return [replace(each, slot=number % 5) for number, each in enumerate(interactions(7, count))]


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


@st.composite
def ruled(draw, count: int, slots: int) -> records.Ruled:
    """What the rules of a decision of some slots among so many actions depended on, or parts."""
    known = draw(st.lists(texts, max_size=3))
    pages = st.sampled_from([0.0, -0.5, 60_000.0, math.nan])
    page = draw(
        st.integers(0, slots).flatmap(
            lambda n: st.lists(pages, min_size=n * count, max_size=n * count)
        )
    )
    boosts = np.array(draw(st.lists(st.floats(-1, 1, width=32), min_size=count, max_size=count)))
    places = sorted(draw(st.sets(st.integers(0, 300), max_size=2)))
    return records.Ruled(
        filter=draw(st.none() | texts),
        now_ms=draw(st.none() | st.integers(0, 200) | st.just(1_764_000_000_000)),
        did=draw(st.none() | st.dictionaries(texts, st.lists(texts, max_size=2), max_size=2)),
        removed=draw(
            st.dictionaries(
                texts,
                st.builds(records.Removed, st.just(known), st.integers(len(known), 70_000)),
                max_size=2,
            )
        ),
        boosts=draw(st.sampled_from([b"", boosts.astype("<f4").tobytes()])),
        control=draw(st.none() | st.just("1764000000000-3")),
        placed=[records.Placed(slot, draw(texts)) for slot in places],
        short=draw(st.none() | texts),
        unplaced=draw(
            st.lists(st.builds(records.Unplaced, st.integers(0, 300), texts, texts), max_size=2)
        ),
        page=np.array(page, "<f2").tobytes(),
    )


@st.composite
def decisions(draw) -> records.DecisionRecord:
    """Decisions of up to three slots among up to six actions, each field set or not."""
    ids = draw(st.lists(texts, min_size=1, max_size=6, unique=True))
    count = len(ids)
    chosen = draw(st.permutations(range(count)))[: draw(st.integers(1, min(3, count)))]
    pmf = []
    for slot in range(len(chosen)):
        weights = np.array(draw(st.lists(st.floats(0.01, 1.0), min_size=count, max_size=count)))
        weights[chosen[:slot]] = 0.0
        pmf.append(weights / weights.sum())
    return records.DecisionRecord(
        event_id=draw(texts),
        policy="home",
        spec=draw(texts),
        snapshot_id=draw(texts),
        catalogue=draw(texts),
        context=draw(
            st.dictionaries(texts, st.one_of(texts, st.booleans(), st.floats(-9, 9)), max_size=3)
        ),
        action_ids=ids,
        features=draw(st.one_of(st.none(), st.just([{"x": 1.0}] * count))),
        scores=draw(st.sampled_from([{}, {"cf": np.arange(count, dtype="<f4").tobytes()}])),
        pmf=np.array(pmf).tobytes(),
        chosen=chosen,
        user=draw(st.one_of(st.none(), texts)),
        deferred=draw(st.booleans()),
        holdout=draw(st.booleans()),
        rules=draw(st.none() | ruled(count, len(chosen))),
    )


rewards = st.builds(
    records.RewardRecord,
    event_id=texts,
    value=st.floats(-1e12, 1e12),
    reward_id=st.one_of(st.none(), texts),
    slot=st.one_of(st.none(), st.integers(0, 2**64 - 1)),
    action_id=st.one_of(st.none(), texts),
    signal=st.sampled_from([None, "click", "büy", "s" * 64]),
)
small_records = st.one_of(
    st.builds(records.ActivationRecord, texts),
    st.just(records.TickRecord()),
    st.builds(records.SpecRecord, texts, texts),
    st.builds(records.CatalogueRecord, texts),
    st.builds(records.ArtifactRecord, texts),
    st.builds(records.BuildRecord, st.dictionaries(texts, texts, max_size=2)),
)
reranked = decisions().map(lambda made: records.RerankedRecord(made.event_id, encode(made)))
log_bytes = st.one_of(
    decisions().map(encode),
    rewards.map(encode),
    small_records.map(encode),
    reranked.map(encode),
    st.binary(max_size=20),
)


@st.composite
def raw_logs(draw, max_size: int = 30, min_size: int = 1) -> list[tuple[str, bytes]]:
    """(id, record bytes) in the order of a log, some of them junk, over a few hours."""
    out, milliseconds, sequence = [], draw(st.integers(0, 1_800_000_000_000)), 1
    for data in draw(st.lists(log_bytes, min_size=min_size, max_size=max_size)):
        step = draw(st.sampled_from([0, 0, 1, 1000, 3_600_000]))
        milliseconds, sequence = (
            milliseconds + step,
            sequence + 1 if step == 0 else draw(st.integers(0, 2)),
        )
        out.append((f"{milliseconds}-{sequence}", data))
    return out
