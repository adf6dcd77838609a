"""What the OpenAPI document promises, asked of a replica with keys, a Valkey and a learner."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import redis
import schemathesis
import yaml
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    ignored_auth,
    negative_data_rejection,
    positive_data_acceptance,
)
from support.office import LocalOffice
from support.replica import Replica, eventually
from support.servers import Server, binary_of
from support.strategies import MANY

from bandits.log.records import (
    ActivationRecord,
    DecisionRecord,
    ItemsBaseRecord,
    ItemsRecord,
    RewardRecord,
)
from policies.spec import load_spec
from serve_app.admin.freshness import read_all
from serve_app.api.api_keys import secret_hash
from serve_app.api.console_endpoints import CONSOLE_ROUTES
from serve_app.api.endpoints import ROUTES
from serve_app.api.openapi import openapi_document
from serve_app.replica import deployment as deployments
from serve_app.settings import Settings
from serve_app.store.keys import ItemsKeys, Keys
from serve_app.store.stats import Stats
from serve_app.workers.learner import LearnerLoop
from serve_app.workers.learner_factory import learner_of_log

pytestmark = pytest.mark.timeout(600)

SPEC = load_spec(Path(__file__).parents[2] / "examples" / "home.yaml")
SECRET = "s" * 43
KEY = {"Authorization": f"Bearer bl_tester_{SECRET}"}


def document() -> dict:
    """The document, as it holds for the one policy there is: home, which has no sources."""
    out = json.loads(openapi_document(ROUTES, "test"))
    for path in out["paths"].values():
        for operation in path.values():
            for parameter in operation["parameters"]:
                if parameter["name"] == "policy":
                    parameter["schema"]["enum"] = [SPEC.name]
    request = out["components"]["schemas"]["RankRequest"]
    request["required"] = ["actions"]
    request["properties"]["actions"] = {
        **request["properties"]["actions"]["anyOf"][0],
        "minItems": 1,
    }
    return out


HANDED_OVER = {each.endpoint.path for each in CONSOLE_ROUTES}
EXAMPLES = MANY // 5
"""Generated per operation and kind of data; beside them a few dozen that schemathesis lists."""


class Service:
    """A replica as an ASGI application: it lives for the lifespan, on whatever event loop."""

    settings: Settings

    def __init__(self) -> None:
        self.asked = 0
        self.answers: Counter[int] = Counter()
        self.replica: Replica | None = None

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            self.loop = asyncio.get_running_loop()
            self.replica = Replica(self.settings, [SPEC])
            self._api = self.replica.app()
            self._api.backend.office = LocalOffice(self.settings)
            await eventually(self._is_ready, "a first snapshot is served")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self.stop()
            await send({"type": "lifespan.shutdown.complete"})
            return

        async def counted(message) -> None:
            if message["type"] == "http.response.start":
                self.answers[message["status"]] += 1
            await send(message)

        await self._api(scope, receive, counted)

    async def _is_ready(self) -> bool:
        return self.replica is not None and all(
            each.ready for each in self.replica._services.values()
        )

    async def stop(self) -> None:
        """Stop the replica, unless that was done."""
        if self.replica is not None:
            stopping, self.replica = self.replica, None
            await deployments.RankReplica.__del__(stopping)


SERVICE = Service()
API = schemathesis.openapi.from_dict(document())
API.app = SERVICE
ANYTHING = schemathesis.openapi.from_dict(
    document(),
    config=SchemathesisConfig.from_dict({"phases": {"coverage": {"enabled": False}}}),
)
"""Without the cases that schemathesis lists: whoever has no key may ask for whatever it is."""
ANYTHING.app = SERVICE


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    with Server(binary_of("valkey"), tmp_path_factory.mktemp("openapi") / "server") as out:
        yield out


@pytest.fixture(scope="module")
def learner(server) -> Iterator[LearnerLoop]:
    """Learns from whatever the requests leave in the log."""
    connection = redis.Redis.from_url(server.url)
    loop = learner_of_log(connection, SPEC, salt=b"test salt", publish_interval_s=0.1)
    stop = threading.Event()
    thread = threading.Thread(target=loop.run, args=(stop,), daemon=True)
    thread.start()
    yield loop
    alive = thread.is_alive()
    stop.set()
    thread.join(10)
    connection.close()
    assert alive


@pytest.fixture(scope="module")
def service(server, learner, tmp_path_factory) -> Iterator[Service]:
    """Comes up with the first request."""
    folder = tmp_path_factory.mktemp("replica")
    keys = folder / "keys.yaml"
    keys.write_text(
        yaml.safe_dump(
            {
                "tester": {
                    "hash": secret_hash(SECRET),
                    "scopes": ["rank", "reward", "console", "admin"],
                }
            }
        )
    )
    keys.chmod(0o600)
    SERVICE.settings = Settings(redis_url=server.url, data_dir=folder, keys_file=keys)
    yield SERVICE
    asyncio.run_coroutine_threadsafe(SERVICE.stop(), SERVICE.loop).result(10)


def answers_of(operation, *, heavy: bool) -> Callable[..., None]:
    """Never a 5xx; and what the document forbids is refused. What is heavy is asked less often.

    Not asked: that all it allows is accepted. Bytes of an event_id, or ids that differ, are beyond
    JSON Schema. And of a batch each item is accepted or refused for itself.
    """

    @operation.parametrize()
    @settings(max_examples=EXAMPLES // (5 if heavy else 1), suppress_health_check=list(HealthCheck))
    def test(case, service):
        excluded = [positive_data_acceptance, ignored_auth]
        if case.operation.path.endswith("rank:batch"):
            excluded.append(negative_data_rejection)
        service.asked += 1
        case.call_and_validate(headers=KEY, excluded_checks=excluded)

    return test


def keys_of(operation) -> Callable[..., None]:
    """A route that the document protects wants a key."""

    @operation.parametrize()
    @settings(max_examples=3, suppress_health_check=list(HealthCheck))
    def test(case, service):
        case.call_and_validate(headers=KEY, checks=[ignored_auth])

    return test


# One test each: those that schemathesis would make of one function share a name, and pytest-xdist
# runs but one of them.
for path, methods in document()["paths"].items():
    for method in methods:
        only, any_of_it = (
            each.include(path=path, method=method.upper()) for each in (API, ANYTHING)
        )
        label = f"{method}{path}".translate(str.maketrans("/{}:.", "_____"))
        globals()[f"test_answers_of_{label}"] = answers_of(only, heavy=path in HANDED_OVER)
        globals()[f"test_keys_of_{label}"] = keys_of(any_of_it)


def test_much_was_asked_and_some_of_it_was_done_and_could_be_learned(service, learner, server):
    """Runs last."""
    assert service.asked >= 2 * MANY, service.asked
    assert {200, 202, 400, 401, 404, 405, 422} <= set(service.answers) <= set(range(200, 500))
    with server.client() as client:
        stats = msgspec.msgpack.decode(client.get(Keys(SPEC.name).stats), type=Stats)
        logs = Keys(SPEC.name), ItemsKeys(SPEC.name)
        records = Counter(type(entry.record) for log in logs for entry in read_all(client, log))
    kinds = DecisionRecord, RewardRecord, ActivationRecord, ItemsRecord, ItemsBaseRecord
    assert min(records[kind] for kind in kinds) > 0
    assert stats.outcomes["decisions"] > 0
    assert stats.outcomes["undecodable"] == 0
