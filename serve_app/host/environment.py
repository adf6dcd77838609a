"""The environment that Ray, Serve and BLAS read when they start.

Imports nothing heavy, so it can come first.
"""

import contextlib
import gc
import os
import random
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Found = TypeVar("Found")
STARTING = 5
"""The niceness of what makes a change while others answer.

Where all cores work it gets a third of what each of these has: with less it might never come to its
end.
"""
CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"

# What Ray reads when it starts, on every node: HAProxy in front, user code on the replica's main
# event loop. On few cores one HAProxy thread is enough. Values already in the environment win.
FAST_SERVE = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    # A client that neither sends nor reads for this long is gone. Ray's default is an hour.
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "30",
    # Serve takes a front for dead after three failed health checks in a row, 10 s apart by default.
    # A front that hangs fails each after 10 s.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "0.5",
    # On a starved machine a front may take longer to start than Serve waits by default, 5 s: ended
    # then and started anew, it would never get there.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    # Calls between deployments, of which there are none, would go over an unauthenticated port: see
    # loopback.py.
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's own metrics: with them a replica grows by some 10 bytes a request, for as long as it
    # lives.
    "RAY_enable_metrics_collection": "0",
    # Ray starts workers at niceness 15, which is for batch work, not for answering requests.
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A snapshot's bytes must not depend on how many threads a matrix product was split over.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}

ONE_MACHINE = {
    **FAST_SERVE,
    # A list of up to 100,000 calls between Ray's actors, for a dashboard that there is not.
    "RAY_task_events_report_interval_ms": "0",
    # Raylet and GCS keep nothing of what they freed, or the raylet grows; nor do their threads, in
    # caches of their own, or GCS grows (benchmarks/soak/soak.py). They have little to do here.
    "RAY_JEMALLOC_CONF": "narenas:1,dirty_decay_ms:0,muzzy_decay_ms:0,tcache:false",
    "RAY_JEMALLOC_PROFILE": "raylet,gcs_server",
    # Arrow brings an allocator that starts a thread when it is imported, and uses another: with a
    # thread there is no fork server (forking/server.py).
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.1",
    "RAY_SERVE_PORT_QUARANTINE_S": "0",
    # What raylet, GCS and workers look at again and again, whether anybody asks or not: resources
    # and objects of other nodes, disks, memory, their own event loops. Not a worker's heartbeat, at
    # which it sees that it is to end, nor the look for idle workers: a stop would take 6 s, not 3.
    "RAY_raylet_report_resources_period_milliseconds": "1000",
    "RAY_raylet_check_gc_period_milliseconds": "1000",
    "RAY_object_manager_timer_freq_ms": "1000",
    "RAY_local_fs_monitor_interval_ms": "1000",
    "RAY_memory_monitor_refresh_ms": "1000",
    "RAY_gcs_pull_resource_loads_period_milliseconds": "5000",
    "RAY_report_worker_backlog_interval_ms": "5000",
    "RAY_io_context_monitor_probe_interval_ms": "10000",
    "RAY_event_stats": "0",
    # Serve's controller goes round for as long as the service runs, and looks at every replica.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    # Where Ray believes that it cannot be part of a cluster, its own ports are on loopback; Linux
    # honours it as well.
    CLUSTERS: "0",
}

# For every node of a cluster: ray_cluster.yaml and deploy/rayservice.yaml set these.
CLUSTER_NODE = {
    **FAST_SERVE,
    "RAY_AUTH_MODE": "token",
    # A replica that is to stop goes on answering until every node's HAProxy has heard of it.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
    # A node that does not answer is dead after some 5 s. Ray's defaults make that 20 s and more.
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


# Ports that Serve would take whether or not somebody else has them.
SIDE_PORTS = {
    "RAY_SERVE_HAPROXY_STATS_PORT": 8404,
    "RAY_SERVE_HAPROXY_METRICS_PORT": 9101,
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": 8500,
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": 9500,
}


def prepare_environment() -> None:
    """Set what Ray and BLAS read when they start. Call before importing ray or numpy."""
    for name, value in ONE_MACHINE.items():
        os.environ.setdefault(name, value)
    for name, port in SIDE_PORTS.items():
        if name not in os.environ:
            usual = is_free("", port) and claimed(port)
            os.environ[name] = str(port if usual else free_port())


def join_clusters() -> None:
    """Let this process be part of a cluster of several machines. Call before importing ray."""
    os.environ[CLUSTERS] = "1"


def is_free(host: str, port: int) -> bool:
    """Say whether a server could listen on a port.

    Args:
        host: an address of this machine, IPv6 if it has a colon; empty: all of IPv4.
        port: of TCP, at most 65535.
    """
    with contextlib.closing(
        socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    ) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def claimed(port: int) -> bool:
    """Claim a port for this process, as long as it lives; say whether nobody else has done so.

    A service listens some seconds after it has chosen: another that starts meanwhile would find the
    port free as well. The claim is a name that the kernel forgets with the process; systems that
    have no such names claim nothing.
    """
    if sys.platform != "linux":
        return True
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0banditloop-port-{port}")
    except OSError:
        claim.close()
        return False
    claim.detach()  # it stays open until the process ends
    return True


_any = random.SystemRandom()  # not seeded: processes that start together look at different ports
_given: set[int] = set()


def free_port() -> int:
    """Return a port that nobody listens on or has claimed; this process claims it.

    It is below the range from which systems take the client's end of connections, so that no
    connection takes it before a server does or while that server is restarted, and above the ports
    of Ray's workers.
    """
    for _ in range(1000):
        port = _any.randrange(20_000, 32_768)
        if port not in _given and is_free("127.0.0.1", port) and claimed(port):
            _given.add(port)
            return port
    raise OSError("1,000 ports between 20,000 and 32,767 were tried and all are taken")


def collect_rarely() -> None:
    """Look for garbage in cycles seldom: neither requests nor entries make any."""
    gc.set_threshold(20_000, 20, 20)


def run_yielding(work: Callable[[], Found]) -> Found:
    """Return what ``work`` returns; meanwhile the kernel prefers others to it, by STARTING.

    It is done in a thread of its own: on Linux each has a niceness.
    """

    def yielding() -> Found:
        os.nice(STARTING)
        return work()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(yielding).result()


@contextlib.contextmanager
def loads_yield() -> Iterator[None]:
    """Have what the running event loop gives to threads yield to others, by STARTING, for a while.

    A thread never gets back what it has given up, so after this context come other threads.
    """
    import asyncio  # noqa: PLC0415 - whoever has a loop has imported it

    loop = asyncio.get_running_loop()
    yielding = ThreadPoolExecutor(2, "loads", initializer=os.nice, initargs=(STARTING,))
    loop.set_default_executor(yielding)
    try:
        yield
    finally:
        loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="asyncio"))
        yielding.shutdown(wait=False)
