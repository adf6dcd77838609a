"""Personalizer's own clients, and a replica with a learner that they call: over real HTTP, with and without TLS."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import redis
import uvicorn
import yaml
from azure.ai.personalizer import PersonalizerClient as NewerClient
from azure.ai.personalizer.aio import PersonalizerClient as NewerAsyncClient
from azure.cognitiveservices.personalizer import PersonalizerClient as OlderClient
from azure.cognitiveservices.personalizer import models
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import HttpResponseError
from msrest.authentication import CognitiveServicesCredentials
from msrest.exceptions import HttpOperationError
from support.replica import Replica, eventually
from support.servers import PATIENCE_S, Server, binary_of
from support.tls import write_certificate

from bandits.log.records import LogRecord, TickRecord
from policies.fold.fold import Fold
from policies.spec import PolicySpec
from serve_app.admin.freshness import read_all
from serve_app.api.api_keys import secret_hash
from serve_app.host.environment import free_port
from serve_app.replica.deployment import RankReplica
from serve_app.settings import Settings
from serve_app.store.event_log import RedisLog
from serve_app.store.keys import Keys
from serve_app.workers.learner_factory import learner_of_log

SECRET = "s" * 43
KEY = f"bl_tester_{SECRET}"
SALT = b"a secret salt of the tests, long enough"
HOUR_MS = 3_600_000


# The service


class Adapted:
    """A replica that answers Personalizer's clients, a learner for each of its policies, and what the log holds."""

    def __init__(self, server: Server, url: str, tls_url: str) -> None:
        self.server, self.url, self.tls_url = server, url, tls_url

    def records(self, policy: str) -> list[LogRecord]:
        """All that the log of a policy says."""
        with self.server.client() as client:
            return [entry.record for entry in read_all(client, Keys(policy))]

    def of_event(self, policy: str, event_id: str, kind: type) -> list[Any]:
        """What the log says of an event."""
        found = self.records(policy)
        return [each for each in found if isinstance(each, kind) and each.event_id == event_id]

    def folded(self, policy: str) -> Fold:
        """The fold of the log as of an hour from now, when all windows have closed."""
        with self.server.client() as client:
            entries = list(read_all(client, Keys(policy)))
            fold = Fold(RedisLog(client, Keys(policy)).blob, salt=SALT)
            last = entries[-1]
            later = type(last)(f"{last.time_ms + HOUR_MS}-0", TickRecord())
            fold.apply([*entries, later])
        return fold


@contextlib.contextmanager
def adapted(
    folder: Path, specs: Sequence[PolicySpec], *, checkpoint_interval_s: float = 60.0
) -> Iterator[Adapted]:
    """A service for these policies, until the block ends.

    Its secret salt is that of a fresh data directory.
    """
    keys, certificate = folder / "keys.yaml", folder / "local.pem"
    scopes = {"hash": secret_hash(SECRET), "scopes": ["rank", "reward", "admin"]}
    keys.write_text(yaml.safe_dump({"tester": scopes}))
    keys.chmod(0o600)
    write_certificate(certificate)
    with (
        Server(binary_of("valkey"), folder / "server") as server,
        _learning(server, specs, checkpoint_interval_s),
    ):
        settings = Settings(
            redis_url=server.url,
            data_dir=folder,
            keys_file=keys,
            salt=SALT.decode(),
            follow_interval_ms=10,
        )
        port, tls_port = free_port(), free_port()
        serving = _Serving(settings, list(specs), port, tls_port, certificate)
        serving.start()
        try:
            serving.wait()
            yield Adapted(server, f"http://127.0.0.1:{port}", f"https://127.0.0.1:{tls_port}")
        finally:
            serving.stop()


@contextlib.contextmanager
def _learning(
    server: Server, specs: Sequence[PolicySpec], checkpoint_interval_s: float
) -> Iterator[None]:
    stop, threads = threading.Event(), []
    connections = [redis.Redis.from_url(server.url) for _ in specs]
    for spec, connection in zip(specs, connections, strict=True):
        loop = learner_of_log(
            connection,
            spec,
            salt=SALT,
            publish_interval_s=0.05,
            checkpoint_interval_s=checkpoint_interval_s,
        )
        threads.append(threading.Thread(target=loop.run, args=(stop,), daemon=True))
        threads[-1].start()
    try:
        yield
    finally:
        stop.set()
        for thread, connection in zip(threads, connections, strict=True):
            thread.join(10)
            connection.close()


class _Serving(threading.Thread):
    """A replica on an event loop of its own, behind HTTP and HTTPS."""

    def __init__(self, settings, specs, port: int, tls_port: int, certificate: Path) -> None:
        super().__init__(daemon=True)
        self._settings, self._specs = settings, specs
        self._ports, self._certificate = (port, tls_port), certificate
        self._servers: list[uvicorn.Server] = []
        self._failed: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:  # noqa: BLE001 - the test says it
            self._failed = error

    async def _run(self) -> None:
        replica = Replica(self._settings, self._specs)
        app = replica.app()

        async def is_ready() -> bool:
            return all(each.ready for each in replica._services.values())

        await eventually(is_ready, "a first snapshot of every policy")
        common = {"host": "127.0.0.1", "log_level": "warning", "ws": "none", "lifespan": "off"}
        tls = {"ssl_certfile": self._certificate, "ssl_keyfile": self._certificate}
        configs = [
            uvicorn.Config(app, port=port, **common, **options)
            for port, options in zip(self._ports, ({}, tls), strict=True)
        ]
        self._servers = [uvicorn.Server(config) for config in configs]
        await asyncio.gather(*(server.serve() for server in self._servers))
        await RankReplica.__del__(replica)

    def wait(self) -> None:
        deadline = time.monotonic() + 3 * PATIENCE_S
        while not (self._servers and all(each.started for each in self._servers)):
            assert self._failed is None, self._failed
            assert time.monotonic() < deadline, "the replica does not answer"
            time.sleep(0.01)

    def stop(self) -> None:
        for server in self._servers:
            server.should_exit = True
        self.join(PATIENCE_S)


# The clients


class Older:
    """azure-cognitiveservices-personalizer: three operations, models with attributes."""

    name = "0.1.1"
    has_slots = False

    def __init__(self, endpoint: str, key: str = KEY) -> None:
        self._client = OlderClient(endpoint, CognitiveServicesCredentials(key))
        self._client.__enter__()

    def rank(self, body: dict) -> dict:
        """Rank; the answer as a dict."""
        actions = [models.RankableAction(**each) for each in body["actions"]]
        names = {
            "contextFeatures": "context_features",
            "excludedActions": "excluded_actions",
            "eventId": "event_id",
            "deferActivation": "defer_activation",
        }
        fields = {names[name]: value for name, value in body.items() if name in names}
        said = self._client.rank(models.RankRequest(actions=actions, **fields))
        return {
            "ranking": [{"id": each.id, "probability": each.probability} for each in said.ranking],
            "eventId": said.event_id,
            "rewardActionId": said.reward_action_id,
        }

    def reward(self, event_id: str, value: float) -> None:
        """Reward an event."""
        assert self._client.events.reward(event_id, value) is None

    def activate(self, event_id: str) -> None:
        """Activate an event."""
        assert self._client.events.activate(event_id) is None

    def close(self) -> None:
        """Close the connections."""
        self._client.__exit__(None, None, None)


class Newer:
    """azure-ai-personalizer: everything, as dicts."""

    name = "1.0.0b1"
    has_slots = True

    def __init__(self, endpoint: str, key: str = KEY) -> None:
        self._client = NewerClient(endpoint, AzureKeyCredential(key))

    def _do(self, what: str, *arguments: Any) -> Any:
        return getattr(self._client, what)(*arguments)

    def rank(self, body: dict) -> dict:
        """Rank."""
        return self._do("rank", body)

    def reward(self, event_id: str, value: float) -> None:
        """Reward an event."""
        assert self._do("reward", event_id, {"value": value}) is None

    def activate(self, event_id: str) -> None:
        """Activate an event."""
        assert self._do("activate", event_id) is None

    def rank_slots(self, body: dict) -> dict:
        """Rank several slots."""
        return self._do("rank_multi_slot", body)

    def reward_slots(self, event_id: str, **values: float) -> None:
        """Reward slots."""
        rewards = [{"slotId": slot, "value": value} for slot, value in values.items()]
        assert self._do("reward_multi_slot", event_id, {"reward": rewards}) is None

    def activate_slots(self, event_id: str) -> None:
        """Activate an event with its slots."""
        assert self._do("activate_multi_slot", event_id) is None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class NewerAsync(Newer):
    """The same client, asynchronous."""

    name = "1.0.0b1 async"

    def __init__(self, endpoint: str, key: str = KEY) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = NewerAsyncClient(endpoint, AzureKeyCredential(key))

    def _do(self, what: str, *arguments: Any) -> Any:
        return self._loop.run_until_complete(getattr(self._client, what)(*arguments))

    def close(self) -> None:
        """Close the connections."""
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


CLIENTS = (Older, Newer, NewerAsync)


def refusal_of(call: Callable[[], Any]) -> tuple[int, str | None]:
    """Return the status and the code of an error, as the client shows them; it drops some codes."""
    try:
        call()
    except models.ErrorResponseException as error:
        return error.response.status_code, error.error.error.code
    except HttpOperationError as error:
        return error.response.status_code, None
    except HttpResponseError as error:
        return error.status_code, None if error.error is None else error.error.code
    raise AssertionError("it was not refused")
