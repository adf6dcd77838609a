"""A small world with a known best choice, policies of every kind in it, and the logs they leave."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import msgspec
import numpy as np

from bandits.exploration import EpsilonGreedy, LinTs, LinUcb, Softmax, SquareCB, VwExploration
from bandits.log.join import JoinRule
from bandits.log.records import LogEntry
from bandits.ridge.config import RidgeConfig
from bandits.types import Snapshot
from bandits.vw.config import VwConfig
from policies.candidate_pool import Pool
from policies.requests import RankRequest
from policies.spec import Holdout, PolicySpec, RemoteSource
from simulator.worlds.loop import SALT, Timing, run_loop

K = 6
BASE = PolicySpec(
    "p",
    learner=RidgeConfig(interactions=[("context", "features")]),
    floor=0.1,
    join=JoinRule(window_s=20),
)
VW = VwConfig("--cb_explore_adf --cb_type mtr -b 12 -q cf")
SOURCES = [RemoteSource("cf", "http://x"), RemoteSource("deep", "http://x")]
SPECS = {
    "lints": msgspec.structs.replace(BASE, exploration=LinTs(draws=30)),
    "linucb": msgspec.structs.replace(BASE, exploration=LinUcb()),
    "softmax": msgspec.structs.replace(BASE, exploration=Softmax(temperature=0.1)),
    "vw squarecb": msgspec.structs.replace(BASE, learner=VW, exploration=SquareCB()),
    "vw bag": msgspec.structs.replace(
        BASE, learner=VwConfig("--cb_explore_adf -b 12 --bag 3 -q cf"), exploration=VwExploration()
    ),
    "mixture": msgspec.structs.replace(
        BASE, kind="mixture", sources=SOURCES, exploration=EpsilonGreedy(0.2)
    ),
    "holdout": msgspec.structs.replace(BASE, exploration=EpsilonGreedy(), holdout=Holdout(0.3)),
}


class Towns:
    """Two kinds of user, six items, two sources that know a little; rewards are 0 or 1."""

    chances = np.array([[0.6, 0.4, 0.2, 0.2, 0.1, 0.1], [0.1, 0.1, 0.2, 0.2, 0.4, 0.6]])

    def request(self, rng: np.random.Generator) -> RankRequest:
        kind = str(rng.integers(2))
        return RankRequest(user_id=kind, context={"kind": kind})

    def reward(self, request: RankRequest, action_id: str, rng: np.random.Generator) -> float:
        chance = self.chances[
            int(str(request.context["kind"])), int(action_id.removeprefix("item"))
        ]
        return float(rng.random() < chance)


ITEMS = [f"item{k}" for k in range(K)]
NAN = float("nan")
POOL = Pool(
    tuple(ITEMS),
    [{"size": k / K} for k in range(K)],
    {
        "cf": np.array([0, -1, -2, -3, -4, NAN], np.float32),
        "deep": np.array([NAN, 1, 2, 3, 4, 5], np.float32),
    },
)


def log_of(
    kind: str,
    rounds: int,
    seed: int,
    *,
    spec: PolicySpec | None = None,
    timing: Timing | None = None,
    publish_every: int = 500,
    salt: bytes = SALT,
    on_snapshot: Callable[[str, Snapshot], None] | None = None,
) -> list[LogEntry]:
    """The log of a policy of SPECS (or ``spec``) that learns for so many rounds."""
    run = run_loop(
        Towns(),
        spec or SPECS[kind],
        rounds=rounds,
        seed=seed,
        pools={"0": POOL, "1": POOL},
        timing=timing or Timing(delay_ms=200),
        publish_every=publish_every,
        salt=salt,
        on_snapshot=on_snapshot,
    )
    return run.log


@contextmanager
def logs_of(
    kinds: list[str], rounds: int, seed: int
) -> Iterator[dict[str, Future[list[LogEntry]]]]:
    """By kind, the log of ``log_of``; two at a time, because each takes most of a minute."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        yield {kind: pool.submit(log_of, kind, rounds, seed) for kind in kinds}
        pool.shutdown(cancel_futures=True)
