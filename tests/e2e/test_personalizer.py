"""Personalizer's clients, unchanged, against `banditloop serve`: over HTTP with a key, behind TLS with a token."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from azure.ai.personalizer import PersonalizerAdministrationClient, PersonalizerClient
from azure.core.credentials import AccessToken, AzureKeyCredential
from support import personalizer_quickstarts as quickstarts
from support.personalizer import KEY, SECRET
from support.tls import tls_relay, write_certificate

from bandits.errors import BanditloopError
from serve_app.api.api_keys import secret_hash
from serve_app.client import wait_until_ready
from serve_app.host.environment import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(400)]
SPEC = """
name: loop
learner: {kind: vw, args: "--cb_explore_adf --cb_type mtr -q :: --power_t 0 -l 0.001"}
exploration: {kind: epsilon_greedy, epsilon: 0.2}
floor: 0
join: {window_s: 5}
"""
SETTINGS = {"BANDITLOOP_ARCHIVE_MAX_AGE_S": "1", "BANDITLOOP_REDIS_TIMEOUT_S": "10"}


def eventually(condition: Callable[[], Any], what: str, *, within_s: float = 90.0) -> Any:
    """Wait for a condition to hold; return what it gave."""
    deadline = time.monotonic() + within_s
    while not (result := condition()):
        assert time.monotonic() < deadline, f"it never happened: {what}"
        time.sleep(0.1)
    return result


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("loop")
    (folder / "loop.yaml").write_text(SPEC)
    keys = folder / "keys.yaml"
    scopes = ["rank", "reward", "admin"]
    keys.write_text(yaml.safe_dump({"tester": {"hash": secret_hash(SECRET), "scopes": scopes}}))
    keys.chmod(0o600)

    port = free_port()
    command = [Path(sys.executable).parent / "banditloop", "serve", "loop.yaml"]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [*map(str, command), "--port", str(port), "--keys-file", "keys.yaml"],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **SETTINGS},
        )
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", timeout_s=150)

        # Who is answered may set something at once.
        where, key = f"http://127.0.0.1:{port}", AzureKeyCredential(KEY)
        with PersonalizerAdministrationClient(where, key, retry_total=0) as first:
            first.update_service_configuration(first.get_service_configuration())
        yield where
    except BanditloopError:
        print((folder / "output").read_text())  # noqa: T201 - why it did not start
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def admin(url) -> Iterator[PersonalizerAdministrationClient]:
    with PersonalizerAdministrationClient(url, AzureKeyCredential(KEY)) as client:
        yield client


class Token:
    """A credential as those of azure.identity, whose token is the key."""

    def get_token(self, *_: str, **__: object) -> AccessToken:
        return AccessToken(KEY, 1 << 40)


async def test_programs_that_were_published_for_the_clients_run_unchanged(url):
    quickstarts.grocery(url, KEY)
    quickstarts.videos(url, AzureKeyCredential(KEY))
    await quickstarts.videos_async(url, AzureKeyCredential(KEY))
    with ThreadPoolExecutor() as pool:
        said = pool.submit(quickstarts.administration, url, KEY).result()
    assert said["explorationPercentage"] == 0.2


def test_a_token_works_behind_tls_with_a_local_certificate(url, monkeypatch, tmp_path):
    certificate = tmp_path / "local.pem"
    write_certificate(certificate)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with tls_relay(int(url.rpartition(":")[2]), certificate) as port:
        quickstarts.videos(f"https://127.0.0.1:{port}", Token())


def test_fifty_actions_of_a_hundred_nested_features_are_answered_sixteen_at_a_time(url):
    """None with a status of the server's own failure."""
    nested = {f"n{i}": {f"f{j}": float(i * j) / 100 for j in range(10)} for i in range(10)}
    body = {
        "actions": [{"id": str(at), "features": [nested]} for at in range(50)],
        "contextFeatures": [nested],
    }

    def ask(_: int) -> int:
        with httpx.Client(headers={"Ocp-Apim-Subscription-Key": KEY}, timeout=60) as http:
            return http.post(f"{url}/personalizer/v1.0/rank", json=body).status_code

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(ask, range(64))) == {201}


def test_a_configuration_and_a_policy_that_are_put_are_served_without_a_failed_request(url, admin):
    """The change is what the policy's spec says then, and what its probabilities are."""
    headers = {"Ocp-Apim-Subscription-Key": KEY}
    before = admin.get_service_configuration()
    ask = {
        "actions": [{"id": each, "features": [{"is": each}]} for each in "abcd"],
        "contextFeatures": [{"hour": 8}],
    }
    statuses, stop = [], threading.Event()

    def go_on() -> None:
        with httpx.Client(headers=headers, timeout=30) as http:
            while not stop.wait(0.05):
                statuses.append(http.post(f"{url}/personalizer/rank", json=ask).status_code)

    def spec() -> dict[str, Any]:
        said = httpx.get(f"{url}/v1/policies/loop", headers={"Authorization": f"Bearer {KEY}"})
        return said.json()["spec"]

    asking = threading.Thread(target=go_on)
    asking.start()
    try:
        changed = {**before, "explorationPercentage": 0.6, "rewardAggregation": "sum"}
        after = admin.update_service_configuration(changed)
        assert (after["explorationPercentage"], after["rewardAggregation"]) == (0.6, "sum")
        eventually(lambda: spec()["exploration"]["epsilon"] == 0.6, "the configuration is served")
        assert spec()["join"]["aggregation"] == "sum"

        arguments = "--cb_explore_adf --epsilon 0.1 --cb_type mtr -q cf"
        admin.update_policy({"name": "mine", "arguments": arguments})
        eventually(lambda: spec()["exploration"]["epsilon"] == 0.1, "the policy is served")
        assert admin.get_policy()["arguments"] == arguments
        assert admin.get_service_configuration()["explorationPercentage"] == 0.1
    finally:
        stop.set()
        asking.join()
    assert len(statuses) > 20
    assert set(statuses) == {201}


def test_an_evaluation_with_a_search_ends_and_has_points_over_time(url, admin):
    now = datetime.now(UTC)
    contract = {
        "name": "all",
        "startTime": (now - timedelta(days=1)).isoformat(),
        "endTime": now.isoformat(),
        "policies": [],
        "enableOfflineExperimentation": True,
    }
    admin.create_evaluation("e1", contract)
    times = {"start_time": now - timedelta(days=1), "end_time": now}

    def ended() -> Any:
        found = admin.get_evaluation("e1", **times)
        return None if found["status"] == "Running" else found

    found = eventually(ended, "the evaluation has ended", within_s=240)
    assert found["status"] == "Succeeded", found
    sources = {each["policySource"] for each in found["content"]["value"]}
    assert sources >= {"Online", "Random", "OfflineExperimentation"}
    assert all(each["timeseries"]["data"] for each in found["content"]["value"])


def test_an_apprentice_is_told_how_often_it_imitates(url, admin):
    """Once it is served as one, and windows have closed."""
    before = admin.get_service_configuration()
    changed = {**before, "learningMode": "Apprentice"}
    assert admin.update_service_configuration(changed)["learningMode"] == "Apprentice"

    def imitates() -> Any:
        with PersonalizerClient(url, AzureKeyCredential(KEY)) as client:
            said = client.rank({"actions": quickstarts.VIDEOS, "contextFeatures": []})
            client.reward(said["eventId"], {"value": 1.0})
        told = admin.get_service_configuration()
        return told.get("latestApprenticeModeMetrics")

    found = eventually(imitates, "its imitation is counted", within_s=300)
    assert found["numberOfEvents"] >= found["numberOfImitatedEvents"]
    assert found["sumOfRewards"] == found["numberOfEvents"] > 0
