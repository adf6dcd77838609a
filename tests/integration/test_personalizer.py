"""Personalizer's own clients, unchanged, against a replica with a learner: what they are promised, and mutants that break it."""

from collections.abc import Iterator

import pytest
from azure.ai.personalizer import PersonalizerClient
from azure.core.credentials import AccessToken
from azure.core.exceptions import ServiceRequestError
from support.personalizer import CLIENTS, KEY, Adapted, adapted
from support.personalizer_checks import CHECKS, OF_SLOTS, Setting, asked, ids

from bandits.exploration import EpsilonGreedy
from bandits.log.join_rule import JoinRule
from bandits.vw.config import VwConfig
from policies.spec import PolicySpec

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


class Token:
    """A credential as those of azure.identity, whose token is the key."""

    def get_token(self, *scopes: str, **_: object) -> AccessToken:
        assert scopes == ("https://cognitiveservices.azure.com/.default",)
        return AccessToken(KEY, 1 << 40)


def test_a_token_works_behind_tls_and_only_there(service, monkeypatch, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    (certificate,) = folder.rglob("local.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with PersonalizerClient(f"{service.tls_url}/policies/home", Token()) as client:
        assert sorted(ids(client.rank(asked()))) == ["a", "b", "c"]
    client = PersonalizerClient(f"{service.url}/policies/home", Token())
    with client, pytest.raises(ServiceRequestError, match="not permitted"):
        client.rank(asked())
