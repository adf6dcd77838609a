"""A request in a replica's process, from its bytes to those of its answer, against another build's.

    python -m benchmarks.serving.in_memory --against 4d1d79be [--only rank,lints,inline,batch]

The replica's HTTP server, its API, the decision and the writer of the log, without sockets, Redis,
Ray and HAProxy: what comes and what goes out are bytes in memory, and the log acknowledges at once.
So a run takes a minute and needs no idle machine: a figure is the tenth percentile of the processor
time of single requests, a median over turns in which both builds are asked one after the other. The
requests are those of `serve.py`; of a batch the time of one of its 64 decisions counts. The other
build is one whose replicas have an HTTP server of their own (from 7d46fead on). What a service costs
as a whole says `cost.py`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import msgspec
import numpy as np
import uvloop

from bandits.types import Interaction
from benchmarks.serving.builds import HERE, checked_out
from benchmarks.serving.serve import BATCH, ITEMS, SPECS, bodies, numbers, rank_request
from benchmarks.table import Table
from policies.blend import make_learner
from policies.candidate_pool import explicit_pool
from policies.features import featurise
from policies.items.catalogue import Catalogue
from policies.ranker import Ranker
from policies.requests import Item, RankRequest
from policies.spec import load_spec
from serve_app.api.asgi import Api
from serve_app.api.wire import WHOLE_BODY
from serve_app.host.environment import collect_rarely
from serve_app.host.http_connection import Connection, ServerState
from serve_app.personalizer.app import PersonalizerApi
from serve_app.replica.metrics import Metrics
from serve_app.replica.policy_service import RedisPolicyService
from serve_app.store.clients import asyncio_client
from serve_app.store.event_log import LogWriter

KINDS = ("rank", "lints", "inline", "batch")
SALT = b"a secret of sixteen bytes"
TAUGHT = 300
NOWHERE = "redis://127.0.0.1:1/0"


class Written:
    """As much of a transport as a connection uses: what is written is kept."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.write: Callable[[bytes], None] = self.parts.append

    def get_extra_info(self, _name: str) -> tuple[str, int]:
        """An address."""
        return "127.0.0.1", 1

    def close(self) -> None:
        """Nothing is open."""


class Acknowledging:
    """A log that holds whatever it is given."""

    async def send(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The position of each entry; a command has four words before those."""
        return [[b"1700000000000-0"] * (len(command) - 4) for command in commands]

    def line(self) -> "Acknowledging":
        """Itself: an open connection."""
        return self

    def ask_then(
        self, packed: bytes, _count: int, then: Callable[[list[Any] | Exception], None]
    ) -> None:
        """Answer one command in the loop's next round: a script with its words, or one entry."""
        entry, words = b"1700000000000-0", int(packed[1 : packed.index(b"\r")])
        answer = [entry] * (words - 4) if b"EVAL" in packed[:20] else entry
        asyncio.get_running_loop().call_soon(then, [answer])


def teach(ranker: Ranker, catalogue: Catalogue) -> None:
    """Give a ranker a model that has learned, and the items."""
    rng = np.random.default_rng(1)
    learner = make_learner(ranker.spec, salt=SALT)
    for _ in range(TAUGHT):
        asked = msgspec.convert(rank_request(), RankRequest)
        pool = explicit_pool(asked.actions or [])
        context, actions = featurise(ranker.spec, catalogue, asked.context, pool.ids, None, {})
        chosen = int(rng.integers(len(pool.ids)))
        one = Interaction("e", 0, context, actions, chosen, 0.01, float(rng.random()))
        learner.learn([one])
    ranker.serve("snapshot", learner.snapshot("1-0"))
    ranker.offer(catalogue)


async def connected(folder: Path) -> tuple[Connection, Written]:
    """A connection of a replica that serves the policies, and where it writes."""
    client = asyncio_client(NOWHERE, timeout_s=2.0)
    writer = LogWriter(client)
    writer.wire._wire = Acknowledging()  # noqa: SLF001 - there is no other way to do without Redis
    catalogue = Catalogue([Item(f"item{k}", numbers("f")) for k in range(ITEMS)])
    services = {}
    for name, text in SPECS.items():
        path = folder / f"{name}.yaml"
        path.write_text(f"name: {name}\n{text}")
        services[name] = RedisPolicyService(
            load_spec(path), client, writer, salt=SALT, replica="r", follow_interval_s=1.0
        )
        teach(services[name].ranker, catalogue)

    async def scrape() -> bytes:
        return b""

    api = Api(services, Metrics("r"), scrape)
    state = ServerState(PersonalizerApi(api, api.backend, None), WHOLE_BODY)
    connection, written = Connection(state, asyncio.get_running_loop()), Written()
    connection.connection_made(written)  # type: ignore[arg-type]
    return connection, written


def requests(kind: str) -> list[bytes]:
    """Requests of a kind, with their heads."""
    sent = bodies(inline=kind == "inline")
    if kind == "batch":
        one = [json.loads(each) for each in (*sent, *bodies())]
        sent = [json.dumps({"requests": one[at : at + BATCH]}) for at in range(4)]
    path = f"/v1/policies/{'lints' if kind == 'lints' else 'vw'}/rank"
    head = "POST {} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head = head.format(f"{path}:batch" if kind == "batch" else path)
    return [f"{head}content-length: {len(body)}\r\n\r\n{body}".encode() for body in sent]


async def serve(folder: Path) -> None:
    """Answer each line of the input, a kind and how many requests, with the microseconds of one."""
    collect_rarely()
    connection, written = await connected(folder)
    sent = {kind: requests(kind) for kind in KINDS}
    print("ready", flush=True)
    for line in sys.stdin:
        kind, count = line.split()
        taken = []
        for number in range(int(count)):
            written.parts.clear()
            data = sent[kind][number % len(sent[kind])]
            began = time.thread_time()
            connection.data_received(data)
            while not written.parts:  # noqa: ASYNC110 - as the loop would go round
                await asyncio.sleep(0)
            taken.append(time.thread_time() - began)
        answer = written.parts[0]
        if not answer.startswith(b"HTTP/1.1 200") or b'"logged":true' not in answer:
            raise SystemExit(f"{kind}: {answer[:500]!r}")
        decisions = BATCH if kind == "batch" else 1
        print(1e6 * float(np.quantile(taken, 0.1)) / decisions, flush=True)


@contextlib.contextmanager
def process(code: Path, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """A build's process, ready to be asked."""
    folder.mkdir()
    path = f"{code}:{code / 'clients' / 'python'}:{HERE}"
    command = [sys.executable, str(Path(__file__).resolve()), "--serve", str(folder)]
    with subprocess.Popen(  # noqa: S603 - this file
        command,
        env={**os.environ, "PYTHONPATH": path},
        cwd=code,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as started:
        answer(started)
        yield started
        started.terminate()


def answer(asked: "subprocess.Popen[str]") -> str:
    """The next line that a process says."""
    line = asked.stdout.readline() if asked.stdout is not None else ""
    if not line:
        raise SystemExit("a build's process has ended: see above")
    return line.strip()


def main() -> int:
    """Measure and print; nothing is a goal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", metavar="COMMIT", help="another build")
    parser.add_argument("--only", default=",".join(KINDS), help=f"some of {', '.join(KINDS)}")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--requests", type=int, default=300, help="in a turn; batches: a tenth")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve is not None:
        uvloop.run(serve(given.serve))
        return 0

    table, kinds = Table(), given.only.split(",")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        codes = [HERE]
        if given.against is not None:
            codes.append(stack.enter_context(checked_out(given.against)))
        builds = [
            stack.enter_context(process(code, Path(name) / str(at)))
            for at, code in enumerate(codes)
        ]
        for kind in kinds:
            count = max(10, given.requests // (10 if kind == "batch" else 1))
            found: list[list[float]] = [[] for _ in builds]
            for turn in range(given.turns + 1):
                for at in range(len(builds)) if turn % 2 else reversed(range(len(builds))):
                    print(kind, count, file=builds[at].stdin, flush=True)
                    us = float(answer(builds[at]))
                    if turn:
                        found[at].append(us)
            us = " / ".join(f"{statistics.median(each):,.0f}" for each in found)
            ratios = [a / b for a, b in zip(found[0], found[-1], strict=True)]
            ratio = statistics.median(ratios)
            beside = f" = {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            what = f"processor time of a {kind} in memory, us"
            table.add(what, us + (beside if given.against else ""), ratio)
    return table.finish(None)


if __name__ == "__main__":
    sys.exit(main())
