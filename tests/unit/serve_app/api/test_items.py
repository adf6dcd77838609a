"""Items over HTTP: each kind of bad input has a code of its own and a field, and changes nothing."""

import json

import httpx
import msgspec
import numpy as np
import pytest
from support.fakes import FakeService, FakeSource, fresh_ranker

from banditloop_client.schemas import MAX_ITEMS
from bandits.log.records import ItemChange
from policies.items.catalogue import Catalogue
from policies.items.changes import MAX_TEXT_BYTES, MAX_VECTOR, decode_item, decode_patch
from policies.ranker import Ranker
from policies.requests import Item
from policies.sources import Candidates, load_sources
from policies.spec import ContentSource, PolicySpec
from serve_app.api.asgi import Api
from serve_app.api.wire import check_path, split_path
from serve_app.replica.metrics import Metrics

ITEMS = "/v1/policies/home/items"
FROM, UNTIL = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00+01:00"


class Service:
    """The API called in this process, with what its requests change at hand."""

    def __init__(self, ranker: Ranker | None = None) -> None:
        self.home = FakeService(ranker or fresh_ranker(PolicySpec("home")))
        api = Api({"home": self.home}, Metrics("test"), self._scrape)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test")

    async def _scrape(self) -> bytes:
        return b""

    async def send(self, method: str, path: str, body=None) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http.request(method, path, content=content)


@pytest.fixture
async def service():
    service = Service()
    yield service
    await service.http.aclose()


def many(count: int) -> dict:
    return {"items": [{"id": f"i{number}"} for number in range(count)]}


BAD = {
    "another id than the path's": ("PUT", "/a", {"id": "b"}, 422, "invalid_item_id", "id"),
    "an id that is too long": ("PUT", "/" + "a" * 1001, {}, 422, "invalid_item_id", "item_id"),
    "an id that is not UTF-8": ("PUT", "/a%FF", {}, 422, "invalid_field", "path"),
    "half a character as an id": ("DELETE", "/%ED%A0%80", None, 422, "invalid_field", "path"),
    "no id": ("POST", "", {"items": [{"id": ""}]}, 422, "invalid_item_id", "items[0].id"),
    "no items": ("POST", "", many(0), 422, "too_many_items", "items"),
    "10,001 items": ("POST", "", many(MAX_ITEMS + 1), 422, "too_many_items", "items"),
    "a vector that is empty": (
        "POST",
        "",
        {"items": [{"id": "a"}, {"id": "b", "vectors": {"e": []}}]},
        422,
        "invalid_vector",
        "items[1].vectors.e",
    ),
    "a vector that is too long": (
        "PUT",
        "/a",
        {"vectors": {"e": [0.5] * (MAX_VECTOR + 1)}},
        422,
        "invalid_vector",
        "vectors.e",
    ),
    "NaN in a vector": ("PUT", "/a", b'{"vectors": {"e": [NaN]}}', 400, "malformed_json", "body"),
    "too large a number in a vector": (
        "PUT",
        "/a",
        b'{"vectors": {"e": [1, 1e999]}}',
        422,
        "non_finite_number",
        "vectors.e[1]",
    ),
    "null in a vector": (
        "PUT",
        "/a",
        {"vectors": {"e": [1, None]}},
        422,
        "invalid_field",
        "vectors.e",
    ),
    "a text that is too long": (
        "PUT",
        "/a",
        {"metadata": {"text": "x" * MAX_TEXT_BYTES, "title": "y"}},
        422,
        "text_too_long",
        "metadata",
    ),
    "a text of 1 MB": (
        "PUT",
        "/a",
        {"metadata": {"text": "x" * (1 << 20)}},
        422,
        "text_too_long",
        "metadata",
    ),
    "a feature of 1 MB": (
        "PUT",
        "/a",
        {"features": {"price": 3, "about": "x" * (1 << 20)}},
        422,
        "text_too_long",
        "features",
    ),
    "features of long names and lists": (
        "POST",
        "",
        {"items": [{"id": "a", "features": {"x" * 60_000: 1, "tags": ["y" * 30_000] * 2}}]},
        422,
        "text_too_long",
        "items[0].features",
    ),
    "a text of 4 MB": (
        "PATCH",
        "/a",
        {"metadata": {"text": "x" * (4 << 20)}},
        413,
        "body_too_large",
        "body",
    ),
    "a number that no float32 is": (
        "PUT",
        "/a",
        {"vectors": {"v": [1, -1e39]}},
        422,
        "invalid_vector",
        "vectors.v",
    ),
    "times that contradict": (
        "PUT",
        "/a",
        {"available_from": UNTIL, "available_until": FROM},
        422,
        "invalid_times",
        "available_until",
    ),
    "a time without a zone": (
        "PUT",
        "/a",
        {"available_from": "2026-01-01T00:00:00"},
        422,
        "invalid_field",
        "available_from",
    ),
    "an unknown field": ("PATCH", "/a", {"price": 3}, 422, "invalid_field", "price"),
    "an id in a patch": ("PATCH", "/a", {"id": "b"}, 422, "invalid_field", "id"),
    "a patch of another kind": ("PATCH", "/a", {"hidden": 1}, 422, "invalid_field", "hidden"),
    "an item that is not there": ("GET", "/a", None, 404, "unknown_item", "item_id"),
    "no page": ("GET", "?limit=0", None, 422, "invalid_field", "limit"),
    "a page without end": ("GET", "?limit=all", None, 422, "invalid_field", "limit"),
    "a question that is not UTF-8": (
        "GET",
        "?contains=%FF",
        None,
        422,
        "invalid_field",
        "contains",
    ),
    "half of a character": ("GET", "?limit=2&after=%C3", None, 422, "invalid_field", "after"),
    "no body": ("PUT", "/a", b"", 400, "malformed_json", "body"),
    "an unknown question": ("GET", "?before=a", None, 422, "invalid_field", "before"),
    "another method": ("DELETE", "", None, 405, "method_not_allowed", "method"),
}


@pytest.mark.parametrize("what", BAD)
async def test_bad_input_says_what_is_wrong_and_changes_nothing(service, what):
    method, path, body, *expected = BAD[what]
    answer = await service.send(method, ITEMS + path, body)
    error = answer.json()["error"]
    assert [answer.status_code, error["code"], error["target"]] == expected
    assert error["message"]
    assert service.home.changes == []


async def test_a_vector_of_another_length_than_the_others_is_refused_and_nothing_put():
    """Where a source compares items by it; who is alone may have any, and so may other names."""
    spec = PolicySpec("home", sources=[ContentSource("looks", vector="look")])
    items = [Item("a", vectors={"look": [1.0, 0.0], "sound": [1.0]}), Item("plain")]
    [source] = load_sources(None, spec.sources).values()
    service = Service(fresh_ranker(spec, [source], Catalogue.put(items)))
    three = {"vectors": {"look": [1, 2, 3]}}
    for method, path, body, target in (
        ("PUT", "/b", three, "vectors.look"),
        ("PATCH", "/plain", three, "vectors.look"),
        ("POST", "", {"items": [{"id": "b"}, {"id": "c", **three}]}, "items[1].vectors.look"),
    ):
        error = (await service.send(method, ITEMS + path, body)).json()["error"]
        assert (error["code"], error["target"]) == ("vector_length", target)
        assert "it has 3 numbers, and those of the other items 2" in error["message"]
    assert service.home.changes == []

    for method, path, body in (
        ("PUT", "/a", three),
        ("PATCH", "/plain", {"vectors": {"look": None, "sound": [1, 2]}}),
        ("POST", "", {"items": [{"id": "b", "vectors": {"look": [3, 4]}}, {"id": "c"}]}),
    ):
        assert (await service.send(method, ITEMS + path, body)).status_code == 200
    await service.http.aclose()


async def test_of_vectors_that_all_come_together_most_say_how_long_they_are():
    spec = PolicySpec("home", sources=[ContentSource("looks", vector="look")])
    [source] = load_sources(None, spec.sources).values()
    service = Service(fresh_ranker(spec, [source], Catalogue.put([Item("a"), Item("b")])))
    two = [{"id": name, "vectors": {"look": [1, 2]}} for name in "bcd"]
    odd = {"id": "a", "vectors": {"look": [1, 2, 3], "sound": [1]}}
    for method, path in (("POST", ITEMS), ("PUT", ITEMS.replace("items", "catalogue"))):
        for at, items in ((0, [odd, *two]), (3, [*two, odd])):
            error = (await service.send(method, path, {"items": items})).json()["error"]
            expected = ("vector_length", f"items[{at}].vectors.look")
            assert (error["code"], error["target"]) == expected
            assert "it has 3 numbers, and those of the other items 2" in error["message"]
        assert (await service.send(method, path, {"items": [odd]})).status_code == 200
        assert (await service.send(method, path, {"items": two})).status_code == 200
    await service.http.aclose()


async def test_a_time_that_is_none_is_told_how_it_is_written(service):
    for time in ("2026-01-01", "2026-01-01T00:00:00", 5):
        answer = await service.send("PUT", f"{ITEMS}/a", {"available_from": time})
        error = answer.json()["error"]
        assert error["target"] == "available_from"
        assert "ISO 8601 with its zone, such as 2026-" in error["message"]


async def test_items_become_changes_of_the_log(service):
    a = {"features": {"price": 3, "tags": ["x", "y"], "size": {"cm": 4}}, "available_from": FROM}
    answer = await service.send("PUT", f"{ITEMS}/a%2F1", a)
    assert (answer.status_code, answer.json()) == (200, {"version": "v", "items": 1})
    await service.send("POST", ITEMS, {"items": [{"id": "b", "hidden": True}, {"id": "c"}]})
    await service.send("PATCH", f"{ITEMS}/b", {"hidden": None, "features": {"x": None, "y": 2}})
    await service.send("PATCH", f"{ITEMS}/b", {"features": None, "metadata": None})
    nested = {"size": {"cm": None, "in": 2}, "taste": [1, 2], "tags": ["z"]}
    await service.send("PATCH", f"{ITEMS}/b", {"features": nested})
    await service.send("DELETE", f"{ITEMS}/c")

    put, hidden, plain, patch, emptied, deep, gone = service.home.changes
    item = decode_item(put.fields)
    assert (put.op, put.id, item.id) == ("put", "a/1", "a/1")
    assert item.features == {"price": 3.0, "tags": ["x", "y"], "size.cm": 4.0}
    assert item.available_from.isoformat() == "2026-01-01T00:00:00+00:00"
    assert [decode_item(each.fields) for each in (hidden, plain)] == [
        Item("b", hidden=True),
        Item("c"),
    ]
    changed = decode_patch(patch.fields)
    assert (patch.op, changed.hidden, changed.features) == ("patch", None, {"x": None, "y": 2.0})
    assert changed.metadata is msgspec.UNSET
    assert decode_patch(emptied.fields).features is decode_patch(emptied.fields).metadata is None
    assert decode_patch(deep.fields).features == {
        "size.cm": None,
        "size.in": 2.0,
        "taste": None,
        "taste.0": 1.0,
        "taste.1": 2.0,
        "tags": ["z"],
    }
    assert gone == ItemChange("delete", "c")


async def test_an_id_is_what_its_bytes_are_in_utf_8(service):
    """Quoted or not: where it is no text, it would be one item with all others that are none."""
    assert (await service.send("DELETE", f"{ITEMS}/%C3%84pfel")).status_code == 200
    assert service.home.changes == [ItemChange("delete", "Äpfel")]
    for raw in ("/%C3%84/a%2Fb", "/Ä/a%2Fb"):
        scope = {"raw_path": raw.encode()}
        check_path(scope)
        assert split_path(scope) == ["", "Ä", "a/b"]


async def test_a_page_is_asked_for_behind_the_path(service):
    answer = await service.send("GET", f"{ITEMS}?after=a%2F1&limit=7&contains=%C3%A4+b")
    assert answer.json() == {"version": "v", "total": 0, "items": [], "next": None}
    await service.send("GET", ITEMS)
    asked, default = service.home.queries
    assert (asked.after, asked.limit, asked.contains) == ("a/1", 7, "ä b")
    assert (default.after, default.limit, default.contains) == ("", 100, "")


class Comparing(FakeSource):
    """It knows what is like "a"."""

    def similar(self, item_id, limit, passes=None):
        if item_id != "a":
            return None
        return Candidates(("b", "c")[:limit], np.array([0.9, 0.5], np.float32)[:limit])


SIMILAR = f"{ITEMS}/a/similar"


async def test_what_is_similar_is_answered_with_the_source_that_says_it():
    sources = [FakeSource("cf", {"a": 1.0}), Comparing("knn", {}), Comparing("als", {})]
    items = Catalogue.put([Item(each) for each in ("a", "b", "c", "a/b")])
    service = Service(fresh_ranker(PolicySpec("home"), sources, items))
    answer = await service.http.get(SIMILAR)
    assert answer.status_code == 200
    assert answer.json() == {
        "id": "a",
        "source": "knn",
        "items": [
            {"id": "b", "score": pytest.approx(0.9)},
            {"id": "c", "score": pytest.approx(0.5)},
        ],
    }
    answer = await service.http.get(f"{SIMILAR}?source=als&limit=1")
    assert [answer.json()["source"], len(answer.json()["items"])] == ["als", 1]
    answer = await service.http.get(f"{ITEMS}/a%2Fb/similar")
    assert answer.json() == {"id": "a/b", "source": "knn", "items": []}

    for path, status, code, target in (
        (f"{ITEMS}/nothing/similar", 404, "unknown_item", "item_id"),
        (f"{SIMILAR}?source=cf", 422, "incomparable", "source"),
        (f"{SIMILAR}?source=nobody", 422, "incomparable", "source"),
        (f"{SIMILAR}?limit=0", 422, "invalid_field", "limit"),
        (f"{SIMILAR}?limit=many", 422, "invalid_field", "limit"),
        (f"{SIMILAR}?what=1", 422, "invalid_field", "what"),
        (f"{SIMILAR}?filter=item.price%3C1.0", 422, "invalid_field", "filter"),
    ):
        answer = await service.http.get(path)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["target"]) == (status, code, target), path
    assert "these can: knn, als" in (await service.http.get(f"{SIMILAR}?source=cf")).text
    await service.http.aclose()
