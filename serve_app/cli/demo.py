"""``banditloop demo``: train, serve, drive over HTTP, compare, report.

The command line's longest command.
"""

import asyncio
import heapq
import signal
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from bandits.log.records import DecisionRecord
from policies.spec import PolicySpec, load_spec
from serve_app.admin.freshness import freshness_ms, read_all
from serve_app.admin.preflight import demand_all
from serve_app.api.schemas import RankResponse, RewardEvent, RewardsRequest
from serve_app.cli.terminal import notes, say, screen_of_ours, table, words
from serve_app.client import ServiceError, rank_body
from serve_app.host.embedded import valkey
from serve_app.host.requirements import demand_port
from serve_app.runtime import serving
from serve_app.settings import Settings
from serve_app.store.clients import Redis, blocking_client
from serve_app.store.keys import Keys
from serve_app.store.stats import Stats
from simulator.doctor.audit import audit
from simulator.worlds.demo import (
    DemoBench,
    Traffic,
    ablations,
    draw_curves,
    load_world,
    make_bench,
    percentiles,
    summary,
    train_movielens,
)

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "movielens.yaml"
CONNECTIONS = 4
MEAN_DELAY_S = 1.0
RESENT = 0.01
ABLATIONS = {"ids_only": ("context", "item", "features"), "scores_only": ("context", "scores")}
NAMES = {"als": "cf"}

decode_rank = msgspec.json.Decoder(RankResponse).decode


def run_demo(*, rounds: int, seed: int, port: int, out: Path, console: Console) -> None:
    """Everything, from data to report; leaves only the report and the picture behind."""
    started = time.monotonic()
    # ends in the same good order as Ctrl-C
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    demand_port(Settings().host, port)
    with tempfile.TemporaryDirectory(prefix="banditloop-") as folder:
        console.rule("1  data and candidate sources")
        world = load_world()
        train_movielens(world, Path(folder) / "artifact", seed=seed)
        spec = msgspec.structs.replace(load_spec(EXAMPLE), artifact=str(Path(folder) / "artifact"))
        bench = make_bench(world, spec)
        console.rule("2  service: Valkey, Ray Serve behind HAProxy, 2 replicas, 1 learner")
        settings = Settings(port=port, replicas=2, data_dir=Path(folder), keys_file=None)
        demand_all(settings, [spec])
        with valkey(settings) as redis_url, closing(blocking_client(redis_url)) as client:
            settings = settings.model_copy(update={"redis_url": redis_url})
            with screen_of_ours(Path(folder) / "serve.log"), serving(settings, [spec]) as base:
                say(f"ready after {time.monotonic() - started:.0f} s: {base}/docs")
                console.rule(f"3  {rounds:,} decisions over HTTP")
                board = Board(rounds, bench, seed, client, spec.name)
                asyncio.run(drive(base, spec, bench, board, rounds=rounds, seed=seed))
                measured = measure(client, spec, settings.secret(), board.traffic.acknowledged)
        console.rule("4  the same learner without scores, and with nothing else")
        curves = {
            "bandit": np.array(board.traffic.rewards),
            **named(bench.baselines(board.traffic.users, seed)),
        }
        curves |= show_ablations(spec, rounds, seed)
    report = make_report(rounds, seed, curves, board.traffic, measured)
    out.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    picture = out.with_suffix(".png")
    draw_curves(curves, picture, f"MovieLens-100K over HTTP: {rounds:,} rounds, seed {seed}")
    console.print(result_table(report))
    say(f"report {out}   picture {picture}   took {time.monotonic() - started:.0f} s")
    if not report["propensity_audit"]["sound"]:
        raise ServiceError(
            0, "unsound_log", "the logged propensities are not the sampling probabilities"
        )


class Driver:
    """Makes decisions over a few connections at once.

    Rewards follow late, out of order, and some of them twice.

    Sends the client's bodies through aiohttp: httpx would take more of the machine than the service
    does.
    """

    def __init__(
        self, session: aiohttp.ClientSession, bench: DemoBench, traffic: Traffic, seed: int
    ) -> None:
        self._session = session
        self._bench = bench
        self._traffic = traffic
        self._rng = np.random.default_rng(seed)
        self._pending: list[tuple[float, str, RewardEvent]] = []
        self._deciding = True

    async def run(self, rounds: int) -> None:
        """Decide ``rounds`` times; done when the last reward is sent."""
        remaining = iter(range(rounds))
        rewards = asyncio.create_task(self._send_rewards())
        await asyncio.gather(*(self._decide(remaining) for _ in range(CONNECTIONS)))
        self._deciding = False
        await rewards

    async def _decide(self, remaining: Iterator[int]) -> None:
        for _ in remaining:
            request = self._bench.requests.request(self._rng)
            fields = {"user_id": request.user_id, "context": request.context}
            began = time.perf_counter()
            answer = decode_rank(await self._post("rank", rank_body(None, fields)))
            self._traffic.latencies_ms.append(1000 * (time.perf_counter() - began))
            reward = self._bench.requests.reward(request, answer.chosen[0].id, self._rng)
            self._traffic.users.append(str(request.user_id))
            self._traffic.rewards.append(reward)
            self._traffic.unlogged += not answer.logged
            if reward:
                event = RewardEvent(answer.event_id, reward, uuid.uuid4().hex)
                for _ in range(1 + int(self._rng.random() < RESENT)):
                    due = time.monotonic() + self._rng.exponential(MEAN_DELAY_S)
                    heapq.heappush(self._pending, (due, event.reward_id or "", event))

    async def _send_rewards(self) -> None:
        while self._deciding or self._pending:
            now, batch = time.monotonic(), []
            while self._pending and self._pending[0][0] <= now:
                batch.append(heapq.heappop(self._pending)[-1])
            if batch:
                await self._post("rewards", msgspec.json.encode(RewardsRequest(batch)))
                self._traffic.acknowledged += len(batch)
            await asyncio.sleep(0.05)

    async def _post(self, path: str, body: bytes) -> bytes:
        async with self._session.post(path, data=body) as response:
            answer = await response.read()
            if not response.ok:
                raise ServiceError(response.status, "demo_failed", answer.decode(errors="replace"))
            return answer


async def drive(
    base: str, spec: PolicySpec, bench: DemoBench, board: "Board", *, rounds: int, seed: int
) -> None:
    """Run the traffic, showing the board; returns when every window has closed."""

    async def refresh() -> None:
        while True:
            await asyncio.to_thread(board.refresh)
            await asyncio.sleep(0.5)

    with board.live():
        refreshing = asyncio.create_task(refresh())
        async with aiohttp.ClientSession(f"{base}/v1/policies/{spec.name}/") as session:
            await Driver(session, bench, board.traffic, seed).run(rounds)
        # the learner's ticks close the last windows of the quiet log
        await board.wait_until_learned(timeout_s=spec.join.window_s + 30.0)
        refreshing.cancel()
        board.refresh()


class Board:
    """What is shown while traffic runs: progress, and the bandit beside the fixed policies on the same users."""

    def __init__(
        self, rounds: int, bench: DemoBench, seed: int, client: Redis, policy: str
    ) -> None:
        self.traffic = Traffic()
        self._rounds = rounds
        self._bench = bench
        self._seed = seed
        self._client = client
        self._keys = Keys(policy)
        self._started = time.monotonic()
        self._live: Live | None = None
        self._bar = Progress(
            words("decisions"),
            BarColumn(40),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task("", total=rounds)

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show until the context ends."""
        self._started = time.monotonic()
        with Live(self._view(), console=notes, refresh_per_second=2) as self._live:
            yield

    def refresh(self) -> None:
        """Show what has happened by now."""
        self._bar.update(self._task, completed=len(self.traffic.rewards))
        if self._live is not None:
            self._live.update(self._view())

    async def wait_until_learned(self, *, timeout_s: float) -> None:
        """Wait for the learner to have learned every decision, and a moment more for the replicas to follow."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            stats = read_stats(self._client, self._keys)
            if stats is not None and stats.learned >= self._rounds:
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(1.0)

    def _view(self) -> Group:
        done = min(len(self.traffic.rewards), len(self.traffic.users))
        recent = slice(max(0, done - 2000), done)
        shown: list[RenderableType] = [self._bar]
        if done:
            fixed = named(self._bench.baselines(self.traffic.users[recent], self._seed))
            rewards = {"bandit": np.array(self.traffic.rewards[recent]), **fixed}
            means = {name: f"{each.mean():.3f}" for name, each in rewards.items()}
            shown.append(_row("mean reward of the last 2,000 rounds", means))
        stats = read_stats(self._client, self._keys)
        if stats is not None and done:
            p50, p99 = percentiles(self.traffic.latencies_ms[-2000:]).values()
            seconds: Any = self._client.time()
            age = seconds[0] + seconds[1] / 1e6 - stats.published_ms / 1000
            facts = {
                "requests/s": f"{done / (time.monotonic() - self._started):.0f}",
                "p50/p99 ms": f"{p50:.1f}/{p99:.1f}",
                "learned": f"{stats.learned:,}",
                "snapshot age": f"{age:.1f} s",
            }
            shown.append(_row("the service", facts))
        return Group(*shown)


def _row(title: str, cells: Mapping[str, str]) -> Table:
    """A table of one row, with its heads; narrow enough for any terminal."""
    made = table(*cells, title=title, numbers=cells)
    made.add_row(*cells.values())
    return made


def read_stats(client: Redis, keys: Keys) -> Stats | None:
    """What the learner published last."""
    raw: Any = client.get(keys.stats)
    return None if raw is None else msgspec.msgpack.decode(raw, type=Stats)


def measure(client: Redis, spec: PolicySpec, salt: bytes, rewards: int) -> dict[str, Any]:
    """What the log and the learner say about the run.

    ``rewards`` is how many the service acknowledged.
    """
    keys = Keys(spec.name)
    log = list(read_all(client, keys))
    stats = read_stats(client, keys)
    if stats is None:
        raise ServiceError(0, "demo_failed", "the learner has published nothing")
    found = audit(
        (entry.record for entry in log if isinstance(entry.record, DecisionRecord)), salt=salt
    )
    outcomes = {
        name: stats.outcomes.get(name, 0)
        for name in ("joined", "late", "duplicate", "orphan", "early")
    }
    lags = freshness_ms(client, keys, log, spec.join.window_ms)
    return {
        "freshness_ms": {**percentiles(lags), "not_served": found.decisions - len(lags)},
        "events": {"decisions": found.decisions, "rewards": rewards, **outcomes},
        "snapshots": stats.snapshots,
        "propensity_audit": {
            "decisions": found.decisions,
            "rederived": found.rederived,
            "excess": found.excess,
            "z": found.z,
            "sound": found.sound,
        },
    }


def show_ablations(
    spec: PolicySpec, rounds: int, seed: int
) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """The same learner and pools with part of the features removed, each in a process of its own."""
    with Progress(
        words("{task.description}"), BarColumn(40), TimeElapsedColumn(), TimeRemainingColumn()
    ) as bar:
        tasks = {name: bar.add_task(f"{name:12}", total=rounds) for name in ABLATIONS}
        return ablations(
            spec, ABLATIONS, rounds, seed, lambda name, n: bar.update(tasks[name], completed=n)
        )


def named(rewards: dict[str, Any]) -> dict[str, Any]:
    """Sources under the names of the report."""
    return {NAMES.get(name, name): values for name, values in rewards.items()}


def make_report(
    rounds: int, seed: int, curves: dict[str, Any], traffic: Traffic, measured: dict[str, Any]
) -> dict[str, Any]:
    """The report's JSON."""
    reward = {name: summary(values) for name, values in curves.items()}
    best = max(reward[name]["last_quarter"] for name in ("cf", "deep", "popular"))
    bandit = reward["bandit"]["last_quarter"]
    return {
        "rounds": rounds,
        "seed": seed,
        "reward": reward,
        "lift_over_best_source": ratio(bandit, best),
        "lift_over_ids_only": ratio(bandit, reward["ids_only"]["last_quarter"]),
        "latency_ms": percentiles(traffic.latencies_ms),
        "unlogged": traffic.unlogged,
        **measured,
    }


def ratio(value: float, base: float) -> float:
    """``value / base``; infinite when the base earned nothing (JSON: null)."""
    return value / base if base else float("inf")


def result_table(report: dict[str, Any]) -> Group:
    """The report for a person."""
    numbers = ("overall", "last quarter")
    rewards = table("policy", *numbers, title="mean reward", numbers=numbers)
    for name, values in sorted(report["reward"].items(), key=lambda pair: -pair[1]["last_quarter"]):
        style = "bold green" if name == "bandit" else ""
        rewards.add_row(
            name, f"{values['overall']:.4f}", f"{values['last_quarter']:.4f}", style=style
        )
    facts = table("what", "figure", show_header=False)
    events, found = report["events"], report["propensity_audit"]
    facts.add_row(
        "last quarter, against the best single source", f"x {report['lift_over_best_source']:.3f}"
    )
    facts.add_row("last quarter, against ids only", f"x {report['lift_over_ids_only']:.3f}")
    facts.add_row(
        "rank over HTTP, p50 / p99", "{p50:.1f} / {p99:.1f} ms".format(**report["latency_ms"])
    )
    facts.add_row(
        "learnable to served by all, p50 / p99",
        "{p50:.0f} / {p99:.0f} ms".format(**report["freshness_ms"]),
    )
    facts.add_row("events", ", ".join(f"{count:,} {name}" for name, count in events.items()))
    facts.add_row("snapshots published", f"{report['snapshots']:,}")
    facts.add_row(
        "draws re-derived from the log", f"{found['rederived']:,} of {found['decisions']:,}"
    )
    facts.add_row(
        "mean of 1/propensity against its expectation", f"{found['z']:+.2f} standard errors"
    )
    return Group(rewards, facts)
