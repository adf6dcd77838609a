"""Personalizer's own clients, unchanged, against a replica with a learner: what they are promised, and mutants that break it."""

import asyncio
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.ai.personalizer import PersonalizerAdministrationClient, PersonalizerClient
from azure.core.credentials import AccessToken, AzureKeyCredential
from azure.core.exceptions import AzureError, ServiceRequestError
from msrest.exceptions import HttpOperationError
from support import personalizer_quickstarts as quickstarts
from support.personalizer import CLIENTS, KEY, Adapted, adapted
from support.personalizer_checks import CHECKS, OF_SLOTS, Setting, asked, ids

from bandits.errors import InvalidFieldError, UnknownEventError
from bandits.exploration import EpsilonGreedy
from bandits.log.join_rule import JoinRule
from bandits.log.records import RewardRecord, TickRecord
from bandits.vw.config import VwConfig
from policies.decisions import barred_slots
from policies.spec import PolicySpec
from serve_app.api.api_keys import KeyRing
from serve_app.personalizer import app, features, multi_slot, single_slot
from serve_app.personalizer.bodies import RankedAction
from serve_app.personalizer.refusals import refused
from serve_app.replica.policy_service import RedisPolicyService

LEARNER = VwConfig("--cb_explore_adf --cb_type mtr -q ::")


def policy(name: str, window_s: float, **fields) -> PolicySpec:
    return PolicySpec(
        name,
        learner=LEARNER,
        exploration=EpsilonGreedy(0.2),
        floor=0.0,
        join=JoinRule(window_s=window_s),
        **fields,
    )


SPECS = [
    policy("home", 600.0),
    policy("quick", 0.3),
    policy("novice", 0.3, mode="apprentice", learn="imitation"),
    policy("watched", 600.0, mode="apprentice", learn="rewards"),
]


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[Adapted]:
    with adapted(tmp_path_factory.mktemp("personalizer"), SPECS) as out:
        yield out


@pytest.fixture(scope="module")
def settings(service) -> Iterator[dict[str, Setting]]:
    made = {kind.name: Setting(service, kind) for kind in CLIENTS}
    yield made
    for setting in made.values():
        setting.close()


@pytest.mark.parametrize("client", [kind.name for kind in CLIENTS])
@pytest.mark.parametrize("name", CHECKS)
def test_a_client_is_answered_as_it_expects(settings, client, name):
    CHECKS[name](settings[client])


@pytest.mark.parametrize("client", [kind.name for kind in CLIENTS if kind.has_slots])
@pytest.mark.parametrize("name", OF_SLOTS)
def test_a_client_of_slots_is_answered_as_it_expects(settings, client, name):
    OF_SLOTS[name](settings[client])


async def test_programs_that_were_published_for_the_clients_run_unchanged(service):
    """But for their endpoint and their key."""
    home = f"{service.url}/policies/home"
    await asyncio.to_thread(quickstarts.grocery, home, KEY)
    await asyncio.to_thread(quickstarts.videos, f"{home}/", AzureKeyCredential(KEY))
    await quickstarts.videos_async(home, AzureKeyCredential(KEY))
    said = await asyncio.to_thread(quickstarts.administration, home, KEY)
    assert (said["explorationPercentage"], said["learningMode"]) == (0.2, "Online")


class Token:
    """A credential as those of azure.identity, whose token is the key."""

    def get_token(self, *scopes: str, **_: object) -> AccessToken:
        assert scopes == ("https://cognitiveservices.azure.com/.default",)
        return AccessToken(KEY, 1 << 40)


def test_a_token_works_behind_tls_and_only_there(service, monkeypatch, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    (certificate,) = folder.glob("personalizer0/local.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with PersonalizerClient(f"{service.tls_url}/policies/home", Token()) as client:
        assert sorted(ids(client.rank(asked()))) == ["a", "b", "c"]
    quickstarts.videos(f"{service.tls_url}/policies/home", Token())
    client = PersonalizerClient(f"{service.url}/policies/home", Token())
    with client, pytest.raises(ServiceRequestError, match="not permitted"):
        client.rank(asked())


ASYNC = """
import asyncio, sys
from azure.core.credentials import AccessToken
from support import personalizer_quickstarts as quickstarts

class Token:
    async def get_token(self, *_, **__):
        return AccessToken(sys.argv[2], 1 << 40)

asyncio.run(quickstarts.videos_async(sys.argv[1], Token()))
"""


def test_an_asynchronous_program_with_a_token_works_behind_tls(service, tmp_path_factory):
    """Its transport reads which certificates it trusts once, when it is imported."""
    (certificate,) = tmp_path_factory.getbasetemp().glob("personalizer0/local.pem")
    program = [sys.executable, "-c", ASYNC, f"{service.tls_url}/policies/home", KEY]
    where = {"SSL_CERT_FILE": str(certificate), "PYTHONPATH": str(Path(__file__).parents[1])}
    environment = {**os.environ, **where}
    done = subprocess.run(program, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_how_often_an_apprentice_imitates_is_told_with_its_configuration(service):
    """As of when it was counted last; whoever asks has it counted anew."""
    url = f"{service.url}/policies/novice"
    with PersonalizerClient(url, AzureKeyCredential(KEY)) as client:
        for value in (1.0, 0.5):
            client.reward(client.rank(asked())["eventId"], {"value": value})
    patience = threading.Event()
    while not isinstance(service.records("novice")[-1], TickRecord):
        patience.wait(0.05)  # windows close by the log's own time
    closed = service.folded("novice").join.counts["closed"]

    with PersonalizerAdministrationClient(url, AzureKeyCredential(KEY)) as admin:
        first = admin.get_service_configuration()
        assert (first["learningMode"], "latestApprenticeModeMetrics" in first) == (
            *("Apprentice", False),
        )
        while "latestApprenticeModeMetrics" not in (told := admin.get_service_configuration()):
            patience.wait(0.1)
        found = told["latestApprenticeModeMetrics"]
    assert 2 <= found["numberOfEvents"] <= closed
    assert 0 <= found["numberOfImitatedEvents"] <= found["numberOfEvents"]
    assert found["sumOfImitatedRewards"] <= found["sumOfRewards"] + found["numberOfEvents"]
    assert found["startTime"] <= found["lastProcessedEventTime"]
    assert found["lastBatchMetrics"]["numberOfEvents"] == found["numberOfEvents"]


# Mutants of the adapter, each of which one of the checks has to catch


def _without_excluded(sent, record):
    pmf = record.pmfs()[0].tolist()
    order = sorted(range(len(pmf)), key=pmf.__getitem__, reverse=True)
    return [RankedAction(record.action_ids[k], pmf[k]) for k in order]


def _excluded_last(sent, record):
    out = [each for each in single_slot_ranked(sent, record) if each.probability]
    return out + [each for each in single_slot_ranked(sent, record) if not each.probability]


def _chosen_pushed_to_the_front(sent, record):
    pmf = record.pmfs()[0].tolist()
    order = sorted(range(len(pmf)), key=pmf.__getitem__, reverse=True)
    order = [record.chosen[0], *(k for k in order if k != record.chosen[0])]
    return [RankedAction(record.action_ids[k], pmf[k]) for k in order]


def _refused_as_422(error, code):
    refusal = refused(error, code)
    refusal.status = 422 if refusal.status == 400 else refusal.status
    return refusal


def _without_code(refusal):
    return b'{"detail": "wrong"}'


def _by_place(event_id, sent, target, kept):
    return RewardRecord(event_id, sent.value, "r", slot=0)


async def _as_a_slate(call, event_id):
    names = await call.service.slot_names(event_id)
    return multi_slot._KeptSlots(names, apart=False)


async def _by_its_features(call, page, *, is_new):
    return any(page.features)


def _decoded_first(scope):
    return scope["path"].split("/")


def _flat(features, given, prefix, depth):
    for name, value in given.items():
        if isinstance(value, dict):
            _flat(features, value, "", depth)
        elif value is not None and not isinstance(value, list):
            features[name] = value


def _no_barred(slots, actions):
    return [[] for _ in slots]


def _no_context(sent):
    if sent is None:
        raise InvalidFieldError("a context is needed", "contextFeatures")
    return single_slot_context(sent)


async def _once(self, request, **options):
    return await rank_once(self, request, **{**options, "again": False})


async def _known_only(self, records):
    raise UnknownEventError("no such event", "eventId")


async def _nothing_logged(self, records):
    return None


async def _sorted_names(self, event_id, names):
    await name_slots(self, event_id, sorted(names))


single_slot_ranked, single_slot_context = single_slot.ranked, single_slot.context_of
rank_once, name_slots = RedisPolicyService.rank, RedisPolicyService.name_slots
MUTANTS = {
    "ranks without what is excluded": (
        (single_slot, "ranked", _without_excluded),
        "what_is_excluded_stays_in_its_place_at_nought",
    ),
    "ranks what is excluded last": (
        (single_slot, "ranked", _excluded_last),
        "what_is_excluded_stays_in_its_place_at_nought",
    ),
    "pushes the choice to the front": (
        (single_slot, "ranked", _chosen_pushed_to_the_front),
        "an_explored_choice_changes_places_with_the_best",
    ),
    "answers the ids of the log": (
        (single_slot, "made_event_id", lambda: "0" * 32),
        "an_event_without_id_gets_one",
    ),
    "takes names with an underscore": (
        (features, "_IGNORED", "\0"),
        "features_are_logged_by_their_path",
    ),
    "leaves namespaces out": ((features, "_add_all", _flat), "features_are_logged_by_their_path"),
    "cuts long ids": (
        (single_slot, "logged_event_id", lambda event_id: event_id[:200]),
        "odd_ids_are_the_same_event_in_every_call",
    ),
    "decodes a path before it is split": (
        (app, "split_path", _decoded_first),
        "odd_ids_are_the_same_event_in_every_call",
    ),
    "refuses another request": (
        (RedisPolicyService, "rank", _once),
        "another_request_under_an_id_is_decided_too_and_not_learned",
    ),
    "needs a context": (
        (single_slot, "context_of", _no_context),
        "a_context_may_be_missing_null_or_empty",
    ),
    "knows no key": (
        (KeyRing, "admit", lambda *_, **__: None),
        "another_key_and_another_policy_are_refused",
    ),
    "knows no versions": (
        (app, "_VERSION", re.compile("none")),
        "rewards_and_activations_of_any_event_are_taken",  # whose paths are read each time
    ),
    "takes only rewards of known events": (
        (RedisPolicyService, "log", _known_only),
        "rewards_and_activations_of_any_event_are_taken",
    ),
    "loses rewards": (
        (RedisPolicyService, "log", _nothing_logged),
        "rewards_and_activations_of_any_event_are_taken",
    ),
    "takes one reward of an event": (
        (single_slot, "reward_record", lambda event_id, value, _: RewardRecord(event_id, value)),
        "rewards_and_activations_of_any_event_are_taken",
    ),
    "answers 422": ((app, "refused", _refused_as_422), "a rank with no actions is refused"),
    "answers without a code": (
        (app, "refusal_bytes", _without_code),
        "a rank with no actions is refused",
    ),
    "takes 60 actions": ((single_slot, "MOST_ACTIONS", 60), "a rank with 51 actions is refused"),
    "answers a reward with 200": (
        (single_slot, "NOTHING", (200, b"", b"text/plain")),
        "rewards_and_activations_of_any_event_are_taken",
    ),
    "shows what a slot excludes": (
        (multi_slot, "_barred", _no_barred),
        "a_slot_gets_nothing_that_it_excludes_and_none_stays_empty",
    ),
    "rewards the first slot": (
        (multi_slot, "_slot_reward", _by_place),
        "rewards_find_their_slots_by_name",
    ),
    "sorts slots by their names": (
        (RedisPolicyService, "name_slots", _sorted_names),
        "rewards_find_their_slots_by_name",
    ),
    "drops features of slots": (
        (multi_slot, "_in_slot", lambda context, own: context),
        "a_slot_with_features_is_a_decision_of_its_own_that_sees_them",
    ),
    "forgets that slots were decided by themselves": (
        (multi_slot, "_kept", _as_a_slate),
        "rewards_and_activations_find_slots_that_are_decisions_of_their_own",
    ),
    "decides each page as its request says": (
        (multi_slot, "_is_apart", _by_its_features),
        "an_id_that_has_answered_a_page_goes_on_as_that",
    ),
    "forgets which slots cannot do without what": (
        (barred_slots, "_fillable", lambda admitted: admitted[0]),
        "a_slot_gets_nothing_that_it_excludes_and_none_stays_empty",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_of_the_adapter_is_caught(settings, monkeypatch, name):
    (where, attribute, mutant), check = MUTANTS[name]
    client = settings["0.1.1"] if "versions" in name else settings["1.0.0b1"]
    if check == "an_explored_choice_changes_places_with_the_best":
        CHECKS[check](client)  # what has to be learned before is learned
    monkeypatch.setattr(where, attribute, mutant)
    with pytest.raises((AssertionError, AzureError, HttpOperationError)):
        {**CHECKS, **OF_SLOTS}[check](client)
