"""Personalizer's administration client, unchanged, has a policy's archive evaluated, and says what replay says."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
from azure.ai.personalizer import PersonalizerAdministrationClient, PersonalizerClient
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from support.personalizer import KEY, Adapted, adapted
from support.replica import eventually
from support.servers import PATIENCE_S
from typer.testing import CliRunner

from bandits.log.join_rule import JoinRule
from policies.personalizer.arguments import DEFAULT_ARGUMENTS, with_arguments
from policies.spec import PolicySpec
from serve_app.cli.replay import app
from serve_app.personalizer.evaluations.jobs import Done, EvaluationJobs
from serve_app.personalizer.evaluations.judging import (
    ESTIMATOR,
    POLICIES,
    Z_95,
    LogPart,
    learning_command,
    replay_command,
)
from serve_app.settings import Settings
from serve_app.store.evaluations.kept import (
    AT_WORK_S,
    KeptEvaluation,
    Kind,
    begin_evaluation,
    end_evaluation,
    read_evaluation,
    read_evaluations,
    take,
)
from serve_app.store.keys import Keys
from serve_app.store.wanted_specs import say_governed
from serve_app.workers.archiver import Archiver

pytestmark = pytest.mark.timeout(
    300
)  # evaluations are of the lowest priority: a busy machine waits
SPEC = with_arguments(PolicySpec("home", join=JoinRule(window_s=0.3)), DEFAULT_ARGUMENTS)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[Adapted]:
    """A policy with a log of 30 rewarded decisions; nothing of it is archived yet."""
    folder = tmp_path_factory.mktemp("evaluated")
    with adapted(folder, [SPEC]) as out:
        with PersonalizerClient(f"{out.url}/policies/home", AzureKeyCredential(KEY)) as client:
            for number in range(30):
                actions = [{"id": each, "features": [{"is": each}]} for each in "abc"]
                chosen = client.rank({"actions": actions, "contextFeatures": [{"n": number}]})
                value = float(chosen["rewardActionId"] == "b")
                client.reward(chosen["eventId"], {"value": value})
        threading.Event().wait(1.5)  # a tick closes the windows of the log's own time
        yield out


@contextlib.contextmanager
def archiving(service: Adapted, archive: Path) -> Iterator[None]:
    """Archive what is logged, until the block ends."""
    stop = threading.Event()
    with service.server.client() as connection:
        archiver = Archiver(connection, "home", str(archive), max_age_s=0.0, retain_s=3600)
        thread = threading.Thread(target=archiver.run, args=(stop,), daemon=True)
        thread.start()
        yield
        stop.set()
        thread.join(PATIENCE_S)


def ended(service: Adapted, name: str, kind: Kind = "evaluations") -> KeptEvaluation:
    """An evaluation, once it runs no more."""
    deadline, wait = time.monotonic() + 12 * PATIENCE_S, threading.Event()
    with service.server.client() as client:
        while (kept := read_evaluation(client, "home", name, kind)).status == "Running":
            assert time.monotonic() < deadline
            wait.wait(0.1)
    return kept


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


def part_of(archive: Path, asked: dict[str, Any]) -> LogPart:
    return LogPart(str(archive), asked["startTime"], asked["endTime"])


def replayed(command: Sequence[str]) -> list[dict[str, Any]]:
    """The results of the command that anybody may give."""
    done = CliRunner().invoke(app, [*command[1:]])
    assert done.exception is None, done.output
    return json.loads(done.stdout)["results"]


SLOW = "--cb_explore_adf --epsilon 0.5 --power_t 0 -l 0.05 -q cf --ignore Z"


class Ended(NamedTuple):
    """An evaluation that has ended, as it was asked for and as it is told; over which times."""

    asked: dict[str, Any]
    found: dict[str, Any]
    times: dict[str, datetime]
    archive: Path

    @property
    def policies(self) -> dict[str, dict[str, Any]]:
        """What was found, by policy."""
        return {each["name"]: each for each in self.found["content"]["value"]}


@pytest.fixture(scope="module")
def evaluated(service, tmp_path_factory) -> Ended:
    """Asked for when nothing was archived yet."""
    asked = contract(
        policies=[{"name": "Slow one", "arguments": SLOW}],
        enablePolicyOptimization=True,
        enableOfflineExperimentation=True,
    )
    archive = tmp_path_factory.getbasetemp() / "evaluated0" / "archive"
    url = f"{service.url}/policies/home"
    with PersonalizerAdministrationClient(url, AzureKeyCredential(KEY)) as admin:
        assert admin.create_evaluation("e1", asked) in (None, b"", "")
        times = {"start_time": datetime.now(UTC) - DAY, "end_time": datetime.now(UTC)}
        found = admin.get_evaluation("e1", **times)
        assert (found["status"], found["content"]["value"]) == ("Running", [])
        assert not list(archive.rglob("*.parquet"))
        with archiving(service, archive):
            ended(service, "e1")
        found = admin.get_evaluation("e1", **times)
    assert found["status"] == "Succeeded", found
    return Ended(asked, found, times, archive / "home")


def test_an_evaluation_says_what_replay_says_of_the_same_range(evaluated, tmp_path):
    """To the last bit: it is the command's own answer."""
    part, by_name = part_of(evaluated.archive, evaluated.asked), evaluated.policies
    said = evaluated.found["description"]
    assert "Slow one was not judged as it was sent: --ignore Z" in said
    assert {name for name, _ in POLICIES.values()} == {"online", "baseline1", "baselineRand"}

    report = {each["policy"]: each for each in replayed(replay_command(part))}
    assert "online" in by_name
    for policy, (name, source) in POLICIES.items():
        estimate = report[policy]["estimates"][ESTIMATOR]
        if name in by_name:
            summary = by_name[name]["summary"]
            assert summary["expectedReward"] == pytest.approx(estimate["value"], abs=1e-12)
            assert summary["confidenceInterval"] == pytest.approx(estimate["interval"], abs=1e-12)
            assert by_name[name]["policySource"] == source

    spec = tmp_path / "custom.yaml"
    spec.write_bytes(msgspec.yaml.encode(with_arguments(PolicySpec("custom-0"), SLOW)))
    learned = replayed(learning_command(part, str(spec)))[0]["learned"]
    custom = by_name["Slow one"]
    low, high = custom["summary"]["confidenceInterval"]
    assert (custom["policySource"], custom["arguments"]) == ("Custom", SLOW)
    assert custom["summary"]["expectedReward"] == pytest.approx(learned["ips"], abs=1e-12)
    assert (high - low) / 2 == pytest.approx(Z_95 * learned["ips_stderr"], abs=1e-12)


def test_a_series_has_a_point_for_each_window_and_the_last_so_far_is_the_whole(admin, evaluated):
    for each in evaluated.policies.values():
        last = each["timeseries"]["data"][-1]
        assert last["expectedReward"] == pytest.approx(each["summary"]["expectedReward"], abs=1e-12)
        assert last["timeStamp"][:19] <= evaluated.asked["endTime"][:19]
    assert evaluated.found["content"]["intervalInMinutes"] == 5

    daily = {"interval_in_minutes": 1440, "window": "Rolling"}
    found = admin.get_evaluation("e1", **evaluated.times, **daily)["content"]
    assert found["intervalInMinutes"] == 1440
    series = {each["name"]: each["timeseries"]["data"] for each in found["value"]}
    assert series.keys() == evaluated.policies.keys()
    assert 1 <= len(series["online"]) <= 2
    long_ago = {name: value - 30 * DAY for name, value in evaluated.times.items()}
    for each in admin.get_evaluation("e1", **long_ago)["content"]["value"]:
        assert each["timeseries"]["data"] == []


def test_a_search_judges_policies_that_can_be_applied_by_their_names(service, admin, evaluated):
    by_name = evaluated.policies
    searched = [name for name in by_name if name.startswith(("Inter-", "Hyper-"))]
    assert len(searched) == 7, searched
    assert "learned the log anew" in evaluated.found["description"]
    assert by_name["Inter-current"]["arguments"] == DEFAULT_ARGUMENTS
    assert {by_name[name]["policySource"] for name in searched} == {"OfflineExperimentation"}
    assert evaluated.found.get("optimalPolicy", "Hyper-usual") in {*searched, "Slow one"}
    with service.server.client() as client:
        say_governed(client)
        admin.apply_from_evaluation({"evaluationId": "e1", "policyName": "Inter-cf-ci"})
        assert admin.get_policy()["arguments"] == by_name["Inter-cf-ci"]["arguments"]
        client.delete(Keys("home").wanted)


def test_an_evaluation_is_listed_looked_at_by_known_intervals_and_forgotten(
    service, admin, evaluated
):
    asked, times = evaluated.asked, evaluated.times
    assert refused(admin.create_evaluation, "e1", asked) == (400, "EvaluationAlreadyExists")
    assert [each["id"] for each in admin.list_evaluations()] == ["e1"]
    (listed,) = admin.list_evaluations()
    assert not {"content", "optimalPolicy", "description"} & listed.keys()
    assert list(admin.list_evaluations(skip=1)) == list(admin.list_evaluations(top=0)) == []
    manual = "metadata=evaluationType eq 'Manual'"
    assert len(list(admin.list_evaluations(filter_expression=manual))) == 1
    for odd in (7, 0, -5):
        asked_for = {**times, "interval_in_minutes": odd}
        assert refused(admin.get_evaluation, "e1", **asked_for) == (
            400,
            "InvalidEvaluationContract",
        )
    url = f"{service.url}/policies/home/personalizer/evaluations/e1"
    odd_times = httpx.get(f"{url}?startTime=soon", headers={"Ocp-Apim-Subscription-Key": KEY})
    assert odd_times.status_code == 400
    assert odd_times.json()["error"]["code"] == "InvalidDateTimesInEvaluationContract"

    with service.server.client() as client:
        assert client.hlen(Keys("home").evaluation_series) == 1
        admin.delete_evaluation("e1")
        assert client.hlen(Keys("home").evaluation_series) == 0
    for call in (admin.delete_evaluation, lambda name: admin.get_evaluation(name, **times)):
        with pytest.raises(ResourceNotFoundError):
            call("e1")


@pytest.mark.slow
def test_an_evaluation_whose_replica_has_gone_is_done_by_another(service, admin, tmp_path_factory):
    """One that somebody is at is left to them, until they have not said so for a while."""
    asked, made_ms = contract(), int(time.time() * 1000)
    left, theirs = (
        KeptEvaluation(name, "w", asked["startTime"], asked["endTime"], made_ms, "Running")
        for name in ("left", "theirs")
    )
    with service.server.client() as client:
        assert begin_evaluation(client, "home", theirs)
        assert take(client, "home", theirs)
        assert not take(client, "home", theirs)
        assert 0 < client.ttl(Keys("home").at_work(theirs.job)) <= AT_WORK_S
        assert begin_evaluation(client, "home", left)
        with archiving(service, tmp_path_factory.getbasetemp() / "evaluated0" / "archive"):
            assert ended(service, "left").status == "Succeeded"
        assert read_evaluation(client, "home", "theirs").status == "Running"

        # Who comes late, after it was deleted and asked for anew, spoils nothing.
        admin.delete_evaluation("theirs")
        again = msgspec.structs.replace(theirs, made_ms=made_ms + 1)
        assert begin_evaluation(client, "home", again)
        assert take(client, "home", again)
        end_evaluation(client, "home", msgspec.structs.replace(theirs, status="Failed"))
        assert read_evaluation(client, "home", "theirs") == again
    for name in ("left", "theirs"):
        admin.delete_evaluation(name)


async def test_many_evaluations_at_once_hold_up_nobody_who_asks(service):
    """They wait for one another; what is asked meanwhile is answered."""
    jobs, go_on = (
        EvaluationJobs(Settings(redis_url=service.server.url), ["busy"]),
        threading.Event(),
    )
    done: list[str] = []

    def long(_: str, kept: KeptEvaluation) -> Done:
        go_on.wait(PATIENCE_S)
        done.append(kept.id)
        return msgspec.structs.replace(kept, status="Succeeded"), {}

    jobs.does["evaluations"] = long
    now = int(time.time() * 1000)
    try:
        for number in range(40):
            kept = KeptEvaluation(f"e{number}", "w", "a", "b", now, "Running")
            assert await asyncio.wait_for(jobs.begin("busy", "evaluations", kept), PATIENCE_S)
        assert done == []
    finally:
        go_on.set()

    def ended(client: Any) -> bool:
        found = read_evaluations(client, "busy", "evaluations")
        return {each.status for each in found} == {"Succeeded"}

    await eventually(lambda: jobs.stored(ended), "all evaluations have ended")
    assert len(done) == 40


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"startTime": "soon"}, "InvalidDateTimesInEvaluationContract"),
        ({"endTime": "2999-01-01"}, "InvalidDateTimesInEvaluationContract"),
        ({"startTime": "2022-09-21", "endTime": "2022-09-20"}, "InvalidDateTimesInEvaluationContract"),
        ({"startTime": "2022-09-20", "endTime": "2022-09-21T00:00:00.1234567Z"}, "NoLogsExistInDateRange"),
        ({"policies": [{"name": f"p{n}", "arguments": "a"} for n in range(11)]}, "MaximumEvaluationCustomPoliciesExceeded"),
        ({"policies": [{"name": "p", "arguments": "a"}] * 2}, "DuplicateCustomPolicyNames"),
        ({"policies": [{"name": "online", "arguments": "--cb_explore_adf"}]}, "DuplicateCustomPolicyNames"),
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


@pytest.mark.slow
def test_feature_importances_are_what_features_add_to_the_scores_of_logged_decisions(
    service, admin, tmp_path_factory
):
    """The largest is 1; the fixture's rewards come of what an action is, so that has it."""
    asked = {name: value for name, value in contract().items() if name != "policies"}
    assert admin.create_feature_importance("f1", asked) in (None, b"", "")
    assert refused(admin.create_feature_importance, "f1", asked) == (
        400,
        "FeatureImportanceAlreadyExists",
    )
    assert admin.get_feature_importance("f1")["status"] == "Running"
    with archiving(service, tmp_path_factory.getbasetemp() / "evaluated0" / "archive"):
        ended(service, "f1", "importances")
    found = admin.get_feature_importance("f1")
    assert found["status"] == "Succeeded", found
    scores = {each["featureName"]: each for each in found["featureScores"]}
    in_order = [each["score"] for each in found["featureScores"]]
    assert in_order == sorted(in_order, reverse=True)
    assert scores.keys() == {"is", "n", "id"}
    assert in_order[0] == 1.0 > scores["n"]["score"] > 0.0
    assert [scores[each]["namespace"] for each in ("is", "n", "id")] == [
        *("j", "FromUrl", "i"),
    ]

    (listed,) = admin.list_feature_importances()
    assert (listed["id"], listed["startTime"]) == ("f1", asked["startTime"])
    assert "featureScores" not in listed
    early = {**asked, "startTime": "2022-09-20", "endTime": "2022-09-21"}
    assert refused(admin.create_feature_importance, "f2", early) == (400, "NoLogsExistInDateRange")
    admin.delete_feature_importance("f1")
    assert list(admin.list_feature_importances()) == []
    for call in (admin.get_feature_importance, admin.delete_feature_importance):
        assert refused(call, "f1") == (404, "FeatureImportanceNotFound")
