"""Where tasks are done: in this process, in several, or on a Ray cluster.

Results come in the order of the tasks.
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
"""Tasks that wait for each core, so that no core waits for a task."""
MAX_CORES = 10_000
"""Cores counted at most for a type of node that an autoscaler may add without limit."""
NODES_EVERY_S = 1.0
"""Seconds between two questions to a cluster which nodes it has."""


def in_processes(
    jobs: int,
) -> Callable[[Callable[[Task], Outcome], Sequence[Task]], Iterable[Outcome]]:
    """Return a ``map`` over so many processes of this machine; one is this process itself."""

    def run(function: Callable[[Task], Outcome], tasks: Sequence[Task]) -> Iterator[Outcome]:
        if jobs <= 1 or len(tasks) <= 1:
            yield from map(function, tasks)
            return

        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(jobs, len(tasks)), spawn) as pool:
            yield from pool.map(function, tasks)

    return run


class OnRay:
    """A ``map`` over tasks of a Ray cluster.

    A task whose worker or node dies is done again. More tasks wait than there are cores, also of
    the nodes that an autoscaler may add: it sees them wait and adds those nodes, and removes them
    when nothing runs there any more. Files are read where the task runs, so every node has to
    reach the log.

    Args:
        address: ``local`` (a cluster of this machine's own), ``auto``, or HOST:PORT.
        options: Asked once the cluster is joined, returns options of each task, such as where it
            may run.

    Attributes:
        nodes: How many nodes there are.
        most: How many there were at most.
    """

    def __init__(self, address: str, options: Callable[[], dict[str, Any]] = dict) -> None:
        import ray  # noqa: PLC0415 - work on one core does without

        join_ray(address)
        self._ray = ray
        self._options = {"num_cpus": 1, **options()}
        self.nodes = self.most = 0
        self._counted_at = float("-inf")
        self._cores = 1

    def __call__(
        self, function: Callable[[Task], Outcome], tasks: Sequence[Task]
    ) -> Iterator[Outcome]:
        """Yield results in the order of the tasks."""
        remote: Any = self._ray.remote(max_retries=-1, **self._options)(_apply)
        shared = self._ray.put(function)
        waiting: deque[Any] = deque()
        for task in tasks:
            self._count_nodes()
            waiting.append(remote.remote(shared, task))
            if len(waiting) >= TASKS_PER_CORE * self._cores:
                yield self._next(waiting)

        while waiting:
            yield self._next(waiting)

    def most_cores(self) -> int:
        """Return how many cores the cluster has, or may have when an autoscaler has added nodes."""
        self._count_nodes()
        return self._cores

    def _next(self, waiting: deque[Any]) -> Any:
        while not self._ray.wait([waiting[0]], timeout=NODES_EVERY_S)[0]:
            self._count_nodes()
        return self._ray.get(waiting.popleft())

    def _count_nodes(self) -> None:
        """Look at most once in NODES_EVERY_S how many nodes and cores there are."""
        if time.monotonic() - self._counted_at < NODES_EVERY_S:
            return

        self._counted_at = time.monotonic()
        state = self._ray._private.state.state  # noqa: SLF001 - nothing public says it
        possible = state.get_max_resources_from_cluster_config() or {}
        self._cores = max(
            1,
            int(self._ray.cluster_resources().get("CPU", 1)),
            min(possible.get("CPU", 0), MAX_CORES),
        )
        self.nodes = sum(node["Alive"] for node in self._ray.nodes())
        self.most = max(self.most, self.nodes)


def join_ray(address: str) -> None:
    """Join a Ray cluster, or start one of this machine's own (``local``).

    Nothing happens if this process is in a cluster already.

    Raises:
        ReplayError: No cluster answers there.
    """
    import ray  # noqa: PLC0415 - work on one core does without

    if ray.is_initialized():
        return
    try:
        quiet = {"include_dashboard": False} if address == "local" else {}
        ray.init(address=address, namespace="banditloop", log_to_driver=False, **quiet)
    except ConnectionError as error:
        raise ReplayError(f"no Ray cluster answers at {address!r}: {error}", "address") from error


def _apply(function: Callable[[Task], Outcome], task: Task) -> Outcome:
    return function(task)
