"""What explains an answer: those who do not ask for it pay nothing."""

import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest
from support.fakes import FakeService, fresh_ranker

from policies.spec import PolicySpec
from serve_app.api.asgi import Api
from serve_app.replica.metrics import Metrics

HOME = "/v1/policies/home"
ASKED = {"context": {"hour": 3.0}, "actions": [{"id": "a"}, {"id": "b"}]}


@pytest.mark.parametrize(
    ("path", "plain", "explained"),
    [
        ("rank", ASKED, {**ASKED, "explain": True}),
        ("rank:batch", {"requests": [ASKED] * 9}, {"requests": [{**ASKED, "explain": True}]}),
    ],
)
async def test_a_request_that_does_not_ask_runs_nothing_of_what_explains(path, plain, explained):
    async def scrape() -> bytes:
        return b""

    home = FakeService(fresh_ranker(PolicySpec("home")))
    transport = httpx.ASGITransport(Api({"home": home}, Metrics("test"), scrape))
    ran = Counter()

    def note(frame, event, _):
        ran[Path(frame.f_code.co_filename).parent.name] += event == "call"

    async def asked(body) -> Counter:
        ran.clear()
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            sys.setprofile(note)
            try:
                answer = await http.post(f"{HOME}/{path}", json=body)
            finally:
                sys.setprofile(None)
        assert answer.status_code == 200
        return Counter(ran)

    assert (await asked(explained))["explain"] > 0, "it would not be seen"
    without = await asked(plain)
    assert without["decisions"] > 0
    assert without["explain"] == 0
