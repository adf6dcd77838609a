"""The course of the demo: train, serve, drive over HTTP, compare, report."""

import asyncio
import signal
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.progress import BarColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from bandits.log.records import DecisionRecord
from policies.spec import PolicySpec, load_spec
from serve_app.admin.freshness import freshness_ms, read_all
from serve_app.admin.preflight import demand_all
from serve_app.cli.demo.board import OUTCOMES, Board, latest_stats, under_report_names
from serve_app.cli.demo.report import Curves, demo_tables, make_report
from serve_app.cli.demo.traffic import Driver
from serve_app.cli.terminal import messages, say, screen_of_ours, text_column
from serve_app.client import ServiceError
from serve_app.host.embedded import valkey
from serve_app.host.requirements import demand_port
from serve_app.runtime import serving
from serve_app.settings import Settings
from serve_app.store.clients import Redis, blocking_client
from serve_app.store.keys import Keys
from simulator.doctor.audit import audit
from simulator.worlds.demo import (
    PROFILES,
    DemoBench,
    ablations,
    draw_curves,
    load_world,
    make_bench,
    percentiles,
    train_movielens,
)

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "movielens.yaml"
ABLATIONS = {"ids_only": ("context", "item", "features"), "scores_only": ("context", "scores")}
"""By name, the only features that the same learner may use in a comparison."""


def run_demo(*, rounds: int, seed: int, port: int, out: Path) -> None:
    """Run the demo from data to report; leave only the report and the picture behind.

    Args:
        rounds: Decisions to make over HTTP.
        seed: Seed of users, delays and training.
        port: HTTP port of the service.
        out: File of the report; the picture's name ends in .png instead.

    Raises:
        BanditloopError: A part fails, or the log is not sound.
    """
    started = time.monotonic()
    # A SIGTERM ends everything in the same good order as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    demand_port(Settings().host, port)

    with tempfile.TemporaryDirectory(prefix="banditloop-") as name:
        folder = Path(name)
        messages.rule("1  data and candidate sources")
        world = load_world()
        settings = Settings(port=port, replicas=2, data_dir=folder, keys_file=None)
        trained = folder / "artifact"
        train_movielens(world, trained, seed=seed, salt=settings.secret())
        spec = msgspec.structs.replace(
            load_spec(EXAMPLE), artifact=str(trained), profiles=str(trained / PROFILES)
        )
        bench = make_bench(world, spec)

        messages.rule("2  service: Valkey, Ray Serve behind HAProxy, 2 replicas, 1 learner")
        demand_all(settings, [spec])
        with valkey(settings) as redis_url, closing(blocking_client(redis_url)) as client:
            settings = settings.model_copy(update={"redis_url": redis_url})
            with screen_of_ours(folder / "serve.log"), serving(settings, [spec]) as service:
                base = service.url
                say(f"ready after {time.monotonic() - started:.0f} s: {base}/docs")

                messages.rule(f"3  {rounds:,} decisions over HTTP")
                board = Board(rounds, bench, seed, client, spec.name)
                asyncio.run(_drive(base, spec, bench, board, rounds=rounds, seed=seed))
                traffic = board.traffic
                measured = _measure(client, spec, settings.secret(), traffic.acknowledged)

        messages.rule("4  the same learner without scores, and with nothing else")
        curves = {
            "bandit": np.array(traffic.rewards),
            **under_report_names(bench.baselines(traffic.users, seed)),
            **_run_ablations(spec, rounds, seed),
        }

    report = make_report(rounds, seed, curves, traffic, measured)
    out.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    picture = out.with_suffix(".png")
    draw_curves(curves, picture, f"MovieLens-100K over HTTP: {rounds:,} rounds, seed {seed}")

    messages.print(demo_tables(report))
    say(f"report {out}   picture {picture}   took {time.monotonic() - started:.0f} s")
    if not report["propensity_audit"]["sound"]:
        raise ServiceError(
            0, "unsound_log", "the logged propensities are not the sampling probabilities"
        )


async def _drive(
    base: str, spec: PolicySpec, bench: DemoBench, board: Board, *, rounds: int, seed: int
) -> None:
    """Run the traffic and show the board; return when every window has closed."""

    async def refresh() -> None:
        while True:
            await asyncio.to_thread(board.refresh)
            await asyncio.sleep(0.5)

    with board.live():
        refreshing = asyncio.create_task(refresh())
        async with Driver.session(base, spec.name) as session:
            await Driver(session, bench, board.traffic, seed).run(rounds)

        # The log is quiet by now, and the learner's ticks close its last windows.
        await board.wait_until_learned(timeout_s=spec.rule.window_s + 30.0)
        refreshing.cancel()
        board.refresh()


def _measure(client: Redis, spec: PolicySpec, salt: bytes, acknowledged: int) -> dict[str, Any]:
    """Return what the log and the learner say about the run.

    ``acknowledged``: rewards that the service acknowledged.
    """
    keys = Keys(spec.name)
    log = list(read_all(client, keys))
    stats = latest_stats(client, keys)
    if stats is None:
        raise ServiceError(0, "demo_failed", "the learner has published nothing")

    # Every draw is made again with the service's salt, and its propensity is tested.
    result = audit(
        (entry.record for entry in log if isinstance(entry.record, DecisionRecord)), salt=salt
    )
    lags = freshness_ms(client, keys, log, spec.rule.window_ms)
    outcomes = {name: stats.outcomes.get(name, 0) for name in OUTCOMES}
    return {
        "freshness_ms": {**percentiles(lags), "not_served": result.decisions - len(lags)},
        "events": {"decisions": result.decisions, "rewards": acknowledged, **outcomes},
        "snapshots": stats.snapshots,
        "propensity_audit": {
            "decisions": result.decisions,
            "rederived": result.rederived,
            "excess": result.excess,
            "z": result.z,
            "sound": result.sound,
        },
    }


def _run_ablations(spec: PolicySpec, rounds: int, seed: int) -> Curves:
    """Return the rewards of the same learner with fewer features, each in a process of its own."""
    columns = (
        text_column("{task.description}"),
        BarColumn(40),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        tasks: Mapping[str, Any] = {
            name: progress.add_task(f"{name:12}", total=rounds) for name in ABLATIONS
        }

        def show(name: str, done: int) -> None:
            progress.update(tasks[name], completed=done)

        return ablations(spec, ABLATIONS, rounds, seed, show)
