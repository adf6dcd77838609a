"""The HTTP server of a replica, over real sockets: whatever a client sends, the next one is answered."""

import asyncio
import contextlib
import json
import socket

import httpx
import pytest
import uvloop

from serve_app.host.http_connection import MAX_HEAD, MAX_HEADS, MAX_WAITING
from serve_app.host.http_server import HttpServer

KEY = "whole"


async def echo(scope, receive, send):
    """Answer what was asked: by ``/whole`` without a message, by any other path piece by piece."""
    body, pieces, more = scope.get(KEY), 0, True
    if scope["path"] != "/whole" or body is None:
        body = b""
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more, pieces = body + message["body"], message["more_body"], pieces + 1
    said = {
        "method": scope["method"],
        "path": scope["path"],
        "raw_path": scope["raw_path"].decode(),
        "query": scope["query_string"].decode(),
        "length": len(body),
        "pieces": pieces,
        "whole": KEY in scope,
    }
    answer = json.dumps(said).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


@contextlib.asynccontextmanager
async def served(app, idle_s=60.0):
    """Yield a running server, its port and its task."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(app, idle_s=idle_s, body_key=KEY)
    task = asyncio.ensure_future(server.serve(listener))
    try:
        yield server, listener.getsockname()[1], task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def exchange(port, *parts, pause_s=0.0):
    """Send bytes, part by part, and return all that comes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(pause_s)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


CLOSE = b"connection: close\r\n"


async def test_a_client_gets_what_it_asked_for_on_one_connection():
    async with served(echo) as (server, port, _), httpx.AsyncClient() as client:
        base = f"http://127.0.0.1:{port}"
        first = (await client.post(f"{base}/a%2Fb/c?x=1", content=b"abc")).json()
        assert first == {
            "method": "POST", "path": "/a/b/c", "raw_path": "/a%2Fb/c", "query": "x=1",
            "length": 3, "pieces": 1, "whole": True,
        }  # fmt: skip
        assert (await client.get(f"{base}/whole")).json()["length"] == 0
        assert (await client.post(f"{base}/whole", content=b"x" * 9)).json()["pieces"] == 0
        big = (await client.post(f"{base}/big", content=b"x" * 3_000_000)).json()
        assert (big["length"], big["whole"]) == (3_000_000, False)
        assert len(server.connections) == 1


async def test_an_answer_has_a_date_and_the_head_of_one_comes_without_its_body():
    async with served(echo) as (_, port, _):
        answer = await exchange(port, b"HEAD /x HTTP/1.1\r\nhost: a\r\n" + CLOSE + b"\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\ndate: ")
    assert b"content-length: " in head
    assert body == b""


@pytest.mark.parametrize("size", [1, 7, 40])
async def test_a_request_may_come_in_pieces_of_any_size(size):
    """Head, chunked body and the next request behind it: cut anywhere, the answers are the same."""
    sent = (
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
        b"POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
    )
    async with served(echo) as (_, port, _):
        answer = await exchange(port, *(sent[at : at + size] for at in range(0, len(sent), size)))
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    first, second = answer.split(b"HTTP/1.1 200 OK")[1:]
    assert b'"path": "/a"' in first
    assert b'"length": 7' in first
    assert b'"path": "/b"' in second
    assert b'"length": 2' in second


async def test_requests_sent_without_waiting_are_answered_in_their_order():
    async def slow_first(scope, receive, send):
        await asyncio.sleep(0.05 if scope["path"] == "/0" else 0)
        await echo(scope, receive, send)

    sent = b"".join(
        b"GET /%d HTTP/1.1\r\nhost: h\r\n%b\r\n" % (n, CLOSE if n == 4 else b"") for n in range(5)
    )
    async with served(slow_first) as (_, port, _):
        answer = await exchange(port, sent)
    assert [answer.index(b'"path": "/%d"' % n) for n in range(5)] == sorted(
        answer.index(b'"path": "/%d"' % n) for n in range(5)
    )


async def test_of_requests_sent_without_waiting_only_so_many_wait_and_all_are_answered():
    """Who sends without an end fills the kernel's buffers, not the replica's memory."""
    goes_on, count = asyncio.Event(), 2_000

    async def waits(scope, receive, send):
        await goes_on.wait()
        await echo(scope, receive, send)

    async with served(waits) as (server, port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"GET / HTTP/1.1\r\nx: %b\r\n\r\n" % (b"y" * 1000) * count
            + b"GET / HTTP/1.1\r\n"
            + CLOSE
            + b"\r\n"
        )
        answered = asyncio.ensure_future(reader.read())
        while not any(each._is_paused for each in server.connections):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        (connection,) = server.connections
        assert MAX_WAITING <= len(connection._waiting) < count
        goes_on.set()
        assert (await asyncio.wait_for(answered, 60)).count(b"HTTP/1.1 200 OK") == count + 1
        writer.close()


async def test_a_head_that_has_come_before_means_what_it_meant():
    """It is not parsed again; what is unlike it in a byte, or comes otherwise, is."""
    head = b"POST /a%2Fb?x=1 HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\n"
    async with served(echo) as (server, port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def asked(*parts):
            for part in parts:
                writer.write(part)
                await asyncio.sleep(0.02 if len(parts) > 1 else 0)
            said = await asyncio.wait_for(reader.readuntil(b"}"), 5)
            return json.loads(said[said.index(b"{") :])

        first = await asked(head + b"abc")
        (connection,) = server.connections
        assert list(connection._state.heads) == [head]
        assert first["path"] == "/a/b"
        assert await asked(head + b"xyz") == first
        assert await asked(head, b"abc") == {**first, "whole": False}
        assert await asked(head + b"a", b"bc") == {**first, "pieces": 2, "whole": False}
        assert await asked(head[:20], head[20:] + b"abc") == first
        chunked = head.replace(b"content-length: 3", b"transfer-encoding: chunked")
        assert (await asked(chunked + b"1\r\nx\r\n0\r\n\r\n"))["length"] == 1
        writer.write(2 * (head + b"abc"))
        for _ in range(2):
            await asyncio.wait_for(reader.readuntil(b"}"), 5)
        assert list(connection._state.heads) == [head]
        assert (await asked(head.replace(b"3", b"0")))["length"] == 0

        # Of ever other heads only so many are kept.
        for number in range(MAX_HEADS + 9):
            await asked(b"GET /%d HTTP/1.1\r\n\r\n" % number)
        assert len(connection._state.heads) <= MAX_HEADS
        writer.close()


async def test_what_follows_a_request_to_close_is_not_answered_though_its_head_is_known():
    head = b"GET /known HTTP/1.1\r\nhost: h\r\n\r\n"
    async with served(echo) as (_, port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        await asyncio.wait_for(reader.readuntil(b"}"), 5)
        answer = await exchange(port, b"GET /last HTTP/1.1\r\n" + CLOSE + b"\r\n", head)
        assert answer.count(b"HTTP/1.1 200 OK") == 1
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"y" * (MAX_HEAD + 1) + b"\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_refused_and_others_are_served(sent):
    async with served(echo) as (_, port, _):
        answer = await exchange(port, sent)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"connection: close" in answer
        assert (await exchange(port, b"GET / HTTP/1.1\r\n" + CLOSE + b"\r\n")).startswith(
            b"HTTP/1.1 200"
        )


async def test_a_client_that_waits_to_be_asked_for_its_body_is_asked():
    async with served(echo) as (_, port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        asked = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert asked == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hi")
        assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.close()


async def test_an_answer_before_the_body_is_read_leaves_the_connection_usable():
    """As when a body is refused by its length: what is left of it is read, and dropped."""

    async def refuses(scope, receive, send):
        if scope["path"] == "/big":
            await send({"type": "http.response.start", "status": 413, "headers": []})
            await send({"type": "http.response.body", "body": b"no"})
        else:
            await echo(scope, receive, send)

    async with served(refuses) as (_, port, _), httpx.AsyncClient() as client:
        for _ in range(2):
            big = await client.post(f"http://127.0.0.1:{port}/big", content=b"x" * 2_000_000)
            assert (big.status_code, big.content) == (413, b"no")
            assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 200


async def test_an_application_that_closes_is_obeyed_though_its_client_goes_on_sending():
    """As when a body comes too slowly: otherwise the client would hold its connection for ever."""

    async def closes(scope, receive, send):
        await receive()
        await send(
            {"type": "http.response.start", "status": 408, "headers": [(b"connection", b"close")]}
        )
        await send({"type": "http.response.body", "body": b"no"})

    async with served(closes) as (server, port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\nx")
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert answer.count(b"connection: close") == 1
        writer.close()
        assert not server.connections


async def test_an_application_that_fails_is_answered_for_and_the_next_request_served(caplog):
    async def fails(scope, receive, send):
        if scope["path"] == "/bad":
            raise ZeroDivisionError
        if scope["path"] == "/silent":
            return
        await echo(scope, receive, send)

    async with served(fails) as (_, port, _), httpx.AsyncClient() as client:
        for path in ("bad", "silent"):
            assert (await client.get(f"http://127.0.0.1:{port}/{path}")).status_code == 500
        assert (await client.get(f"http://127.0.0.1:{port}/good")).status_code == 200


async def test_an_answer_of_unknown_length_comes_in_chunks():
    async def streams(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"one", b"", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    async with served(streams) as (_, port, _), httpx.AsyncClient() as client:
        for _ in range(2):
            assert (await client.get(f"http://127.0.0.1:{port}/")).content == b"onetwo"
        old = await exchange(port, b"GET / HTTP/1.0\r\n\r\n")
        assert old.endswith(b"\r\n\r\nonetwo")


async def test_what_a_client_began_is_given_up_when_it_leaves():
    begun, ended = asyncio.Event(), asyncio.Event()

    async def waits(scope, receive, send):
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async with served(waits) as (_, port, _):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await asyncio.wait_for(begun.wait(), 5)
        writer.close()
        await asyncio.wait_for(ended.wait(), 5)


async def test_it_ends_after_the_last_answer_and_takes_on_nothing_new():
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def waits(scope, receive, send):
        begun.set()
        await goes_on.wait()
        await echo(scope, receive, send)

    async with served(waits) as (server, port, task):
        idle, idling = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await asyncio.wait_for(begun.wait(), 5)
        assert len(server.connections) == 2
        server.should_exit = True
        assert await asyncio.wait_for(idle.read(), 5) == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        assert not task.done()
        goes_on.set()
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer
        await asyncio.wait_for(task, 5)
        for each in (idling, writer):
            each.close()


async def test_a_connection_on_which_nothing_comes_is_closed():
    async with served(echo, idle_s=0.2) as (_, port, _):
        for sent in (b"", b"GET / HTTP/1.1\r\nhost: h"):
            assert await exchange(port, sent) == b""


def test_it_serves_on_uvloop_on_which_replicas_run():
    """Whose transports are no subclasses of asyncio's; HAProxy asks for health as HTTP/1.0 does."""

    async def asked() -> None:
        async with served(echo) as (server, port, task), httpx.AsyncClient() as client:
            base = f"http://127.0.0.1:{port}"
            assert (await client.post(f"{base}/whole", content=b"abc")).json()["length"] == 3
            big = await client.post(f"{base}/big", content=b"x" * 3_000_000)
            assert big.json()["length"] == 3_000_000
            health = await exchange(port, b"GET /-/healthz HTTP/1.0\r\n\r\n")
            assert health.startswith(b"HTTP/1.1 200 OK\r\n")
            server.should_exit = True
            await asyncio.wait_for(task, 5)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asked())
