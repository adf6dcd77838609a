"""The processor time of a rank through Personalizer's protocol, beside the same decision of our own API.

    python -m benchmarks.serving.personalizer [--ranks 400] [--turns 12]              (half a minute)

One replica, in this process, with a real Valkey beside it that syncs every decision to disk. The
same request is asked in both forms, in turns that change places; what counts is the processor time
of the replica's process. Passes when the median over the turns is at most 1.15.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bandits.exploration import EpsilonGreedy
from bandits.vw.config import VwConfig
from benchmarks.table import Table
from policies.spec import PolicySpec
from serve_app.api.wire import Asgi

HERE = Path(__file__).resolve().parents[2]
AT_MOST = 1.15
FEATURES = {"topic": "sport", "length": 0.5, "live": True, "price": 2.5}
CONTEXT = {"plan": "free", "age": 0.3, "hour": 0.8, "device": "phone"}
SPECS = {
    "ridge, Thompson sampling": PolicySpec("home"),
    "VW -q ::, epsilon-greedy": PolicySpec(
        "home",
        learner=VwConfig("--cb_explore_adf --cb_type mtr -q ::"),
        exploration=EpsilonGreedy(0.2),
        floor=0.0,
    ),
}


NESTED = {f"n{i}": {f"f{j}": float(i * j) / 100 for j in range(10)} for i in range(10)}
"""A hundred features, in namespaces."""
SIZES = ((5, False), (50, False), (50, True))
"""Actions of a request, and whether each has the hundred features."""


def bodies(count: int, *, nested: bool) -> tuple[bytes, bytes]:
    """The same request in our form, and in Personalizer's."""
    if nested:
        ours = {
            "context": NESTED,
            "actions": [{"id": f"a{at}", "features": NESTED} for at in range(count)],
            "return_pmf": True,
        }
        theirs = {
            "contextFeatures": [NESTED],
            "actions": [{"id": f"a{at}", "features": [NESTED]} for at in range(count)],
        }
        return json.dumps(ours).encode(), json.dumps(theirs).encode()
    ours = {
        "context": {f"user.{name}": value for name, value in CONTEXT.items()},
        "actions": [{"id": f"a{at}", "features": FEATURES} for at in range(count)],
        "return_pmf": True,
    }
    theirs = {
        "contextFeatures": [{"user": CONTEXT}],
        "actions": [{"id": f"a{at}", "features": [FEATURES]} for at in range(count)],
    }
    return json.dumps(ours).encode(), json.dumps(theirs).encode()


async def ask(app: Asgi, path: str, body: bytes, status: int) -> None:
    """Ask once, as an ASGI server does."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-length", str(len(body)).encode())],
    }
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        said.append(message)

    await app(scope, receive, send)
    if said[0]["status"] != status:
        raise SystemExit(f"{path}: {said}")


async def spent(app: Asgi, path: str, body: bytes, status: int, ranks: int) -> float:
    """Microseconds of processor per rank, eight at a time."""
    left = iter(range(ranks))

    async def work() -> None:
        for _ in left:
            await ask(app, path, body, status)

    began = time.process_time()
    await asyncio.gather(*(work() for _ in range(8)))
    return 1e6 * (time.process_time() - began) / ranks


async def measured(
    spec: PolicySpec, size: tuple[int, bool], ranks: int, turns: int
) -> list[tuple[float, float]]:
    """By turn, what our own form costs and what theirs does."""
    sys.path.insert(0, str(HERE / "tests"))
    from support import replica  # noqa: PLC0415 - the tests' replica in this process
    from support.servers import Server, binary_of  # noqa: PLC0415 - the same

    count, nested = size
    ours, theirs = bodies(count, nested=nested)
    both = ("/v1/policies/home/rank", ours, 200), ("/personalizer/v1.0/rank", theirs, 201)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Server(binary_of("valkey"), folder / "server") as server:
            replica.SPEC = spec  # the first snapshot is of this one's learner
            async with replica.serving(server, folder, spec=spec) as caller:
                app = caller.http._transport.app  # noqa: SLF001 - what it serves
                for form in both:
                    await spent(app, *form, ranks)
                out = []
                for turn in range(turns):
                    order = both if turn % 2 else both[::-1]
                    found = {form[0]: await spent(app, *form, ranks) for form in order}
                    out.append((found[both[0][0]], found[both[1][0]]))
                return out


def main() -> int:
    """Measure both forms and print a table; 1 if Personalizer's costs too much."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--ranks", type=int, default=400)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()

    table = Table()
    for name, spec in SPECS.items():
        for count, nested in SIZES:
            ranks = given.ranks // 20 if nested else given.ranks
            turns = asyncio.run(measured(spec, (count, nested), ranks, given.turns))
            ours, theirs = (statistics.median(each) for each in zip(*turns, strict=True))
            what = f"{name}, {count} actions{' of 100 nested features' if nested else ''}"
            ratio = statistics.median(b / a for a, b in turns)
            said = f"{ratio:.3f} ({theirs:.0f} of {ours:.0f} us)"
            table.add(f"processor time of a rank, {what}", said, ratio, at_most=AT_MOST)
    return table.finish(given.out)


if __name__ == "__main__":
    sys.exit(main())
