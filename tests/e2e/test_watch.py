"""A real Prometheus over a real service: what is in deploy/ has an answer to every question it asks."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.prometheus import Prometheus, program, prometheus
from support.small_artifact import make_artifact

from bandits.errors import BanditloopError
from policies.artifacts.source_artifact import write
from serve_app.client import Client, wait_until_ready
from serve_app.host.environment import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
PATIENCE_S = 60.0
SETTINGS = {
    "BANDITLOOP_ARCHIVE_MAX_AGE_S": "1",
    "BANDITLOOP_USERS_BACKUP_INTERVAL_S": "1",
    "BANDITLOOP_REDIS_TIMEOUT_S": "10",
}
SPEC = """
name: shop
artifact: artifact
sources:
  - {kind: artifact, name: popular}
  - {kind: remote, name: away, url: "http://127.0.0.1:1/", retries: 0}
learner: {kind: ridge}
join: {window_s: 1}
signals: {click: 1, buy: 5}
profile: {}
quota: [{when: 'item.id in ["i01", "i02"]', at_least: 0.2, within: 1m}]
"""
"""A policy that has all there is to be measured: also a source that fails."""


class Collector(ThreadingHTTPServer):
    """Takes traces as OTLP has them; ``spans``: the name of each, and of its policy or source."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, frozenset[str]]] = []
        super().__init__(("127.0.0.1", 0), Export)


class Export(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                said = frozenset(each.value.string_value for each in span.attributes)
                self.server.spans.append((span.name, said))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(scope="module")
def service(collector, tmp_path_factory) -> Iterator[str]:
    program("prometheus")
    traced = {
        "BANDITLOOP_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "BANDITLOOP_OTLP_SAMPLE": "1",
    }
    folder = tmp_path_factory.mktemp("watched")
    write(make_artifact(), folder / "artifact")
    (folder / "shop.yaml").write_text(SPEC)
    port = free_port()
    command = [
        str(Path(sys.executable).parent / "banditloop"),
        *("serve", "shop.yaml", "--port", str(port)),
    ]
    with (folder / "output").open("w") as printed:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **SETTINGS, **traced},
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, timeout_s=150)
        yield url
    except BanditloopError:
        print((folder / "output").read_text())  # noqa: T201 - why it did not start
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def watching(service, tmp_path_factory) -> Iterator[Prometheus]:
    """Prometheus with the files of deploy/, but for how often it asks, and whom."""
    config = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(DEPLOY / name) for name in config["rule_files"]]
    (job,) = config["scrape_configs"]
    del job["authorization"]
    job["static_configs"] = [{"targets": [service.removeprefix("http://")]}]
    with prometheus(config, tmp_path_factory.mktemp("prometheus")) as running:
        yield running


def some_traffic(url: str) -> None:
    with Client(url, "shop") as client:
        for number in range(10):
            answer = client.rank(user_id=f"u{number}")
            client.reward(answer.event_id, 1.0, signal="click")
    event = {"user_id": "u1", "item_id": "i03", "type": "view"}
    httpx.post(f"{url}/v1/spaces/shop/activity", json={"events": [event]}).raise_for_status()


def questions() -> dict[str, tuple[str, set[str]]]:
    """By panel and target of the dashboard, what is asked, as Grafana would, and the labels that it shows."""
    board = json.loads((DEPLOY / "grafana" / "banditloop.json").read_text())
    return {
        f"{panel['title']} {target['refId']}": (
            target["expr"].replace("$__rate_interval", "1m").replace("$policy", ".*"),
            set(re.findall(r"{{(\w+)}}", target["legendFormat"])),
        )
        for panel in board["panels"]
        for target in panel.get("targets", [])
    }


def has_data(watching: Prometheus, expression: str, labels: set[str]) -> bool:
    """Whether there is an answer; each sample of it must have the labels that the legend shows."""
    found = watching.ask(expression)
    assert all(labels <= each["metric"].keys() for each in found), (expression, found)
    return bool(found)


def test_every_panel_of_the_dashboard_has_data_and_every_rule_is_healthy(service, watching):
    asked = questions()
    assert len(asked) > 25
    deadline = time.monotonic() + PATIENCE_S
    while lacking := {name for name, each in asked.items() if not has_data(watching, *each)}:
        assert time.monotonic() < deadline, f"no data: {sorted(lacking)}"
        some_traffic(service)
        time.sleep(0.5)

    rules = watching.rules()
    assert {rule["health"] for rule in rules} == {"ok"}, rules
    assert not [rule for rule in rules if rule.get("lastError")]


def test_a_panel_whose_metric_there_is_not_would_have_none(watching):
    assert watching.ask("max by (policy) (banditloop_lerner_lag_seconds)") == []


def test_the_source_that_is_away_is_on_its_way_to_an_alert(service, watching):
    """Who has failed is named by the labels that the alert tells."""
    (found,) = watching.ask('policy_source:banditloop_source_failures:ratio_rate5m{source="away"}')
    assert float(found["value"][1]) > 0.05
    pending = watching.ask('ALERTS{alertname="BanditloopSourceFails"}')
    assert [(each["metric"]["source"], each["metric"]["alertstate"]) for each in pending] == [
        ("away", "pending")
    ]


def test_its_traces_reach_the_collector_that_its_environment_names(service, collector):
    some_traffic(service)
    wanted = {
        ("POST rank", "shop"),
        ("source", "popular"),
        ("source", "away"),
        ("POST reward", "shop"),
    }
    deadline = time.monotonic() + PATIENCE_S
    while lacking := {
        (name, of)
        for name, of in wanted
        if not any(name == span and of in said for span, said in collector.spans)
    }:
        assert time.monotonic() < deadline, lacking
        time.sleep(0.1)
