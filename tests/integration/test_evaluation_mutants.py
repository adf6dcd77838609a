"""What clients are promised of evaluations, as checks; and mutants of the operations that they catch."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from support.fakes import FakeService, fresh_ranker
from support.personalizer_loop import HeldLoop
from support.servers import Server, binary_of

from policies.personalizer.arguments import DEFAULT_ARGUMENTS, with_arguments
from policies.spec import PolicySpec
from serve_app.api.asgi import Api
from serve_app.personalizer.app import PersonalizerApi
from serve_app.personalizer.evaluations import jobs, kept_operations, operations, told
from serve_app.personalizer.evaluations.jobs import EvaluationJobs
from serve_app.personalizer.evaluations.kept_operations import KeptOperations
from serve_app.personalizer.loops.loop import StoredLoop
from serve_app.personalizer.refusals import RefusedCall
from serve_app.replica.metrics import Metrics
from serve_app.settings import Settings
from serve_app.store.evaluations.kept import (
    JudgedPolicy,
    KeptEvaluation,
    begin_evaluation,
    end_evaluation,
)
from serve_app.store.evaluations.series import SeriesPoint

SPEC = with_arguments(PolicySpec("home"), DEFAULT_ARGUMENTS)
AT = "/policies/home/personalizer/evaluations"
START, END = "2022-09-20", "2022-09-21"
START_MS = 1_663_632_000_000
HOUR = 3_600_000
CONTRACT = {"name": "weekly", "startTime": START, "endTime": END, "policies": []}
Check = Callable[[httpx.AsyncClient], Awaitable[None]]


class LoggedLoop(HeldLoop):
    """A loop with a log of a day."""

    demand_log = StoredLoop.demand_log

    async def log_times(self) -> tuple[int, int]:
        return START_MS, START_MS + 24 * HOUR


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(binary_of("valkey"), tmp_path_factory.mktemp("kept") / "server") as out:
        yield out


@pytest.fixture(scope="module")
def app(server: Server, tmp_path_factory: pytest.TempPathFactory) -> PersonalizerApi:
    api = Api({"home": FakeService(fresh_ranker(SPEC))}, Metrics("test"), _no_metrics, None)
    loops: Any = {"home": LoggedLoop(SPEC)}
    settings = Settings(redis_url=server.url, data_dir=tmp_path_factory.mktemp("data"))
    evaluations = operations.EvaluationOperations(settings, loops, EvaluationJobs(settings, loops))
    return PersonalizerApi(api, api.backend, None, evaluations.routes())


@pytest.fixture
async def http(
    server: Server, app: PersonalizerApi, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """The protocol over a store with one evaluation that is done; what is begun goes on running."""
    found = [
        JudgedPolicy("online", "Online", 0.5, 0.4, 0.6),
        JudgedPolicy("mine", "Custom", 0.7, 0.6, 0.8, "--cb_explore_adf --epsilon 0.1"),
    ]
    done = KeptEvaluation("done", "w", START, END, START_MS, "Running")
    points = [SeriesPoint(START_MS + n * HOUR, n / 10, 0, 1, 0.5, 0.4, 0.6) for n in range(3)]
    with server.client() as client:
        client.flushall()
        begin_evaluation(client, "home", done)
        ended = KeptEvaluation(
            "done", "w", START, END, START_MS, "Succeeded", found, "said", best="mine"
        )
        end_evaluation(client, "home", ended, series={"online": {5: points, 60: points}})

    monkeypatch.setattr(EvaluationJobs, "_start", lambda *_: None)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as client:
        yield client


async def _no_metrics() -> bytes:
    return b""


def error_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def created(http: httpx.AsyncClient, name: str, **changes: Any) -> httpx.Response:
    return await http.put(f"{AT}/{name}", json={**CONTRACT, **changes})


async def a_new_one_is_answered_200_without_a_body_and_runs(http: httpx.AsyncClient) -> None:
    answer = await created(http, "new")
    assert (answer.status_code, answer.content) == (200, b"")
    said = (await http.get(f"{AT}/new")).json()
    assert said["status"] == "Running"
    never = "0001-01-01T00:00:00"
    assert said["content"] == {
        "startTime": never,
        "endTime": never,
        "intervalInMinutes": 0,
        "value": [],
    }
    assert (said["startTime"], said["evaluationType"]) == (START, "Manual")


async def an_id_is_given_once(http: httpx.AsyncClient) -> None:
    assert error_of(await created(http, "done")) == (400, "EvaluationAlreadyExists")
    assert error_of(await created(http, "x" * 257)) == (400, "InvalidEvaluationContract")


async def what_is_not_there_is_404(http: httpx.AsyncClient) -> None:
    for method in ("GET", "DELETE"):
        answer = await http.request(method, f"{AT}/none")
        assert error_of(answer) == (404, "EvaluationNotFound")
        assert "retry-after" not in answer.headers


async def what_is_deleted_is_there_no_more(http: httpx.AsyncClient) -> None:
    answer = await http.delete(f"{AT}/done")
    assert (answer.status_code, answer.content) == (204, b"")
    assert error_of(await http.get(f"{AT}/done")) == (404, "EvaluationNotFound")


async def a_list_is_under_value_without_what_was_found(http: httpx.AsyncClient) -> None:
    await created(http, "new")
    said = (await http.get(f"{AT}?skip=0")).json()
    assert [each["id"] for each in said["value"]] == ["new", "done"]
    assert "nextLink" not in said
    for each in said["value"]:
        assert not {"content", "optimalPolicy", "description"} & each.keys()
        assert each.keys() >= {"id", "name", "startTime", "endTime", "creationTime", "status"}
    for part, ids in (("skip=1", ["done"]), ("top=1", ["new"]), ("skip=1&top=0", [])):
        said = (await http.get(f"{AT}?{part}")).json()
        assert [each["id"] for each in said["value"]] == ids


async def a_list_has_those_of_the_type_that_is_asked_for(http: httpx.AsyncClient) -> None:
    for text, count in (("evaluationType eq 'Manual'", 1), ("evaluationType eq 'Auto'", 0)):
        for begin in ("metadata=", ""):
            answer = await http.get(AT, params={"skip": 0, "filter": begin + text})
            assert len(answer.json()["value"]) == count
    answer = await http.get(AT, params={"skip": 0, "filter": "name eq 'w'"})
    assert error_of(answer) == (400, "InvalidRequest")


async def what_was_found_is_told_with_where_it_comes_from(http: httpx.AsyncClient) -> None:
    said = (await http.get(f"{AT}/done")).json()
    assert (said["status"], said["optimalPolicy"], said["description"]) == (
        *("Succeeded", "mine", "said"),
    )
    online, mine = said["content"]["value"]
    assert online["summary"] == {"expectedReward": 0.5, "confidenceInterval": [0.4, 0.6]}
    assert (online["policySource"], mine["policySource"]) == ("Online", "Custom")
    assert (online["slotId"], mine["arguments"]) == ("", "--cb_explore_adf --epsilon 0.1")
    assert "arguments" not in online


async def points_are_of_their_interval_or_of_all_until_then(http: httpx.AsyncClient) -> None:
    for asked, values in (
        ("", [0.5, 0.5, 0.5]),
        ("?intervalInMinutes=5&window=Expanding", [0.5, 0.5, 0.5]),
        ("?intervalInMinutes=60&window=Rolling", [0.0, 0.1, 0.2]),
        (f"?intervalInMinutes=60&startTime={START}T01:30:00.000Z", [0.1, 0.2]),
    ):
        said = (await http.get(f"{AT}/done{asked}")).json()["content"]
        points = said["value"][0]["timeseries"]["data"]
        assert [each["expectedReward"] for each in points] == values, asked
    for odd in ("intervalInMinutes=7", "intervalInMinutes=5&window=Rolling", "startTime=soon"):
        assert (await http.get(f"{AT}/done?{odd}")).status_code == 400, odd


def _policies(count: int, name: str = "p{}") -> list[dict[str, str]]:
    return [{"name": name.format(each), "arguments": "--cb_explore_adf"} for each in range(count)]


async def what_cannot_be_evaluated_is_refused_by_its_own_code(http: httpx.AsyncClient) -> None:
    for changes, code in (
        ({"policies": _policies(11)}, "MaximumEvaluationCustomPoliciesExceeded"),
        ({"policies": _policies(2, "p")}, "DuplicateCustomPolicyNames"),
        ({"endTime": "2999-01-01"}, "InvalidDateTimesInEvaluationContract"),
        ({"endTime": START}, "InvalidDateTimesInEvaluationContract"),
        ({"startTime": "2021-01-01", "endTime": "2021-01-02"}, "NoLogsExistInDateRange"),
        (
            {"policies": [{"name": "p", "arguments": "--cats 4"}]},
            "InvalidPolicyConfiguration",
        ),
    ):
        assert error_of(await created(http, "new", **changes)) == (400, code)
    assert (await created(http, "new", policies=_policies(10))).status_code == 200


CHECKS: dict[str, Check] = {
    each.__name__: each
    for each in (
        a_new_one_is_answered_200_without_a_body_and_runs,
        an_id_is_given_once,
        what_is_not_there_is_404,
        what_is_deleted_is_there_no_more,
        a_list_is_under_value_without_what_was_found,
        a_list_has_those_of_the_type_that_is_asked_for,
        what_was_found_is_told_with_where_it_comes_from,
        points_are_of_their_interval_or_of_all_until_then,
        what_cannot_be_evaluated_is_refused_by_its_own_code,
    )
}


@pytest.mark.parametrize("name", CHECKS)
async def test_a_client_finds_of_an_evaluation_what_it_expects(http, name):
    await CHECKS[name](http)


# Mutants


def _whole(kept, series=(), asked=None):
    return TOLD(kept, dict(series), asked or told.AskedSeries(5, None, None))


def _always_expanding(point, window, at_ms):
    return TOLD_POINT(point, told.EXPANDING, at_ms)


async def _all(self, call):
    return await self.jobs.stored(
        lambda client: kept_operations.read_evaluations(client, call.policy, self.kind)
    )


async def _first_only(self, call):
    return (await LISTED(self, call))[:1]


def _wrong(self, name):
    return RefusedCall(400, "InvalidContract", "there is none", self.target)


async def _some_log(self, start, end):
    return START_MS, START_MS + HOUR


def _any_times(start, end):
    read = kept_operations.read_time
    return kept_operations.AskedTimes(read(start, "startTime"), read(end, "endTime"))


TOLD, TOLD_POINT, LISTED = told.told, told._told_point, KeptOperations.listed
MUTANTS: dict[str, tuple[Any, str, Any, str]] = {
    "answers what was made": (
        *(kept_operations, "MADE", (201, b"{}", b"application/json")),
        "a_new_one_is_answered_200_without_a_body_and_runs",
    ),
    "tells the time of what runs": (
        *(told, "_NO_TIME", "2022-09-20T00:00:00"),
        "a_new_one_is_answered_200_without_a_body_and_runs",
    ),
    "begins one twice": (
        *(jobs, "begin_evaluation", lambda *_: True),
        "an_id_is_given_once",
    ),
    "takes any id": (
        *(kept_operations, "check_id", lambda *_: None),
        "an_id_is_given_once",
    ),
    "refuses what is not there as wrong": (
        *(KeptOperations, "_unknown", _wrong),
        "what_is_not_there_is_404",
    ),
    "deletes nothing": (
        *(kept_operations, "delete_evaluation", lambda *_: True),
        "what_is_deleted_is_there_no_more",
    ),
    "lists all that is known of each": (
        *(operations, "told", _whole),
        "a_list_is_under_value_without_what_was_found",
    ),
    "lists all, whatever part is asked for": (
        *(KeptOperations, "listed", _all),
        "a_list_is_under_value_without_what_was_found",
    ),
    "lists one page": (
        *(KeptOperations, "listed", _first_only),
        "a_list_is_under_value_without_what_was_found",
    ),
    "lists all, whatever type is asked for": (
        *(KeptOperations, "listed", _all),
        "a_list_has_those_of_the_type_that_is_asked_for",
    ),
    "tells of no better policy": (
        *(operations, "told", lambda kept, *_: TOLD(kept)),
        "what_was_found_is_told_with_where_it_comes_from",
    ),
    "has no series of intervals": (
        *(told, "_told_point", _always_expanding),
        "points_are_of_their_interval_or_of_all_until_then",
    ),
    "takes any interval": (
        *(operations, "WINDOWS", {**told.WINDOWS, 7: "Rolling"}),
        "points_are_of_their_interval_or_of_all_until_then",
    ),
    "takes eleven policies": (
        *(operations, "MOST_POLICIES", 11),
        "what_cannot_be_evaluated_is_refused_by_its_own_code",
    ),
    "takes times to come": (
        *(operations, "asked_times", _any_times),
        "what_cannot_be_evaluated_is_refused_by_its_own_code",
    ),
    "evaluates no log": (
        *(LoggedLoop, "demand_log", _some_log),
        "what_cannot_be_evaluated_is_refused_by_its_own_code",
    ),
    "takes any arguments": (
        *(operations, "with_arguments", lambda *_: None),
        "what_cannot_be_evaluated_is_refused_by_its_own_code",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_mutant_of_evaluations_is_caught(http, monkeypatch, name):
    where, attribute, mutant, check = MUTANTS[name]
    monkeypatch.setattr(where, attribute, mutant)
    with pytest.raises((AssertionError, KeyError, TypeError, ValueError)):
        await CHECKS[check](http)
