"""The connection that replicas write on, once redis-py has opened it."""

import asyncio
import contextlib

import pytest
import redis.asyncio
from redis import exceptions

from serve_app.store.replicas.redis_line import take_over


@contextlib.asynccontextmanager
async def line_to(handler):
    """A line to a server of bytes, as redis-py opens it but for its greeting; and the connection."""
    handled = asyncio.Event()

    async def serve(reader, writer):
        await handler(reader, writer)
        handled.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    connection = redis.asyncio.Connection(port=server.sockets[0].getsockname()[1])
    await connection._connect()
    connection._parser.on_connect(connection)
    async with server:
        yield take_over(connection), connection
        await connection.disconnect()
        await handled.wait()


def saying(*parts):
    """A server that answers whatever comes with these parts, one after the other, and closes."""

    async def handler(reader, writer):
        await reader.read(1000)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.close()

    return handler


async def test_answers_may_come_in_pieces_and_errors_are_among_them():
    async with line_to(saying(b"+OK\r\n*2\r\n$1\r\na", b"\r\n:7\r\n-READONLY no\r\n")) as (line, _):
        ok, both, refused = await asyncio.wait_for(line.ask(b"x", 3), 5)
        assert (ok, both) == (b"OK", [b"a", 7])
        assert isinstance(refused, exceptions.ReadOnlyError)


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        ((b"+OK\r\n",), exceptions.ConnectionError),
        ((b"-LOADING wait\r\n",), exceptions.BusyLoadingError),
        ((b"nonsense\r\n",), exceptions.InvalidResponse),
    ],
)
async def test_what_is_no_answer_to_all_fails_all_and_ends_the_line(parts, kind):
    async with line_to(saying(*parts)) as (line, _):
        with pytest.raises(kind):
            await asyncio.wait_for(line.ask(b"x", 2), 5)
        assert line.is_lost


async def test_what_nobody_asked_for_ends_the_line_after_its_answers():
    pushed = b">2\r\n+MOVING\r\n:1\r\n"
    async with line_to(saying(pushed + b"+OK\r\n")) as (line, _):
        assert await asyncio.wait_for(line.ask(b"x", 1), 5) == [b"OK"]
        assert line.is_lost


async def test_redis_py_is_told_when_the_connection_ends():
    """Otherwise closing its client would wait for that for ever."""
    async with line_to(saying(b"+OK\r\n")) as (line, connection):
        await asyncio.wait_for(line.ask(b"x", 1), 5)
        await asyncio.wait_for(connection.disconnect(), 5)
        assert line.is_lost
