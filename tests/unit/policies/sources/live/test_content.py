"""Items like a user's: proposed from the moment they are put, and never when they may not be."""

import dataclasses
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from msgspec.structs import replace
from support.events import coded_events

from bandits.errors import ArtifactError, InvalidFieldError, SpecError
from bandits.log.records import ItemChange, ItemsRecord, LogEntry
from policies.artifacts.histories import Profile
from policies.artifacts.source_artifact import Artifact, Calibration, TrainedSource
from policies.items.catalogue import Catalogue
from policies.items.changes import encode_item
from policies.items.offering import Offering
from policies.items.timeline import ItemTimeline
from policies.requests import Item
from policies.sources import load_sources
from policies.sources.base import SourceRequest
from policies.sources.live import vector_index
from policies.sources.live.item_encoder import ItemEncoder
from policies.sources.live.text_vectors import WordVectors
from policies.spec import ArtifactSource, ContentSource
from policies.training.content.descriptions import ContentConfig, describe
from policies.training.content.fit import fit_content, why_no_content
from policies.training.content.text import fit_words
from policies.training.histories import histories_of

VECTOR = ContentSource("looks", vector="look")


def looks(item_id: str, *numbers: float, **fields) -> Item:
    return Item(item_id, vectors={"look": list(numbers)}, **fields)


class Shop:
    """A log of items, and a source over it."""

    def __init__(self, *items: Item, config=VECTOR, artifact=None) -> None:
        self.now_s = 1000.0
        self.timeline = ItemTimeline(Catalogue.put(items))
        self.offering = Offering(self.timeline.newest, self.timeline, clock=lambda: self.now_s)
        [source] = load_sources(artifact, [config]).values()
        self.source = source.over(self.offering)
        self._entries = 0

    def put(self, *items: Item) -> None:
        self._change([ItemChange("put", item.id, encode_item(item)) for item in items])

    def delete(self, *ids: str) -> None:
        self._change([ItemChange("delete", item_id, b"") for item_id in ids])

    def _change(self, changes: list[ItemChange]) -> None:
        self._entries += 1
        entry = LogEntry(f"{self._entries}-0", ItemsRecord(changes))
        assert self.timeline.apply(entry, lambda _: b"") == []
        changed = [change.id for change in changes]
        self.offering.change(self.timeline.newest, self.timeline, changed)
        self.source.update(changed)

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.source.update(self.offering.pass_time())

    def ask(self, *history: str, limit: int = 10, **fields):
        return self.source.propose(SourceRequest(history=history, **fields), limit)


EAST, NORTH = looks("east", 1, 0), looks("north", 0, 1)
NORTH_EAST = looks("north-east", 1, 1)


def test_the_nearest_come_first_and_the_opposite_is_not_proposed():
    shop = Shop(EAST, NORTH, NORTH_EAST, looks("a", 2, 0.1), looks("west", -1, 0.1))
    found = shop.ask("east")
    assert found.ids == ("a", "north-east")
    np.testing.assert_allclose(found.scores, [math.cos(math.atan(0.05)), math.sqrt(0.5)], rtol=1e-6)


def test_an_item_is_proposed_once_it_is_put_and_never_again_once_it_is_deleted():
    shop = Shop(EAST, NORTH)
    assert shop.ask("east").ids == ()
    shop.put(NORTH_EAST)
    assert shop.ask("east").ids == ("north-east",)
    assert shop.source.known == 3
    shop.put(looks("north-east", -1, 1))
    assert shop.ask("east").ids == ()
    shop.put(NORTH_EAST)
    shop.delete("north-east")
    assert shop.ask("east").ids == ()


def test_hidden_items_and_those_outside_their_time_are_not_proposed():
    items = [
        looks("hidden", 1, 0, hidden=True),
        looks("later", 1, 0, available_from=_at(2000)),
        looks("over", 1, 0, available_until=_at(500)),
        looks("open", 1, 0.1, available_until=_at(1500)),
    ]
    shop = Shop(EAST, *items)
    assert shop.ask("east").ids == ("open",)
    shop.pass_time(600)
    assert shop.ask("east").ids == ()
    shop.pass_time(600)
    assert shop.ask("east").ids == ("later",)


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_a_history_also_speaks_by_items_that_are_not_offered():
    shop = Shop(looks("gone", 1, 0, hidden=True), NORTH_EAST)
    assert shop.ask("gone").ids == ("north-east",)


@pytest.mark.parametrize("history", [(), ("unknown",), ("blank",)])
def test_nobody_is_proposed_anything_of_whom_nothing_is_known(history):
    shop = Shop(EAST, NORTH, Item("blank"))
    assert shop.ask(*history).ids == ()


def test_the_profile_counts_by_its_weights_and_what_is_excluded_is_left_out():
    artifact = Artifact((), ("east", "north"), {})
    shop = Shop(EAST, NORTH, looks("a", 1, 0.2), looks("b", 0.2, 1), artifact=artifact)
    profile = Profile("u", np.array([0, 1], np.int32), np.array([1.0, 9.0], np.float32))
    assert shop.ask(profile=profile).ids == ("b", "a")
    assert shop.ask(profile=profile, exclude=frozenset({"b"})).ids == ("a",)
    assert shop.ask("north", profile=profile, limit=0).ids == ()


def test_candidates_of_other_sources_get_its_scores_too():
    shop = Shop(EAST, NORTH, looks("west", -1, 0), Item("blank"))
    found = shop.ask("east").score_items(["west", "blank", "unknown", "north"])
    np.testing.assert_allclose(found, [-1.0, np.nan, np.nan, 0.0], atol=1e-6)


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        ([1.0], "1 numbers, those of the others 2"),
        ([1e300, 1e-300], "not a finite float32"),
    ],
)
def test_a_vector_that_cannot_be_compared_is_refused_counted_and_shown(vector, reason):
    shop = Shop(EAST, NORTH, NORTH_EAST)
    shop.put(Item("odd", vectors={"look": vector}))
    found = shop.ask("east")
    assert found.ids == ("north-east",)
    assert "1 items have no vector, such as item 'odd'" in found.trouble
    assert reason in found.trouble

    shop.put(looks("odd", 1, 0))
    assert shop.ask("east").ids == ("odd", "north-east")
    assert shop.ask("east").trouble == ""


@pytest.mark.parametrize("size", [3, 16, 300])
def test_vectors_of_many_items_are_those_of_each_byte_for_byte(size):
    """With texts or without, fitted or not; what is refused of one is refused among many."""
    rng = np.random.default_rng(size)
    rows = rng.normal(size=(40, size)) * 10.0 ** rng.integers(-40, 38, size=(40, 1))
    items = [looks(f"i{at}", *row, metadata={"t": f"w{at % 7} all"}) for at, row in enumerate(rows)]
    odd = [looks("zeros", *[0.0] * size), looks("long", *[1.0] * (size + 1)), Item("none")]
    every = [*items, *odd, looks("large", *[1e39] * size), None]

    fit = fit_words([f"w{at % 7} all" for at in range(40)], size=4, most_words=9, seed=0)
    assert fit is not None
    words = WordVectors(*fit)
    parts = size + words.size
    fitted = {
        "mean": rng.normal(size=parts).astype(np.float32),
        "projection": rng.normal(size=(parts, 5)).astype(np.float32),
    }
    plain = ItemEncoder(vectors={"look": size})
    both = ItemEncoder(("t",), words, {"look": size})
    for encoder in (plain, both, dataclasses.replace(both, **fitted)):
        together = list(map(told, encoder.of_each(every)))
        assert together == [told(vector_or_error(encoder, item)) for item in every]


def vector_or_error(encoder: ItemEncoder, item: Item | None) -> object:
    try:
        return None if item is None else encoder.of(item)
    except InvalidFieldError as error:
        return error


def told(found: object) -> object:
    """What can be compared: a vector's bytes, an error's message."""
    if isinstance(found, InvalidFieldError):
        return found.message
    return found.tobytes() if isinstance(found, np.ndarray) else found


def test_a_vector_of_zeros_is_none():
    shop = Shop(EAST, looks("zero", 0, 0), NORTH_EAST)
    assert shop.ask("east").ids == ("north-east",)
    assert shop.ask("zero").ids == ()
    assert shop.ask("east").trouble == ""


def test_the_length_of_most_vectors_counts_whatever_comes_first():
    shop = Shop(Item("odd", vectors={"look": [1.0, 2.0, 3.0]}), EAST, NORTH_EAST)
    assert shop.ask("east").ids == ("north-east",)
    assert list(shop.source.refused) == ["odd"]


def test_the_first_vector_may_come_with_a_change():
    shop = Shop(Item("a"))
    assert shop.ask("a").ids == ()
    shop.put(EAST, NORTH_EAST)
    assert shop.ask("east").ids == ("north-east",)


def test_where_no_other_item_has_a_vector_it_may_have_any_length():
    """So whoever put the first one wrong puts it right, and says what a whole shop is to be."""
    shop = Shop(Item("plain"), Item("first", vectors={"look": [1.0, 2.0, 3.0]}))
    assert shop.source.vector_lengths({"first"}) == {"look": 0}
    assert shop.source.vector_lengths(None) == {"look": 0}
    assert shop.source.vector_lengths({"plain", "east"}) == {"look": 3}
    shop.put(looks("first", 1, 1))
    shop.put(EAST)
    assert shop.ask("east").ids == ("first",)
    assert shop.ask("east").trouble == ""
    assert shop.source.vector_lengths({"first"}) == {"look": 2}

    shop.delete("first", "east")
    shop.put(Item("plain", {"x": 1.0}))
    shop.put(looks("a", 1, 0, 0), looks("b", 1, 1, 0))
    assert shop.ask("a").ids == ("b",)


def test_a_text_and_a_vector_are_compared_together(monkeypatch):
    """Also where the first vector comes later than the first text."""
    encoder = WordVectors(*fit_words([*TEXTS.values()], size=4, most_words=99, seed=0))
    monkeypatch.setattr("policies.sources.load_encoder", lambda _: encoder)
    both = ContentSource("both", vector="look", text=["title"], encoder="wordllama")
    items = [Item(name, {}, {"title": text}) for name, text in TEXTS.items()]
    shop = Shop(*items, config=both)
    assert shop.source.vector_lengths(()) == {}
    alone = shop.ask("shoe 1").ids
    assert set(alone[:2]) == {"shoe 2", "shoe 3"}

    shop.put(*(replace(each, vectors={"look": [1.0, 0.0]}) for each in items if "2" not in each.id))
    assert shop.ask("shoe 1").trouble == ""
    assert shop.ask("shoe 1").ids[0] == "shoe 3"
    anew = Shop(*(shop.timeline.item(each) for each in shop.timeline), config=both)
    assert anew.ask("shoe 1").ids == shop.ask("shoe 1").ids


def test_many_changes_are_arranged_in_blocks_meanwhile_nothing_is_lost(monkeypatch):
    monkeypatch.setattr(vector_index, "EXACT_UP_TO", 50)
    rng = np.random.default_rng(1)
    items = [looks(f"i{n}", *rng.normal(size=2).tolist()) for n in range(200)]
    shop = Shop(*items[:10])
    shop.put(*items[10:100])
    shop.put(*items[100:])
    shop.delete("i5")
    while shop.source._arranged is not None:
        shop.source._arranged.result()
        shop.put(looks("i6", *rng.normal(size=2).tolist()))
    assert shop.source._current()._blocks is not None

    other = Shop(*(shop.timeline.item(each) for each in shop.timeline))
    for history in ("i1", "i6", "i150"):
        assert shop.ask(history, limit=20).ids == other.ask(history, limit=20).ids


# What training fits

TEXTS = {
    "shoe 1": "red running shoes for men",
    "shoe 2": "blue running shoes for women",
    "shoe 3": "running shoes for children",
    "book 1": "a novel about love and war",
    "book 2": "a long novel about war",
}
EVENTS = coded_events(
    [("u1", "shoe 1", 1.0), ("u1", "shoe 2", 1.0), ("u2", "book 1", 1.0), ("u2", "shoe 1", 1.0)]
)
"""Nobody has seen ``shoe 3`` and ``book 2``."""


def trained(**fields) -> tuple[Artifact, list[Item]]:
    items = [
        Item(name, {"kind": name.split()[0]}, {"title": text}, **fields)
        for name, text in TEXTS.items()
    ]
    catalogue = tuple({"id": i.id, "features": i.features, "metadata": i.metadata} for i in items)
    histories = histories_of(EVENTS)
    config = ContentConfig(size=3)
    said = describe(catalogue, config)
    assert why_no_content(histories, said) == ""
    source = fit_content(histories, said, config, seed=0, step=lambda *_: None)
    return Artifact(catalogue, histories.items, {"content": source}), items


def test_what_training_fitted_proposes_items_without_events():
    artifact, items = trained()
    shop = Shop(*items, config=ArtifactSource("content"), artifact=artifact)
    assert shop.ask("shoe 1", limit=2).ids == ("shoe 2", "shoe 3")
    shop.put(Item("shoe 4", metadata={"title": "running shoes"}))
    assert "shoe 4" in shop.ask("shoe 1", limit=3).ids
    assert shop.ask("book 1", limit=1).ids == ("book 2",)


def test_without_a_catalogue_it_proposes_what_the_artifact_knows():
    artifact, _ = trained()
    [source] = load_sources(artifact, [ArtifactSource("content")]).values()
    assert source.propose(SourceRequest(history=("shoe 1",)), 5).ids == ("shoe 2",)
    over = source.over(Offering())
    assert over.propose(SourceRequest(history=("shoe 1",)), 5).ids == ("shoe 2",)
    over.update(["shoe 2"])
    assert over.known == 3


def test_of_an_item_of_which_nothing_is_said_now_counts_what_was_said_in_training():
    artifact, _ = trained()
    shop = Shop(
        *map(Item, artifact.items), Item("new"), config=ArtifactSource("content"), artifact=artifact
    )
    assert shop.ask("shoe 1").ids == ("shoe 2",)
    assert shop.source.known == 3

    # What is gone is not offered, and still speaks for who had it.
    shop.delete("shoe 1")
    assert shop.ask("shoe 1").ids == ("shoe 2",)
    assert shop.source.known == 2


def test_texts_and_vectors_count_alike():
    artifact, items = trained()
    source = artifact.sources["content"]
    config = {**source.config, "vectors": {"look": 2}}
    arrays = {**source.arrays, "vectors": np.zeros((3, 5), np.float32)}
    del arrays["mean"]
    both = TrainedSource("content", arrays, config, Calibration())
    shoe, book = (next(i for i in items if i.id == each) for each in ("shoe 1", "book 1"))
    shop = Shop(
        Item("me", metadata=shoe.metadata, vectors={"look": [1.0, 0.0]}),
        Item("same look", metadata=book.metadata, vectors={"look": [1.0, 0.0]}),
        Item("same text", metadata=shoe.metadata, vectors={"look": [-1.0, 0.0]}),
        Item("both", metadata=shoe.metadata, vectors={"look": [1.0, 0.1]}),
        config=ArtifactSource("content"),
        artifact=Artifact((), artifact.items, {"content": both}),
    )
    assert shop.ask("me").ids[0] == "both"
    np.testing.assert_allclose(shop.ask("me").score_items(["same text"]), [0.0], atol=1e-6)


def test_items_without_texts_and_vectors_are_not_fitted():
    said = describe([{"id": "shoe 1", "features": {"kind": "shoe"}}], ContentConfig())
    why = "the items have no vectors, and no texts that tell them apart"
    assert why_no_content(histories_of(EVENTS), said) == why
    alone = [{"id": "shoe 1", "metadata": {"title": "the only one"}}]
    assert why_no_content(histories_of(EVENTS), describe(alone, ContentConfig())) == why
    titles = {"one": "a red shoe", "two": "a red hat", "three": "books"}
    others = [{"id": item, "metadata": {"title": title}} for item, title in titles.items()]
    said = describe(others, ContentConfig())
    assert "no item with an event" in why_no_content(histories_of(EVENTS), said)


def test_an_item_whose_vector_is_odd_is_trained_without():
    catalogue = [
        {"id": name, "features": {}, "vectors": {"look": look}}
        for name, look in (("shoe 1", [1.0, 0.0]), ("shoe 2", [1.0]), ("book 1", [0.0, 1.0]))
    ]
    said = describe(catalogue, ContentConfig())
    assert said.vectors == {"look": 2}
    source = fit_content(histories_of(EVENTS), said, ContentConfig(), seed=0, step=lambda *_: None)
    np.testing.assert_array_equal(np.linalg.norm(source.arrays["vectors"], axis=1), [1, 1, 0])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "compares nothing"),
        ({"text": ["title"]}, "go together"),
        ({"encoder": "wordllama"}, "go together"),
    ],
)
def test_a_spec_that_says_too_little_is_refused(fields, said):
    with pytest.raises(SpecError, match=said):
        ContentSource("c", **fields)


def test_arrays_that_do_not_fit_are_refused():
    artifact, _ = trained()
    source = artifact.sources["content"]
    for wrong in ({"hashes": source.arrays["hashes"]}, {**source.arrays, "vectors": np.zeros(2)}):
        broken = TrainedSource("content", wrong, source.config)
        with pytest.raises(ArtifactError):
            load_sources(Artifact((), artifact.items, {"content": broken}))
