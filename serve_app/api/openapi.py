"""The OpenAPI document, made of the route table."""

from collections.abc import Iterable, Sequence
from types import NoneType
from typing import Any

import msgspec

from banditloop_client.schemas import ErrorResponse
from bandits.values import MAX_EVENT_ID_BYTES, FeatureMap
from policies.items.changes import MAX_ID_BYTES
from policies.pseudonyms import MAX_USER_ID_BYTES
from serve_app.api.bodies import FeaturesPatch
from serve_app.api.routes import Route

FAILURES: dict[int, str] = {
    400: "The body is not JSON",
    404: "No such policy, space, item, event, snapshot or erasure, or a user who is not known",
    408: "The body did not arrive in time",
    409: "The id is that of another request or event, no candidate is left, or a snapshot cannot"
    " be pinned or rolled back to",
    413: "The body is too large",
    422: "A field is wrong: the error names it",
    500: "A defect of the service: its log has the details",
    502: "Every source failed",
    503: "No snapshot is loaded yet, the log did not confirm the event, or the console's process"
    " does not answer",
}

_PATH_PARAMETERS: dict[str, dict[str, Any]] = {
    "policy": {"type": "string", "minLength": 1},
    "space": {"type": "string", "minLength": 1},
    "event_id": {"type": "string", "minLength": 1, "maxLength": MAX_EVENT_ID_BYTES},
    "item_id": {"type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES},
    "user_id": {"type": "string", "minLength": 1, "maxLength": MAX_USER_ID_BYTES},
    "erasure": {"type": "string", "minLength": 1},
    "snapshot_id": {"type": "string", "minLength": 1},
}

# A service that runs without keys needs none of these, and answers none of their failures.
_SECURITY_SCHEMES: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, bl_…"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
    "subscriptionKey": {"type": "apiKey", "in": "header", "name": "Ocp-Apim-Subscription-Key"},
}


def openapi_document(routes: Sequence[Route[Any, Any]], version: str) -> bytes:
    """Return the OpenAPI 3.1 document, as JSON.

    Args:
        routes: in the order in which they are listed.
        version: of the service.
    """
    schemas, components = _schemas(routes)

    paths: dict[str, Any] = {}
    for route in routes:
        endpoint = route.endpoint
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(route, schemas)

    document = {
        "openapi": "3.1.0",
        "info": {"title": "banditloop", "version": version},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SECURITY_SCHEMES},
        "security": [{name: []} for name in _SECURITY_SCHEMES],
    }
    return msgspec.json.encode(document)


def _schemas(routes: Iterable[Route[Any, Any]]) -> tuple[dict[type, Any], dict[str, Any]]:
    """Return the schema of each type that is exchanged, and the components they refer to."""
    exchanged: list[type] = [
        kind
        for route in routes
        for kind in (route.endpoint.request, route.other, route.endpoint.response)
        if kind is not None and issubclass(kind, msgspec.Struct)
    ]
    types = [*exchanged, ErrorResponse]
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    by_type = dict(zip(types, schemas, strict=True))
    return by_type, {**_as_sent(components), "FeatureValue": _FEATURE_VALUE}


def _operation(route: Route[Any, Any], schemas: dict[type, Any]) -> dict[str, Any]:
    endpoint, error = route.endpoint, _json(schemas[ErrorResponse])
    content = _content(route, schemas)
    operation: dict[str, Any] = {
        "summary": route.summary,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": schema}
            for name, schema in _PATH_PARAMETERS.items()
            if f"{{{name}}}" in endpoint.path
        ]
        + _query_parameters(endpoint.query),
    }

    responses: dict[str, Any] = {
        str(endpoint.status): {"description": route.summary, "content": content}
    }
    for status in sorted((*route.failures, *route.states, 500)):
        if status in route.states:
            responses[str(status)] = {"description": route.states[status], "content": content}
        else:
            responses[str(status)] = {"description": FAILURES[status], "content": error}
    if 503 in route.failures:
        responses["503"]["headers"] = _retry_after("Seconds until it is worth another try")
    operation["responses"] = responses

    # The document's security holds for every operation that does not say otherwise.
    if route.scope is None:
        operation["security"] = []
    else:
        responses.update(_refused(error))
    if endpoint.request in schemas:
        body = schemas[endpoint.request]
        if route.other is not None:
            body = {"anyOf": [schemas[route.other], body]}
        operation["requestBody"] = {"required": True, "content": _json(body)}
    return operation


def _query_parameters(kind: type) -> list[dict[str, Any]]:
    """Return the parameters behind the path, as the fields of their type say."""
    if kind is NoneType:
        return []
    _, components = msgspec.json.schema_components([kind], ref_template="{name}")
    fields = components[kind.__name__]
    required = fields.get("required", [])
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": schema.pop("description"),
            "schema": schema,
        }
        for name, schema in fields["properties"].items()
    ]


def _content(route: Route[Any, Any], schemas: dict[type, Any]) -> dict[str, Any]:
    endpoint = route.endpoint
    if endpoint.response in schemas:
        return _json(schemas[endpoint.response])
    kind = "object" if endpoint.media == "application/json" else "string"
    return {endpoint.media: {"schema": {"type": kind}}}


def _refused(error: dict[str, Any]) -> dict[str, Any]:
    challenge = {"description": "Bearer", "schema": {"type": "string"}}
    wait = _retry_after("Seconds until a request may pass")
    return {
        "401": {
            "description": "No known API key",
            "headers": {"WWW-Authenticate": challenge},
            "content": error,
        },
        "403": {"description": "The key lacks the scope, policy or space", "content": error},
        "429": {
            "description": "The key's rate is used up, or the replica is at another export",
            "headers": wait,
            "content": error,
        },
    }


def _retry_after(description: str) -> dict[str, Any]:
    return {"Retry-After": {"description": description, "schema": {"type": "integer"}}}


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


# Callers may send features in more forms than a record keeps: the document shows what may be sent.

_FEATURE = {"$ref": "#/components/schemas/FeatureValue"}
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
_AS_RECORDED, _AS_PATCHED = (
    msgspec.json.schema(kind)["additionalProperties"] for kind in (FeatureMap, FeaturesPatch)
)
_AS_SENT: tuple[tuple[Any, Any], ...] = (
    (_AS_RECORDED, _FEATURE),
    (_AS_PATCHED, _FEATURE),
    # scores: null means that the source has none
    ({"type": "number"}, {"type": ["number", "null"]}),
)


def _as_sent(schema: Any) -> Any:
    """Return the schema with maps as callers may send them, where it has those of a record."""
    if isinstance(schema, list):
        return [_as_sent(item) for item in schema]
    if not isinstance(schema, dict):
        return schema

    sent = {name: _as_sent(value) for name, value in schema.items()}
    for recorded, as_sent in _AS_SENT:
        if schema.get("additionalProperties") == recorded:
            sent["additionalProperties"] = as_sent
    return sent
