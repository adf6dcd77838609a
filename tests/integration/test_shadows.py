"""Shadows on a real server: whatever dies or is trimmed, they say the same of every decision."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from support import loops as one
from support import partition_loops as several
from typer.testing import CliRunner

from bandits.log.codec import encode
from bandits.log.positions import log_order, merged_position, position_ms
from bandits.log.records import CheckpointRecord, DecisionRecord, TickRecord
from policies.archive.archive import ArchiveReader
from policies.shadows import files as shadow_files
from policies.shadows.files import NamedShadow, PolicyShadows, ShadowFiles
from policies.shadows.following import DecisionPmfs
from policies.shadows.opening import Shadow, shadows_of
from policies.spec import PolicySpec, decode_spec
from serve_app.admin.freshness import read_all
from serve_app.cli.main import app
from serve_app.settings import Settings
from serve_app.store.clients import asyncio_client, blocking_client
from serve_app.store.event_log import FIELD
from serve_app.store.replicas.shadow_progress import read_shadow_lags
from serve_app.workers.archiver import Archiver
from serve_app.workers.shadows import following
from serve_app.workers.shadows.following import FollowedShadow, follow_policy, forget_shadows

pytestmark = [
    pytest.mark.usefixtures("hurried_learner"),
    pytest.mark.one_server,
]

SHADOWS: list[Any] = [
    {"name": "greedy", "exploration": {"kind": "greedy"}},
    {
        "name": "vw",
        "learner": {"kind": "vw", "args": "--cb_explore_adf -b 10 -q ci"},
        "exploration": {"kind": "epsilon_greedy"},
    },
    "missing.yaml",
]
SPEC = msgspec.structs.replace(one.SPEC, shadow=SHADOWS)
DECISIONS = 90
PROCESS = """
import asyncio, os, sys, threading
from pathlib import Path
from policies.spec import decode_spec
from policies.shadows import files
from serve_app.settings import Settings
from serve_app.workers.actors import ShadowActor
from serve_app.workers.shadows import following
files.PART = following.PART = 16
following.STORE_S, following.POLL_S, following.READ = 0.0, 0.01, 7
settings = Settings(redis_url=sys.argv[1], data_dir=Path(sys.argv[2]), archive="none")
actor = ShadowActor(settings, [decode_spec(Path(sys.argv[3]).read_bytes())])
assert os.nice(0) == 19
if len(sys.argv) > 4:
    asyncio.run(actor.stop())
    sys.exit(any(thread.is_alive() for thread in actor._threads))
threading.Event().wait()
"""


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files, and no waiting."""
    monkeypatch.setattr(following, "STORE_S", 0.0)
    monkeypatch.setattr(following, "PART", 16)
    monkeypatch.setattr(shadow_files, "PART", 16)
    monkeypatch.setenv("BANDITLOOP_SALT", one.SALT.decode())


def log_some(client: redis.Redis, prefix: str = "e") -> Any:
    """Decisions in a learner's log, with a checkpoint in the middle and one at the end."""
    loop = one.make(client, SPEC)
    for part in range(2):
        one.settle(loop)
        one.decide(client, DECISIONS // 2, spec=SPEC, prefix=f"{prefix}{part}-")
        one.settle(loop)
        loop.log.append(CheckpointRecord())
    loop.log.append(TickRecord())
    one.settle(loop)
    return loop


def followed(
    client: redis.Redis, settings: Settings, spec: PolicySpec = SPEC
) -> dict[str, list[tuple[str, bytes]]]:
    """What each shadow says of the log up to now, after a start of its own."""
    for shadow in good(spec):
        own = FollowedShadow(blocking_client(one.url_of(client)), spec, shadow, settings)
        own.begin()
        own.step(threading.Event())
        own.step(threading.Event())
    return stored(settings, spec)


def good(spec: PolicySpec) -> list[Shadow]:
    return [each for each in shadows_of(spec) if each.spec is not None]


def files_of(settings: Settings, shadow: Shadow) -> ShadowFiles:
    named = NamedShadow(shadow.name, shadow.digest)
    return PolicyShadows(settings.shadows_root(), "home").of(named)


def stored(settings: Settings, spec: PolicySpec = SPEC) -> dict[str, list[tuple[str, bytes]]]:
    return {each.name: all_of(files_of(settings, each)) for each in good(spec)}


def all_of(files: ShadowFiles) -> list[tuple[str, bytes]]:
    made: list[DecisionPmfs] = []
    while part := files.stored(len(made) // 16):
        made += part
        if len(part) < 16:
            break
    return [(each.position, b"".join(pmf.tobytes() for pmf in each.pmfs)) for each in made]


def settings_in(folder: Path, url: str, archive: str = "none") -> Settings:
    return Settings(redis_url=url, data_dir=folder, archive=archive)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_decision_has_its_pmfs_wherever_a_shadow_was_stopped(
    client: redis.Redis, server_url: str, tmp_path: Path
) -> None:
    """One that follows on and one that begins at the end say the same; so does a killed one."""
    killed = settings_in(tmp_path / "killed", server_url)
    (tmp_path / "spec").write_bytes(msgspec.json.encode(SPEC))
    assert decode_spec((tmp_path / "spec").read_bytes()) == SPEC
    command = [sys.executable, "-c", PROCESS, server_url, killed.data_dir, tmp_path / "spec"]

    loop = log_some(client)
    for many in (20, 60, DECISIONS + 40):
        process = subprocess.Popen([*map(str, command)])
        try:
            until(process, lambda many=many: said_of(killed) >= many)  # type: ignore[misc]
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        if many == 60:
            one.decide(client, 40, spec=SPEC, prefix="more")
            one.settle(loop)

    decided = [
        entry.id for entry in read_all(client, one.KEYS) if isinstance(entry.record, DecisionRecord)
    ]
    assert len(decided) == DECISIONS + 40
    whole = followed(client, settings_in(tmp_path / "whole", server_url))
    for name, made in stored(killed).items():
        assert [position for position, _ in made] == decided
        assert made == whole[name]

    # Told to stop, its threads end between two steps.
    subprocess.run([*map(str, command), "stop"], check=True, timeout=60)


def said_of(settings: Settings) -> int:
    """Of how many decisions all shadows have said something."""
    states = [files_of(settings, each).state() for each in good(SPEC)]
    return min(0 if state is None else state.decisions for state in states)


def until(process: "subprocess.Popen[bytes]", holds: Any) -> None:
    deadline = time.monotonic() + 100
    while not holds():
        assert process.poll() is None, "it has ended"
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.02)


def test_what_the_stream_has_lost_is_read_from_the_archive(
    client: redis.Redis, server_url: str, tmp_path: Path
) -> None:
    """A shadow that comes late lacks nothing."""
    archive = str(tmp_path / "archive")
    log_some(client)
    before = followed(client, settings_in(tmp_path / "stream", server_url))

    archiver = Archiver(client, "home", archive, max_entries=20, max_age_s=0.0, retain_s=0.0)
    while archiver.step():
        pass
    client.set(one.KEYS.needed, ArchiveReader(archive, "home").end)
    client.xtrim(one.KEYS.log, minid=ArchiveReader(archive, "home").end, approximate=False)
    client.hset(one.KEYS.archive, "trimmed", ArchiveReader(archive, "home").end)
    assert client.xlen(one.KEYS.log) < 5
    assert followed(client, settings_in(tmp_path / "late", server_url, archive)) == before


def test_of_a_policy_in_partitions_every_decision_has_its_pmfs(
    client: redis.Redis, server_url: str, tmp_path: Path
) -> None:
    """Also where the shadow died in between; cuts and merges are the policy's own affair."""
    spec = msgspec.structs.replace(several.SPEC, shadow=SHADOWS[:1])
    loops, early = several.make_all(client, spec), settings_in(tmp_path / "early", server_url)
    for part in range(2):
        several.settle(loops, client)
        several.decide(client, DECISIONS // 2, spec=spec, prefix=f"e{part}-")
        several.settle(loops, client)
        for loop in loops:
            loop.log.append(CheckpointRecord())
        several.settle(loops, client)
        followed(client, early, spec)

    whole = followed(client, settings_in(tmp_path / "whole", server_url), spec)
    assert stored(early, spec) == whole
    (said,) = whole.values()
    positions = [
        merged_position(entry.id, keys.partition, several.COUNT)
        for keys in several.KEYS
        for entry in read_all(client, keys)
        if isinstance(entry.record, DecisionRecord)
    ]
    assert [position for position, _ in said] == sorted(positions, key=log_order)
    assert len({pmfs for _, pmfs in said}) > 1, "it learned nothing"


def test_the_report_knows_all_of_them_and_a_policy_without_any_forgets_them(
    client: redis.Redis, server_url: str, tmp_path: Path
) -> None:
    """One that cannot be loaded is refused with its file, the others are estimated.

    The metrics tell how far each of them is behind.
    """
    settings = settings_in(tmp_path, server_url)
    log_some(client)
    runs = follow_policy(settings, SPEC)
    assert [name for name, _ in runs] == ["shadow-home-greedy", "shadow-home-vw"]
    followed(client, settings)

    shadows = report(settings)
    assert [each["name"] for each in shadows] == ["greedy", "vw", "missing"]
    assert [each["rows"] for each in shadows] == [DECISIONS, DECISIONS, 0]
    assert [each["decisions"] for each in shadows] == [DECISIONS, DECISIONS, 0]
    refused = shadows[-1]["verdict"]
    assert refused["code"] == "shadow_refused"
    assert "shadow[2]: missing.yaml: No such file" in refused["message"]

    lags = asyncio.run(lags_of(server_url))
    assert lags == {"greedy": 0.0, "vw": 0.0}
    first = client.xadd(one.KEYS.log, {FIELD: encode(TickRecord())}).decode()
    client.xadd(one.KEYS.log, {FIELD: encode(TickRecord())})
    wait(lambda: asyncio.run(lags_of(server_url))["vw"] > 0.0)
    # What comes after a silence is no later than it is old.
    lag_s = asyncio.run(lags_of(server_url))["vw"]
    assert lag_s <= (clock_ms(client) - position_ms(first)) / 1000

    forget_shadows(settings, one.SPEC.name)
    assert report(settings) == []
    assert asyncio.run(lags_of(server_url)) == {}


def clock_ms(client) -> float:
    seconds, microseconds = client.time()
    return seconds * 1000 + microseconds / 1000


async def lags_of(url: str) -> dict[str, float]:
    """What any replica says of how far the shadows are behind."""
    async with asyncio_client(url, timeout_s=10.0) as client:
        return await read_shadow_lags(client, [one.KEYS])


def report(settings: Settings) -> list[dict[str, Any]]:
    options = ["--redis-url", str(settings.redis_url), "--data-dir", str(settings.data_dir)]
    said = CliRunner(env={"BANDITLOOP_ARCHIVE": "none"}).invoke(
        app, ["report", "home", *options, "--json", "--no-doctor"], catch_exceptions=False
    )
    found: list[dict[str, Any]] = msgspec.json.decode(said.stdout)["shadows"]
    return found


def test_one_that_cannot_go_on_says_why_and_goes_on_when_it_can(
    client: redis.Redis, server_url: str, tmp_path: Path
) -> None:
    """The blob of the log's spec is gone for a while."""
    settings, shadow = settings_in(tmp_path, server_url), good(SPEC)[0]
    log_some(client)
    blob, stop = one.KEYS.blob(SPEC.digest), threading.Event()
    spec = client.get(blob)
    client.delete(blob)
    own = FollowedShadow(blocking_client(server_url), SPEC, shadow, settings)
    thread = threading.Thread(target=own.run, args=(stop,))
    thread.start()
    try:
        wait(lambda: (state := files_of(settings, shadow).state()) and state.state == "failed")
        state = files_of(settings, shadow).state()
        assert state is not None
        assert SPEC.digest in state.message
        client.set(blob, spec)
        wait(lambda: len(all_of(files_of(settings, shadow))) == DECISIONS)
    finally:
        stop.set()
        thread.join(20)
    state = files_of(settings, shadow).state()
    assert state is not None
    assert (state.state, state.message) == ("follows", "")


def wait(holds: Any) -> None:
    deadline = time.monotonic() + 100
    while not holds():
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.02)
