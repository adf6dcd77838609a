"""A baseline over HTTP: what is served is what was said, and what cannot be is named by its field."""

import json

import httpx
import pytest
from support.fakes import FakeService, fresh_ranker

from policies.spec import PolicySpec
from serve_app.api.asgi import Api
from serve_app.replica.metrics import Metrics

SPEC = PolicySpec("home", mode="apprentice")
ACTIONS = [{"id": "a"}, {"id": "b"}, {"id": "c"}]


async def asked(body: dict, spec: PolicySpec = SPEC) -> httpx.Response:
    async def scrape() -> bytes:
        return b""

    api = Api({"home": FakeService(fresh_ranker(spec))}, Metrics("test"), scrape)
    transport = httpx.ASGITransport(api)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        content = json.dumps({"actions": ACTIONS, **body})
        return await http.post("/v1/policies/home/rank", content=content)


@pytest.mark.parametrize(
    ("body", "chosen"),
    [
        ({}, [{"slot": 0, "id": "a", "propensity": 1.0}]),
        ({"baseline": None}, [{"slot": 0, "id": "a", "propensity": 1.0}]),
        ({"baseline": "c"}, [{"slot": 0, "id": "c", "propensity": 1.0}]),
        (
            {"baseline": ["c", "a"], "slots": 2},
            [{"slot": 0, "id": "c", "propensity": 1.0}, {"slot": 1, "id": "a", "propensity": 1.0}],
        ),
        (
            {"baseline": {"probabilities": {"b": 0.25, "c": 0.75}, "id": "b"}},
            [{"slot": 0, "id": "b", "propensity": 0.25}],
        ),
    ],
)
async def test_what_is_served_is_answered_with_its_probability(body, chosen):
    answer = await asked(body)
    assert answer.status_code == 200
    assert answer.json()["chosen"] == chosen


async def test_why_is_said_of_what_the_policy_would_have_chosen():
    answer = (await asked({"baseline": "c", "explain": True, "return_pmf": True})).json()
    assert [each["probability"] for each in answer["pmf"]] == [0.0, 0.0, 1.0]
    assert "what the request named was served: c" in answer["explanation"]["note"]
    shares = [each["probability"] for each in answer["explanation"]["actions"]]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.2)


@pytest.mark.parametrize(
    ("baseline", "target"),
    [
        ("", "baseline"),
        ("nobody", "baseline"),
        ("<script>", "baseline"),
        (["a", "b"], "baseline"),
        ([], "baseline"),
        ([1], "baseline[0]"),
        (7, "baseline"),
        ({"id": "a"}, "baseline.probabilities"),
        ({"probabilities": {"a": 1.0}, "seed": 3}, "baseline.seed"),
        ({"probabilities": {"a": "much"}}, "baseline.probabilities.a"),
        ({"probabilities": {"a": 0.9999999}}, "baseline.probabilities"),
        ({"probabilities": {"a": 2.0, "b": -1.0}}, "baseline.probabilities"),
        ({"probabilities": {"a": 1.0}, "id": "b"}, "baseline.id"),
    ],
)
async def test_what_cannot_be_served_is_refused_by_its_field(baseline, target):
    answer = await asked({"baseline": baseline})
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["target"]) == ("invalid_field", target)
    assert error["message"]


@pytest.mark.parametrize(
    ("spec", "body", "ignored"),
    [
        (PolicySpec("home"), {"baseline": "c"}, ["baseline"]),
        (PolicySpec("home"), {"baseline": "nobody"}, ["baseline"]),
        (PolicySpec("home"), {"baseline": None}, None),
        (PolicySpec("home"), {}, None),
        (SPEC, {"baseline": "c"}, None),
    ],
)
async def test_a_policy_that_decides_itself_says_that_it_does_not_look_at_a_baseline(
    spec, body, ignored
):
    """Nor is it an error: the same callers are answered before and after a change of the mode."""
    answer = await asked(body, spec)
    assert answer.status_code == 200
    assert answer.json().get("ignored") == ignored
