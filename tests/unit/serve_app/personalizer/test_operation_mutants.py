"""What clients are promised of a loop's operations, as checks; and mutants of the operations that they catch."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import msgspec
import pytest
from support.fakes import FakeService, fresh_ranker
from support.personalizer_loop import HeldLoop

from policies.personalizer import configuration
from policies.personalizer.arguments import DEFAULT_ARGUMENTS, with_arguments
from policies.spec import PolicySpec
from serve_app.api.asgi import Api
from serve_app.personalizer import app as adapter
from serve_app.personalizer.app import PersonalizerApi
from serve_app.personalizer.loops import operations
from serve_app.personalizer.loops.bodies import PolicyContract
from serve_app.personalizer.loops.operations import LoopOperations
from serve_app.personalizer.refusals import RefusedCall
from serve_app.replica.metrics import Metrics

SPEC = with_arguments(PolicySpec("home"), DEFAULT_ARGUMENTS)
ROOT = "/policies/home/personalizer"
SERVICE, POLICY = f"{ROOT}/configurations/service", f"{ROOT}/configurations/policy"
VERSION = {"api-version": "2022-09-01-preview"}
Check = Callable[[httpx.AsyncClient, HeldLoop], Awaitable[None]]


@pytest.fixture
def loop() -> HeldLoop:
    return HeldLoop(SPEC)


@pytest.fixture
async def http(loop: HeldLoop) -> AsyncIterator[httpx.AsyncClient]:
    async def no_metrics() -> bytes:
        return b""

    api = Api({"home": FakeService(fresh_ranker(SPEC))}, Metrics("test"), no_metrics, None)
    loops: Any = {"home": loop}
    app = PersonalizerApi(api, api.backend, None, LoopOperations(loops).routes())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test", params=VERSION
    ) as client:
        yield client


async def a_put_keeps_what_it_leaves_out_and_answers_all_of_it(http, loop) -> None:
    given = (await http.get(SERVICE)).json()
    optional = {"learningMode": "LoggingOnly", "isInferenceExplainabilityEnabled": True}
    assert (await http.put(SERVICE, json={**given, **optional})).status_code == 200
    required = {name: given[name] for name in given if name not in optional}
    answer = await http.put(SERVICE, json={**required, "explorationPercentage": 0.4})
    said = answer.json()
    assert {name: said[name] for name in optional} == optional
    assert said["explorationPercentage"] == 0.4
    assert said == (await http.get(SERVICE)).json()
    assert said.keys() >= {"rewardWaitTime", "lastConfigurationEditDate", "modelRetrainDays"}
    assert said["lastConfigurationEditDate"] > given["lastConfigurationEditDate"]


async def a_duration_is_told_in_iso_8601(http, loop) -> None:
    given = (await http.get(SERVICE)).json()
    assert given["rewardWaitTime"] == "PT10M"
    said = (await http.put(SERVICE, json={**given, "rewardWaitTime": "PT10M30S"})).json()
    assert said["rewardWaitTime"] == "PT10M30S"
    assert loop.held.join.window_s == 630.0


async def a_wrong_field_has_its_code_and_changes_nothing(http, loop) -> None:
    given = (await http.get(SERVICE)).json()
    for field, value, status, code in (
        ("rewardWaitTime", "PT1S", 400, "InvalidRewardWaitTime"),
        ("rewardAggregation", "mode", 400, "InvalidServiceConfiguration"),
        ("isAutoOptimizationEnabled", True, 403, "ProblemTypeIncompatibleWithAutoOptimization"),
        ("logMirrorEnabled", True, 400, "InvalidServiceConfiguration"),
    ):
        answer = await http.put(SERVICE, json={**given, field: value})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (status, code)
        assert answer.headers["x-ms-error-code"] == code
        assert "retry-after" not in answer.headers
        assert error["message"]
    assert loop.held == SPEC


async def a_policy_is_told_as_it_was_sent_under_the_services_name(http, loop) -> None:
    arguments = "--cb_explore_adf --epsilon 0.3 -q GT"
    answer = await http.put(POLICY, json={"name": "mine", "arguments": arguments})
    said = answer.json()
    assert (answer.status_code, said["arguments"]) == (200, arguments)
    assert len(said["name"]) == 32
    assert said["name"] != "mine"
    assert loop.held.exploration.epsilon == 0.3


async def a_reset_policy_is_the_usual_one_at_200(http, loop) -> None:
    await http.put(POLICY, json={"name": "x", "arguments": "--cb_explore_adf --epsilon 0.3"})
    answer = await http.delete(POLICY)
    assert (answer.status_code, answer.json()["arguments"]) == (200, DEFAULT_ARGUMENTS)
    assert loop.held.exploration.epsilon == 0.2


async def an_evaluation_that_is_not_there_is_404(http, loop) -> None:
    sent = {"evaluationId": "none", "policyName": "p"}
    answer = await http.post(f"{ROOT}/configurations/applyFromEvaluation", json=sent)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "EvaluationNotFound")


async def an_empty_log_has_no_dates(http, loop) -> None:
    answer = await http.get(f"{ROOT}/logs/properties")
    assert (answer.status_code, answer.json()) == (200, {})


CHECKS: dict[str, Check] = {
    each.__name__: each
    for each in (
        a_put_keeps_what_it_leaves_out_and_answers_all_of_it,
        a_duration_is_told_in_iso_8601,
        a_wrong_field_has_its_code_and_changes_nothing,
        a_policy_is_told_as_it_was_sent_under_the_services_name,
        a_reset_policy_is_the_usual_one_at_200,
        an_evaluation_that_is_not_there_is_404,
        an_empty_log_has_no_dates,
    )
}


@pytest.mark.parametrize("name", CHECKS)
async def test_a_client_finds_what_it_expects(http, loop, name):
    await CHECKS[name](http, loop)


# Mutants


def _forgetting(spec, wanted):
    optional = {"learning_mode": "Online", "is_inference_explainability_enabled": False}
    return WITH_CONFIGURATION(spec, msgspec.structs.replace(wanted, **optional))


def _short(spec):
    said = CONFIGURATION_OF(spec)
    return {"rewardWaitTime": said.reward_wait_time, "learningMode": said.learning_mode}


def _renamed(spec):
    return PolicyContract(name="mine", arguments=CONTRACT(spec).arguments)


def _as_learned(spec):
    return PolicyContract(name="0" * 32, arguments=spec.learner.args)


class _WithRetry(RefusedCall):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.headers.append((b"retry-after", b"1"))


class _Nameless(RefusedCall):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.headers = []


class _NotFound(RefusedCall):
    def __init__(self, status: int, *given: Any) -> None:
        super().__init__(400 if status == 404 else status, *given)


def _keeping_the_wait(spec, wanted):
    return msgspec.structs.replace(WITH_CONFIGURATION(spec, wanted), join=spec.join)


WITH_CONFIGURATION, CONFIGURATION_OF = operations.with_configuration, operations.configuration_of
CONTRACT = operations._contract
MUTANTS: dict[str, tuple[Any, str, Any, str]] = {
    "forgets what is optional": (
        *(operations, "with_configuration", _forgetting),
        "a_put_keeps_what_it_leaves_out_and_answers_all_of_it",
    ),
    "answers a part of the configuration": (
        *(operations, "configuration_of", _short),
        "a_put_keeps_what_it_leaves_out_and_answers_all_of_it",
    ),
    "is never edited": (
        *(configuration, "_now", lambda: "0001-01-01T00:00:00"),
        "a_put_keeps_what_it_leaves_out_and_answers_all_of_it",
    ),
    "keeps the wait": (
        *(operations, "with_configuration", _keeping_the_wait),
        "a_duration_is_told_in_iso_8601",
    ),
    "tells seconds": (
        *(configuration, "iso_duration", lambda seconds: f"PT{seconds:g}S"),
        "a_duration_is_told_in_iso_8601",
    ),
    "has one code": (
        *(operations, "_CODES", {}),
        "a_wrong_field_has_its_code_and_changes_nothing",
    ),
    "passes over auto-optimization": (
        *(configuration, "_refuse_missing", lambda _: None),
        "a_wrong_field_has_its_code_and_changes_nothing",
    ),
    "asks to try again": (
        *(operations, "RefusedCall", _WithRetry),
        "a_wrong_field_has_its_code_and_changes_nothing",
    ),
    "names no code in a header": (
        *(operations, "RefusedCall", _Nameless),
        "a_wrong_field_has_its_code_and_changes_nothing",
    ),
    "answers the name that was sent": (
        *(operations, "_contract", _renamed),
        "a_policy_is_told_as_it_was_sent_under_the_services_name",
    ),
    "answers what is learned by": (
        *(operations, "_contract", _as_learned),
        "a_policy_is_told_as_it_was_sent_under_the_services_name",
    ),
    "resets to another policy": (
        *(operations, "DEFAULT_ARGUMENTS", "--cb_explore_adf"),
        "a_reset_policy_is_the_usual_one_at_200",
    ),
    "refuses an unknown evaluation as wrong": (
        *(operations, "RefusedCall", _NotFound),
        "an_evaluation_that_is_not_there_is_404",
    ),
    "says that there is null": (
        *(adapter, "encode", lambda value: b"null" if not msgspec.to_builtins(value) else b"{}"),
        "an_empty_log_has_no_dates",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_mutant_of_the_operations_is_caught(http, loop, monkeypatch, name):
    where, attribute, mutant, check = MUTANTS[name]
    monkeypatch.setattr(where, attribute, mutant)
    with pytest.raises((AssertionError, KeyError)):
        await CHECKS[check](http, loop)
