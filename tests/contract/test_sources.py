"""What every candidate source promises, local or remote."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.strategies import tries

from bandits.log.records import ItemChange, ItemsRecord, LogEntry
from policies.artifacts.histories import Histories, Profile
from policies.artifacts.source_artifact import Artifact, Calibration, TrainedSource
from policies.items.catalogue import Catalogue, Item
from policies.items.offering import Offering
from policies.items.timeline import ItemTimeline
from policies.proposers import Proposers
from policies.rules.ruled_items import RuledItems
from policies.sources import (
    CandidateSource,
    ComparingSource,
    LocalSource,
    OfferingFollower,
    SourceRequest,
    load_sources,
)
from policies.sources.base import ImmediateSource
from policies.sources.live.text_vectors import unit
from policies.sources.remote import ROUNDS
from policies.sources.source_set import SourceSet
from policies.spec import PolicySpec, RemoteSource, spec_of

N_ITEMS, N_USERS = 40, 6
ITEMS = tuple(f"item-{i}" for i in range(N_ITEMS))
LOCAL = [
    *("als", "item_knn", "ease", "rp3beta", "deep", "popular", "trending", "content", "slit"),
    *("sasrec", "gru4rec", "towers", "ncf", "content_tuned"),
]


def make_histories(rng: np.random.Generator) -> Histories:
    rows = [np.sort(rng.choice(N_ITEMS, 5, replace=False)).astype(np.int32) for _ in range(N_USERS)]
    return Histories(
        items=ITEMS,
        users=tuple(f"user-{u}" for u in range(N_USERS)),
        starts=np.arange(0, 5 * N_USERS + 1, 5),
        indices=np.concatenate(rows),
        weights=rng.uniform(0.1, 1.5, 5 * N_USERS).astype(np.float32),
    )


def make_artifact(rng: np.random.Generator) -> Artifact:
    """One source of each kind, with random arrays: what they were trained on does not matter."""

    def normal(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    neighbours = np.argsort(rng.random((N_ITEMS, N_ITEMS)), axis=1)[:, :8].astype(np.int32)
    sources = {
        "als": TrainedSource(
            "als", {"item_factors": normal(N_ITEMS, 4)}, {"alpha": 5.0, "regularization": 3.0}
        ),
        "item_knn": TrainedSource(
            "item_knn", {"neighbours": neighbours, "similarities": abs(normal(N_ITEMS, 8))}
        ),
        # Of either sign, and more of them above 0.
        "ease": TrainedSource(
            "ease", {"neighbours": neighbours[:, ::-1], "similarities": normal(N_ITEMS, 8) + 0.5}
        ),
        "rp3beta": TrainedSource(
            "rp3beta", {"neighbours": neighbours, "similarities": abs(normal(N_ITEMS, 8))}
        ),
        "deep": TrainedSource(
            "deep",
            {
                "weight_0": normal(N_ITEMS, 6),
                "bias_0": normal(6),
                "weight_1": normal(6, N_ITEMS),
                "bias_1": normal(N_ITEMS),
            },
            scale=Calibration(-3.0, 0.7),
        ),
        # Many ties, and items nobody interacted with.
        "popular": TrainedSource(
            "popular", {"counts": rng.integers(0, 4, N_ITEMS).astype(np.float32)}
        ),
        "trending": TrainedSource(
            "trending",
            {"counts": np.exp2(-rng.integers(0, 20, N_ITEMS)).astype(np.float32)},
            {"half_life_days": 3.0},
        ),
        "content": TrainedSource(
            "content",
            {"vectors": unit(normal(N_ITEMS, 5))},
            {"vectors": {"look": 5}},
            scale=Calibration(0.4, 0.2),
        ),
        "content_tuned": TrainedSource(
            "content_tuned",
            {"vectors": unit(normal(N_ITEMS, 5)), "steps": normal(2, 5, 5)},
            {"vectors": {"look": 5}},
        ),
        "slit": TrainedSource(
            "slit",
            {"neighbours": neighbours, "similarities": normal(N_ITEMS, 8) + 0.5},
            {"length": 3, "half_life": 2.0},
        ),
        "sasrec": TrainedSource(
            "sasrec",
            {
                "vectors": normal(N_ITEMS, 4),
                "places": normal(3, 4),
                "norm": normal(2, 4),
                **{
                    f"{name}_{part}": normal(2, *shape)
                    for name, rows in {"ask": 12, "answer": 4, "inner": 4, "outer": 4}.items()
                    for part, shape in {"weight": (rows, 4), "bias": (rows,)}.items()
                },
                **{
                    f"norm_{name}_{part}": normal(2, 4)
                    for name in ("attention", "layers")
                    for part in ("weight", "bias")
                },
            },
            {"length": 3, "blocks": 2, "heads": 2},
        ),
        "gru4rec": TrainedSource(
            "gru4rec",
            {
                "vectors": normal(N_ITEMS, 4),
                **{
                    f"{name}_{part}": normal(*shape)
                    for name, rows in {"item": 12, "state": 12, "answer": 4}.items()
                    for part, shape in {"weight": (rows, 4), "bias": (rows,)}.items()
                },
            },
            {"length": 3},
        ),
        "towers": TrainedSource(
            "towers",
            {
                "vectors": normal(N_ITEMS, 5),
                "item_hashes": np.zeros(0, np.uint32),
                "item_scales": normal(0, 2),
                "item_rows": normal(0, 5),
                "item_weight_1": normal(5, 3),
                "item_bias_1": normal(3),
                "item_weight_2": normal(3, 5),
                "item_bias_2": normal(5),
                "user_hashes": np.zeros(0, np.uint32),
                "user_scales": normal(0, 2),
                "user_rows": normal(0, 4),
                "user_weight_1": normal(12, 3),
                "user_bias_1": normal(3),
                "user_weight_2": normal(3, 4),
                "user_bias_2": normal(4),
                "user_whole": normal(4, 4),
                "user_latest": normal(4, 4),
            },
            {"most": 4, "recent": 2},
        ),
        "ncf": TrainedSource(
            "ncf",
            {
                "known": normal(N_ITEMS, 7),
                "products": normal(N_ITEMS, 4),
                "bias": normal(N_ITEMS),
                "first": normal(N_ITEMS, 5),
                "user": normal(3, 5),
                "second": normal(5, 2),
                "second_bias": normal(2),
                "last": normal(2),
            },
            {"most": 4},
        ),
    }
    return Artifact((), ITEMS, sources)


RANDOM = np.random.default_rng(7)
HISTORIES, ARTIFACT = make_histories(RANDOM), make_artifact(RANDOM)
BLOCKS = TrainedSource(
    "als",
    {
        **ARTIFACT.sources["als"].arrays,
        "order": np.random.default_rng(8).permutation(N_ITEMS).astype(np.int32),
        "starts": np.array([0, 3, 10, 11, 25, N_ITEMS], np.int32),
    },
    dict(ARTIFACT.sources["als"].config),
)
WITH_BLOCKS = Artifact((), ITEMS, {**ARTIFACT.sources, "als in blocks": BLOCKS})
KNOWN = [HISTORIES.profile(f"user-{user}") for user in range(N_USERS)]


def obedient(asked: dict[str, Any]) -> list[str]:
    """As many as it is asked for, whatever is excluded."""
    return [item for item in ITEMS if item not in asked["history"]][: asked["limit"]]


def excluding(asked: dict[str, Any]) -> list[str]:
    """Without what is excluded, and never more than twelve."""
    barred = {*asked["exclude"], *asked["history"]}
    return [item for item in ITEMS if item not in barred][: min(12, asked["limit"])]


def stubborn(asked: dict[str, Any]) -> list[str]:
    """All that it knows, whatever it is asked."""
    return list(ITEMS)


REMOTES = {
    "remote": obedient,
    "remote that excludes": excluding,
    "remote that answers more": stubborn,
}


@asynccontextmanager
async def open_source(name: str) -> AsyncIterator[CandidateSource]:
    """The source, with whatever it needs running: remotes propose the first items, with ties."""
    if name not in REMOTES:
        yield load_sources(ARTIFACT)[name]
        return

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        found = REMOTES[name](msgspec.json.decode(await reader.readexactly(length)))
        body = msgspec.json.encode(
            {"candidates": [{"id": item, "score": -(ITEMS.index(item) // 3)} for item in found]}
        )
        writer.write(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    config = RemoteSource(name="remote", url=f"http://127.0.0.1:{port}/", timeout_ms=5000)
    async with server:
        source = load_sources(ARTIFACT, [config])["remote"]
        yield source
        await source.aclose()  # type: ignore[attr-defined]


REQUESTS = [
    SourceRequest("user-1", profile=KNOWN[1]),
    SourceRequest("user-1", ("item-3", "item-4", "not an item", "item-3"), profile=KNOWN[1]),
    SourceRequest("user-2", (), frozenset({"item-1", "item-20", "not an item"}), KNOWN[2]),
    SourceRequest(None, ("item-0", "item-7")),
    SourceRequest("a stranger", ("item-39",), frozenset(ITEMS[10:30])),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=range(len(REQUESTS)))
@pytest.mark.parametrize("name", [*LOCAL, *REMOTES])
async def test_candidates(name: str, request_: SourceRequest) -> None:
    """At most ``limit``, best first, distinct, finite float32, nothing barred.

    The same every time.
    """
    barred = request_.exclude.union(request_.history, (ITEMS[i] for i in _stored(request_)))
    async with open_source(name) as source:
        assert source.name == ("remote" if name in REMOTES else name)
        for limit in (1, 5, N_ITEMS, 2 * N_ITEMS):
            found = await source.candidates(request_, limit)
            assert found.scores.dtype == np.float32
            assert found.scores.shape == (len(found.ids),)
            assert len(found.ids) <= limit
            assert len(set(found.ids)) == len(found.ids)
            assert not barred & set(found.ids)
            assert np.isfinite(found.scores).all()
            assert np.all(np.diff(found.scores) <= 0)
            order = [
                (-score, ITEMS.index(item))
                for score, item in zip(found.scores, found.ids, strict=True)
            ]
            assert order == sorted(order), "ties are broken by the source's item order"
            again = await source.candidates(request_, limit)
            assert again.ids == found.ids
            assert np.array_equal(again.scores, found.scores)


CATALOGUES = {
    "emptied": (),
    "one": ("item-33",),
    "the last": ITEMS[-4:],
    "every third, and what no source knows": (*ITEMS[::3], "not an item", "another"),
    "all but one": ITEMS[1:],
    "all": ITEMS,
}


@pytest.mark.parametrize("held", CATALOGUES.values(), ids=CATALOGUES)
@pytest.mark.parametrize("name", [*LOCAL, *REMOTES])
async def test_a_source_proposes_what_the_catalogue_holds_and_as_much_of_it_as_there_is(
    name: str, held: tuple[str, ...]
) -> None:
    """The same, in the same order with the same scores, as if what was removed did not exist."""
    catalogue = Catalogue.put([Item(item) for item in held])
    async with open_source(name) as source:
        assert isinstance(source, OfferingFollower)
        limited = source.over(Offering(catalogue))
        for request in REQUESTS:
            every = await source.candidates(request, 2 * N_ITEMS)
            open_ = [
                (item, score)
                for item, score in zip(every.ids, every.scores, strict=True)
                if item in held
            ]
            # of this one, all that it has are never seen at once
            if name == "remote that excludes":
                barred = request.exclude.union(
                    request.history, (ITEMS[i] for i in _stored(request))
                )
                open_ = [
                    (item, -(i // 3))
                    for i, item in enumerate(ITEMS)
                    if item in held and item not in barred
                ]
            for limit in (5, 3, 5, 1):
                found = await limited.candidates(request, limit)
                assert len(set(found.ids)) == len(found.ids), (request, limit)
                assert set(found.ids) <= {item for item, _ in open_}
                if name in REMOTES and (request.profile or request.exclude):
                    # what it proposes although it is barred leaves a place free, as without a
                    # catalogue
                    continue
                assert found.scores.tolist() == [score for _, score in open_[:limit]], (
                    request,
                    limit,
                )
                if name in LOCAL:
                    assert list(found.ids) == [item for item, _ in open_[:limit]]
        assert (await source.candidates(REQUESTS[0], 2 * N_ITEMS)).ids == (
            await open_everything(source)
        ), "the source itself is as it was"


async def open_everything(source: OfferingFollower) -> tuple[str, ...]:
    """What it proposes under a catalogue of all."""
    everything = Offering(Catalogue.put([Item(item) for item in ITEMS]))
    return (await source.over(everything).candidates(REQUESTS[0], 2 * N_ITEMS)).ids


@pytest.mark.parametrize("name", LOCAL)
def test_a_catalogue_of_everything_costs_nothing(name: str) -> None:
    """As many items are known as without a catalogue, so nothing is looked at."""
    source = load_sources(ARTIFACT)[name]
    over = source.over(Offering(Catalogue.put([Item(item) for item in ITEMS])))
    assert over.known == source.known == N_ITEMS


# --- items that come, go, hide and expire
# ------------------------------------------------------------

AT_S = 1_800_000_000
TIMES = [None, *(datetime.fromtimestamp(AT_S + minute * 60, UTC) for minute in range(-2, 6))]


@st.composite
def changes(draw: st.DrawFn) -> ItemChange:
    """A put, a patch or a deletion of an item that the sources know, or of another."""
    item_id = draw(st.sampled_from([*ITEMS[:12], "not an item"]))
    op = draw(st.sampled_from(["put", "put", "patch", "delete"]))
    if op == "delete":
        return ItemChange("delete", item_id, b"")
    begins, ends = draw(st.sampled_from(TIMES)), draw(st.sampled_from(TIMES))
    if begins and ends and begins >= ends:
        begins, ends = ends, begins
    fields: dict[str, Any] = {
        "available_from": begins,
        "available_until": ends if ends != begins else None,
        "hidden": draw(st.sampled_from([None, False, True])),
    }
    if op == "put":
        fields = {name: value for name, value in fields.items() if value is not None}
        fields["id"] = item_id
    return ItemChange(op, item_id, msgspec.json.encode(fields))


@given(
    first=st.one_of(st.none(), st.sets(st.sampled_from(ITEMS[:20]))),
    steps=st.lists(
        st.one_of(st.lists(changes(), min_size=1, max_size=4), st.integers(1, 150)), max_size=12
    ),
)
@tries(60)
def test_a_source_that_is_told_of_changes_is_as_if_it_were_made_anew(
    first: set[str] | None, steps: list[list[ItemChange] | int]
) -> None:
    """After any changes and at any time: the same candidates as over the items that are left."""
    clock = [float(AT_S)]
    sources: list[Any] = list(load_sources(WITH_BLOCKS).values())
    proposers = Proposers(PolicySpec("p"), SourceSet.of(sources), lambda: clock[0])
    timeline = ItemTimeline(None if first is None else Catalogue.put([*map(Item, sorted(first))]))
    proposers.offer(timeline.newest, timeline)

    for number, step in enumerate(steps):
        if isinstance(step, int):
            clock[0] += step
        else:
            timeline.apply(LogEntry(f"{number + 1}-0", ItemsRecord(step)), {}.__getitem__)
            changed = {change.id for change in step}
            proposers.offer(timeline.newest, timeline, changed)

        offered = proposers.now()
        left = [
            item
            for item in timeline
            if item not in timeline.offers or timeline.offers[item].holds(clock[0] * 1000)
        ]
        if not timeline.newest.limits:
            left = [*ITEMS, "anything"]
        assert [item in offered.offering for item in (*ITEMS, "anything")] == [
            item in left for item in (*ITEMS, "anything")
        ]
        for told, source in zip(offered.sources.proposing, sources, strict=True):
            anew = source.over(Offering(Catalogue.put([*map(Item, left)])))
            assert told.known == anew.known
            for request in REQUESTS[:4]:
                for limit in (1, 7, 2 * N_ITEMS):
                    one, two = told.propose(request, limit), anew.propose(request, limit)
                    assert one.ids == two.ids
                    assert np.array_equal(one.scores, two.scores)


async def test_a_remote_that_ignores_what_it_is_asked_is_not_asked_for_ever() -> None:
    """Once it is known what it must not propose, one question a decision.

    Also where that leaves nothing.
    """
    for held, name in itertools.product([("item-20", "item-21"), ("nothing it knows",)], REMOTES):
        async with open_source(name) as source:
            questions = 0
            ask = source._ask  # type: ignore[attr-defined]

            async def counted(body: bytes, ask: Any = ask) -> Any:
                nonlocal questions
                questions += 1
                return await ask(body)

            source._ask = counted  # type: ignore[attr-defined]
            limited = source.over(Offering(Catalogue.put([Item(item) for item in held])))  # type: ignore[attr-defined]
            for _ in range(3):
                await limited.candidates(SourceRequest(), 2)
            assert questions <= 3 * ROUNDS
            questions = 0
            for _ in range(5):
                await limited.candidates(SourceRequest(), 2)
            assert questions <= 5


@pytest.mark.parametrize("name", LOCAL)
async def test_a_local_source_scores_any_item_for_the_same_request(name: str) -> None:
    source = load_sources(ARTIFACT)[name]
    for request in REQUESTS:
        found = await source.candidates(request, 5)
        assert found.score_items is not None
        assert np.array_equal(found.score_items(found.ids), found.scores)
        every = found.score_items(["not an item", *ITEMS])
        assert every.dtype == np.float32
        assert np.isnan(every[0])
        assert np.isfinite(every[1:]).all()
        # Nobody left out scores higher than who was proposed.
        barred = request.exclude.union(request.history) | {ITEMS[i] for i in _stored(request)}
        rest = [item for item in ITEMS if item not in found.ids and item not in barred]
        assert found.score_items(rest).max() <= found.scores[-1]
        assert found.score_items([]).shape == (0,)


def _stored(request: SourceRequest) -> list[int]:
    return [] if request.profile is None else request.profile.indices.tolist()


@pytest.mark.parametrize("name", LOCAL)
async def test_a_user_nobody_knows(name: str) -> None:
    """Only what is popular is an answer, also when the history names no known item."""
    source = load_sources(ARTIFACT)[name]
    for request in (
        SourceRequest(),
        SourceRequest("a stranger"),
        SourceRequest("a stranger", ("not an item",)),
    ):
        found = await source.candidates(request, 5)
        assert bool(found.ids) is (name in {"popular", "trending"})
        if not found.ids:
            assert found.scores.shape == (0,)


@pytest.mark.parametrize("name", LOCAL)
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_a_sent_history_counts_like_a_known_one(name: str, data: st.DataObject) -> None:
    """A stranger who sends it gets what the user it is known of gets."""
    history = data.draw(
        st.lists(st.sampled_from(range(N_ITEMS)), min_size=1, max_size=12, unique=True)
    )
    stored = Profile("stored", np.array(history, np.int32), np.ones(len(history), np.float32))
    sent = SourceRequest(None, tuple(ITEMS[i] for i in history))
    source = load_sources(ARTIFACT)[name]
    assert isinstance(source, ImmediateSource)
    one, two = source.propose(sent, 9), source.propose(SourceRequest(profile=stored), 9)
    assert one.ids == two.ids
    assert np.array_equal(one.scores, two.scores)


@pytest.mark.parametrize(
    "name", [name for name in LOCAL if name not in {"content", "content_tuned", "towers"}]
)
def test_what_is_cached_changes_nothing(name: str) -> None:
    """A source that has answered others, over and over, answers like a fresh one."""
    warm = load_sources(ARTIFACT)[name]
    assert isinstance(warm, LocalSource)
    warm._cache_size = 2
    for _ in range(3):
        for known in KNOWN:
            for request in (SourceRequest(profile=known), *REQUESTS):
                fresh = load_sources(ARTIFACT)[name]
                assert isinstance(fresh, LocalSource)
                one, two = warm.propose(request, 7), fresh.propose(request, 7)
                assert one.ids == two.ids
                assert np.array_equal(one.scores, two.scores)
    assert len(warm._cache) <= 2


# --- items that are like another
# ------------------------------------------------------------

COMPARING = [
    "als",
    "als in blocks",
    "item_knn",
    "ease",
    "rp3beta",
    "content",
    "content_tuned",
    "slit",
    "sasrec",
    "gru4rec",
]


def test_sources_of_factors_neighbours_or_vectors_compare_and_no_others() -> None:
    loaded = load_sources(WITH_BLOCKS)
    assert [name for name in loaded if isinstance(loaded[name], ComparingSource)] == [
        name for name in loaded if name in COMPARING
    ]


@pytest.mark.parametrize("name", COMPARING)
def test_what_is_similar_is_of_what_may_be_offered_and_never_the_item_itself(name: str) -> None:
    """Best first; what may not be offered makes room for the next."""
    source: Any = load_sources(WITH_BLOCKS)[name]
    held = {*ITEMS[::2], ITEMS[7]}
    limited = source.over(Offering(Catalogue.put([*map(Item, sorted(held))])))
    for item in (*ITEMS[:6], ITEMS[-1]):
        every = source.similar(item, 2 * N_ITEMS)
        assert item not in every.ids
        assert len(set(every.ids)) == len(every.ids) > 0
        assert np.all(np.diff(every.scores) <= 0)
        for limit in (0, 1, 4, N_ITEMS):
            found = limited.similar(item, limit)
            left = [each for each in zip(every.ids, every.scores, strict=True) if each[0] in held]
            assert list(zip(found.ids, found.scores, strict=True)) == left[:limit]
    assert limited.similar("not an item", 3) is None


@pytest.mark.parametrize("name", COMPARING)
def test_what_is_similar_and_passes_a_filter_is_found_as_far_down_as_it_is(name: str) -> None:
    """The same as of all that are similar, in their order, those that pass."""
    rules = spec_of({"name": "home", "filter": {"where": "true", "fields": ["price"]}}).rules
    assert rules is not None
    ruled = RuledItems(rules)
    source: Any = load_sources(
        WITH_BLOCKS
    )[
        name
    ].over(  # type: ignore[union-attr]
        Offering(Catalogue.put([*map(Item, ITEMS[3:])]), ruled=ruled)
    )
    for item in (ITEMS[0], ITEMS[5], ITEMS[-1]):
        every = source.similar(item, N_ITEMS)
        for each in (2, 7, N_ITEMS + 9):
            passing = {i for i in ITEMS[3:] if ruled.rows([i])[0] % each == 0}
            left = [one for one in zip(every.ids, every.scores, strict=True) if one[0] in passing]
            for limit in (1, 4, N_ITEMS):
                found = source.similar(item, limit, lambda rows, of=each: rows % of == 0)
                assert list(zip(found.ids, found.scores, strict=True)) == left[:limit]


def test_items_of_one_direction_have_similar_factors_whatever_their_length() -> None:
    """The cosine, also of blocks."""
    factors = ARTIFACT.sources["als"].arrays["item_factors"]
    units = factors / np.linalg.norm(factors, axis=1, keepdims=True)
    for name in ("als", "als in blocks"):
        found = load_sources(WITH_BLOCKS)[name].similar("item-3", 5)  # type: ignore[union-attr]
        expected = np.argsort(-(units @ units[3]), kind="stable")[1:6]
        assert found.ids == tuple(ITEMS[i] for i in expected)
        np.testing.assert_allclose(found.scores, (units @ units[3])[expected], rtol=1e-5)
