"""A Redis Cluster of six real servers on loopback: three primaries, each with a replica."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import redis
from support.servers import PATIENCE_S, Server

from serve_app.host.environment import free_port

PRIMARIES, NODES, SLOTS = 3, 6, 16384


class Cluster:
    """The servers; ``url`` is any client's way in.

    ``primaries`` are the first three, as long as none has failed.
    """

    def __init__(self, servers: list[Server], bus: int) -> None:
        self.servers = servers
        self._bus = bus
        self.primaries, self.replicas = servers[:PRIMARIES], servers[PRIMARIES:]
        self.url = f"redis+cluster://127.0.0.1:{servers[0].port}"

    def form(self) -> None:
        """Divide the slots, introduce the nodes, give each primary a replica.

        Wait until all agree.
        """
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(server.client()) for server in self.servers]
            bounds = [SLOTS * number // PRIMARIES for number in range(PRIMARIES + 1)]
            for client, first, after in zip(clients, bounds, bounds[1:], strict=False):
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, after - 1)
            for client in clients[1:]:
                client.execute_command(
                    "CLUSTER", "MEET", "127.0.0.1", self.servers[0].port, self._bus
                )
            _eventually(lambda: all(_known(client) == NODES for client in clients))
            for client, primary in zip(clients[PRIMARIES:], clients, strict=False):
                name = primary.execute_command("CLUSTER", "MYID")
                _eventually(
                    lambda client=client, name=name: _done(client, "CLUSTER", "REPLICATE", name)
                )
            _eventually(lambda: all(_is_well(client) for client in clients))


def _known(client: redis.Redis) -> int:
    return len(client.execute_command("CLUSTER", "NODES").splitlines())


def _is_well(client: redis.Redis) -> bool:
    if b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
        return False
    role = client.role()
    return role[0] == b"master" or role[3] == b"connected"


def _done(client: redis.Redis, *command: object) -> bool:
    try:
        client.execute_command(*command)
    except redis.ResponseError:
        return False
    return True


def _eventually(condition) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "the nodes do not agree"
        time.sleep(0.05)


@contextlib.contextmanager
def cluster(binary: str, folder: Path) -> Iterator[Cluster]:
    """A cluster that lives as long as the context."""
    options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]
    with contextlib.ExitStack() as stack:
        servers = []
        buses = []
        for number in range(NODES):
            server = Server(binary, folder / f"node{number}")
            stack.callback(server.__exit__)
            # 10,000 above the port, where it would be, others may listen
            buses.append(free_port())
            server.start(*options, "--cluster-port", str(buses[-1]))
            servers.append(server)
        made = Cluster(servers, buses[0])
        made.form()
        yield made
