"""The route table: one place says all of an endpoint, and a path leads to one place."""

from dataclasses import replace
from itertools import combinations

import pytest

from banditloop_client.schemas import RANK
from bandits.errors import InvalidEventIdError
from serve_app.api.endpoints import ROUTES
from serve_app.api.openapi import FAILURES
from serve_app.api.routes import RouteTable, needed_scope, policy_of, space_of

TABLE = RouteTable(ROUTES)
PATHS = sorted({route.endpoint.path for route in ROUTES})


def found(path: str, table: RouteTable = TABLE):
    return table.find(path, path.split("/"))


def filled(path: str) -> str:
    filled = path.replace("{policy}", "home").replace("{space}", "shop")
    return filled.replace("{event_id}", "e")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.endpoint.path)
def test_a_route_is_found_at_its_path_and_nowhere_beside_it(route):
    path = filled(route.endpoint.path)
    assert found(path).routes[route.endpoint.method] is route
    for other in (f"{path}/", f"/x{path}"):
        assert found(other) is None or found(other).routes.get(route.endpoint.method) is not route


def test_no_two_paths_share_a_label_and_every_failure_is_described():
    labels = [found(filled(path)).label for path in PATHS]
    assert len(set(labels)) == len(labels)
    assert all(status in FAILURES for route in ROUTES for status in route.failures)


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/v1/policies/{policy}/rank:batch", "rank:batch"),
        ("/v1/policies/{policy}/events/{event_id}/reward", "reward"),
        ("/v1/policies/{policy}", "policy"),
        ("/v1/policies", "/v1/policies"),
        ("/livez", "/livez"),
    ],
)
def test_a_label_is_the_last_word_and_that_of_a_page_its_path(path, label):
    assert found(filled(path)).label == label


def test_methods_of_one_path_have_scopes_of_their_own_and_are_all_allowed():
    put = replace(ROUTES[0], endpoint=replace(RANK, method="PUT"), scope="admin")
    resource = found("/v1/policies/home/rank", RouteTable([ROUTES[0], put]))
    assert resource.allowed == "POST, PUT"
    assert [needed_scope(resource, method) for method in ("POST", "PUT", "GET")] == [
        "rank",
        "admin",
        "rank",
    ]


def test_parameters_are_checked_and_the_policy_is_told_of_any_path_below_it():
    parts = ["", "v1", "policies", "home", "events", "e", "reward"]
    resource = TABLE.find("", parts)
    assert resource.parameters(parts) == {"event_id": "e"}
    with pytest.raises(InvalidEventIdError):
        resource.parameters([*parts[:5], "", "reward"])
    assert policy_of(parts) == "home"
    assert policy_of(["", "v1", "policies", "home", "nothing"]) == "home"
    assert policy_of(["", "v1", "policies"]) is None
    assert policy_of(["", "v2", "policies", "home"]) is None
    assert space_of(["", "v1", "spaces", "shop", "nothing"]) == "shop"
    assert space_of(["", "v1", "spaces"]) is space_of(parts) is None


def test_no_path_hides_another():
    for one, other in combinations(PATHS, 2):
        assert found(filled(one)) is not found(filled(other))
