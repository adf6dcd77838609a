"""What crosses HTTP: requests, responses, errors, and the OpenAPI document made of them."""

from typing import Annotated, Any

import msgspec

from bandits.values import MAX_EVENT_ID_BYTES, FeatureMap
from policies.requests import MAX_ACTIONS, MAX_SLOTS, EventId, Item, RankRequest
from policies.source_failures import Trouble
from serve_app.api.api_keys import OPEN_PAGES

MAX_BATCH = MAX_ACTIONS
Slot = Annotated[int, msgspec.Meta(ge=0, lt=MAX_SLOTS)]


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


class Chosen(msgspec.Struct, frozen=True):
    """One slot's action, with its propensity given the slots before it."""

    slot: int
    id: str
    propensity: float


class Probability(msgspec.Struct, frozen=True):
    """One entry of a PMF."""

    id: str
    probability: float


class RankResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """A decision. ``logged`` false means: not known to be logged."""

    event_id: str
    policy: str
    snapshot_id: str
    logged: bool
    chosen: list[Chosen]
    pmf: list[Probability] | None = None


class RewardRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A reward; higher is better.

    ``reward_id`` makes retries safe; without it a slot takes one reward.
    """

    value: float
    reward_id: str | None = None
    slot: Slot | None = None
    action_id: str | None = None


class RewardEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A reward in a list."""

    event_id: EventId
    value: float
    reward_id: str | None = None
    slot: Slot | None = None
    action_id: str | None = None


class RewardsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to 1,000 rewards; all are accepted or none is."""

    rewards: Annotated[list[RewardEvent], msgspec.Meta(max_length=MAX_BATCH)]


class RankBatchRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to 1,000 rank requests; each has its own result or error."""

    requests: list[msgspec.Raw]


class ErrorBody(msgspec.Struct, frozen=True):
    """What went wrong, and in which field."""

    code: str
    message: str
    target: str | None = None


class ErrorResponse(msgspec.Struct, frozen=True):
    """Any failure."""

    error: ErrorBody


class RankBatchResponse(msgspec.Struct, frozen=True):
    """One result per request, in order."""

    results: list[
        Annotated[
            Any,
            msgspec.Meta(
                extra_json_schema={"anyOf": [_ref("RankResponse"), _ref("ErrorResponse")]}
            ),
        ]
    ]


class Accepted(msgspec.Struct, frozen=True):
    """Durably in the log."""

    accepted: int


class CatalogueRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole new catalogue."""

    items: list[Item]


class CatalogueResponse(msgspec.Struct, frozen=True):
    """The catalogue's version: its digest."""

    catalogue: str
    items: int


class Stalled(msgspec.Struct, frozen=True):
    """Where a policy's learning stands still: at the entry of this id and kind.

    ``since_ms`` of the log's clock.
    """

    policy: str
    entry: str
    kind: str
    since_ms: int
    partition: int = 0


class Refused(msgspec.Struct, frozen=True):
    """An entry of the log that was refused, and why."""

    entry: str
    kind: str
    reason: str


class PolicyInfo(msgspec.Struct, frozen=True):
    """A policy as this replica serves it. ``spec`` is the whole spec.

    ``source_troubles``: by source, what was last wrong with it in any replica that runs.
    ``learning``: ``ok``, ``stalled``, or ``unknown`` while Redis does not say; ``stalled`` and
    ``reason``: where and why. ``refused``: the entries that were refused last.
    """

    policy: str
    ready: bool
    snapshot_id: str | None
    position: str | None
    learned: int
    items: int
    sources: list[str]
    spec: dict[str, Any]
    outcomes: dict[str, int]
    source_troubles: dict[str, Trouble] = {}
    learning: str = "unknown"
    stalled: Stalled | None = None
    reason: str | None = None
    refused: list[Refused] = []


class PoliciesResponse(msgspec.Struct, frozen=True):
    """All policies of this service."""

    policies: list[str]


class Health(msgspec.Struct, frozen=True):
    """``status`` is ``ok``, or what is missing."""

    status: str
    waiting_for: list[str] = msgspec.field(default_factory=list)


class Readiness(msgspec.Struct, frozen=True):
    """``status`` is ``ok``, or what is missing.

    ``learning``: ``ok``, ``stalled``, or ``unknown``; with the entries.
    """

    status: str
    learning: str
    waiting_for: list[str] = msgspec.field(default_factory=list)
    stalled: list[Stalled] = msgspec.field(default_factory=list)


_P = "/v1/policies/{policy}"
_BODY = (400, 404, 408, 413, 422)
# method, path, summary, body, status of success and what it answers, statuses of failure
_ROUTES: tuple[tuple[str, str, str, type | None, int, type, tuple[int, ...]], ...] = (
    (
        "post",
        f"{_P}/rank",
        "Make one decision (or a slate)",
        RankRequest,
        200,
        RankResponse,
        (*_BODY, 409, 502, 503),
    ),
    (
        "post",
        f"{_P}/rank:batch",
        "Make up to 1,000 decisions",
        RankBatchRequest,
        200,
        RankBatchResponse,
        _BODY,
    ),
    (
        "post",
        f"{_P}/events/{{event_id}}/reward",
        "Reward a decision",
        RewardRequest,
        202,
        Accepted,
        (*_BODY, 503),
    ),
    (
        "post",
        f"{_P}/events/{{event_id}}/activate",
        "Activate a deferred decision",
        None,
        202,
        Accepted,
        (404, 422, 503),
    ),
    ("post", f"{_P}/rewards", "Many rewards at once", RewardsRequest, 202, Accepted, (*_BODY, 503)),
    (
        "put",
        f"{_P}/catalogue",
        "Replace the item catalogue",
        CatalogueRequest,
        200,
        CatalogueResponse,
        (*_BODY, 503),
    ),
    ("get", _P, "A policy: its spec, snapshot and counts", None, 200, PolicyInfo, (404,)),
    ("get", "/v1/policies", "All policies", None, 200, PoliciesResponse, ()),
    ("get", "/livez", "The process answers", None, 200, Health, ()),
    ("get", "/readyz", "Every policy has a snapshot loaded", None, 200, Readiness, (503,)),
    ("get", "/healthz/learning", "Every policy's learner gets on", None, 200, Readiness, (503,)),
)
_PAGES: tuple[tuple[str, str, str], ...] = (
    ("/metrics", "Prometheus metrics of the whole service", "text/plain"),
    ("/openapi.json", "This document", "application/json"),
    ("/docs", "This document, to read and to try", "text/html"),
)
_FAILURES: dict[int, str] = {
    400: "The body is not JSON",
    404: "No such policy, or a user whom no source knows",
    408: "The body did not arrive in time",
    409: "The event_id has answered another request, or no candidate is left",
    413: "The body is too large",
    422: "A field is wrong: the error names it",
    500: "A defect of the service: its log has the details",
    502: "Every source failed",
    503: "No snapshot is loaded yet, or the log did not confirm the event",
}


_PATH_PARAMETERS: dict[str, dict[str, Any]] = {
    "policy": {"type": "string", "minLength": 1},
    "event_id": {"type": "string", "minLength": 1, "maxLength": MAX_EVENT_ID_BYTES},
}

# Where the service runs without keys, none is needed and none of these is answered.
_SECURITY_SCHEMES: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, bl_…"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
    "subscriptionKey": {"type": "apiKey", "in": "header", "name": "Ocp-Apim-Subscription-Key"},
}


def _refused(error: dict[str, Any]) -> dict[str, Any]:
    challenge = {"description": "Bearer", "schema": {"type": "string"}}
    wait = _retry_after("Seconds until a request may pass")
    return {
        "401": {
            "description": "No known API key",
            "headers": {"WWW-Authenticate": challenge},
            "content": error,
        },
        "403": {"description": "The key lacks the scope or the policy", "content": error},
        "429": {"description": "The key's rate is used up", "headers": wait, "content": error},
    }


def _retry_after(description: str) -> dict[str, Any]:
    return {"Retry-After": {"description": description, "schema": {"type": "integer"}}}


def openapi(version: str) -> bytes:
    """The OpenAPI 3.1 document, as JSON.

    It lists every status that the service answers on these routes.
    """
    types = [t for _, _, _, body, _, answer, _ in _ROUTES for t in (body, answer) if t is not None]
    # Raw has no schema of its own: a batch's items are rank requests
    shown = [RankBatch if t is RankBatchRequest else t for t in types]
    schemas, components = msgspec.json.schema_components(
        [*shown, ErrorResponse], ref_template="#/components/schemas/{name}"
    )
    components = {**_as_sent(components), "FeatureValue": _FEATURE_VALUE}
    by_type = dict(zip([*types, ErrorResponse], schemas, strict=True))
    error = _json(by_type[ErrorResponse])
    paths: dict[str, Any] = {}
    for method, path, summary, body, status, answer, failures in _ROUTES:
        operation = _operation(path, summary, str(status), _json(by_type[answer]), failures, error)
        if answer is Readiness:
            operation["responses"]["503"] = {
                "description": "Not so",
                "content": _json(by_type[Readiness]),
            }
        if body is not None:
            operation["requestBody"] = {"required": True, "content": _json(by_type[body])}
        paths.setdefault(path, {})[method] = operation
    for path, summary, media in _PAGES:
        content = {
            media: {"schema": {"type": "object" if media == "application/json" else "string"}}
        }
        paths[path] = {"get": _operation(path, summary, "200", content, (), error)}
    document = {
        "openapi": "3.1.0",
        "info": {"title": "banditloop", "version": version},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SECURITY_SCHEMES},
        "security": [{name: []} for name in _SECURITY_SCHEMES],
    }
    return msgspec.json.encode(document)


_FEATURE = _ref("FeatureValue")
_FEATURES = {"type": "object", "additionalProperties": _FEATURE}
_NULL = {"type": "null"}
_FEATURE_VALUE: dict[str, Any] = {
    "title": "FeatureValue",
    "description": (
        "A number, a flag or a text. A list of texts is a set, a list of numbers a vector"
        " (name.0, name.1). "
        "An object names its features with dots (name.inner). Null means that there is none."
    ),
    "anyOf": [
        {"type": ["number", "string", "boolean", "null"]},
        {"type": "array", "items": {"type": ["string", "null"]}},
        {"type": "array", "items": {"type": ["number", "boolean", "null"]}},
        {"type": "array", "items": {"anyOf": [_NULL, {"type": "array", "items": _FEATURE}]}},
        {"type": "array", "items": {"anyOf": [_NULL, _FEATURES]}},
        _FEATURES,
    ],
}
_AS_RECORDED = msgspec.json.schema(FeatureMap)["additionalProperties"]
_AS_SENT: tuple[tuple[Any, Any], ...] = (
    (_AS_RECORDED, _FEATURE),
    # scores: null means that the source has none
    ({"type": "number"}, {"type": ["number", "null"]}),
)


def _as_sent(schema: Any) -> Any:
    """The schema, with maps as callers may send them in the place of maps as a record has them."""
    if isinstance(schema, list):
        return [_as_sent(each) for each in schema]
    if not isinstance(schema, dict):
        return schema

    sent = {name: _as_sent(each) for name, each in schema.items()}
    for recorded, as_sent in _AS_SENT:
        if schema.get("additionalProperties") == recorded:
            sent["additionalProperties"] = as_sent
    return sent


def _operation(
    path: str,
    summary: str,
    status: str,
    answer: dict[str, Any],
    failures: tuple[int, ...],
    error: dict[str, Any],
) -> dict[str, Any]:
    responses: dict[str, Any] = {status: {"description": summary, "content": answer}}
    for code in sorted((*failures, 500)):
        responses[str(code)] = {"description": _FAILURES[code], "content": error}
    if 503 in failures:
        responses["503"]["headers"] = _retry_after("Seconds until it is worth another try")
    operation: dict[str, Any] = {
        "summary": summary,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": schema}
            for name, schema in _PATH_PARAMETERS.items()
            if f"{{{name}}}" in path
        ],
        "responses": responses,
    }
    if path in OPEN_PAGES:
        operation["security"] = []
    else:
        responses.update(_refused(error))
    return operation


class RankBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to 1,000 rank requests; each has its own result or error."""

    requests: Annotated[list[RankRequest], msgspec.Meta(max_length=MAX_BATCH)]


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
