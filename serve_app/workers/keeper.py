"""Keeping the workers alive."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayActorError

from policies.spec import PolicySpec
from serve_app.host.json_logs import configure_logging
from serve_app.host.loopback import keep_replica_on_loopback
from serve_app.settings import Settings
from serve_app.workers.actors import NAMESPACE, PING_S, STOP_S, start_worker, worker_kinds

log = logging.getLogger("banditloop.background")


class Keeper:
    """The deployment that says which workers there are, and ends them with the application.

    Their names end with the ``generation``, which grows with every deployment: a keeper that is
    started again finds them; one of a new deployment starts its own while the old ones still run,
    and ends what is left of those.
    """

    def __init__(self, settings: Settings, specs: Sequence[PolicySpec], generation: int) -> None:
        configure_logging(settings.log_level)
        keep_replica_on_loopback()
        self._settings = settings
        self._generation = generation
        self._kinds = worker_kinds(settings, specs, generation)
        self._actors = {name: self._start(name) for name in self._kinds}

    def _start(self, name: str) -> Any:
        return start_worker(self._settings, name, *self._kinds[name])

    async def check_health(self) -> None:
        """Look after every worker; Serve calls this, first before it ends an older keeper.

        A worker that Ray does not start again, for its constructor failed, is tried anew.
        """
        await asyncio.gather(*(self._check(name) for name in self._kinds))

        # While a later deployment begins, it is for that one to end what is older.
        older, newer = other_generations(self._generation)
        for name in [] if newer else older:
            log.warning("ending %s, which an earlier deployment has left", name)
            await _end(ray.get_actor(name, NAMESPACE))

    async def _check(self, name: str) -> None:
        try:
            await asyncio.wait_for(self._actors[name].ping.remote(), 2 * PING_S)
        except TimeoutError:
            log.warning("%s has not started yet", name)
        except ActorDiedError as error:
            if not other_generations(self._generation)[1]:
                # The message holds the trace of the actor itself.
                log.error("%s does not start: %s", name, error)  # noqa: TRY400
                self._actors[name] = self._start(name)
        except RayActorError:
            log.warning("%s has died: Ray is starting it again", name)

    async def __del__(self) -> None:
        """End the workers: the application ends, or another version of it has begun."""
        await asyncio.gather(*(_end(actor) for actor in self._actors.values()))


def other_generations(generation: int) -> tuple[list[str], list[str]]:
    """Return the names of the workers of earlier deployments, and those of later ones.

    Args:
        generation: that of the deployment in between.
    """
    names = [
        actor["name"]
        for actor in ray.util.list_named_actors(all_namespaces=True)
        if actor["namespace"] == NAMESPACE and "." in actor["name"]
    ]
    generations = {name: int(name.rpartition(".")[2]) for name in names}
    return (
        [name for name, other in generations.items() if other < generation],
        [name for name, other in generations.items() if other > generation],
    )


async def _end(actor: Any) -> None:
    """Stop a worker, or kill one that does not stop."""
    try:
        await asyncio.wait_for(actor.stop.remote(), STOP_S)
    except (RayActorError, TimeoutError):
        log.warning("a worker did not stop: ending it")
    ray.kill(actor)
