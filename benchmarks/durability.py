"""What durability costs: rank throughput with every decision synced to disk, against none kept on disk at all.

    python benchmarks/durability.py

Two services side by side on this machine, alike but for `durability`: `always` (each group of decisions is synced
before it is acknowledged) and `none`. Load goes to one after the other, A B A B, from wrk (Debian package `wrk`) at 8
connections: 100 explicit actions by catalogue id, one replica. Goal: `always` keeps 75% of the throughput of `none`.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx

from serve_app.client import wait_until_ready
from serve_app.environment import free_port

GOAL = 0.75
SPEC = "name: home\nlearner: {kind: ridge}\njoin: {window_s: 10}\n"
ITEMS = 100


@contextlib.contextmanager
def service(folder: Path, durability: str) -> Iterator[str]:
    """A running service; its base URL."""
    (folder / "home.yaml").write_text(SPEC)
    port = free_port()
    command = [str(Path(sys.executable).parent / "banditloop"), "serve", "home.yaml", "--port", str(port)]
    command += ["--data-dir", "data", "--archive", "none"]
    environment = {**os.environ, "BANDITLOOP_DURABILITY": durability}
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(  # noqa: S603
            command, cwd=folder, env=environment, stdout=output, stderr=output
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, timeout_s=120)
        items = [{"id": f"item{k}", "features": {"genre": f"g{k % 7}", "price": k / ITEMS}} for k in range(ITEMS)]
        httpx.put(f"{url}/v1/policies/home/catalogue", json={"items": items}, timeout=30).raise_for_status()
        yield url
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def throughput(url: str, script: Path, seconds: int) -> float:
    """Requests a second that wrk gets answered with 200."""
    command = ["wrk", "-t1", "-c8", f"-d{seconds}s", "-s", str(script), f"{url}/v1/policies/home/rank"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
    if "Non-2xx" in printed:
        raise SystemExit(f"wrk met errors:\n{printed}")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", printed)[1])  # type: ignore[index]


def main() -> int:
    """Measure, print, exit 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=int, default=8)
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    body = json.dumps({"actions": [{"id": f"item{k}"} for k in range(ITEMS)], "context": {"hour": 21}})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script = folder / "rank.lua"
        script.write_text(f"wrk.method = 'POST'\nwrk.body = '{body}'\n")
        for each in ("always", "none"):
            (folder / each).mkdir()
        rates: dict[str, list[float]] = {"always": [], "none": []}
        with service(folder / "always", "always") as always, service(folder / "none", "none") as none:
            for url in (always, none):
                throughput(url, script, 5)  # warm
            for _ in range(arguments.rounds):
                rates["always"].append(throughput(always, script, arguments.seconds))
                rates["none"].append(throughput(none, script, arguments.seconds))
    ratios = [a / b for a, b in zip(rates["always"], rates["none"], strict=True)]
    for durability, measured in rates.items():
        spread = f"{min(measured):,.0f} to {max(measured):,.0f}"
        print(f"{durability:7s} {statistics.median(measured):8,.0f} rank/s, median of {len(measured)} ({spread})")
    ratio = statistics.median(ratios)
    print(f"always / none: {ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f}); goal {GOAL}")
    return 0 if ratio >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
