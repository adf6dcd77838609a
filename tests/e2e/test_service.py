"""The real service: Ray Serve, HAProxy, Valkey, real HTTP, started by the command a user types."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from support.listening import listening
from support.processes import descendants

from bandits.errors import BanditloopError
from bandits.log.records import DecisionRecord
from policies.archive.archive import ArchiveReader
from policies.artifacts.source_artifact import Artifact, TrainedSource, write
from policies.requests import ActionRequest
from serve_app.client import Client, ServiceError, wait_until_ready
from serve_app.host.environment import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SPEC = """
name: news
learner: {kind: ridge, interactions: [[context, features]]}
exploration: {kind: lints, scale: 0.3, draws: 50}
floor: 0.05
join: {window_s: 1, default_reward: 0, aggregation: first}
"""
SETTINGS = {
    "BANDITLOOP_ARCHIVE_MAX_AGE_S": "1",
    "BANDITLOOP_MAX_ONGOING_REQUESTS": "8",
    "BANDITLOOP_MAX_QUEUED_REQUESTS": "8",
    # Other suites run beside: who gets no processor for seconds is slow, and no fault is hidden.
    "BANDITLOOP_REDIS_TIMEOUT_S": "10",
}
ACTIONS = [ActionRequest("good", {"topic": "sport"}), ActionRequest("bad", {"topic": "war"})]


def banditloop(*arguments: str, cwd: Path, output: str = "output") -> "subprocess.Popen[str]":
    """The installed command, in its own process group; what it prints goes to ``cwd``/``output``."""
    command = [str(Path(sys.executable).parent / "banditloop"), *arguments]
    with (cwd / output).open("w") as printed:
        return subprocess.Popen(
            command,
            cwd=cwd,
            text=True,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **SETTINGS},
        )


def wait_for(condition, *, timeout_s: float, what: str):
    """Poll until the condition gives something true."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.05)
    pytest.fail(f"{what}: not within {timeout_s} s")


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    folder = tmp_path_factory.mktemp("service")
    (folder / "news.yaml").write_text(SPEC)
    port = free_port()
    process = banditloop("serve", "news.yaml", "--port", str(port), "--replicas", "2", cwd=folder)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, timeout_s=150)
        yield url, process
    except BanditloopError:
        os.killpg(process.pid, signal.SIGKILL)
        print((folder / "output").read_text())  # noqa: T201 - why it did not start
        raise
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_it_answers_learns_and_every_replica_serves_what_it_learned(service):
    url, _ = service
    with Client(url, "news") as client:
        before = httpx.get(f"{url}/v1/policies/news").json()
        for _ in range(120):
            answer = client.rank(ACTIONS, context={"hour": 3}, return_pmf=True)
            assert answer.logged
            assert sum(each.probability for each in answer.pmf) == pytest.approx(1, abs=1e-12)
            if answer.chosen[0].id == "good":
                client.reward(answer.event_id, 1.0)

        def learned():
            info = httpx.get(f"{url}/v1/policies/news").json()
            return info if info["learned"] >= 120 else None

        after = wait_for(learned, timeout_s=20, what="all decisions learned")
        assert after["snapshot_id"] != before["snapshot_id"]
        assert after["outcomes"]["decisions"] == 120

        def both_prefer_good():
            answers = [
                client.rank(ACTIONS, context={"hour": 3}, return_pmf=True) for _ in range(10)
            ]
            return all(each.pmf[0].probability > 0.9 for each in answers)

        wait_for(both_prefer_good, timeout_s=20, what="both replicas prefer the better action")


def test_what_has_started_rests_while_nobody_asks(service):
    """The main thread of a process of Ray would look a hundred times a second for signals."""
    url, process = service
    keeper = next(pid for pid, title in descendants(process.pid).items() if "keeper" in title)

    def switches() -> int:
        status = Path(f"/proc/{keeper}/task/{keeper}/status").read_text()
        return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])

    def rests() -> bool:
        before, began = switches(), time.monotonic()
        time.sleep(0.5)
        return (switches() - before) / (time.monotonic() - began) < 60

    wait_for(rests, timeout_s=30, what=f"the keeper of {url} rests")


def test_a_retry_under_the_same_event_id_gets_the_same_decision(service):
    """Whichever replica answers, and although each attempt draws from its own snapshot."""
    url, _ = service
    with Client(url, "news") as client:
        answers = [client.rank(ACTIONS, event_id="retried") for _ in range(8)]
        assert len({(answer.chosen[0].id, answer.snapshot_id) for answer in answers}) == 1
        with pytest.raises(ServiceError) as conflict:
            client.rank(ACTIONS, event_id="retried", context={"other": True})
    assert (conflict.value.status, conflict.value.service_code) == (409, "event_conflict")


def test_a_slate_a_batch_and_a_deferred_decision(service):
    url, _ = service
    actions = [ActionRequest(f"a{i}") for i in range(6)]
    with Client(url, "news") as client:
        slate = client.rank(actions, slots=3)
        assert len({each.id for each in slate.chosen}) == 3
        deferred = client.rank(actions, defer_activation=True)
        client.activate(deferred.event_id)
    body = {"requests": [{"actions": [{"id": "a"}]}, {"actions": []}]}
    results = httpx.post(f"{url}/v1/policies/news/rank:batch", json=body).json()["results"]
    assert results[0]["chosen"][0] == {"slot": 0, "id": "a", "propensity": 1.0}
    assert results[1]["error"]["code"] == "empty_actions"
    assert results[1]["error"]["target"] == "requests[1].actions"


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("news/rank", b"{", 400, "malformed_json"),
        ("news/rank", b'{"actions": 3}', 422, "invalid_field"),
        ("nope/rank", b"{}", 404, "unknown_policy"),
        (
            "news/rank",
            b'{"actions": [{"id": "a"}], "context": {"x": 1e999}}',
            422,
            "non_finite_number",
        ),
        ("news/rank", b" " * (1 << 20) + b"{}", 413, "body_too_large"),
        ("news/events/unseen/reward", b'{"value": 1}', 202, None),
    ],
)
def test_bad_input_through_the_whole_stack(service, path, body, status, code):
    url, _ = service
    response = httpx.post(f"{url}/v1/policies/{path}", content=body)
    assert response.status_code == status
    assert response.json().get("error", {}).get("code") == code
    assert httpx.get(f"{url}/livez").status_code == 200


def test_of_more_requests_than_it_holds_some_are_turned_away_and_the_client_tries_them_again(
    service,
):
    url, _ = service
    answers: list[tuple[int, str]] = []
    asked = 0

    def crowd(number: int) -> None:
        with (
            Client(url, "news", retries=0) as impatient,
            Client(url, "news", retries=20) as patient,
        ):
            for attempt in range(10):
                event_id = f"crowd-{number}-{attempt}"
                try:
                    impatient.rank(ACTIONS, event_id=event_id)
                    answers.append((200, "at once"))
                except ServiceError as error:
                    answers.append((error.status, error.service_code))
                    if patient.rank(ACTIONS, event_id=event_id).logged:
                        answers.append((200, "later"))

    # On a busy machine the crowd is slow, too: it comes again until the service holds no more.
    deadline = time.monotonic() + 60
    with ThreadPoolExecutor(64) as pool:
        while (429, "overloaded") not in answers and time.monotonic() < deadline:
            list(pool.map(crowd, range(asked, asked + 64)))
            asked += 64
    times = Counter(answers)
    assert set(times) == {(200, "at once"), (429, "overloaded"), (200, "later")}
    assert times[200, "at once"] + times[200, "later"] == 10 * asked


def test_unless_told_otherwise_all_of_it_listens_on_loopback(service):
    url, process = service
    ports = listening(set(descendants(process.pid)))
    assert {address for address, _ in ports} == {"127.0.0.1"}
    assert int(url.rpartition(":")[2]) in {port for _, port in ports}
    assert len(ports) > 10  # Ray's, Serve's, HAProxy's and Valkey's are among them


def test_another_address_without_keys_is_refused_before_anything_starts(tmp_path):
    process = banditloop("serve", "--host", "0.0.0.0", cwd=tmp_path)  # noqa: S104 - what is tested
    assert process.wait(60) == 1
    output = (tmp_path / "output").read_text()
    assert "0.0.0.0" in output  # noqa: S104
    assert "--keys-file" in output
    assert not (tmp_path / ".banditloop").exists()


def test_metrics_docs_and_openapi(service):
    url, _ = service
    assert httpx.get(f"{url}/openapi.json").json()["openapi"].startswith("3.1")
    assert "<html" in httpx.get(f"{url}/docs").text

    def all_there():
        text = httpx.get(f"{url}/metrics").text
        wanted = (
            "decisions_total",
            "log_outcomes_total",
            "learner_lag",
            "snapshot_age",
            "archive_lag_seconds",
            "archive_failures_total",
            "log_entries",
            'latency_seconds_bucket{le="0.0001"',
        )
        return all(f"banditloop_{name}" in text or name in text for name in wanted)

    wait_for(all_there, timeout_s=10, what="all metrics")


def test_the_log_is_archived_while_it_grows(service, tmp_path):
    url, process = service
    root = Path(f"/proc/{process.pid}/cwd").resolve() / ".banditloop" / "archive"
    with Client(url, "news") as client:
        event_id = client.rank(ACTIONS).event_id
    wait_for(
        lambda: any(
            isinstance(entry.record, DecisionRecord) and entry.record.event_id == event_id
            for entry in ArchiveReader(root, "news").entries()
        ),
        timeout_s=20,
        what="the decision in the archive",
    )
    show = banditloop("archive", "show", "--archive", str(root), "news", cwd=tmp_path)
    assert show.wait(60) == 0
    assert "per entry" in (tmp_path / "output").read_text()


def office_of(process: "subprocess.Popen[str]") -> list[int]:
    started = descendants(process.pid)
    return [pid for pid, title in started.items() if "ServeReplica:console" in title]


def test_the_office_says_what_the_commands_print(service):
    """At a lower priority than whoever answers rank."""
    url, process = service
    folder = Path(f"/proc/{process.pid}/cwd").resolve()
    news = f"{url}/v1/policies/news"
    wait_for(lambda: office_of(process), timeout_s=30, what="the office")
    with Client(url, "news") as client:
        newest = client.rank(ACTIONS, context={"hour": 3}).event_id
        client.reward(newest, 1.0)
    # Between what is asked and what is printed no window closes.
    wait_for(
        lambda: httpx.get(f"{news}/events/{newest}").json().get("outcome") == "rewarded",
        timeout_s=30,
        what="the window of the newest decision has closed",
    )
    lines = {"report": ["report"], "doctor": ["doctor"], f"events/{newest}/explain": ["explain"]}
    lines[f"events/{newest}/explain"].append(newest)
    for path, command in lines.items():
        told = httpx.get(f"{news}/{path}", timeout=60).json()
        printed = banditloop(*command, "--json", cwd=folder, output="printed")
        printed.wait(60)
        said = json.loads((folder / "printed").read_text())
        varying = {"range", "findings", "times", "drifts"}  # the log's ticks go on
        for name in said.keys() - varying:
            assert told[name] == said[name], (path, name)

    body = {"event_id": "seen", "context": {"hour": 3}, "actions": [{"id": "a"}, {"id": "b"}]}
    (folder / "body.json").write_text(json.dumps(body))
    options = ["--url", url, "--request", "body.json"]
    for more in (["--json"], []):
        banditloop("preview", *options, *more, cwd=folder, output=f"shown{more}").wait(60)
    shown = json.loads((folder / "shown['--json']").read_text())
    assert shown == httpx.post(f"{news}/preview", json=body).json()
    assert "constant" in (folder / "shown[]").read_text()
    assert httpx.get(f"{news}/events/seen").status_code == 404

    own = os.getpriority(os.PRIO_PROCESS, process.pid)
    [office] = office_of(process)
    threads = [int(each.name) for each in Path(f"/proc/{office}/task").iterdir()]
    nice = {os.getpriority(os.PRIO_PROCESS, each) - own for each in threads}
    assert min(nice) >= min(10, 19 - own)


def test_killing_the_office_costs_rank_nothing(service):
    url, process = service
    [office] = office_of(process)
    with asked_all_the_time(url, "news", {"actions": [{"id": "a"}, {"id": "b"}]}) as answers:
        os.kill(office, signal.SIGKILL)
        told = httpx.get(f"{url}/v1/policies/news/decisions", timeout=60)
        assert told.status_code == 200 or told.json()["error"]["code"] == "office_gone"
        wait_for(
            lambda: httpx.get(f"{url}/v1/policies/news/decisions").status_code == 200,
            timeout_s=60,
            what="another office",
        )
        assert office_of(process) != [office]
    assert answers
    assert {status for status, _, _ in answers} == {200}


def train(root: Path, *items: str) -> str:
    """An artifact that recommends these, the last one first; its version."""
    popular = TrainedSource("popular", {"counts": np.arange(1, 1 + len(items), dtype=np.float32)})
    return write(Artifact(tuple({"id": item} for item in items), items, {"popular": popular}), root)


@contextlib.contextmanager
def asked_all_the_time(url: str, policy: str, body: dict) -> Iterator[list[tuple[int, bool, str]]]:
    """Requests from two loops, each made once; the status of each answer, whether it is logged, and its event."""
    answers: list[tuple[int, bool, str]] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=30) as client:
            while not stop.wait(0.02):
                answer = client.post(f"{url}/v1/policies/{policy}/rank", json=body)
                said = answer.json()
                answers.append(
                    (answer.status_code, said.get("logged", False), said.get("event_id", ""))
                )

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        try:
            yield answers
        finally:
            stop.set()
    for each in asking:
        each.result()


def test_specs_policies_and_artifacts_change_while_requests_come(service):
    """By one command; no request fails or is not logged, and all of it verifies."""
    url, process = service
    folder = Path(f"/proc/{process.pid}/cwd").resolve()
    first, second = (
        train(folder / "shop", "tea", "rum"),
        train(folder / "shop", "rum", "tea", "gin"),
    )
    train(folder / "shop", "tea", "rum")

    def apply(*words: str, status: int = 0) -> str:
        done = banditloop("apply", *words, cwd=folder, output="applied")
        assert done.wait(120) == status, (folder / "applied").read_text()
        return (folder / "applied").read_text()

    def info(policy: str) -> dict:
        return httpx.get(f"{url}/v1/policies/{policy}").json()

    (folder / "shop.yaml").write_text(
        "name: shop\nsources: [{kind: artifact, name: popular}]\nartifact: shop\n"
    )
    (folder / "news.yaml").write_text(SPEC.replace("0.05", "0.07"))
    with asked_all_the_time(url, "news", {"actions": [{"id": "a"}, {"id": "b"}]}) as news:
        planned = apply("news.yaml", "shop.yaml", "--dry-run")
        assert "floor" in planned
        assert "one more policy" in planned
        assert httpx.get(f"{url}/v1/policies").json()["policies"] == ["news"]
        apply("news.yaml", "shop.yaml")
        assert info("news")["spec"]["floor"] == 0.07
        assert info("shop")["artifact"] == first

        with asked_all_the_time(url, "shop", {}) as shop:
            train(folder / "shop", "rum", "tea", "gin")
            assert f"artifact {first} -> {second}" in apply("news.yaml", "shop.yaml")
            wait_for(lambda: info("shop")["artifact"] == second, timeout_s=20, what="it serves")
        assert "nothing changes" in apply("news.yaml", "shop.yaml")
        (folder / "split.yaml").write_text(SPEC + "partitions: 2\n")
        assert "partitions" in apply("split.yaml", "shop.yaml", status=1)
        apply("news.yaml")
        assert httpx.get(f"{url}/v1/policies").json()["policies"] == ["news"]

    for policy, answers in (("news", news), ("shop", shop)):
        assert len(answers) > 20
        assert {answer[:2] for answer in answers} == {(200, True)}
        verified = banditloop(
            "snapshots", "verify", "--policy", policy, cwd=folder, output="verified"
        )
        assert verified.wait(60) == 0, (folder / "verified").read_text()


def test_a_port_in_use_and_a_wrong_spec_are_one_readable_line(service, tmp_path):
    url, _ = service
    taken = banditloop("serve", "--port", url.rpartition(":")[2], cwd=tmp_path)
    assert taken.wait(60) == 1
    assert "cannot listen" in (tmp_path / "output").read_text()
    (tmp_path / "bad.yaml").write_text("name: x\nlearner: {kind: ridge, l3: 1}\n")
    wrong = banditloop("serve", "bad.yaml", cwd=tmp_path)
    assert wrong.wait(60) == 1
    output = (tmp_path / "output").read_text()
    assert len(output.strip().splitlines()) == 1
    assert "l3" in output
    assert "learner" in output


def test_it_stops_cleanly_and_leaves_no_process_behind(service):
    """Runs last: SIGTERM, exit status 0, every process it started is gone."""
    url, process = service
    children = descendants(process.pid)
    assert children
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0

    def all_gone():
        return not any(
            Path(f"/proc/{pid}").exists() and pid in children
            for pid in children
            if not _zombie(pid)
        )

    wait_for(all_gone, timeout_s=20, what="all child processes gone")
    with pytest.raises(ServiceError), Client(url, "news", retries=0) as client:
        client.rank(["a"])


def _zombie(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
