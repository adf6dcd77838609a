"""An address of a server that loses replies: the command is done, and the connection ends."""

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator

import pytest
import redis
from redis.asyncio.cluster import RedisCluster as AsyncCluster
from redis.cluster import RedisCluster
from support.clusters import Cluster
from support.servers import Forwarder, Server, hang_up


class Relay(Forwarder):
    """``lost`` is asked of what was sent since the last reply, whether the next is lost.

    ``count``: how many were.
    """

    def __init__(self, target: Server) -> None:
        super().__init__(target, _Relayed)
        self.lost: Callable[[bytes], bool] = lambda _: False
        self.count = 0


class _Relayed(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        relay: Relay = self.server
        with (
            contextlib.suppress(ConnectionError),
            socket.create_connection(("127.0.0.1", relay.target.port)) as up,
        ):
            sent = bytearray()
            back = threading.Thread(target=self._back, args=(up, sent))
            back.start()
            with contextlib.suppress(OSError):
                while data := self.request.recv(65536):
                    sent += data
                    up.sendall(data)
            hang_up(self.request)
            hang_up(up)
            back.join()

    def _back(self, up: socket.socket, sent: bytearray) -> None:
        relay: Relay = self.server
        with contextlib.suppress(OSError):
            while data := up.recv(65536):
                asked = bytes(sent)
                sent.clear()
                if asked and relay.lost(asked):
                    relay.count += 1
                    break
                self.request.sendall(data)
        hang_up(up)
        hang_up(self.request)


class Losing:
    """Relays before one server, or before every node of a cluster.

    ``url``: through them; ``direct``: past them.
    """

    def __init__(self, servers: list[Server], url: str, direct: str, relays: list[Relay]) -> None:
        self.url, self.direct = url, direct
        self._relays = relays
        self._nodes = {
            server.port: relay.server_address[1]
            for server, relay in zip(servers, relays, strict=True)
        }

    def remap(self, address: tuple[str, int]) -> tuple[str, int]:
        """Of a cluster's node, where its relay is."""
        return address[0], self._nodes.get(address[1], address[1])

    @property
    def count(self) -> int:
        """Replies that were lost."""
        return sum(relay.count for relay in self._relays)

    @contextlib.contextmanager
    def losing(self, lost: Callable[[bytes], bool]) -> Iterator[None]:
        """Lose the replies of what it says yes to."""
        for relay in self._relays:
            relay.lost = lost
        try:
            yield
        finally:
            for relay in self._relays:
                relay.lost = lambda _: False


@contextlib.contextmanager
def before_one(server: Server) -> Iterator[Losing]:
    """A relay before one server."""
    with Relay(server) as relay:
        yield Losing([server], relay.url, server.url, [relay])


@contextlib.contextmanager
def before_each(cluster: Cluster) -> Iterator[Losing]:
    """A relay before each node of a cluster: new clients of its URL are led through them."""
    with contextlib.ExitStack() as stack:
        relays = [stack.enter_context(Relay(server)) for server in cluster.servers]
        url = relays[0].url.replace("redis://", "redis+cluster://").removesuffix("/0")
        losing = Losing(cluster.servers, url, cluster.url, relays)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        plain, plain_too = RedisCluster.from_url, AsyncCluster.from_url
        through = f":{relays[0].server_address[1]}"

        def led(given: str, **options) -> redis.RedisCluster:
            return plain(
                given, **options, **({"address_remap": losing.remap} if through in given else {})
            )

        def led_too(given: str, **options) -> AsyncCluster:
            return plain_too(
                given, **options, **({"address_remap": losing.remap} if through in given else {})
            )

        patch.setattr(RedisCluster, "from_url", led)
        patch.setattr(AsyncCluster, "from_url", led_too)
        yield losing
