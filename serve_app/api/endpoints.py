"""The endpoints: what each one does, and the table that says all the rest about it."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec

from banditloop_client import schemas
from banditloop_client.explain_schemas import Explanation
from bandits import errors
from bandits.errors import BanditloopError
from bandits.log.records import ActivationRecord, DecisionRecord, RewardRecord
from bandits.values import MAX_NUMBER, MAX_SIGNAL_BYTES
from policies.items.changes import check_lengths, lengths_with
from policies.requests import RankRequest, check_event_id
from policies.rules.turns import Turn
from serve_app.api.bodies import (
    BatchDecoder,
    ItemsDecoder,
    ManyItems,
    RankDecoder,
    RawBatch,
    WholeBatch,
    decode_body,
)
from serve_app.api.console_endpoints import CONSOLE_ROUTES
from serve_app.api.docs_page import DOCS_HTML
from serve_app.api.item_endpoints import ITEM_ROUTES
from serve_app.api.readiness import readiness
from serve_app.api.routes import Call, Route
from serve_app.api.space_endpoints import SPACE_ROUTES
from serve_app.api.wire import HTML, JSON, TEXT, Answer, BodyLimit, LoggedAnswer, encode, give_up
from serve_app.store.progress import LearningHealth

CATALOGUE_LIMIT = BodyLimit(64 << 20, 60.0)
_OK = HTTPStatus.OK.value


# Decisions


async def rank(call: Call[RankRequest]) -> schemas.RankResponse | LoggedAnswer:
    """Make one decision, or a slate."""
    begun = call.service.begin(call.request)
    if not isinstance(begun, RankRequest):
        record, logging = begun
        try:
            answer = _answer_of(call, record, logged=True)
        except BaseException:
            give_up(logging)
            raise
        otherwise = partial(_answer_of, call, record, logged=False)
        return LoggedAnswer(logging, answer, otherwise, partial(_count_one, call))
    explain = call.service.explaining() if begun.explain else None
    record, logged = await call.service.rank(begun)
    _count(call, 1, logged=logged)
    return _decided(call, begun, record, explain, logged=logged)


def _answer_of(call: Call[RankRequest], record: DecisionRecord, *, logged: bool) -> Answer:
    return _OK, encode(_decided(call, call.request, record, None, logged=logged)), JSON


def _count_one(call: Call[RankRequest], logged: bool) -> None:
    _count(call, 1, logged=logged)


async def rank_batch(call: Call[WholeBatch | RawBatch]) -> schemas.RankBatchResponse:
    """Make several decisions; each item has its own result or error."""
    sent = call.request.requests
    if len(sent) > schemas.MAX_BATCH:
        raise errors.TooManyActionsError(
            f"at most {schemas.MAX_BATCH} requests, not {len(sent)}", "requests"
        )

    turn, asked = Turn(), list[RankRequest | BanditloopError]()
    for item in sent:
        if turn.is_over:
            await turn.give_way()
        asked.append(item if isinstance(item, RankRequest) else _decoded(item))
    good = [item for item in asked if isinstance(item, RankRequest)]
    explain = call.service.explaining() if any(item.explain for item in good) else None
    decisions = iter(await call.service.rank_all(good))

    counted: list[bool] = []
    results: list[schemas.RankResponse | schemas.ErrorResponse] = []
    turn = Turn()
    for index, request in enumerate(asked):
        if turn.is_over:
            await turn.give_way()
        # An item that could not be decoded was not asked for: its error is its result.
        decision = next(decisions) if isinstance(request, RankRequest) else request
        if isinstance(decision, BanditloopError):
            results.append(_item_error(decision, index))
        elif isinstance(request, RankRequest):
            record, logged = decision
            counted.append(logged)
            results.append(_decided(call, request, record, explain, logged=logged))
    _count(call, counted.count(True), logged=True)
    _count(call, counted.count(False), logged=False)
    return schemas.RankBatchResponse(results)


def _count(call: Call[Any], count: int, *, logged: bool) -> None:
    """Count decisions that were asked for together, and how long they took."""
    metrics = call.backend.metrics
    if count:
        metrics.count("decisions", call.policy, "true" if logged else "false", by=count)
        metrics.observe(call.policy, time.perf_counter() - call.started, count)


def _decoded(item: msgspec.Raw) -> RankRequest | BanditloopError:
    try:
        return decode_body(item, _rank_request)
    except BanditloopError as error:
        return error


def _item_error(error: BanditloopError, index: int) -> schemas.ErrorResponse:
    inner = f".{error.target}" if error.target not in {None, "body"} else ""
    target = f"requests[{index}]{inner}"
    return schemas.ErrorResponse(schemas.ErrorBody(error.code, error.message, target))


def _decided(
    call: Call[Any],
    request: RankRequest,
    record: DecisionRecord,
    explain: Callable[[DecisionRecord], Explanation] | None,
    *,
    logged: bool,
) -> schemas.RankResponse:
    """Return a decision as it is answered."""
    ids, chosen = record.action_ids, record.chosen
    # Of most decisions there is nothing more to say.
    if record.rules is None and record.profile is None and not _asks_more(request):
        if len(chosen) == 1:
            slots = [schemas.Chosen(0, ids[chosen[0]], record.propensity(0))]
        else:
            slots = [
                schemas.Chosen(at, ids[k], record.propensity(at)) for at, k in enumerate(chosen)
            ]
        return schemas.RankResponse(
            record.event_id, record.policy, record.snapshot_id, logged, slots
        )

    pmf = None
    if request.return_pmf:
        pmf = [
            schemas.Probability(name, p)
            for name, p in zip(ids, record.pmfs()[0].tolist() if ids else (), strict=True)
        ]

    slots = [
        schemas.Chosen(at, ids[k], record.propensity(slot))
        for slot, (at, k) in enumerate(zip(record.page_slots(), chosen, strict=True))
    ]
    # Whether what is known of the user, and of the visit, was heeded.
    profile = repeat = None
    if record.profile is not None or request.visit_id is not None:
        whole = record.profile != ""
        profile = whole if request.user_id and record.profile is not None else None
        repeat = whole if call.service.repeats else None
        if not whole:
            call.backend.metrics.count("profiles_unread", call.policy)

    explanation = explain(record) if explain is not None and request.explain else None
    return schemas.RankResponse(
        record.event_id,
        record.policy,
        record.snapshot_id,
        logged,
        slots,
        pmf,
        profile,
        repeat,
        explanation,
        None if record.rules is None else record.rules.short,
        *_placed(record),
        _ignored(request, record),
    )


def _asks_more(request: RankRequest) -> bool:
    """Return whether a request asks for more than what was chosen."""
    return (
        request.return_pmf
        or request.explain
        or request.visit_id is not None
        or request.baseline is not None
    )


def _ignored(request: RankRequest, record: DecisionRecord) -> list[str] | None:
    """Return the fields of a request that the policy did not look at; None: there are none.

    It is an answer and no error: callers go on as before while a policy is put online or back.
    """
    decided_itself = record.apprentice is None and bool(record.chosen)
    return ["baseline"] if request.baseline is not None and decided_itself else None


def _placed(
    record: DecisionRecord,
) -> tuple[list[schemas.PlacedItem] | None, list[schemas.UnplacedItem] | None]:
    """Return what stands on a page without a draw, and what was to; None: nothing."""
    if record.rules is None:
        return None, None
    placed = [schemas.PlacedItem(each.slot, each.action_id) for each in record.rules.placed]
    unplaced = [
        schemas.UnplacedItem(each.slot, each.action_id, each.reason)
        for each in record.rules.unplaced
    ]
    return placed or None, unplaced or None


# Rewards


async def reward(call: Call[schemas.RewardRequest]) -> schemas.Accepted:
    """Log one reward."""
    sent = call.request
    record = _checked(call, sent, call.parameters["event_id"], "")
    await call.service.log([record])
    return _rewarded(call, 1)


async def rewards(call: Call[schemas.RewardsRequest]) -> schemas.Accepted:
    """Log many rewards; all are accepted or none is."""
    records: list[RewardRecord | ActivationRecord] = []
    for index, sent in enumerate(call.request.rewards):
        records.append(_checked(call, sent, _event_id_of(sent, index), f"rewards[{index}]."))

    await call.service.log(records)
    return _rewarded(call, len(records))


async def activate(call: Call[None]) -> schemas.Accepted:
    """Log that a deferred decision was shown."""
    await call.service.log([ActivationRecord(call.parameters["event_id"])])
    return schemas.Accepted(1)


def _rewarded(call: Call[Any], count: int) -> schemas.Accepted:
    call.backend.metrics.count("reward_events", call.policy, by=count)
    return schemas.Accepted(count)


def _event_id_of(sent: schemas.RewardEvent, index: int) -> str:
    try:
        return check_event_id(sent.event_id)
    except errors.InvalidEventIdError as error:
        raise errors.InvalidEventIdError(error.message, f"rewards[{index}].event_id") from error


def _checked(
    call: Call[Any], sent: schemas.RewardRequest | schemas.RewardEvent, event_id: str, prefix: str
) -> RewardRecord:
    """Return the record of a reward; ``prefix`` is what the fields at fault begin with."""
    # Written so that NaN is refused as well.
    if not abs(sent.value) <= MAX_NUMBER:
        raise errors.NonFiniteNumberError(
            f"a reward is a number up to {MAX_NUMBER:g}", f"{prefix}value"
        )

    signal = sent.signal
    if signal is not None and signal not in call.service.signals:
        known = ", ".join(call.service.signals)
        raise errors.UnknownSignalError(
            f"the policy's spec weighs no signal {signal[:MAX_SIGNAL_BYTES]!r}: "
            + (f"its signals are {known}" if known else "it has no signals; leave the field out"),
            f"{prefix}signal",
        )
    return RewardRecord(event_id, sent.value, sent.reward_id, sent.slot, sent.action_id, signal)


# Policies


async def replace_catalogue(call: Call[ManyItems]) -> schemas.CatalogueResponse:
    """Replace the item catalogue."""
    items = await call.request.decoded()
    await asyncio.to_thread(_check_together, items, call.service.vector_lengths(None))
    return schemas.CatalogueResponse(await call.service.replace_catalogue(items), len(items))


def _check_together(items: Sequence[schemas.Item], lengths: Mapping[str, int]) -> None:
    """Refuse items of which two have one id, or whose vectors cannot be compared.

    Args:
        items: those of a catalogue.
        lengths: see ``vector_lengths`` of a policy.

    Raises:
        InvalidInputError: it names the place of the item.
    """
    lengths, ids = lengths_with(lengths, items), set[str]()
    for at, item in enumerate(items):
        if item.id in ids:
            raise errors.InvalidItemIdError(
                f"an item before it has the id {item.id!r}, too: leave one out", f"items[{at}].id"
            )
        ids.add(item.id)
        check_lengths(item.vectors, lengths, f"items[{at}].")


async def policy_info(call: Call[None]) -> schemas.PolicyInfo:
    """Return a policy as this replica serves it."""
    return await call.service.info()


async def policies(call: Call[None]) -> schemas.PoliciesResponse:
    """Return the names of all policies."""
    return schemas.PoliciesResponse(sorted(call.backend.services))


# Health and pages


async def live(_call: Call[None]) -> schemas.Health:
    """Say that the process answers."""
    return schemas.Health("ok")


async def ready(call: Call[None]) -> Answer:
    """Say whether every policy has a snapshot."""
    services = call.backend.services
    waiting = sorted(name for name, service in services.items() if not service.ready)
    status = "waiting for a first snapshot" if waiting else "ok"
    old = sorted(name for name, service in services.items() if service.artifact_is_old)
    answer = msgspec.structs.replace(readiness(_health(call), status, waiting), old_artifacts=old)
    return 503 if waiting else 200, encode(answer), JSON


async def learning(call: Call[None]) -> Answer:
    """Say whether every learner gets on.

    Apart from readiness, because a replica whose learner stands still serves on: a load balancer
    should leave it in.
    """
    answer = readiness(_health(call))
    return 200 if answer.learning == "ok" else 503, encode(answer), JSON


def _health(call: Call[None]) -> dict[str, LearningHealth]:
    return {name: service.learning for name, service in sorted(call.backend.services.items())}


async def prometheus(call: Call[None]) -> Answer:
    """Return the metrics of the whole service."""
    return 200, await call.backend.scrape(), TEXT


async def document(call: Call[None]) -> Answer:
    """Return the OpenAPI document."""
    return 200, call.backend.document, JSON


async def docs(_call: Call[None]) -> Answer:
    """Return the page that shows the document."""
    return 200, DOCS_HTML, HTML


_rank_request = msgspec.json.Decoder(RankRequest)

_BODY = (400, 404, 408, 413, 422)
_NOT_SO = {503: "Not so"}

ROUTES: tuple[Route[Any, Any], ...] = (
    Route(
        schemas.RANK,
        "Make one decision (or a slate)",
        scope="rank",
        handler=rank,
        failures=(*_BODY, 409, 502, 503),
        decodes=RankDecoder(),
    ),
    Route(
        schemas.RANK_BATCH,
        "Make up to 1,000 decisions",
        scope="rank",
        handler=rank_batch,
        failures=_BODY,
        decodes=BatchDecoder(),
    ),
    Route(
        schemas.REWARD,
        "Reward a decision",
        scope="reward",
        handler=reward,
        failures=(*_BODY, 503),
    ),
    Route(
        schemas.ACTIVATE,
        "Activate a deferred decision",
        scope="reward",
        handler=activate,
        failures=(404, 422, 503),
    ),
    Route(
        schemas.REWARDS,
        "Many rewards at once",
        scope="reward",
        handler=rewards,
        failures=(*_BODY, 503),
    ),
    Route(
        schemas.CATALOGUE,
        "Replace the item catalogue",
        scope="admin",
        handler=replace_catalogue,
        failures=(*_BODY, 503),
        decodes=ItemsDecoder(schemas.CatalogueRequest),
        limit=CATALOGUE_LIMIT,
    ),
    *ITEM_ROUTES,
    *SPACE_ROUTES,
    *CONSOLE_ROUTES,
    Route(
        schemas.POLICY,
        "A policy: its spec, snapshot and counts",
        scope=("admin", "console"),
        handler=policy_info,
        failures=(404,),
    ),
    Route(schemas.POLICIES, "All policies", scope=("admin", "console"), handler=policies),
    Route(schemas.LIVE, "The process answers", scope=None, handler=live),
    Route(
        schemas.READY,
        "Every policy has a snapshot loaded",
        scope=None,
        handler=ready,
        states=_NOT_SO,
    ),
    Route(
        schemas.LEARNING,
        "Every policy's learner gets on",
        scope=None,
        handler=learning,
        states=_NOT_SO,
    ),
    Route(
        schemas.METRICS,
        "Prometheus metrics of the whole service",
        scope="admin",
        handler=prometheus,
    ),
    Route(schemas.DOCUMENT, "This document", scope=None, handler=document),
    Route(schemas.DOCS, "This document, to read and to try", scope=None, handler=docs),
)
