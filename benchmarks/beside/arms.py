"""One running service, under the same load with something beside it and without, turn by turn.

What a process costs hangs on the memory and the place that it began with, so the arms are of one
service: whatever may run beside `rank` is stopped (SIGSTOP) in some turns and works in others. On few
cores a process that does nothing but loop slows its neighbours, too, by the cache and the memory
that they share: an arm with such a process says how much of what is measured is this machine's.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from benchmarks.serving.cost import used_s
from benchmarks.serving.load import closed_loop
from benchmarks.serving.services import Service

RANK = "rank replica"
WARM_UP_S = 3.0


@dataclass(frozen=True, slots=True)
class Arm:
    """What is so during a turn: ``begin`` makes it so, ``end`` has everything as it was before."""

    name: str
    begin: Callable[[], None]
    end: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Turn:
    """Microseconds of processor per rank while it was loaded, by process, and how many ranks."""

    us: Mapping[str, float]
    ranks: float


def loaded(service: Service, url: str, sent: Sequence[str], seconds: float) -> Turn:
    """Load a service, and say what each of its processes has used of the processor meanwhile."""
    before = used_s(service.pid)
    ranks = closed_loop(url, sent, seconds).per_s * seconds
    after = used_s(service.pid)
    return Turn({name: 1e6 * (s - before[name]) / ranks for name, s in after.items()}, ranks)


def in_turns(
    service: Service,
    url: str,
    sent: Sequence[str],
    arms: Sequence[Arm],
    *,
    rounds: int,
    seconds: float,
    settle: Callable[[], None],
) -> dict[str, list[Turn]]:
    """Measure every arm once a round, in an order that goes on by one each round.

    Args:
        service: the one that is loaded.
        url: where requests go.
        sent: their bodies.
        arms: what is compared.
        rounds: how many.
        seconds: of load in a turn.
        settle: waits until all is done that a turn has left to do.
    """
    found: dict[str, list[Turn]] = {arm.name: [] for arm in arms}
    loaded(service, url, sent, WARM_UP_S)
    settle()
    for number in range(rounds):
        for place in range(len(arms)):
            arm = arms[(number + place) % len(arms)]
            arm.begin()
            try:
                found[arm.name].append(loaded(service, url, sent, seconds))
            finally:
                arm.end()
            settle()
            time.sleep(0.5)
    return found


@dataclass(frozen=True, slots=True)
class Times:
    """A geometric mean of paired ratios, and its 95% interval by Student's t."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, these: Sequence[float], those: Sequence[float]) -> "Times":
        """``these[i] / those[i]``: of the same round."""
        logs = np.log(np.array(these) / np.array(those))
        half = math.inf
        if logs.size > 1:
            wide = float(stats.t.ppf(0.975, logs.size - 1))
            half = wide * float(logs.std(ddof=1)) / math.sqrt(logs.size)
        mean = float(logs.mean())
        return cls(math.exp(mean), math.exp(mean - half), math.exp(min(mean + half, 700.0)))

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def of_process(turns: Sequence[Turn], name: str) -> list[float]:
    """Microseconds per rank of one kind of process, turn by turn."""
    return [each.us.get(name, 0.0) for each in turns]


def of_all_but(turns: Sequence[Turn], *names: str) -> list[float]:
    """The same of all of the service's processes but some."""
    return [sum(us for name, us in each.us.items() if name not in names) for each in turns]
