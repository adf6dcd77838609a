"""A client that leaves while its decision is made leaves nothing behind, whenever it leaves."""

import asyncio
import gc
import json

from support.fakes import fresh_ranker

from policies.items.catalogue import Catalogue
from policies.requests import Item
from policies.spec import PolicySpec
from serve_app.api.asgi import Api
from serve_app.api.wire import WHOLE_BODY
from serve_app.host.http_connection import Connection, ServerState
from serve_app.replica.metrics import Metrics
from serve_app.replica.policy_service import RedisPolicyService
from serve_app.store.clients import asyncio_client
from serve_app.store.event_log import LogWriter

SPEC = PolicySpec("home")
ASKED = {"actions": [{"id": "a"}, {"id": "b"}]}
MOMENTS = 6
CATALOGUE = Catalogue([Item("a", {"x": 1.0}), Item("b", {"x": 2.0})])


class Nowhere(asyncio.Transport):
    """A transport to nobody."""

    def write(self, data: bytes) -> None:
        """Nobody reads it."""

    def abort(self) -> None:
        """Nothing is open."""


def sent(path: str, body: object) -> bytes:
    data = json.dumps(body)
    return f"POST {path} HTTP/1.1\r\ncontent-length: {len(data)}\r\n\r\n{data}".encode()


async def no_metrics() -> bytes:
    return b""


async def test_a_write_that_fails_is_no_error_that_nobody_has_read_when_the_client_has_left():
    """The first write of each service finds no Redis; the second is not tried so soon after."""
    loop, unread = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, said: unread.append(said["message"]))
    ranker = fresh_ranker(SPEC, catalogue=CATALOGUE)
    home = "/v1/policies/home/rank"
    batch = {"requests": [ASKED] * 5}
    requests = [
        sent(home, ASKED),
        sent(home, {**ASKED, "event_id": "e"}),
        sent(f"{home}:batch", batch),
    ]
    begun = 0
    for moment in range(MOMENTS):
        for request in requests:
            client = asyncio_client("redis://127.0.0.1:1/0", timeout_s=5.0)
            writer = LogWriter(client)
            service = RedisPolicyService(
                SPEC, client, writer, salt=b"0123456789abcdef", replica="r", follow_interval_s=1.0
            )
            service.ranker = ranker
            api = Api({"home": service}, Metrics("r"), no_metrics)
            state = ServerState(api, WHOLE_BODY)
            for _ in range(2):
                connection, transport = Connection(state, loop), Nowhere()
                connection.connection_made(transport)
                connection.data_received(request)
                for _ in range(moment):
                    await asyncio.sleep(0)
                connection.connection_lost(None)
                while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 - whichever they are
                    await asyncio.sleep(0.001)
                begun += writer.wire.written_at > 0
                del connection, transport
            await client.aclose()
    gc.collect()
    assert not unread
    assert begun
