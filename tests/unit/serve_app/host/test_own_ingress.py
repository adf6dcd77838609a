"""The server in the place of Serve's: what of Ray it stands on, and what Serve goes on deciding."""

import asyncio
import inspect
from types import SimpleNamespace

import httpx
import pytest

from serve_app.host import own_ingress
from serve_app.host.haproxy import OVERLOADED
from serve_app.host.own_ingress import PARTS, CountedApp, why_not

ray = pytest.importorskip("ray")
replica_module = pytest.importorskip("ray.serve._private.replica")
http_util = pytest.importorskip("ray.serve._private.http_util")
utils = pytest.importorskip("ray.serve._private.utils")


def test_ray_is_the_one_whose_private_parts_are_known():
    """Another version fails here first: read replica.py of it, then say so in own_ingress.py."""
    assert ray.__version__.startswith(own_ingress.RAY)


def test_rays_replica_still_has_what_is_used():
    source = inspect.getsource(replica_module)
    assert all(f" {name}" in source or f".{name}" in source for name in PARTS)
    assert "return await start_asgi_http_server(\n" in source
    started = source[source.index("return await start_asgi_http_server(") :][:300]
    assert "self._direct_ingress_asgi," in started
    assert "self._direct_ingress_http_server.should_exit = True" in source
    wrapper = inspect.getsource(http_util.ASGIAppReplicaWrapper)
    assert "self._asgi_app = app" in wrapper
    assert "self._callable = self._deployment_def.__new__(" in source
    kinds = replica_module.ReplicaMetricsManager
    assert callable(kinds.inc_num_ongoing_requests)
    assert callable(kinds.dec_num_ongoing_requests)
    assert set(inspect.signature(utils.Semaphore.acquire).parameters) == {"self"}


class Replica:
    """As much of Ray's replica as is used: at most one request is worked on, and one may wait."""

    def __init__(self, app) -> None:
        self._user_callable_wrapper = SimpleNamespace(
            _run_user_code_in_separate_thread=False, _callable=SimpleNamespace(_asgi_app=app)
        )
        self._route_prefix = "/"
        self._semaphore = utils.Semaphore(lambda: 1)
        self._num_queued_requests = 0
        self.backpressure_config = SimpleNamespace(status_code=429)
        self.most = 1
        self.ongoing: list[int] = [0]
        self._metrics_manager = SimpleNamespace(
            inc_num_ongoing_requests=lambda _: self.ongoing.append(self.ongoing[-1] + 1),
            dec_num_ongoing_requests=lambda _: self.ongoing.append(self.ongoing[-1] - 1),
        )

    def _can_accept_request(self, counted) -> bool:
        assert counted.is_direct_ingress
        return self._num_queued_requests < self.most

    async def _direct_ingress_asgi(self, scope, receive, send) -> None:
        await say(send, b"by Serve")


async def say(send, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def test_serve_counts_what_is_worked_on_and_what_waits_and_answers_its_own_paths():
    goes_on = asyncio.Event()

    async def app(scope, receive, send):
        await goes_on.wait()
        await say(send, b"by us")

    replica = Replica(app)
    admitted = CountedApp(replica, replica._direct_ingress_asgi)
    transport = httpx.ASGITransport(admitted)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        first = asyncio.ensure_future(client.get("/"))
        second = asyncio.ensure_future(client.get("/"))
        while replica._num_queued_requests < 1:  # noqa: ASYNC110 - it is Ray's number
            await asyncio.sleep(0)
        third = await client.get("/")
        assert (third.status_code, third.json()) == (429, OVERLOADED)
        assert third.headers["retry-after"] == "1"
        assert (await client.get("/-/healthz")).content == b"by Serve"

        goes_on.set()
        assert {(await first).content, (await second).content} == {b"by us"}
    assert replica.ongoing == [0, 1, 0, 1, 0]
    assert (replica._num_queued_requests, replica._semaphore._value) == (0, 0)


async def test_who_leaves_while_waiting_takes_no_place():
    async def app(scope, receive, send):
        await asyncio.sleep(60)

    replica = Replica(app)
    admitted = CountedApp(replica, replica._direct_ingress_asgi)
    tasks = [
        asyncio.ensure_future(admitted({"path": "/"}, None, None)),
        asyncio.ensure_future(admitted({"path": "/"}, None, None)),
    ]
    while replica._num_queued_requests < 1:  # noqa: ASYNC110 - it is Ray's number
        await asyncio.sleep(0)
    for task in reversed(tasks):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (replica._num_queued_requests, replica._semaphore._value) == (0, 0)
    assert replica.ongoing[-1] == 0


def options(**fields):
    plain = {"middlewares": [], "request_timeout_s": None, "root_path": "", "ssl_keyfile": None}
    return SimpleNamespace(**{**plain, **fields})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda replica, asked, patch: None, None),
        (lambda replica, asked, patch: patch.setattr(ray, "__version__", "2.61.0"), "2.61.0"),
        (lambda replica, asked, patch: setattr(asked, "ssl_keyfile", "/k"), "ssl_keyfile"),
        (lambda replica, asked, patch: setattr(asked, "request_timeout_s", 3.0), "request_timeout"),
        (lambda replica, asked, patch: setattr(asked, "middlewares", [1]), "middlewares"),
        (lambda replica, asked, patch: setattr(replica, "_route_prefix", "/x"), "route prefix"),
        (lambda replica, asked, patch: delattr(replica, "_semaphore"), "_semaphore"),
    ],
)
async def test_serves_own_server_is_used_where_more_is_asked_for(change, reason, monkeypatch):
    replica, asked = Replica(say), options()
    change(replica, asked, monkeypatch)
    found = why_not(replica._direct_ingress_asgi, asked, event_loop=asyncio.get_running_loop())
    assert found is None if reason is None else reason in found


async def test_a_replica_gets_our_server_on_the_port_that_serve_says(monkeypatch):
    async def app(scope, receive, send):
        await say(send, b"by us")

    async def serves_own(*_, **__):
        return "Serve's"

    monkeypatch.setattr(replica_module, "start_asgi_http_server", serves_own)
    own_ingress.replace_http_server("body")
    own_ingress.replace_http_server("body")  # of a second deployment in the process
    start, replica, loop = (
        replica_module.start_asgi_http_server, Replica(app), asyncio.get_running_loop()
    )  # fmt: skip
    asked = options(host="127.0.0.1", port=0, keep_alive_timeout_s=90)
    with own_ingress.listener("127.0.0.1", 0) as free:
        asked.port = free.getsockname()[1]
    task, server = await start(replica._direct_ingress_asgi, asked, event_loop=loop)
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{asked.port}/")
    assert answer.content == b"by us"
    with pytest.raises(RuntimeError) as taken:
        await start(replica._direct_ingress_asgi, asked, event_loop=loop)
    assert isinstance(taken.value.__cause__, OSError)

    server.should_exit = True
    await asyncio.wait_for(task, 5)
    asked.root_path = "/under"
    assert await start(replica._direct_ingress_asgi, asked, event_loop=loop) == "Serve's"
