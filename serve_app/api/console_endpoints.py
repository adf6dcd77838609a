"""The endpoints that a console needs: decisions looked at, snapshots managed, sources watched.

What reads the log or folds it is handed to the office, a process of its own: a replica does not
wait for it with anything else than this request.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from banditloop_client import console_schemas as schemas
from policies.requests import RankRequest
from serve_app.api.routes import Call, Route
from serve_app.api.wire import Answer

# Light: answered by the replica that was asked.


async def preview(call: Call[RankRequest]) -> schemas.PreviewResponse:
    """Say what a request would be answered now, and why; log nothing."""
    return await call.service.preview(call.request)


async def sources(call: Call[None]) -> schemas.SourcesResponse:
    """Return the sources of a policy, and what became of their last refresh."""
    info, failures = await call.service.info(), call.service.source_failures
    return schemas.SourcesResponse(
        [
            schemas.SourceState(
                each["name"],
                each["kind"],
                failures.get(each["name"], 0),
                info.source_troubles.get(each["name"]),
            )
            for each in info.spec.get("sources", ())
        ],
        info.artifact,
        info.artifact_wanted,
        info.artifact_trouble,
        info.refresh,
    )


# Heavy: handed to the office.


def _by_office(errand: str) -> Callable[[Call[Any]], Awaitable[Answer]]:
    """Return a handler that has the office answer."""

    async def handed_over(call: Call[Any]) -> Answer:
        asked = {} if call.query is None else msgspec.to_builtins(call.query)
        return await call.backend.office.answer(errand, call.policy, {**call.parameters, **asked})

    return handed_over


_FAILURES = (404, 422, 503)

CONSOLE_ROUTES: tuple[Route[Any, Any], ...] = (
    Route(
        schemas.DECISIONS,
        "The decisions of a policy, the newest first",
        scope="console",
        handler=_by_office("decisions"),
        failures=_FAILURES,
    ),
    Route(
        schemas.EVENT,
        "A decision of the log: what it could choose, why, and what came of it",
        scope="console",
        handler=_by_office("event"),
        failures=_FAILURES,
    ),
    Route(
        schemas.EXPLAIN,
        "Why a decision of the log is as it is",
        scope="console",
        handler=_by_office("explain"),
        failures=_FAILURES,
    ),
    Route(
        schemas.PREVIEW,
        "What a request would be answered; nothing is logged",
        scope="console",
        handler=preview,
        failures=(400, 404, 408, 409, 413, 422, 502, 503),
    ),
    Route(
        schemas.SNAPSHOTS,
        "The stored snapshots of a policy, the newest first",
        scope="console",
        handler=_by_office("snapshots"),
        failures=_FAILURES,
    ),
    Route(
        schemas.PIN,
        "Serve this snapshot from now on, whatever is learned meanwhile",
        scope="admin",
        handler=_by_office("pin"),
        failures=(*_FAILURES, 409),
    ),
    Route(
        schemas.UNPIN,
        "Serve the newest snapshot again",
        scope="admin",
        handler=_by_office("unpin"),
        failures=(*_FAILURES, 409),
    ),
    Route(
        schemas.ROLLBACK,
        "Restore what had been learned at a snapshot; what was learned since is dropped",
        scope="admin",
        handler=_by_office("rollback"),
        failures=(*_FAILURES, 409),
    ),
    Route(
        schemas.REPORT,
        "What a policy is worth, as `banditloop report --json` has it",
        scope="console",
        handler=_by_office("report"),
        failures=_FAILURES,
    ),
    Route(
        schemas.DOCTOR,
        "The audit of a policy's log, as `banditloop doctor --json` has it",
        scope="console",
        handler=_by_office("doctor"),
        failures=_FAILURES,
    ),
    Route(
        schemas.SOURCES,
        "A policy's sources, and the last refresh of them",
        scope="console",
        handler=sources,
        failures=(404,),
    ),
)
