"""Traces of requests: what a collector is sent by OTLP, and that nothing waits for it."""

import asyncio
import subprocess
import sys
import time
from contextlib import asynccontextmanager

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError
from support.replica import HOME, serving
from support.servers import Server, binary_of

from bandits.errors import StartupError
from policies.spec import PolicySpec, RemoteSource
from serve_app.host.requirements import demand_otlp
from serve_app.settings import Settings

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{CALLER}-01", f"00-{TRACE}-{CALLER}-00"
KINDS = {1: "internal", 2: "server"}


@pytest.fixture
def server(tmp_path):
    with Server(binary_of("valkey"), tmp_path / "valkey") as running:
        yield running


class Listener:
    """An HTTP server that takes whatever is sent: ``url``, and the heads and bodies."""

    def __init__(self) -> None:
        self.url = ""
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []

    def spans(self):
        """Each span that was sent, as a collector reads it."""
        exports = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [
            span
            for export in exports
            for resource in export.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@asynccontextmanager
async def listening(answer: bytes = b""):
    heard = Listener()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1])
                    for line in head.lower().splitlines()
                    if line.startswith(b"content-length:")
                )
                heard.bodies.append(await reader.readexactly(length))
                heard.heads.append(head)
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer
                )
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(take, "127.0.0.1", 0)
    async with listener:
        heard.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        yield heard


def said(span) -> dict[str, str]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


async def test_a_request_is_a_span_in_its_callers_trace_and_so_is_each_part_of_it(server, tmp_path):
    """A remote source is told whose part it is; no span has a user's id or a feature."""
    answer = b'{"candidates": [{"id": "a", "score": 1}, {"id": "b", "score": 0.5}]}'
    async with listening() as collector, listening(answer) as remote:
        spec = PolicySpec("home", sources=[RemoteSource("cf", remote.url, timeout_ms=5000)])
        async with serving(
            server, tmp_path, spec=spec, otlp_endpoint=collector.url, otlp_sample=0.0
        ) as caller:
            body = {"user_id": "ann-secret", "context": {"region": "hidden-land"}}
            response = await caller.http.post(
                f"{HOME}/rank", json=body, headers={"traceparent": SAMPLED}
            )
            assert response.status_code == 200
            missing = await caller.http.post(
                f"{HOME}/rank", json={"slots": 0}, headers={"traceparent": SAMPLED}
            )
            assert missing.status_code == 422
            await caller.http.get("/readyz", headers={"traceparent": SAMPLED})

        spans = {span.name: span for span in collector.spans() if span.name != "POST rank"}
        asked, refused = sorted(
            (span for span in collector.spans() if span.name == "POST rank"),
            key=lambda span: span.start_time_unix_nano,
        )
        assert set(spans) == {"candidates", "source", "decide", "log"}
        assert {span.trace_id.hex() for span in collector.spans()} == {TRACE}
        assert asked.parent_span_id.hex() == refused.parent_span_id.hex() == CALLER
        assert said(asked) == {
            "http.request.method": "POST",
            "http.route": "rank",
            "banditloop.policy": "home",
            "http.response.status_code": 200,
        }
        assert said(refused)["http.response.status_code"] == 422
        assert said(spans["source"]) == {"banditloop.source": "cf"}

        of = {name: span.span_id for name, span in spans.items()}
        parents = {name: span.parent_span_id for name, span in spans.items()}
        assert parents["source"] == of["candidates"]
        assert parents["candidates"] == parents["decide"] == parents["log"] == asked.span_id
        for span in spans.values():
            assert asked.start_time_unix_nano <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= asked.end_time_unix_nano

        (head,) = remote.heads
        assert f"traceparent: 00-{TRACE}-{of['source'].hex()}-01".encode() in head.lower()
        assert collector.heads[0].startswith(b"POST /v1/traces ")
        sent = b"".join(collector.bodies)
        assert b"ann-secret" not in sent
        assert b"hidden-land" not in sent


async def test_who_is_not_traced_is_not_sent_and_of_the_others_the_share_that_is_set(
    server, tmp_path
):
    async with listening() as collector:
        options = {"otlp_endpoint": collector.url, "otlp_sample": 1.0}
        async with serving(server, tmp_path, **options) as caller:
            body = {"actions": [{"id": "a"}]}
            await caller.http.post(f"{HOME}/rank", json=body, headers={"traceparent": NOT_SAMPLED})
            await caller.http.post(f"{HOME}/rank", json=body, headers={"traceparent": "what?"})
            await caller.http.post(f"{HOME}/rank:batch", json={"requests": [body, body]})
        asked = [span for span in collector.spans() if not span.parent_span_id]
        assert [span.name for span in asked] == ["POST rank", "POST rank:batch"]
        assert TRACE not in {span.trace_id.hex() for span in collector.spans()}


async def test_a_collector_that_is_away_keeps_nobody_waiting(server, tmp_path):
    """Requests are answered and logged as without it, and the replica ends in good time."""
    options = {"otlp_endpoint": "http://127.0.0.1:1", "otlp_sample": 1.0}
    async with serving(server, tmp_path, **options) as caller:
        for _ in range(20):
            assert (await caller.rank()).logged
        assert all(answer.seconds < 1.0 for answer in caller.answers)
        began = time.monotonic()
    assert time.monotonic() - began < 4.0


def test_without_a_collector_a_replica_imports_no_package_of_traces():
    program = (
        "import sys, serve_app.app; print([each for each in sys.modules"
        " if each.startswith(('serve_app.replica.tracing', 'opentelemetry.exporter.otlp'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "endpoint", ["collector:4318", "http://", "grpc://h:4317", "http://h:4318/v1/traces", ""]
)
def test_an_address_that_is_none_is_refused_with_the_form(endpoint):
    with pytest.raises(ValidationError, match="otlp_endpoint") as caught:
        Settings(otlp_endpoint=endpoint)
    assert "http://host:4318" in str(caught.value)


def test_without_the_extra_a_start_says_what_to_install(monkeypatch):
    demand_otlp("http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
    demand_otlp(None)
    with pytest.raises(StartupError, match="pip install") as caught:
        demand_otlp("http://127.0.0.1:4318")
    assert caught.value.target == "otlp_endpoint"
