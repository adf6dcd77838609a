"""Personalizer's administration client, unchanged, has a policy's archive evaluated, and says what replay says."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from azure.ai.personalizer import PersonalizerAdministrationClient, PersonalizerClient
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from support.personalizer import KEY, Adapted, adapted
from support.servers import PATIENCE_S
from typer.testing import CliRunner

from bandits.log.join_rule import JoinRule
from policies.personalizer.arguments import DEFAULT_ARGUMENTS, with_arguments
from policies.spec import PolicySpec
from serve_app.cli.replay import app
from serve_app.personalizer.evaluations.judging import (
    ESTIMATOR,
    POLICIES,
    Z_95,
    learning_command,
    replay_command,
)
from serve_app.workers.archiver import Archiver

SPEC = with_arguments(PolicySpec("home", join=JoinRule(window_s=0.3)), DEFAULT_ARGUMENTS)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[Adapted]:
    """A policy with a log of 30 rewarded decisions, archived."""
    folder = tmp_path_factory.mktemp("evaluated")
    with adapted(folder, [SPEC]) as out:
        with PersonalizerClient(f"{out.url}/policies/home", AzureKeyCredential(KEY)) as client:
            for number in range(30):
                actions = [{"id": each, "features": [{"is": each}]} for each in "abc"]
                chosen = client.rank({"actions": actions, "contextFeatures": [{"n": number}]})
                value = float(chosen["rewardActionId"] == "b")
                client.reward(chosen["eventId"], {"value": value})
        threading.Event().wait(1.5)  # a tick closes the windows of the log's own time
        with out.server.client() as connection:
            Archiver(
                connection, "home", str(folder / "archive"), max_age_s=0.0, retain_s=3600
            ).step()
        yield out


@pytest.fixture
def admin(service) -> Iterator[PersonalizerAdministrationClient]:
    url = f"{service.url}/policies/home"
    with PersonalizerAdministrationClient(url, AzureKeyCredential(KEY)) as client:
        yield client


def contract(**changes: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "name": "weekly",
        "startTime": (now - DAY).isoformat(),
        "endTime": now.isoformat(),
        "policies": [],
        **changes,
    }


def refused(call: Any, *args: Any, **options: Any) -> tuple[int, str]:
    with pytest.raises(HttpResponseError) as caught:
        call(*args, **options)
    return caught.value.status_code, caught.value.error.code


def times_of(archive: Path, asked: dict[str, Any]) -> tuple[str, str, str]:
    return str(archive), asked["startTime"], asked["endTime"]


def replayed(command: Sequence[str]) -> list[dict[str, Any]]:
    """The results of the command that anybody may give."""
    done = CliRunner().invoke(app, [*command[1:]])
    assert done.exception is None, done.output
    return json.loads(done.stdout)["results"]


def test_an_evaluation_says_what_replay_says_of_the_same_range(service, admin, tmp_path_factory):
    """To the last bit: it is the command's own answer."""
    slow = "--cb_explore_adf --epsilon 0.5 --power_t 0 -l 0.05 -q cf --ignore Z"
    asked = contract(
        policies=[{"name": "Slow one", "arguments": slow}],
        enablePolicyOptimization=True,
        enableOfflineExperimentation=True,
    )
    assert admin.create_evaluation("e1", asked) in (None, b"", "")
    times = {"start_time": datetime.now(UTC) - DAY, "end_time": datetime.now(UTC)}
    deadline, wait = time.monotonic() + 5 * PATIENCE_S, threading.Event()
    while (found := admin.get_evaluation("e1", **times))["status"] == "Running":
        assert found["content"]["value"] == []
        assert time.monotonic() < deadline
        wait.wait(0.3)
    assert found["status"] == "Succeeded", found
    assert "No better policy was looked for" in found["description"]
    assert "Slow one was not judged as it was sent: --ignore Z" in found["description"]
    assert {name for name, _ in POLICIES.values()} == {"online", "baseline1", "baselineRand"}

    (archive,) = tmp_path_factory.getbasetemp().rglob("archive/home")
    report = {each["policy"]: each for each in replayed(replay_command(*times_of(archive, asked)))}
    by_name = {each["name"]: each for each in found["content"]["value"]}
    assert "online" in by_name
    for policy, (name, source) in POLICIES.items():
        estimate = report[policy]["estimates"][ESTIMATOR]
        if name in by_name:
            summary = by_name[name]["summary"]
            assert summary["expectedReward"] == pytest.approx(estimate["value"], abs=1e-12)
            assert summary["confidenceInterval"] == pytest.approx(estimate["interval"], abs=1e-12)
            assert by_name[name]["policySource"] == source

    spec = tmp_path_factory.mktemp("spec") / "custom.yaml"
    spec.write_bytes(msgspec.yaml.encode(with_arguments(PolicySpec("custom-0"), slow)))
    learned = replayed(learning_command(*times_of(archive, asked), str(spec)))[0]["learned"]
    custom = by_name["Slow one"]
    low, high = custom["summary"]["confidenceInterval"]
    assert (custom["policySource"], custom["arguments"]) == ("Custom", slow)
    assert custom["summary"]["expectedReward"] == pytest.approx(learned["ips"], abs=1e-12)
    assert (high - low) / 2 == pytest.approx(Z_95 * learned["ips_stderr"], abs=1e-12)

    assert refused(admin.create_evaluation, "e1", asked) == (400, "EvaluationAlreadyExists")
    assert [each["id"] for each in admin.list_evaluations()] == ["e1"]
    assert "content" not in next(iter(admin.list_evaluations()))
    assert list(admin.list_evaluations(skip=1)) == list(admin.list_evaluations(top=0)) == []
    manual = "metadata=evaluationType eq 'Manual'"
    assert len(list(admin.list_evaluations(filter_expression=manual))) == 1
    for odd in (7, 0, -5):
        asked_for = {**times, "interval_in_minutes": odd}
        assert refused(admin.get_evaluation, "e1", **asked_for) == (
            400,
            "InvalidEvaluationContract",
        )
    admin.delete_evaluation("e1")
    for call in (admin.delete_evaluation, lambda name: admin.get_evaluation(name, **times)):
        with pytest.raises(ResourceNotFoundError):
            call("e1")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"startTime": "soon"}, "InvalidDateTimesInEvaluationContract"),
        ({"endTime": "2999-01-01"}, "InvalidDateTimesInEvaluationContract"),
        ({"startTime": "2022-09-21", "endTime": "2022-09-20"}, "InvalidDateTimesInEvaluationContract"),
        ({"startTime": "2022-09-20", "endTime": "2022-09-21T00:00:00.1234567Z"}, "NoLogsExistInDateRange"),
        ({"policies": [{"name": f"p{n}", "arguments": "a"} for n in range(11)]}, "MaximumEvaluationCustomPoliciesExceeded"),
        ({"policies": [{"name": "p", "arguments": "a"}] * 2}, "DuplicateCustomPolicyNames"),
        ({"policies": [{"name": "p", "arguments": "--cats 4"}]}, "InvalidPolicyConfiguration"),
        ({"policies": [{"name": "p", "arguments": "--cb_explore_adf --epsilon 5"}]}, "InvalidPolicyConfiguration"),
        ({"policies": [{"name": "", "arguments": "--cb_explore_adf"}]}, "InvalidEvaluationContract"),
        ({"name": ""}, "InvalidEvaluationContract"),
    ],
)  # fmt: skip
def test_an_evaluation_that_cannot_be_is_refused(admin, changes, code):
    assert refused(admin.create_evaluation, "e2", contract(**changes)) == (400, code)
    assert list(admin.list_evaluations()) == []


@pytest.mark.parametrize("name", ["", "x" * 257])
def test_an_evaluation_has_an_id_of_1_to_256_characters(admin, name):
    assert refused(admin.create_evaluation, name, contract()) == (400, "InvalidEvaluationContract")


def test_there_are_no_feature_importances_and_a_client_is_told_so(admin):
    assert list(admin.list_feature_importances()) == []
    asked = {"name": "f", "startTime": "2022-09-20", "endTime": "2022-09-21"}
    for call, args in (
        (admin.create_feature_importance, ("f1", asked)),
        (admin.get_feature_importance, ("f1",)),
        (admin.delete_feature_importance, ("f1",)),
    ):
        with pytest.raises(ResourceNotFoundError):
            call(*args)
