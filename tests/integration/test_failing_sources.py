"""A remote source that fails: its reason is in a replica's log, in /metrics and in the API."""

import asyncio
from contextlib import asynccontextmanager

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.replica import HOME, KEYS, Replica, eventually, put_snapshot

from bandits.log.records import DecisionRecord
from policies.spec import Holdout, PolicySpec, RemoteSource
from serve_app.admin.freshness import read_all
from serve_app.replica.deployment import RankReplica
from serve_app.settings import Settings

GOOD = [{"id": "a", "score": 2}, {"id": "b", "score": 1}, {"id": "c", "score": 0.5}]
FAULTS = {
    "an error": (b"500 X", b"", 0.0, "status 500"),
    "not found": (b"404 X", b"", 0.0, "status 404"),
    "too late": (b"200 OK", b"{}", 0.6, "no answer within 150 ms"),
    "not JSON": (b"200 OK", b"<html>", 0.0, "the answer is not valid"),
    "NaN": (
        b"200 OK",
        b'{"candidates": [{"id": "a", "score": NaN}]}',
        0.0,
        "the answer is not valid",
    ),
    "nothing": (b"200 OK", b'{"candidates": []}', 0.0, None),
    "longer": (
        b"200 OK",
        msgspec.json.encode({"candidates": GOOD}),
        0.0,
        "3 candidates, more than the 2 asked for",
    ),
}


@asynccontextmanager
async def answering(line: bytes, body: bytes, delay_s: float = 0.0):
    """A server that always answers this; its URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(delay_s)
            head = b"HTTP/1.1 %s\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % (
                line,
                len(body),
            )
            writer.write(head + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def ready(http: httpx.AsyncClient) -> bool:
    return (await http.get("/readyz")).status_code == 200


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_source_that_fails_is_heard_of_everywhere(fault, client, server_url, tmp_path):
    line, body, delay_s, reason = FAULTS[fault]
    timeout_ms = 150 if delay_s else 5000  # only who is late may be too late
    good = msgspec.json.encode({"candidates": GOOD[:2]})
    async with answering(line, body, delay_s) as bad_url, answering(b"200 OK", good) as good_url:
        spec = PolicySpec(
            "home",
            sources=[
                RemoteSource("cf", bad_url, timeout_ms=timeout_ms, retries=0),
                RemoteSource("deep", good_url, timeout_ms=5000),
            ],
            limit=2,
            holdout=Holdout(0.5, "cf"),
        )
        replica = Replica(
            Settings(redis_url=server_url, data_dir=tmp_path, follow_interval_ms=10), [spec]
        )
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(replica.app()), base_url="http://test"
        ) as http:
            try:
                put_snapshot(client, 1, spec=spec.digest)
                await eventually(lambda http=http: ready(http), "a first snapshot is served")
                for number in range(20):
                    answer = await http.post(f"{HOME}/rank", json={"user_id": f"u{number}"})
                    assert answer.status_code == 200, answer.text
                metrics = (await http.get("/metrics")).text
                info = (await http.get(HOME)).json()
            finally:
                await RankReplica.__del__(replica)
    records = [
        entry.record for entry in read_all(client, KEYS) if isinstance(entry.record, DecisionRecord)
    ]
    held = [record for record in records if record.holdout]
    assert len(records) == 20
    assert 0 < len(held) < 20  # each of the two has probability 2 ** -20
    samples = {
        (sample.name, sample.labels.get("source")): sample
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.labels.get("source")
    }
    served = fault == "longer"
    for record in records:
        assert record.unserved is (record.holdout and not served)
        assert record.control is (record.holdout and served)
        if served or reason is None:
            assert record.failed is None
        else:
            assert list(record.failed) == ["cf"]
            assert reason in record.failed["cf"]
    if reason is None:
        assert info["source_troubles"] == {}
        assert not any(sample.value for sample in samples.values())
        return
    counter = "banditloop_source_partial_total" if served else "banditloop_source_failures_total"
    assert samples[counter, "cf"].value == 20
    trouble = samples["banditloop_source_trouble_timestamp_seconds", "cf"]
    assert reason in trouble.labels["reason"]
    assert info["source_troubles"]["cf"] == {
        "reason": trouble.labels["reason"],
        "at_s": pytest.approx(trouble.value),
    }
    assert samples["banditloop_source_failures_total", "deep"].value == 0


async def test_any_replica_says_what_another_has_met(client, server_url, tmp_path):
    async with answering(b"503 X", b"") as url:
        spec = PolicySpec("home", sources=[RemoteSource("cf", url, timeout_ms=5000, retries=0)])
        settings = Settings(redis_url=server_url, data_dir=tmp_path, follow_interval_ms=10)
        one, other = Replica(settings, [spec]), Replica(settings, [spec])
        to_one = httpx.AsyncClient(transport=httpx.ASGITransport(one.app()), base_url="http://test")
        to_other = httpx.AsyncClient(
            transport=httpx.ASGITransport(other.app()), base_url="http://test"
        )
        async with to_one, to_other:
            try:
                put_snapshot(client, 1, spec=spec.digest)
                await eventually(lambda: ready(to_one), "a first snapshot is served")
                answer = await to_one.post(f"{HOME}/rank", json={"user_id": "u"})
                assert answer.status_code == 502
                assert "status 503" in answer.json()["error"]["message"]

                async def heard() -> bool:
                    return "status 503" in str(
                        (await to_other.get(HOME)).json()["source_troubles"].get("cf")
                    )

                await eventually(heard, "the other replica says so, too")
            finally:
                for replica in (one, other):
                    await RankReplica.__del__(replica)
