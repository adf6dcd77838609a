"""The pages of items: what there is to offer, found by a text, one of them, and its like."""

from collections.abc import Mapping

from starlette.responses import Response

from banditloop_client.errors import ServiceError
from banditloop_client.schemas import ITEM, ITEMS, SIMILAR, ItemsQuery, SimilarQuery
from serve_app.console.visits import PageHandler, PageVisit

PER_PAGE = 50
ALIKE = 10


async def show_items(visit: PageVisit) -> Response:
    """Show a page of items, in the order of their ids, or of those that contain a text."""
    contains, after = visit.asked("text"), visit.asked("after")
    query = ItemsQuery(after, PER_PAGE, contains)
    page = await visit.ask(ITEMS, query, policy=visit.policy)
    return visit.page(
        "items.html", "items", policy=visit.policy, found=page, contains=contains, after=after
    )


async def show_item(visit: PageVisit) -> Response:
    """Show an item, and those that are like it."""
    name = visit.asked("item_id")
    item = await visit.ask(ITEM, policy=visit.policy, item_id=name)
    alike, why_not = None, ""
    try:
        query = SimilarQuery(limit=ALIKE)
        alike = await visit.ask(SIMILAR, query, policy=visit.policy, item_id=name)
    except ServiceError as error:
        why_not = error.message
    return visit.page(
        "item.html", "items", policy=visit.policy, found=item, alike=alike, why_not=why_not
    )


CATALOGUE_PAGES: Mapping[tuple[str, str], PageHandler] = {
    ("GET", "items"): show_items,
    ("GET", "item"): show_item,
}
