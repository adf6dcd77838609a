"""Each source against its definition, and what a remote source refuses."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np
import pytest

from bandits.errors import ArtifactError, SourceError, SpecError
from policies.artifacts.source_artifact import Artifact, Calibration, TrainedSource
from policies.items.catalogue import Catalogue, Item
from policies.items.offering import Offering
from policies.sources import ItemOrder, LocalSource, SourceRequest, load_model, load_sources
from policies.sources.remote import MAX_ANSWER_BYTES, HttpSource
from policies.spec import ArtifactSource, RemoteSource

RNG = np.random.default_rng(11)
N = 30


def normal(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


ALS = TrainedSource("als", {"item_factors": normal(N, 8)}, {"alpha": 4.0, "regularization": 2.0})
DEEP = TrainedSource(
    "deep",
    {"weight_0": normal(N, 5), "bias_0": normal(5), "weight_1": normal(5, N), "bias_1": normal(N)},
)
HISTORY = np.array([3, 8, 21]), np.array([1.5, 0.1, 1], np.float32)


def test_als_solves_the_weighted_least_squares_it_is_defined_by() -> None:
    """Hu et al.'s equation 3 for one user, as ridge regression with a row per item, in float64."""
    factors, (indices, weights) = ALS.arrays["item_factors"].astype(np.float64), HISTORY
    confidence, preference = np.ones(N), np.zeros(N)
    confidence[indices], preference[indices] = 4.0 * weights, 1.0
    rows = np.vstack([factors * np.sqrt(confidence)[:, None], np.sqrt(2.0) * np.eye(8)])
    user = np.linalg.lstsq(rows, np.concatenate([preference * np.sqrt(confidence), np.zeros(8)]))[0]
    np.testing.assert_allclose(
        load_model(ALS, N).raw(*HISTORY), factors @ user, rtol=1e-4, atol=1e-5
    )


def test_item_knn_sums_similarities() -> None:
    neighbours = np.array([[1, 2], [0, 2], [1, 0]], np.int32)
    similarities = np.array([[0.5, 0.25], [0.5, 0], [1, 0.125]], np.float32)
    source = TrainedSource("item_knn", {"neighbours": neighbours, "similarities": similarities})
    raw = load_model(source, 3).raw(np.array([0, 2]), np.array([1, 2], np.float32))
    assert raw.tolist() == [0.25, 2.5, 0.25]


def test_item_knn_proposes_only_neighbours() -> None:
    """An item with no similarity to the history is no candidate, but it has a score."""
    one = TrainedSource(
        "item_knn",
        {
            "neighbours": np.array([[1], [0], [0]], np.int32),
            "similarities": np.ones((3, 1), np.float32),
        },
    )
    found = _local(one, Calibration(2.0, 4.0), n_items=3).propose(SourceRequest(None, ("0",)), 3)
    assert found.ids == ("1",)
    assert found.scores.tolist() == [-0.25]
    assert found.score_items is not None
    assert found.score_items(["2"]).tolist() == [-0.5]


def test_popular_never_proposes_what_nobody_chose() -> None:
    source = TrainedSource("popular", {"counts": np.array([2, 0, 5], np.float32)})
    assert _local(source, Calibration(1.0, 2.0), n_items=3).propose(SourceRequest(), 9).ids == (
        "2",
        "0",
    )


def test_deep_scores_are_log_probabilities_plus_log_activity() -> None:
    raw = load_model(DEEP, N).raw(*HISTORY)
    np.testing.assert_allclose(np.exp(raw, dtype=np.float64).sum(), HISTORY[1].sum(), rtol=1e-5)


def test_scores_are_standardised_with_the_artifacts_constants() -> None:
    plain, scaled = (
        _local(ALS, scale).propose(SourceRequest(None, ("3",)), 9)
        for scale in (Calibration(), Calibration(2.0, 0.5))
    )
    assert plain.ids == scaled.ids
    np.testing.assert_allclose(scaled.scores, (plain.scores - 2) / 0.5, rtol=1e-5)


def _local(source: TrainedSource, scale: Calibration, n_items: int = N) -> LocalSource:
    items = ItemOrder(tuple(map(str, range(n_items))))
    return LocalSource("x", load_model(source, n_items), items, scale)


@pytest.mark.parametrize(
    "source",
    [
        TrainedSource("als", {}, {"alpha": 1.0, "regularization": 1.0}),
        TrainedSource(
            "als", {"item_factors": normal(N + 1, 3)}, {"alpha": 1.0, "regularization": 1.0}
        ),
        TrainedSource("als", {"item_factors": normal(N, 3)}, {"alpha": 0.0, "regularization": 1.0}),
        TrainedSource("als", {"item_factors": normal(N, 3)}, {"alpha": 1.0}),
        TrainedSource(
            "item_knn", {"neighbours": np.full((N, 2), N, np.int32), "similarities": normal(N, 2)}
        ),
        TrainedSource(
            "item_knn", {"neighbours": np.zeros((N, 2), np.int32), "similarities": normal(N, 3)}
        ),
        TrainedSource("item_knn", {"neighbours": normal(N, 2), "similarities": normal(N, 2)}),
        TrainedSource("deep", {"weight_0": normal(N, 5), "bias_0": normal(5)}),
        TrainedSource("deep", {**DEEP.arrays, "weight_1": normal(5, N - 1)}),
        TrainedSource("deep", {**DEEP.arrays, "bias_0": normal(4)}),
        TrainedSource("popular", {"counts": normal(N, 1)}),
        TrainedSource("astrology", {}),
    ],
)
def test_arrays_that_do_not_fit_are_refused(source: TrainedSource) -> None:
    with pytest.raises(ArtifactError):
        load_model(source, N)


@pytest.mark.parametrize(
    "scale",
    [
        Calibration(std=0.0),
        Calibration(std=-1.0),
        Calibration(mean=float("nan")),
        Calibration(std=float("inf")),
    ],
)
def test_a_scale_that_is_none_is_refused(scale: Calibration) -> None:
    with pytest.raises(ArtifactError, match="is not a scale"):
        _local(ALS, scale)


def test_sources_come_in_the_specs_order() -> None:
    made = Artifact((), tuple(map(str, range(N))), {"als": ALS, "deep": DEEP})
    assert list(load_sources(made)) == ["als", "deep"]
    asked = [
        ArtifactSource("deep"),
        RemoteSource(name="vendor", url="http://127.0.0.1:9/"),
        ArtifactSource("als"),
    ]
    assert list(load_sources(made, asked)) == ["deep", "vendor", "als"]
    with pytest.raises(SpecError, match="no source 'knn': it holds als, deep"):
        load_sources(made, [ArtifactSource("knn")])
    with pytest.raises(SpecError, match="there is none"):
        load_sources(None, [ArtifactSource("als")])


def test_serving_imports_neither_torch_nor_implicit() -> None:
    code = (
        "import sys, policies.sources;"
        " sys.exit(bool({'torch', 'implicit', 'scipy.sparse'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


# --- remote: a real server on a real socket
# ---------------------------------------------------------------------------


class Server:
    """Answers the n-th request with the n-th of ``answers`` (the last one from then on).

    Keeps what it was sent.
    """

    def __init__(self, *answers: tuple[int, bytes], delay_s: float = 0.0) -> None:
        self.answers = answers
        self.delay_s = delay_s
        self.received: list[dict[str, Any]] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            self.received.append(msgspec.json.decode(await reader.readexactly(length)))
            status, body = self.answers[min(len(self.received), len(self.answers)) - 1]
            await asyncio.sleep(self.delay_s)
            lines = b"HTTP/1.1 %d X\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
            writer.write(lines % (status, len(body)) + body)
            await writer.drain()
        except ConnectionError:
            pass  # the client gave up, as some of these tests want
        finally:
            writer.close()

    @asynccontextmanager
    async def source(self, **config: Any) -> AsyncIterator[HttpSource]:
        """A source that asks this server."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/candidates"
        source = HttpSource(RemoteSource(name="vendor", url=url, **{"timeout_ms": 5000, **config}))
        async with server:
            yield source
            await source.aclose()


def answer(*candidates: tuple[Any, Any]) -> tuple[int, bytes]:
    return 200, msgspec.json.encode(
        {"candidates": [{"id": item, "score": score} for item, score in candidates]}
    )


async def test_remote_ranks_and_drops_what_is_barred() -> None:
    server = Server(answer(("a", 1), ("b", 3.5), ("c", 2), ("d", 3.5), ("e", 9)))
    async with server.source() as source:
        found = await source.candidates(SourceRequest("u", ("e",), frozenset({"c"})), 5)
    assert found.ids == ("b", "d", "a")
    assert found.scores.tolist() == [3.5, 3.5, 1.0]
    assert found.score_items is None
    assert server.received == [{"history": ["e"], "exclude": ["c"], "limit": 5}]


async def test_remote_sends_the_user_id_only_when_told_to() -> None:
    server = Server(answer(("a", 1)))
    async with server.source(send_user_id=True) as source:
        await source.candidates(SourceRequest("u"), 5)
    assert server.received[0]["user_id"] == "u"


async def test_remote_sends_the_context_only_when_told_to() -> None:
    server, asked = Server(answer(("a", 1))), SourceRequest("u", context={"hour": 7.0})
    async with server.source() as source:
        await source.candidates(asked, 5)
    async with server.source(send_context=True) as source:
        await source.candidates(asked, 5)
    assert [received.get("context") for received in server.received] == [None, {"hour": 7.0}]


BAD_ANSWERS: dict[str, bytes] = {
    "not JSON": b"<html>",
    "not UTF-8": b'{"candidates": [{"id": "\xff", "score": 1}]}',
    "deep nesting of an unknown field": b'{"x": ' + b"[" * 100_000,
    "a list": b"[]",
    "no candidates field": b"{}",
    "a number for an id": answer((1, 1))[1],
    "a string for a score": answer(("a", "1"))[1],
    "no score": b'{"candidates": [{"id": "a"}]}',
    "NaN": b'{"candidates": [{"id": "a", "score": NaN}]}',
    "beyond float64": b'{"candidates": [{"id": "a", "score": 1e999}]}',
    "beyond float32": b'{"candidates": [{"id": "a", "score": 1e39}]}',
    "twice the same item": answer(("a", 1), ("a", 2))[1],
    "too long": b" " * (MAX_ANSWER_BYTES + 1),
}


@pytest.mark.parametrize("body", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
async def test_remote_refuses_a_bad_answer(body: bytes) -> None:
    server = Server((200, body))
    async with server.source() as source:
        with pytest.raises(SourceError) as caught:
            await source.candidates(SourceRequest("u"), 2)
    assert caught.value.target == "sources.vendor"
    assert len(server.received) == 1, "asking again would not make it valid"


@pytest.mark.parametrize(
    ("request_", "limit", "kept"),
    [
        (SourceRequest(), 2, ("b", "a")),
        (SourceRequest(), 1, ("a",)),
        (SourceRequest("u", ("a",)), 2, ("c", "b")),
        (SourceRequest("u", (), frozenset({"b", "e"})), 3, ("d", "c", "a")),
    ],
)
async def test_of_a_longer_answer_the_first_are_taken_and_it_is_marked(
    request_: SourceRequest, limit: int, kept: tuple[str, ...]
) -> None:
    server = Server(answer(("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5)))
    async with server.source() as source:
        found = await source.candidates(request_, limit)
        whole = await source.candidates(request_, 5)
    assert found.ids == kept
    assert f"5 candidates, more than the {limit} asked for" in found.trouble
    assert whole.trouble == ""


async def test_when_only_the_question_for_more_fails_what_was_found_is_used() -> None:
    for second in ((500, b""), (400, b""), (200, b"<html>")):
        server = Server(answer(("a", 3), ("gone", 2)), second)
        async with server.source(retries=0) as source:
            limited = source.over(Offering(Catalogue.put([Item("a"), Item("b")])))
            found = await limited.candidates(SourceRequest("u"), 2)
        assert found.ids == ("a",)
        assert "when asked for more" in found.trouble
        assert [each["limit"] for each in server.received] == [2, 6]
        assert server.received[1]["exclude"] == ["gone"]


@pytest.mark.parametrize("status", [204, 302, 400, 404, 429])
async def test_remote_does_not_retry_other_statuses(status: int) -> None:
    server = Server((status, b""))
    async with server.source(retries=3) as source:
        with pytest.raises(SourceError, match=f"status {status}"):
            await source.candidates(SourceRequest("u"), 2)
    assert len(server.received) == 1


@pytest.mark.parametrize(("retries", "succeeds"), [(0, False), (1, False), (2, True), (5, True)])
async def test_remote_retries_a_server_error(retries: int, succeeds: bool) -> None:
    server = Server((500, b""), (503, b""), answer(("a", 1)))
    async with server.source(retries=retries) as source:
        if succeeds:
            assert (await source.candidates(SourceRequest("u"), 2)).ids == ("a",)
        else:
            with pytest.raises(SourceError, match="status 50"):
                await source.candidates(SourceRequest("u"), 2)
    assert len(server.received) == min(retries, 2) + 1


async def test_remote_gives_up_in_time_retries_included() -> None:
    server = Server((500, b""), delay_s=0.06)
    async with server.source(retries=5, timeout_ms=100) as source:
        started = asyncio.get_running_loop().time()
        with pytest.raises(SourceError, match="no answer within 100 ms"):
            await source.candidates(SourceRequest("u"), 2)
        assert asyncio.get_running_loop().time() - started < 1.0


async def test_remote_that_is_not_there() -> None:
    # Whoever holds a port without listening keeps others from it, and refuses connections.
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        source = HttpSource(
            RemoteSource(name="vendor", url=f"http://127.0.0.1:{port}/", timeout_ms=5000)
        )
        with pytest.raises(SourceError, match="cannot connect"):
            await source.candidates(SourceRequest("u"), 2)
        await source.aclose()


@pytest.mark.parametrize(
    "url", ["ftp://host/", "host/path", "http://", "http://host:port/", "file:///etc/passwd", ""]
)
def test_remote_needs_an_http_url(url: str) -> None:
    with pytest.raises(SpecError, match="url") as caught:
        HttpSource(RemoteSource(name="vendor", url=url))
    assert caught.value.target == "sources.vendor.url"


async def test_remote_connection_reset_halfway() -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        source = HttpSource(RemoteSource(name="vendor", url=url, timeout_ms=5000))
        with pytest.raises(SourceError):
            await source.candidates(SourceRequest("u"), 2)
        await source.aclose()
