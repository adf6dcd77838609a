"""The pages of what serves: snapshots, to be pinned or gone back to, and sources."""

from collections.abc import Mapping

from starlette.responses import Response

from banditloop_client.console_schemas import (
    PIN,
    ROLLBACK,
    SNAPSHOTS,
    SOURCES,
    UNPIN,
    SnapshotChange,
)
from banditloop_client.schemas import Endpoint
from serve_app.console.visits import PageHandler, PageVisit

CHANGES: Mapping[str, Endpoint[None, SnapshotChange]] = {
    "pin": PIN,
    "unpin": UNPIN,
    "rollback": ROLLBACK,
}


async def show_snapshots(visit: PageVisit) -> Response:
    """Show the stored snapshots, and which of them serves."""
    found = await visit.ask(SNAPSHOTS, policy=visit.policy)
    return visit.page("snapshots.html", "snapshots", policy=visit.policy, found=found, change=None)


async def confirm_change(visit: PageVisit) -> Response:
    """Ask whether another snapshot is really to serve."""
    found = await visit.ask(SNAPSHOTS, policy=visit.policy)
    name, what = visit.asked("snapshot_id"), visit.request.url.path.rpartition("/")[2]
    chosen = next((each for each in found.snapshots if each.id == name), None)
    if chosen is None or what not in CHANGES:
        return visit.go("snapshots", policy=visit.policy)

    served = next((each for each in found.snapshots if each.served), None)
    return visit.page(
        "confirm.html", "snapshots", policy=visit.policy, what=what, chosen=chosen, served=served
    )


async def change_snapshot(visit: PageVisit) -> Response:
    """Have another snapshot serve, and show what holds then."""
    what = visit.request.url.path.rpartition("/")[2]
    name = visit.form.get("snapshot_id", "")
    change = await visit.ask(CHANGES[what], policy=visit.policy, snapshot_id=name)
    found = await visit.ask(SNAPSHOTS, policy=visit.policy)
    return visit.page(
        "snapshots.html", "snapshots", policy=visit.policy, found=found, change=change
    )


async def show_sources(visit: PageVisit) -> Response:
    """Show the sources of a policy, and the last refresh of what they were trained to."""
    found = await visit.ask(SOURCES, policy=visit.policy)
    return visit.page("sources.html", "sources", policy=visit.policy, found=found)


MODEL_PAGES: Mapping[tuple[str, str], PageHandler] = {
    ("GET", "snapshots"): show_snapshots,
    ("GET", "pin"): confirm_change,
    ("GET", "rollback"): confirm_change,
    ("POST", "pin"): change_snapshot,
    ("POST", "unpin"): change_snapshot,
    ("POST", "rollback"): change_snapshot,
    ("GET", "sources"): show_sources,
}
