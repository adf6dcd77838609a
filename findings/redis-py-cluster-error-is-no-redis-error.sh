#!/usr/bin/env bash
# redis-py 8.1.0: the errors of a cluster client that cannot connect are no RedisError.
#
# RedisClusterException and its subclasses (SlotNotCoveredError, CrossSlotTransactionError, …) derive from Exception, while
# ClusterError and ClusterDownError do derive from RedisError. A cluster client of which no node answers raises the
# first kind. A thread that keeps a lease under `except redis.RedisError` therefore outlives one Redis that is down, and
# ends for good when a Redis Cluster is.
# What to do instead: catch both, in one named tuple.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check redis==8.1.0

"$work/env/bin/python" - <<'EOF'
import asyncio
import socket

import redis
from redis.asyncio.cluster import RedisCluster as AsyncCluster
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

with socket.socket() as probe:  # a port where nobody listens
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]


async def ping() -> None:
    client = AsyncCluster(host="127.0.0.1", port=port)
    try:
        await client.ping()
    finally:
        await client.aclose()


seen = {}
for what, connect in {
    "one server": lambda: redis.Redis(host="127.0.0.1", port=port, retry=Retry(NoBackoff(), 0)).ping(),
    "a cluster": lambda: RedisCluster(host="127.0.0.1", port=port),
    "a cluster, asyncio": lambda: asyncio.run(ping()),
}.items():
    try:
        connect()
    except Exception as error:
        seen[what] = isinstance(error, redis.RedisError)
        print(f"{what}: {type(error).__name__}, a RedisError: {seen[what]}")
assert seen == {"one server": True, "a cluster": False, "a cluster, asyncio": False}
assert issubclass(redis.exceptions.ClusterDownError, redis.RedisError)
assert not issubclass(redis.exceptions.SlotNotCoveredError, redis.RedisError)
EOF
echo "as described"
