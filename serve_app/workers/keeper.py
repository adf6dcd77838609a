"""Keeping the workers alive."""

import asyncio
import logging
import math
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import ray
from ray import serve
from ray.exceptions import ActorDiedError, RayActorError

from policies.spec import PolicySpec
from serve_app.admin.wanted.on_cluster import ClusterSpecs
from serve_app.host.json_logs import configure_logging
from serve_app.host.loopback import keep_replica_on_loopback
from serve_app.settings import Settings
from serve_app.workers.actors import NAMESPACE, PING_S, STOP_S, start_worker, worker_kinds

WELL_S = 5.0
"""How long workers that were all well, and all there are, are not asked again.

Ray starts one again that dies; to ask all of them costs each of them something.
"""
LOOK_S = 2.0
"""How often it is looked whether clients have set another spec, where that is done here."""

log = logging.getLogger("banditloop.background")


class Keeper:
    """The deployment that says which workers there are, and ends them with the application.

    Their names end with a generation, which grows with every deployment: a keeper that is started
    again finds them; one of a new deployment starts its own while the old ones still run, and ends
    what is left of those. A worker that is as the new deployment wants it goes on, under the name
    that it has: it is the new keeper's from its first call on.
    """

    def __init__(
        self,
        settings: Settings,
        specs: Sequence[PolicySpec],
        generation: int,
        since: Mapping[str, int] | None = None,
        given: Sequence[PolicySpec] | None = None,
    ) -> None:
        """Start what does not run yet.

        Args:
            settings: of the service.
            specs: its policies.
            generation: that of the deployment.
            since: of the workers that it keeps, the generation that has begun them.
            given: the specs of the Serve config, where clients may set others; None: it is for
                another process to have those served.
        """
        configure_logging(settings.log_level)
        keep_replica_on_loopback()
        self._settings = settings
        self._generation = generation
        self._newest = generation
        self._well_until, self._are_well = -math.inf, False
        self._kinds = worker_kinds(settings, specs, generation, since)
        self._actors = {name: self._start(name) for name in self._kinds}
        self._specs: ClusterSpecs | None = None
        self._look_at = -math.inf
        if given is not None:
            application = serve.get_replica_context().app_name
            self._specs = ClusterSpecs(settings, given, specs, application)

    def _start(self, name: str) -> Any:
        return start_worker(self._settings, name, *self._kinds[name])

    async def check_health(self) -> None:
        """Look after every worker; Serve calls this, first before it ends an older keeper.

        A worker that Ray does not start again, for its constructor failed, is tried anew.
        """
        if self._specs is not None and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_S
            await asyncio.to_thread(self._heed_clients, self._specs)
        if time.monotonic() < self._well_until:
            return
        self._are_well = True
        dead = await asyncio.gather(*(self._dies_of(name) for name in self._kinds))

        # While a later deployment begins, it is for that one to start and to end what there is.
        older, newer = other_generations(self._generation, self._kinds)
        if newer or self._newest > self._generation:
            return
        if self._are_well and not older:
            self._well_until = time.monotonic() + WELL_S
            return
        for name, error in zip(self._kinds, dead, strict=True):
            if error is not None:
                # The message holds the trace of the actor itself.
                log.error("%s does not start: %s", name, error)
                self._actors[name] = self._start(name)
        for name in older:
            log.warning("ending %s, which an earlier deployment has left", name)
            await _end(ray.get_actor(name, NAMESPACE))

    def _heed_clients(self, specs: ClusterSpecs) -> None:
        """Have served what clients have set, unless a later deployment begins."""
        try:
            if other_generations(self._generation, self._kinds)[1]:
                return
            wanted = specs.wanted()
            if wanted is not None:
                specs.have_served(wanted)
        except Exception:
            log.exception("what clients have set is not served yet")

    async def _dies_of(self, name: str) -> ActorDiedError | None:
        """Return why a worker has died for good; None if it has not."""
        try:
            asked = self._actors[name].ping.remote(self._generation)
            newest = await asyncio.wait_for(asked, 2 * PING_S)
        except TimeoutError:
            log.warning("%s has not started yet", name)
        except ActorDiedError as error:
            self._are_well = False
            return error
        except RayActorError:
            log.warning("%s has died: Ray is starting it again", name)
        else:
            self._newest = max(self._newest, newest)
            return None
        self._are_well = False
        return None

    async def __del__(self) -> None:
        """End the workers: the application ends, or another version of it has begun.

        Those that a later deployment keeps go on.
        """
        own = self._actors.values()
        await asyncio.gather(*(_end(actor, self._generation) for actor in own))


def other_generations(generation: int, kept: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """Return the names of the workers of earlier deployments, and those of later ones.

    Args:
        generation: that of the deployment in between.
        kept: names of workers of earlier deployments that it has kept.
    """
    names = [
        actor["name"]
        for actor in ray.util.list_named_actors(all_namespaces=True)
        if actor["namespace"] == NAMESPACE and "." in actor["name"]
    ]
    generations = {name: int(name.rpartition(".")[2]) for name in names}
    return (
        [name for name, other in generations.items() if other < generation and name not in kept],
        [name for name, other in generations.items() if other > generation],
    )


async def _end(actor: Any, *generation: int) -> None:
    """Stop a worker, or kill one that does not stop; after ``generation``, if no later wants it."""
    try:
        if await asyncio.wait_for(actor.stop.remote(*generation), STOP_S) is False:
            return
    except (RayActorError, TimeoutError):
        log.warning("a worker did not stop: ending it")
    ray.kill(actor)
