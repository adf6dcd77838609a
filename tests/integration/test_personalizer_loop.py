"""Personalizer's administration client, unchanged, against a policy: configuration, policy, model and logs."""

import io
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest
from azure.ai.personalizer import PersonalizerAdministrationClient, PersonalizerClient
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.x509 import load_der_x509_certificate
from support.personalizer import KEY, SALT, Adapted, adapted
from vowpal_wabbit_next import TextFormatParser

from bandits.log.records import RootRecord, WarmStartRecord
from bandits.vw.learner import VwLearner, open_workspace
from bandits.vw.payloads import encode_model
from policies.personalizer.arguments import DEFAULT_ARGUMENTS, with_arguments
from policies.spec import PolicySpec
from serve_app.admin.wanted.specs import governed, keep_served, settled
from serve_app.personalizer.loops.loop import StoredLoop
from serve_app.settings import Settings
from serve_app.store.wanted_specs import GOVERNED_S, read_wanted, say_governed

SPEC = with_arguments(PolicySpec("home"), DEFAULT_ARGUMENTS)
RIDGE = PolicySpec("ridge")
ASKED = {
    "contextFeatures": [{"hour": 8}],
    "actions": [{"id": each, "features": [{"topic": each}]} for each in ("a", "b", "c")],
}


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[Adapted]:
    with adapted(tmp_path_factory.mktemp("loop"), [SPEC, RIDGE], checkpoint_interval_s=0.1) as out:
        yield out


def admin_of(service: Adapted, policy: str = "home") -> PersonalizerAdministrationClient:
    url = f"{service.url}/policies/{policy}"
    return PersonalizerAdministrationClient(url, AzureKeyCredential(KEY))


@pytest.fixture
def admin(service) -> Iterator[PersonalizerAdministrationClient]:
    with service.server.client() as client:
        client.delete("bl:{home.0}:wanted")
        say_governed(client)
    with admin_of(service) as client:
        yield client


def refused(call: Any, *args: Any, **options: Any) -> tuple[int, str]:
    with pytest.raises(HttpResponseError) as caught:
        call(*args, **options)
    assert caught.value.error.message
    return caught.value.status_code, caught.value.error.code


def settled_spec(service: Adapted) -> PolicySpec:
    """What whoever governs the service would have it serve."""
    with service.server.client() as client:
        return settled(client, [SPEC])[0][0]


# Configuration


def test_a_configuration_is_got_changed_and_put_back(service, admin):
    """Every change is a spec that whoever governs has served, so an entry of the log."""
    before = admin.get_service_configuration()
    assert (before["rewardWaitTime"], before["rewardAggregation"]) == ("PT10M", "earliest")
    assert before["explorationPercentage"] == 0.2

    changed = {**before, "rewardWaitTime": "PT04H", "explorationPercentage": 0.5}
    after = admin.update_service_configuration({**changed, "rewardAggregation": "median"})
    assert after["lastConfigurationEditDate"] > before["lastConfigurationEditDate"]
    assert after == admin.get_service_configuration()
    assert (after["rewardWaitTime"], after["rewardAggregation"]) == ("PT4H", "median")
    spec = settled_spec(service)
    assert (spec.join.window_s, spec.join.aggregation) == (14400.0, "median")
    assert (spec.exploration.epsilon, spec.model_digest) == (0.5, SPEC.model_digest)
    assert spec.digest != SPEC.digest


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"rewardWaitTime": "PT1S"}, 400, "InvalidRewardWaitTime"),
        ({"rewardWaitTime": "soon"}, 400, "InvalidRewardWaitTime"),
        ({"rewardAggregation": "mode"}, 400, "InvalidServiceConfiguration"),
        ({"explorationPercentage": 20}, 400, "InvalidServiceConfiguration"),
        ({"defaultReward": -2}, 400, "InvalidServiceConfiguration"),
        ({"defaultReward": None}, 400, "InvalidServiceConfiguration"),
        (
            {"learningMode": "Apprentice", "defaultReward": 0.5},
            400,
            "InvalidLearningModeServiceConfiguration",
        ),
        (
            {"isAutoOptimizationEnabled": True},
            403,
            "ProblemTypeIncompatibleWithAutoOptimization",
        ),
        ({"logMirrorEnabled": True}, 400, "InvalidServiceConfiguration"),
    ],
)
def test_a_configuration_that_cannot_be_changes_nothing(service, admin, changes, status, code):
    given = {**admin.get_service_configuration(), **changes}
    assert refused(admin.update_service_configuration, given) == (status, code)
    assert settled_spec(service) == SPEC


def test_a_change_that_nobody_would_have_served_is_refused(service, admin):
    with service.server.client() as client:
        assert 0 < client.ttl("bl:governed") <= GOVERNED_S
        client.delete("bl:governed")
    given = admin.get_service_configuration()
    assert refused(admin.update_service_configuration, given) == (503, "OperationNotAllowed")
    assert settled_spec(service) == SPEC


def test_what_clients_have_set_counts_until_the_file_says_something_else(service, admin):
    """A start and an apply ask the same function; and a change that fails leaves what is served."""
    given = {**admin.get_service_configuration(), "defaultReward": -0.5}
    admin.update_service_configuration(given)
    settings = Settings(redis_url=service.server.url)
    (spec,) = governed(settings, [SPEC]) or []
    assert spec.join.default_reward == -0.5

    keep_served(settings, [SPEC], [SPEC])
    assert governed(settings, [SPEC]) == [SPEC]
    admin.update_service_configuration(given)
    keep_served(settings, [SPEC], [spec])
    assert governed(settings, [SPEC]) == [spec]

    other = with_arguments(SPEC, "--cb_explore_adf --epsilon 0.1")
    with service.server.client() as client:
        specs, notes = settled(client, [other])
        assert (specs, read_wanted(client, "home")) == ([other], None)
    assert "the file counts" in notes[0]


# Policy


def test_a_policy_is_set_and_reset_and_has_the_services_own_name(service, admin):
    usual = admin.get_policy()
    assert usual["arguments"] == DEFAULT_ARGUMENTS
    arguments = "--cb_explore_adf --epsilon 0.1 --cb_type mtr -q ci -q cf"
    given = admin.update_policy({"name": "mine", "arguments": arguments})
    assert given == admin.get_policy()
    assert given["arguments"] == arguments
    assert len(given["name"]) == 32
    assert settled_spec(service).exploration.epsilon == 0.1
    assert admin.reset_policy() == usual
    assert settled_spec(service).learner == SPEC.learner


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--cats 4",
        "--cb_explore_adf --nonsense",
        "--cb_explore_adf " + "-b 18 " * 200,
        "--cb_explore_adf -f /tmp/x.vw",
        "--cb_explore_adf --predictions=/tmp/p",
    ],
)
def test_a_policy_that_cannot_be_changes_nothing(service, admin, arguments):
    given = {"name": "mine", "arguments": arguments}
    assert refused(admin.update_policy, given) == (400, "InvalidPolicyConfiguration")
    assert refused(admin.update_policy, {"name": "mine"}) == (400, "InvalidPolicyContract")
    assert settled_spec(service) == SPEC


def test_there_is_no_evaluation_to_apply(admin):
    with pytest.raises(ResourceNotFoundError):
        admin.apply_from_evaluation({"evaluationId": "e1", "policyName": "p"})


# Model


def warm_starts(service: Adapted) -> int:
    return sum(isinstance(each, WarmStartRecord) for each in service.records("home"))


def test_a_model_is_exported_imported_and_reset(service, admin):
    """What is exported is what Vowpal Wabbit reads; both changes are entries that the learner takes."""
    data = b"".join(admin.export_model(signed=False))
    args = SPEC.learner.args
    VwLearner(args, checkpoint=encode_model(args, 1, 0, data))

    before = warm_starts(service)
    admin.import_model(data)
    signed = b"".join(admin.export_model(signed=True))
    admin.import_model(iter([signed[:100], signed[100:]]))  # chunked
    admin.reset_model()
    assert warm_starts(service) == before + 3
    assert service.folded("home").refused_warm_starts == 0
    properties = admin.get_model_properties()
    assert properties["creationTime"] <= properties["lastModifiedTime"]


@pytest.mark.parametrize("data", [b"", b"\x00" * 5000, b"PK\x05\x06" + b"\x00" * 18])
def test_what_is_no_model_ends_no_process(service, admin, data):
    before = warm_starts(service)
    assert refused(admin.import_model, data) == (400, "InvalidModelImportFormat")
    assert warm_starts(service) == before
    assert admin.get_policy()


def test_an_export_is_a_file_and_a_signed_one_is_of_a_key_that_is_kept(service):
    """Whoever has the certificate can tell that a model is this service's."""
    url, certificates = f"{service.url}/policies/home/personalizer/model", set()
    for query, name in (("false", "model.vw"), ("true", "model.vw.zip"), ("true", "model.vw.zip")):
        answer = httpx.get(f"{url}?signed={query}", headers={"Ocp-Apim-Subscription-Key": KEY})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"] == f"attachment; filename={name}"
        assert parsedate_to_datetime(answer.headers["last-modified"]) <= datetime.now(UTC)
        if query == "true":
            with zipfile.ZipFile(io.BytesIO(answer.content)) as parts:
                model, der, signature = (parts.read(each) for each in parts.namelist())
                assert parts.namelist() == ["model.vw", "signer.der", "sha512_signature.bin"]
            certificates.add(der)
            key = load_der_x509_certificate(der).public_key()
            key.verify(signature, model, padding.PKCS1v15(), hashes.SHA512())
            with pytest.raises(InvalidSignature):
                key.verify(signature, model + b"x", padding.PKCS1v15(), hashes.SHA512())
    assert len(certificates) == 1
    odd = httpx.get(f"{url}?signed=maybe", headers={"Ocp-Apim-Subscription-Key": KEY})
    assert (odd.status_code, odd.json()["error"]["code"]) == (400, "BadRequest")


async def test_a_model_is_of_the_policy_that_is_learned_though_another_is_served_yet(
    service, tmp_path
):
    """While a change begins to be served, the replica that is asked is of the policy before."""
    settings = Settings(redis_url=service.server.url, salt=SALT.decode(), data_dir=tmp_path)
    behind = StoredLoop(settings, with_arguments(SPEC, "--cb_explore_adf -q cf --bag 3"))
    before, args = warm_starts(service), SPEC.learner.args
    data = await behind.model()
    VwLearner(args, checkpoint=encode_model(args, 1, 0, data))
    await behind.import_model(data)
    await behind.reset_model()
    assert warm_starts(service) == before + 2
    assert service.folded("home").refused_warm_starts == 0


def test_a_policy_of_another_learner_has_no_model_to_export_or_import(service):
    url = f"{service.url}/policies/ridge/personalizer/model?signed=false"
    answer = httpx.get(url, headers={"Ocp-Apim-Subscription-Key": KEY})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "ModelFileAccessDenied")
    with admin_of(service, "ridge") as other:
        assert refused(other.import_model, b"model") == (403, "ModelFileAccessDenied")
        other.reset_model()


# Logs


def test_a_log_has_dates_until_it_is_deleted(service, admin):
    """Deleting states a root as of now, at which verification begins; what is open stays and is learned."""
    with PersonalizerClient(f"{service.url}/policies/home", AzureKeyCredential(KEY)) as client:
        event_id = client.rank(ASKED)["eventId"]
        dates = admin.get_log_properties()["dateRange"]
        assert dates["from"] <= dates["to"]
        assert dates["from"].startswith("20")

        admin.delete_logs()
        assert "dateRange" not in admin.get_log_properties()
        assert any(isinstance(each, RootRecord) for each in service.records("home"))
        client.reward(event_id, {"value": 1})
        client.rank(ASKED)
    assert admin.get_log_properties()["dateRange"]["from"] >= dates["to"]
    assert service.folded("home").join.counts["joined"] == 1


def test_a_log_can_be_deleted_before_any_checkpoint_was_due(tmp_path):
    """And a model that was just imported or reset is what an export gives, whenever one is due."""
    with adapted(tmp_path, [SPEC]) as fresh, admin_of(fresh) as admin:
        untaught = b"".join(admin.export_model(signed=False))
        workspace = open_workspace(SPEC.learner.args, untaught)
        lines = "shared |c hour:8", "0:-1:0.5 |f topic=a", "|f topic=b"
        parser = TextFormatParser(workspace)
        workspace.learn_one([parser.parse_line(line) for line in lines])
        taught = workspace.serialize()
        assert taught != untaught
        assert not any(isinstance(each, RootRecord) for each in fresh.records("home"))
        admin.delete_logs()
        assert "dateRange" not in admin.get_log_properties()

        admin.import_model(taught)
        assert b"".join(admin.export_model(signed=False)) == taught
        admin.reset_model()
        assert b"".join(admin.export_model(signed=False)) == untaught
