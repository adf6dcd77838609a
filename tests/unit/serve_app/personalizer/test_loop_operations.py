"""The operations on a loop, over the protocol: what is wrong with a request has the code of its field."""

import io
import struct
import zipfile
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from cryptography import x509
from support.fakes import FakeService, fresh_ranker
from support.personalizer_loop import HeldLoop

from policies.personalizer.arguments import DEFAULT_ARGUMENTS, with_arguments
from policies.spec import PolicySpec
from serve_app.api.asgi import Api
from serve_app.personalizer.app import PersonalizerApi
from serve_app.personalizer.loops import model_file, signing
from serve_app.personalizer.loops.model_file import CERTIFICATE, SIGNATURE, checkpoint_of
from serve_app.personalizer.loops.operations import LoopOperations
from serve_app.personalizer.loops.signing import demand_own, signed_model
from serve_app.personalizer.refusals import RefusedCall
from serve_app.replica.metrics import Metrics
from serve_app.store.evaluations.kept import JudgedPolicy, KeptEvaluation

SPEC = with_arguments(PolicySpec("home"), DEFAULT_ARGUMENTS)
CONFIGURATION = "/personalizer/configurations/service"
POLICY = "/personalizer/configurations/policy"


@pytest.fixture
def loop() -> HeldLoop:
    return HeldLoop(SPEC)


@pytest.fixture
def service() -> FakeService:
    return FakeService(fresh_ranker(SPEC))


@pytest.fixture
async def http(loop: HeldLoop, service: FakeService) -> AsyncIterator[httpx.AsyncClient]:
    async def no_metrics() -> bytes:
        return b""

    api = Api({"home": service}, Metrics("test"), no_metrics, None)
    loops: Any = {"home": loop}
    app = PersonalizerApi(api, api.backend, None, LoopOperations(loops).routes())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def error_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"logRetentionDays": -2}, "InvalidLogRetentionDays"),
        ({"logRetentionDays": "long"}, "InvalidLogRetentionDays"),
        ({"modelRetrainDays": -1}, "InvalidModelRetrainDays"),
        ({"modelRetrainDays": None}, "InvalidModelRetrainDays"),
        ({"learningMode": "Offline"}, "InvalidLearningModeServiceConfiguration"),
        ({"learningMode": 1}, "InvalidLearningModeServiceConfiguration"),
        ({"rewardWaitTime": None}, "InvalidRewardWaitTime"),
        ({"rewardWaitTime": 5}, "InvalidRewardWaitTime"),
        ({"rewardWaitTime": "PT1S"}, "InvalidRewardWaitTime"),
        ({"defaultReward": -2}, "InvalidServiceConfiguration"),
        ({"explorationPercentage": "some"}, "InvalidServiceConfiguration"),
        ({"isAutoOptimizationEnabled": "yes"}, "InvalidServiceConfiguration"),
    ],
)
async def test_a_wrong_field_of_a_configuration_has_its_own_code(http, loop, changes, code):
    """Of the wrong type or out of range: whether or not it could be read at all."""
    given = (await http.get(CONFIGURATION)).json()
    assert (await http.put(CONFIGURATION, json=given)).status_code == 200
    before = loop.held
    assert error_of(await http.put(CONFIGURATION, json={**given, **changes})) == (400, code)
    assert loop.held == before


async def test_a_configuration_without_its_wait_says_so(http):
    given = (await http.get(CONFIGURATION)).json()
    del given["rewardWaitTime"]
    assert error_of(await http.put(CONFIGURATION, json=given)) == (400, "InvalidRewardWaitTime")


@pytest.mark.parametrize("epsilon", ["2", "-1", "nan", "inf", "x"])
async def test_a_policy_whose_epsilon_is_no_probability_is_refused(http, loop, epsilon):
    given = {"name": "p", "arguments": f"--cb_explore_adf --epsilon {epsilon}"}
    assert error_of(await http.put(POLICY, json=given)) == (400, "InvalidPolicyConfiguration")
    assert loop.held == SPEC


@pytest.mark.parametrize("sent", [{}, {"name": None}, {"name": ""}, {"name": "mine"}])
async def test_a_policy_needs_no_name(http, loop, sent):
    arguments = "--cb_explore_adf --epsilon 0.1 -q GT --cb_type ips"
    answer = await http.put(POLICY, json={**sent, "arguments": arguments})
    assert (answer.status_code, answer.json()["arguments"]) == (200, arguments)
    assert loop.held.exploration.epsilon == 0.1


JUDGED = [
    JudgedPolicy("online", "Online", 0.5, 0.4, 0.6),
    JudgedPolicy("baseline1", "Baseline", 0.5, 0.4, 0.6),
    JudgedPolicy("mine", "Custom", 0.5, 0.4, 0.6, "--cb_explore_adf --epsilon 0.1"),
]
APPLY = "/personalizer/configurations/applyFromEvaluation"


async def test_a_policy_that_an_evaluation_has_judged_becomes_the_loops(http, loop):
    """That which was served stays; and the loop's own name of it is as if it had been put."""
    loop.kept["e1"] = KeptEvaluation("e1", "weekly", "a", "b", 0, "Succeeded", JUDGED)
    for name, epsilon in (("online", 0.2), ("mine", 0.1)):
        answer = await http.post(APPLY, json={"evaluationId": "e1", "policyName": name})
        assert (answer.status_code, answer.content) == (204, b"")
        assert loop.held.exploration.epsilon == epsilon
    assert (await http.get(POLICY)).json()["arguments"] == JUDGED[2].arguments


@pytest.mark.parametrize(
    ("evaluation", "policy", "expected"),
    [
        ("e2", "mine", (404, "EvaluationNotFound")),
        ("e1", "other", (404, "LearningSettingsNotFound")),
        ("running", "mine", (404, "LearningSettingsNotFound")),
        ("e1", "baseline1", (400, "InvalidContract")),
    ],
)
async def test_what_no_evaluation_has_judged_is_not_applied(
    http, loop, evaluation, policy, expected
):
    loop.kept["e1"] = KeptEvaluation("e1", "weekly", "a", "b", 0, "Succeeded", JUDGED)
    loop.kept["running"] = KeptEvaluation("running", "weekly", "a", "b", 0, "Running")
    sent = {"evaluationId": evaluation, "policyName": policy}
    assert error_of(await http.post(APPLY, json=sent)) == expected
    assert loop.held == SPEC


PAGE = {
    "actions": [{"id": each, "features": [{"topic": each}]} for each in "ab"],
    "slots": [{"id": "top", "baselineAction": "a"}],
}


async def test_slots_are_decided_only_by_a_policy_that_was_set_to(http, service):
    """Or by one that no client of the protocol has set; rewards are taken of any."""
    refused = (400, "InvalidMultiSlotApiAccess")
    assert error_of(await http.post("/personalizer/multislot/rank", json=PAGE)) == refused
    reward = {"reward": [{"slotId": "top", "value": 1}]}
    answer = await http.post("/personalizer/multislot/events/e/reward", json=reward)
    assert answer.status_code == 204

    several = with_arguments(SPEC, DEFAULT_ARGUMENTS.replace("--cb_", "--ccb_", 1))
    for spec in (several, PolicySpec("home")):
        service.ranker = fresh_ranker(spec)
        answer = await http.post("/personalizer/multislot/rank", json=PAGE)
        assert (answer.status_code, len(answer.json()["slots"])) == (201, 1)


def zipped(content: bytes = b"model" * 200, name: str = "model.vw", method: int = 8) -> bytearray:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as parts:
        parts.writestr(name, content)
    return bytearray(out.getvalue())


def changed(where: int, what: bytes, *, local: int | None = None) -> bytes:
    """A zip some bytes of whose directory, and of whose entry, are others."""
    data = zipped()
    directory = data.index(b"PK\x01\x02")
    data[directory + where : directory + where + len(what)] = what
    if local is not None:
        data[local : local + len(what)] = what
    return bytes(data)


def broken(method: int) -> bytes:
    data = zipped(method=method)
    start = 30 + len("model.vw")
    data[start : start + 12] = b"\xff" * 12
    return bytes(data)


BAD_ZIPS = {
    "empty": b"PK\x05\x06" + b"\x00" * 18,
    "without a model": bytes(zipped(name="other.vw")),
    "with an empty model": bytes(zipped(b"")),
    "encrypted": changed(8, struct.pack("<H", 1), local=6),
    "of an unknown method": changed(10, struct.pack("<H", 97), local=8),
    "larger than it may be": changed(24, struct.pack("<I", 1 << 30)),
    **{f"broken, of method {method}": broken(method) for method in (0, 8, 12, 14)},
}


@pytest.mark.parametrize("name", BAD_ZIPS)
def test_a_zip_that_cannot_be_read_is_refused_as_no_model(name):
    with pytest.raises(RefusedCall) as caught:
        checkpoint_of(BAD_ZIPS[name], "--cb_explore_adf")
    assert (caught.value.status, caught.value.code) == (400, "InvalidModelImportFormat")


def resigned(data: bytes, **parts: bytes | None) -> bytes:
    """A signed export with other parts, or without them."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = parts.get(name.partition(".")[0].partition("_")[0], old.read(name))
            if content is not None:
                new.writestr(name, content)
    return out.getvalue()


def test_a_model_that_was_signed_is_the_one_that_was_signed(tmp_path, monkeypatch):
    """What others have signed, and how, cannot be looked at."""
    signed = signed_model(b"model", tmp_path)
    for changes in (
        {"model": b"another"},
        {"sha512": b"x" * 256},
        {"signer": b"no certificate"},
        {"signer": None},
        {"sha512": None},
    ):
        with pytest.raises(RefusedCall) as caught:
            checkpoint_of(resigned(signed, **changes), "--cb_explore_adf")
        assert (caught.value.status, caught.value.code) == (400, "InvalidModelImportSignature")

    with zipfile.ZipFile(io.BytesIO(signed)) as parts:
        certificate, signature = parts.read(CERTIFICATE), parts.read(SIGNATURE)
    demand_own(b"model", certificate, signature)
    demand_own(b"model", None, None)
    monkeypatch.setattr(signing, "_NAME", x509.Name([]))
    demand_own(b"another", certificate, signature)


def test_a_model_that_is_not_read_in_time_is_refused(monkeypatch):
    monkeypatch.setattr(model_file, "PATIENCE_S", 0.01)
    with pytest.raises(RefusedCall, match="within") as caught:
        checkpoint_of(b"anything", "--cb_explore_adf")
    assert caught.value.code == "InvalidModelImportFormat"
