"""Where pieces of work are done: in this process, in several, or on a Ray cluster. Results come in their order."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

from bandits.errors import ReplayError

Piece = TypeVar("Piece")
Result = TypeVar("Result")
AHEAD = 2
"""Tasks per core that wait, so that no core does."""


def in_processes(jobs: int) -> Callable[[Callable[[Piece], Result], Sequence[Piece]], Iterable[Result]]:
    """So many processes of this machine; one is this process itself."""

    def fan(function: Callable[[Piece], Result], pieces: Sequence[Piece]) -> Iterator[Result]:
        if jobs <= 1 or len(pieces) <= 1:
            yield from map(function, pieces)
            return
        with ProcessPoolExecutor(min(jobs, len(pieces)), multiprocessing.get_context("spawn")) as pool:
            yield from pool.map(function, pieces)

    return fan


def on_ray(address: str) -> Callable[[Callable[[Piece], Result], Sequence[Piece]], Iterable[Result]]:
    """Tasks of a Ray cluster. ``address``: local (one of this machine's own), auto, or HOST:PORT.

    A task whose worker or node dies is done again. Few more tasks wait than there are cores, and an autoscaler that
    sees them wait adds nodes. Files are read where the task runs, so every node has to reach the log.
    """
    import ray  # noqa: PLC0415 - work on one core does without

    connect(address)

    def fan(function: Callable[[Piece], Result], pieces: Sequence[Piece]) -> Iterator[Result]:
        task: Any = ray.remote(max_retries=-1, num_cpus=1)(_apply)
        shared = ray.put(function)
        waiting: deque[Any] = deque()
        for piece in pieces:
            waiting.append(task.remote(shared, piece))
            if len(waiting) >= AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1))):
                yield ray.get(waiting.popleft())
        while waiting:
            yield ray.get(waiting.popleft())

    return fan


def connect(address: str) -> None:
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


def _apply(function: Callable[[Piece], Result], piece: Piece) -> Result:
    return function(piece)
