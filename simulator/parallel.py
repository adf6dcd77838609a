"""Where pieces of work are done: in this process, in several, or on a Ray cluster.

Results come in their order.
"""

import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

from bandits.errors import ReplayError

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")
TASKS_PER_CORE = 2
"""Tasks per core that wait, so that no core does."""
MAX_CORES = 10_000
"""Cores of which a type of node without limit is believed to have no more."""
NODES_EVERY_S = 1.0
"""How often a cluster is asked which nodes it has."""


def in_processes(
    jobs: int,
) -> Callable[[Callable[[Task], Outcome], Sequence[Task]], Iterable[Outcome]]:
    """So many processes of this machine; one is this process itself."""

    def fan(function: Callable[[Task], Outcome], pieces: Sequence[Task]) -> Iterator[Outcome]:
        if jobs <= 1 or len(pieces) <= 1:
            yield from map(function, pieces)
            return
        with ProcessPoolExecutor(
            min(jobs, len(pieces)), multiprocessing.get_context("spawn")
        ) as pool:
            yield from pool.map(function, pieces)

    return fan


class OnRay:
    """Tasks of a Ray cluster. ``address``: local (one of this machine's own), auto, or HOST:PORT.

    A task whose worker or node dies is done again. More tasks wait than there are cores, also of
    the nodes that an autoscaler may add: it sees them wait and adds those nodes, and removes them
    when nothing runs there any more. ``options``: asked once the cluster is joined, gives options
    of each task, such as where it may run. Files are read where the task runs, so every node has to
    reach the log. ``nodes``: how many there are, ``most``: have been.
    """

    def __init__(self, address: str, options: Callable[[], dict[str, Any]] = dict) -> None:
        import ray  # noqa: PLC0415 - work on one core does without

        join_ray(address)
        self._ray = ray
        self._options = {"num_cpus": 1, **options()}
        self.nodes = self.most = 0
        self._looked_at = float("-inf")
        self._cores = 1

    def __call__(
        self, function: Callable[[Task], Outcome], pieces: Sequence[Task]
    ) -> Iterator[Outcome]:
        """Results in the order of the pieces."""
        task: Any = self._ray.remote(max_retries=-1, **self._options)(_apply)
        shared = self._ray.put(function)
        waiting: deque[Any] = deque()
        for piece in pieces:
            self._look()
            waiting.append(task.remote(shared, piece))
            if len(waiting) >= TASKS_PER_CORE * self._cores:
                yield self._next(waiting)
        while waiting:
            yield self._next(waiting)

    def _next(self, waiting: deque[Any]) -> Any:
        while not self._ray.wait([waiting[0]], timeout=NODES_EVERY_S)[0]:
            self._look()
        return self._ray.get(waiting.popleft())

    def _look(self) -> None:
        if time.monotonic() - self._looked_at < NODES_EVERY_S:
            return
        self._looked_at = time.monotonic()
        possible = self._ray._private.state.state.get_max_resources_from_cluster_config() or {}  # noqa: SLF001
        self._cores = max(
            1,
            int(self._ray.cluster_resources().get("CPU", 1)),
            min(possible.get("CPU", 0), MAX_CORES),
        )
        self.nodes = sum(node["Alive"] for node in self._ray.nodes())
        self.most = max(self.most, self.nodes)


def join_ray(address: str) -> None:
    """Join a Ray cluster, or start one of this machine's own (``local``), unless this process is in one already.

    Raises:
        ReplayError: no cluster answers there.
    """
    import ray  # noqa: PLC0415 - work on one core does without

    if ray.is_initialized():
        return
    try:
        quiet = {"include_dashboard": False} if address == "local" else {}
        ray.init(address=address, namespace="banditloop", log_to_driver=False, **quiet)
    except ConnectionError as error:
        raise ReplayError(f"no Ray cluster answers at {address!r}: {error}", "address") from error


def _apply(function: Callable[[Task], Outcome], piece: Task) -> Outcome:
    return function(piece)
