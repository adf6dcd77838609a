"""The HTTP API as a plain ASGI application: parse, call the service, serialise.

Knows neither Ray nor Redis.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from urllib.parse import quote, unquote

import msgspec

from bandits import errors
from bandits.errors import BanditloopError
from bandits.log.records import ActivationRecord, DecisionRecord, RewardRecord
from bandits.values import MAX_NUMBER
from policies.ranker import check_event_id
from policies.requests import RankRequest
from serve_app.api import schemas
from serve_app.api.api_keys import KeyRing, error_headers
from serve_app.api.bodies import parse
from serve_app.api.docs_page import DOCS_HTML
from serve_app.api.ports import PolicyService
from serve_app.api.readiness import readiness
from serve_app.api.statuses import STATUS, _error_bytes, _status
from serve_app.api.wire import (
    CATALOGUE_BODY_S,
    HTML,
    JSON,
    MAX_CATALOGUE_BODY,
    TEXT,
    Answer,
    Receive,
    Scope,
    Send,
    _body,
    _encode,
)
from serve_app.replica.metrics import Metrics
from serve_app.store.progress import LearningHealth

RETRY_AFTER_S = b"1"
_LABELS = frozenset({"rank", "rank:batch", "reward", "activate", "rewards", "catalogue"})

log = logging.getLogger("banditloop.http")


class Api:
    """The ASGI application over ``services`` by policy name.

    Without ``keys`` everybody may call everything.
    """

    def __init__(
        self,
        services: Mapping[str, PolicyService],
        metrics: Metrics,
        scrape: Callable[[], Awaitable[bytes]],
        keys: KeyRing | None = None,
    ) -> None:
        self._services = services
        self._metrics = metrics
        self._scrape = scrape
        self._keys = keys
        self._openapi = schemas.openapi(version("banditloop"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        headers = []
        try:
            answer = await self._route(scope, receive)
        except BanditloopError as error:
            answer = (_status(error), _error_bytes(error), JSON)
            headers += error_headers(error)
            if isinstance(error, errors.MethodNotAllowedError):
                headers.append((b"allow", error.allowed.encode()))
        except Exception as error:
            log.exception("a request failed in a way that it should not")
            answer = (
                500,
                _error_bytes(
                    BanditloopError(f"internal error ({type(error).__name__}): see the log")
                ),
                JSON,
            )
        status, body, content_type = answer
        headers += [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
        if status == STATUS[errors.NotReadyError]:
            headers.append((b"retry-after", RETRY_AFTER_S))
        self._metrics.count("requests", scope.get("banditloop.route", "other"), str(status))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _route(self, scope: Scope, receive: Receive) -> Answer:
        path, method = scope["path"], scope["method"]
        parts = _parts(scope)
        if self._keys is not None:
            self._keys.admit(path, parts, scope["headers"])
        if len(parts) >= 4 and parts[1] == "v1" and parts[2] == "policies":
            return await self._policy_route(parts[3], parts[4:], method, receive, scope)
        pages: dict[str, Callable[[], Awaitable[Answer]]] = {
            "/v1/policies": self._list,
            "/livez": self._live,
            "/readyz": self._ready,
            "/healthz/learning": self._learning,
            "/metrics": self._prometheus,
            "/openapi.json": self._document,
            "/docs": self._docs,
        }
        page = pages.get(path)
        if page is None:
            raise errors.NotFoundError(f"no route {path}: see /docs", "path")
        scope["banditloop.route"] = path
        _demand(method, "GET")
        return await page()

    async def _policy_route(  # noqa: PLR0911 - one return per route
        self, name: str, rest: list[str], method: str, receive: Receive, scope: Scope
    ) -> Answer:
        service = self._services.get(name)
        if service is None:
            raise errors.UnknownPolicyError(
                f"no policy {name!r}: there are {sorted(self._services)}", "policy"
            )
        scope["banditloop.route"] = (
            "policy" if not rest else rest[-1] if rest[-1] in _LABELS else "other"
        )
        match rest:
            case ["rank"]:
                _demand(method, "POST")
                return await self._rank(name, service, await _body(scope, receive))
            case ["rank:batch"]:
                _demand(method, "POST")
                return await self._rank_batch(name, service, await _body(scope, receive))
            case ["events", event_id, "reward"]:
                _demand(method, "POST")
                return await self._reward(
                    name, service, check_event_id(event_id), await _body(scope, receive)
                )
            case ["events", event_id, "activate"]:
                _demand(method, "POST")
                await service.log([ActivationRecord(check_event_id(event_id))])
                return _accepted(1)
            case ["rewards"]:
                _demand(method, "POST")
                return await self._rewards(name, service, await _body(scope, receive))
            case ["catalogue"]:
                _demand(method, "PUT")
                items = parse(
                    await _body(scope, receive, MAX_CATALOGUE_BODY, CATALOGUE_BODY_S), _catalogue
                ).items
                digest = await service.replace_catalogue(items)
                return 200, _encode(schemas.CatalogueResponse(digest, len(items))), JSON
            case []:
                _demand(method, "GET")
                return 200, _encode(await service.info()), JSON
        raise errors.NotFoundError(f"no route {scope['path']}: see /docs", "path")

    async def _rank(self, name: str, service: PolicyService, body: bytes) -> Answer:
        started = time.perf_counter()
        request = parse(body, _rank_request)
        record, logged = await service.rank(request)
        response = self._answered(name, request, record, logged, started)
        return 200, _encode(response), JSON

    def _answered(
        self,
        name: str,
        request: RankRequest,
        record: DecisionRecord,
        logged: bool,
        started: float,
    ) -> schemas.RankResponse:
        self._metrics.count("decisions", name, "true" if logged else "false")
        self._metrics.observe(name, time.perf_counter() - started)
        return _response(record, logged=logged, with_pmf=request.return_pmf)

    async def _rank_batch(self, name: str, service: PolicyService, body: bytes) -> Answer:
        started = time.perf_counter()
        raw = parse(body, _batch).requests
        if len(raw) > schemas.MAX_BATCH:
            raise errors.TooManyActionsError(
                f"at most {schemas.MAX_BATCH} requests, not {len(raw)}", "requests"
            )
        parsed: list[RankRequest | BanditloopError] = []
        for each in raw:
            try:
                parsed.append(parse(each, _rank_request))
            except BanditloopError as error:
                parsed.append(error)
        good = [each for each in parsed if isinstance(each, RankRequest)]
        answers = iter(await service.rank_all(good))
        results: list[schemas.RankResponse | schemas.ErrorResponse] = []
        for index, request in enumerate(parsed):
            answer = next(answers) if isinstance(request, RankRequest) else request
            if isinstance(request, RankRequest) and not isinstance(answer, BanditloopError):
                results.append(self._answered(name, request, *answer, started))
            elif isinstance(answer, BanditloopError):
                inner = f".{answer.target}" if answer.target not in {None, "body"} else ""
                target = f"requests[{index}]{inner}"
                results.append(
                    schemas.ErrorResponse(schemas.ErrorBody(answer.code, answer.message, target))
                )
        return 200, _encode(schemas.RankBatchResponse(results)), JSON

    async def _reward(
        self, name: str, service: PolicyService, event_id: str, body: bytes
    ) -> Answer:
        asked = parse(body, _reward_request)
        record = RewardRecord(event_id, asked.value, asked.reward_id, asked.slot, asked.action_id)
        await service.log([_checked(record, "")])
        self._metrics.count("reward_events", name)
        return _accepted(1)

    async def _rewards(self, name: str, service: PolicyService, body: bytes) -> Answer:
        asked = parse(body, _rewards_request).rewards
        records: list[RewardRecord | ActivationRecord] = []
        for i, each in enumerate(asked):
            record = RewardRecord(
                _event_id_of(each, i), each.value, each.reward_id, each.slot, each.action_id
            )
            records.append(_checked(record, f"rewards[{i}]."))
        await service.log(records)
        self._metrics.count("reward_events", name, by=len(records))
        return _accepted(len(records))

    async def _list(self) -> Answer:
        return 200, _encode(schemas.PoliciesResponse(sorted(self._services))), JSON

    async def _live(self) -> Answer:
        return 200, _encode(schemas.Health("ok")), JSON

    async def _ready(self) -> Answer:
        waiting = sorted(name for name, service in self._services.items() if not service.ready)
        status = "waiting for a first snapshot" if waiting else "ok"
        return 503 if waiting else 200, _encode(readiness(self._learnings(), status, waiting)), JSON

    async def _learning(self) -> Answer:
        """Apart from readiness: a replica whose learner stands still serves on, and a balancer is to leave it in."""
        found = readiness(self._learnings())
        return 200 if found.learning == "ok" else 503, _encode(found), JSON

    def _learnings(self) -> dict[str, LearningHealth]:
        return {name: service.learning for name, service in sorted(self._services.items())}

    async def _prometheus(self) -> Answer:
        return 200, await self._scrape(), TEXT

    async def _document(self) -> Answer:
        return 200, self._openapi, JSON

    async def _docs(self) -> Answer:
        return 200, DOCS_HTML, HTML


_rank_request = msgspec.json.Decoder(RankRequest)
_batch = msgspec.json.Decoder(schemas.RankBatchRequest)
_reward_request = msgspec.json.Decoder(schemas.RewardRequest)
_rewards_request = msgspec.json.Decoder(schemas.RewardsRequest)
_catalogue = msgspec.json.Decoder(schemas.CatalogueRequest)


def _parts(scope: Scope) -> list[str]:
    """The path's parts, split before they are unquoted, so that an escaped slash is part of an event_id."""
    raw = scope.get("raw_path") or quote(scope["path"]).encode()
    return [unquote(part) for part in raw.decode("ascii", "replace").split("?")[0].split("/")]


def _event_id_of(reward: schemas.RewardEvent, index: int) -> str:
    try:
        return check_event_id(reward.event_id)
    except errors.InvalidEventIdError as error:
        raise errors.InvalidEventIdError(error.message, f"rewards[{index}].event_id") from error


def _checked(record: RewardRecord, prefix: str) -> RewardRecord:
    if not abs(record.value) <= MAX_NUMBER:
        raise errors.NonFiniteNumberError(
            f"a reward is a number up to {MAX_NUMBER:g}", f"{prefix}value"
        )
    return record


def _response(record: DecisionRecord, *, logged: bool, with_pmf: bool) -> schemas.RankResponse:
    ids = record.action_ids
    pmf = None
    if with_pmf:
        pmf = [
            schemas.Probability(name, p)
            for name, p in zip(ids, record.pmfs()[0].tolist(), strict=True)
        ]
    chosen = [
        schemas.Chosen(slot, ids[k], record.propensity(slot))
        for slot, k in enumerate(record.chosen)
    ]
    return schemas.RankResponse(
        record.event_id, record.policy, record.snapshot_id, logged, chosen, pmf
    )


def _accepted(count: int) -> Answer:
    return 202, _encode(schemas.Accepted(count)), JSON


def _demand(method: str, wanted: str) -> None:
    if method != wanted:
        raise errors.MethodNotAllowedError(
            f"use {wanted} here, not {method}", "method", allowed=wanted
        )


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
