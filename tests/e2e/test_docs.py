"""Code blocks of README.md and docs/ are run beside a real service, and print what the page shows.

tests/support/docs_blocks.py says which are not run, and why. Blocks run as they are written, in one
folder, except for what is replaced here.
"""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.browser import browser
from support.docs_blocks import ROOT, Block, blocks, missing_lines

from policies.requests import ActionRequest
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.client import Client, wait_until_ready
from serve_app.host.embedded import running_url
from serve_app.host.environment import free_port
from serve_app.store.clients import blocking_client

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

BIN = Path(sys.executable).parent
RUN = [
    block
    for block in blocks()
    if block.not_run is None and (block.kind != "python" or block.title is None)
]
SLOW = {
    "explanation/worlds.md",
    "how-to/evaluate-a-policy.md",
    "how-to/evaluate-sources.md",
    "how-to/find-a-better-policy.md",
    "how-to/try-a-policy-in-worlds.md",
    "how-to/use-pictures.md",
}
"""Pages whose commands train or replay for long: tests of these commands do it in small."""
SETTINGS = {"BANDITLOOP_ARCHIVE_MAX_AGE_S": "1", "BANDITLOOP_CHECKPOINT_INTERVAL_S": "2"}
SERVED = [
    r"(?m)^(\S*banditloop (serve|train)( examples/\S+| artifacts/\S+| shop/\S+)?) +(&|#).*$",
    r"(?m)^banditloop train --data shop/data .*$",
    # with a Redis and a proxy of its own
    r"(?m)^BANDITLOOP_REDIS_URL=.*\\\n.*banditloop serve .*$",
]
"""Lines that train sources or start a service, which the fixture has done for all three policies."""
WHOSE = r"(?m)^(\S*banditloop (?:snapshots [\w-]+|doctor)\b)(?!.*--policy)"
"""Commands that take the only policy there is; the fixture serves three."""
SHORTER = [
    (r"(?m)^(banditloop worlds\b(?! tables| parameters)[^#\n]*)", r"\1 --seeds 2 --rounds 40 "),
    (
        r"(?m)^(banditloop evaluate\b(?!.*--blend)[^#\n]*)",
        r"\1 --sources ease,popular --no-fusion ",
    ),
    (r"(?m)^(banditloop evaluate .*--blend[^#\n]*)", r"\1 --sources ease,popular --users 200 "),
    ("seeds=5", "seeds=1, rounds=200"),
]
"""What would take minutes as it is written, and its short form."""


@dataclass(frozen=True)
class Town:
    """A folder as a reader has it, a clone with an environment in it, and the service there."""

    folder: Path
    url: str

    def shell(self, script: str, timeout_s: float = 120) -> str:
        """Run a script of which every command has to succeed, and return what it prints."""
        done = subprocess.run(
            [
                str(shutil.which("bash")),
                "-euo",
                "pipefail",
                "-c",
                f"alert() {{ echo $1; return 1; }}\n{script}",
            ],
            cwd=self.folder,
            env={**os.environ, **SETTINGS, "PATH": f"{BIN}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def as_here(self, text: str) -> str:
        """Return the text of a block with this service's address and ids for those of the page."""
        redis_url = str(running_url(self.folder / ".banditloop" / "valkey"))
        with contextlib.closing(blocking_client(redis_url)) as client:
            snapshot = str(StoredPolicy(client, "home").head())
        for given, here in {
            "127.0.0.1:8000": self.url.removeprefix("http://"),
            "3f2a": snapshot[:12],
            "redis://…": redis_url,
            "/path/or/uri": ".banditloop/archive",
            "/var/log/": "",
            "FIRST": ".banditloop/archive/home",
            "SECOND": ".banditloop/archive/home",
        }.items():
            text = text.replace(given, here)
        for started in SERVED:
            text = re.sub(started, "true", text)
        text = re.sub(WHOSE, r"\1 --policy home", text)
        text = re.sub(r"(?m)^XADD", f"redis-cli -u {redis_url} XADD", text)
        if "FOLDER" in text:
            text = text.replace("FOLDER", self.shell("banditloop data get obd").strip())
        for long, short in SHORTER:
            text = re.sub(long, short, text)
        return text


@pytest.fixture(scope="module")
def town(tmp_path_factory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copy(ROOT / "examples" / "home.yaml", folder)
    (folder / ".venv").symlink_to(BIN.parent)
    port = free_port()
    town = Town(folder, f"http://127.0.0.1:{port}")
    # As the README and the tutorial say it, but for what takes longest: the demo trains all of it.
    town.shell("banditloop train --sources als,deep,popular --no-prior", timeout_s=240)
    town.shell(own_tables("worlds tables") + own_tables("data import"))
    short = own_tables("train --data").strip() + " --sources ease,popular,trending\n"
    town.shell(short, timeout_s=200)
    command = [
        str(BIN / "banditloop"),
        "serve",
        "examples/home.yaml",
        "examples/movielens.yaml",
        "shop/policy.yaml",
        "--port",
        str(port),
    ]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **SETTINGS},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until_ready(town.url, timeout_s=150)
        traffic(town)
        for block in blocks():  # those that a reader saves as a file
            if block.title is not None:
                (folder / block.title).write_text(town.as_here(block.text))
        yield town
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def own_tables(begins: str) -> str:
    """Return the block of the tutorial of one's own tables that begins with this command."""
    [text] = [
        block.text
        for block in blocks()
        if block.page == "tutorials/your-own-tables.md"
        and block.text.startswith(f"banditloop {begins}")
    ]
    return f"{text}\n"


def traffic(town: Town) -> None:
    """Decisions and rewards of both policies, until they are learned and archived."""
    chance = random.Random(1)
    news = [ActionRequest(name, {"topic": name}) for name in ("news", "match")]
    with Client(town.url, "home") as home, Client(town.url, "movielens") as films:
        for number in range(120):
            for client, answer in (
                (home, home.rank(news, context={"hour": number % 24})),
                (films, films.rank(user_id=str(1 + number), context={"group": "25-34:M"})),
            ):
                if chance.random() < 0.5:
                    client.reward(answer.event_id, 1.0)
    deadline = time.monotonic() + 60
    while not all(
        list((town.folder / ".banditloop/archive" / name).rglob("*.parquet"))
        for name in ("home", "movielens")
    ):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(12)  # the windows of both close


@pytest.mark.parametrize(
    "block",
    [pytest.param(block, marks=[pytest.mark.slow] if block.page in SLOW else []) for block in RUN],
    ids=[f"{block.page}:{block.line}" for block in RUN],
)
def test_a_block_runs(town: Town, block: Block):
    text = town.as_here(block.text)
    if block.kind == "python":
        (town.folder / "block.py").write_text(text)
        town.shell("python block.py")
        return

    printed = town.shell(text)
    assert '{"error"' not in printed
    assert "Traceback" not in printed
    if block.output is not None:
        assert missing_lines(block.output, printed) == [], printed


def test_the_documentation_of_the_service_itself_is_a_page_that_works(town, tmp_path):
    """Through HAProxy and Serve, as anybody opens it."""
    with browser(tmp_path) as page:
        page.open(f"{town.url}/docs", "document.querySelectorAll('#schemas details').length")
        assert page.problems == []
        assert "/v1/policies/{policy}/rank" in page.text()
        assert page.evaluate("document.querySelectorAll('#paths details').length") > 10
