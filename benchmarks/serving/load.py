"""Load over HTTP: a closed loop from wrk, an open loop from here."""

import asyncio
import contextlib
import gc
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import aiohttp
import numpy as np

CONNECTIONS = 8
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True, slots=True)
class Measured:
    """Answers of status 200 per second, and latencies in milliseconds."""

    per_s: float
    p50_ms: float
    p99_ms: float


def closed_loop(
    url: str, bodies: Sequence[str], seconds: float, connections: int = CONNECTIONS
) -> Measured:
    """As many requests as so many connections get answered, one after another; GET, if there are no bodies.

    By wrk (Debian package `wrk`); without it from this process, which then is the bottleneck.

    Raises:
        SystemExit: an answer was not 200; or there are no bodies, and no wrk.
    """
    if shutil.which("wrk") is None:
        if not bodies:
            raise SystemExit("wrk is not installed: apt-get install wrk")
        print(
            "wrk is not installed (apt-get install wrk): this process is the bottleneck now",
            file=sys.stderr,
        )
        return asyncio.run(_closed(url, bodies, seconds, connections))
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        written = ",".join(json.dumps(body).replace("\\/", "/") for body in bodies)
        if bodies:
            script.write(
                f"local bodies = {{{written}}}\nlocal made, n = {{}}, 0\n"
                "function init() for i, body in ipairs(bodies) do made[i] = wrk.format('POST', nil,"
                " {['content-type'] = 'application/json'}, body) end end\n"
                "function request() n = n % #made + 1 return made[n] end\n"
            )
        script.flush()
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds:g}s",
            "--latency",
            "-s",
            script.name,
            url,
        ]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
    if "Non-2xx" in printed or "Socket errors" in printed:
        raise SystemExit(f"wrk met errors at {url}:\n{printed}")
    percent = {name: _ms(text) for name, text in re.findall(r"(50|99)%\s+([\d.]+[a-z]+)", printed)}
    return Measured(
        float(re.findall(r"Requests/sec:\s+([\d.]+)", printed)[0]), percent["50"], percent["99"]
    )


def open_loop(url: str, bodies: Sequence[str], per_s: float, seconds: float) -> Measured:
    """Requests at this rate, whatever becomes of those before.

    Latencies are from when each was due.
    """
    began = time.perf_counter()
    taken = [took for _, took in open_loop_each(url, bodies, per_s, seconds)]
    return _measured(taken, time.perf_counter() - began)


def open_loop_each(
    url: str, bodies: Sequence[str], per_s: float, seconds: float
) -> list[tuple[float, float]]:
    """The same, of each request: when it was due, by time.perf_counter(), and how many seconds it took from then."""
    with _no_collection():
        return asyncio.run(_open(url, bodies, per_s, seconds))


async def _open(
    url: str, bodies: Sequence[str], per_s: float, seconds: float
) -> list[tuple[float, float]]:
    taken: list[tuple[float, float]] = []

    async def one(session: aiohttp.ClientSession, body: str, due: float) -> None:
        await _post(session, url, body)
        taken.append((due, time.perf_counter() - due))

    async with _session(0) as session, asyncio.TaskGroup() as group:
        began = time.perf_counter()
        for number in range(int(per_s * seconds)):
            due = began + number / per_s
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(session, bodies[number % len(bodies)], due))
    return taken


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """No search for cycles in this process: one took 0.2 s, and every answer of that time would be late."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def _closed(url: str, bodies: Sequence[str], seconds: float, connections: int) -> Measured:
    taken: list[float] = []
    began = time.perf_counter()

    async def client(session: aiohttp.ClientSession, number: int) -> None:
        while time.perf_counter() - began < seconds:
            sent = time.perf_counter()
            await _post(session, url, bodies[number % len(bodies)])
            taken.append(time.perf_counter() - sent)
            number += connections

    async with _session(connections) as session:
        await asyncio.gather(*(client(session, number) for number in range(connections)))
    return _measured(taken, time.perf_counter() - began)


async def _post(session: aiohttp.ClientSession, url: str, body: str) -> None:
    async with session.post(url, data=body, headers={"content-type": "application/json"}) as answer:
        text = await answer.read()
        if answer.status != 200:
            raise SystemExit(f"{url} answered {answer.status}: {text[:200]!r}")


def _session(connections: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections))


def _measured(taken: Sequence[float], seconds: float) -> Measured:
    p50, p99 = np.quantile(taken, (0.5, 0.99)) * 1e3
    return Measured(len(taken) / seconds, float(p50), float(p99))


def _ms(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)([a-z]+)", text).groups()  # type: ignore[union-attr]
    return float(number) * UNITS[unit]
