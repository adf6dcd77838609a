"""The endpoints of items: what there is to offer, one by one or many at once."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from banditloop_client import schemas
from bandits.errors import InvalidItemIdError, TooManyItemsError
from bandits.log.records import ItemChange
from policies.items.changes import check_lengths, check_new, encode_item, lengths_with
from policies.requests import Item
from serve_app.api.bodies import ItemsDecoder, ManyItems
from serve_app.api.routes import Call, Route
from serve_app.api.wire import BodyLimit

ITEM_LIMIT = BodyLimit(4 << 20)
ITEMS_LIMIT = BodyLimit(64 << 20, 60.0)
CHECKED = 100
"""Items that are looked at before other requests get their turn."""


async def put_item(call: Call[schemas.ItemRequest]) -> schemas.ItemsVersion:
    """Put one item, in the place of what has its id."""
    item_id, named = call.parameters["item_id"], call.request.id
    if named not in {msgspec.UNSET, item_id}:
        raise InvalidItemIdError(f"the path names the item {item_id!r}, not {named!r}", "id")
    lengths = call.service.vector_lengths({item_id})
    return await call.service.change_items([_put(call.request.item(item_id), lengths, "")])


async def put_items(call: Call[ManyItems]) -> schemas.ItemsVersion:
    """Put many items; none is put where one is refused."""
    count = len(call.request)
    if not 0 < count <= schemas.MAX_ITEMS:
        raise TooManyItemsError(f"1 to {schemas.MAX_ITEMS:,} items at once, not {count:,}", "items")
    items = await call.request.decoded()
    lengths = lengths_with(call.service.vector_lengths({item.id for item in items}), items)
    changes: list[ItemChange] = []
    for at, item in enumerate(items):
        changes.append(_put(item, lengths, f"items[{at}]."))
        if at % CHECKED == CHECKED - 1:
            await asyncio.sleep(0)
    return await call.service.change_items(changes)


def _put(item: Item, lengths: Mapping[str, int], target: str) -> ItemChange:
    """Return the change that puts an item.

    Args:
        item: as it was sent.
        lengths: those of the vectors of other items, by name.
        target: the item's path in the request, and a dot; or nothing.

    Raises:
        InvalidInputError: it cannot be offered; it names the field.
    """
    check_lengths(check_new(item, target).vectors, lengths, target)
    return ItemChange("put", item.id, encode_item(item))


async def patch_item(call: Call[schemas.ItemPatch]) -> schemas.ItemsVersion:
    """Change some fields of an item."""
    item_id = call.parameters["item_id"]
    check_lengths(call.request.vectors, call.service.vector_lengths({item_id}))
    change = ItemChange("patch", item_id, encode_item(call.request))
    return await call.service.change_items([change])


async def delete_item(call: Call[None]) -> schemas.ItemsVersion:
    """Remove an item: it is not chosen again."""
    return await call.service.change_items([ItemChange("delete", call.parameters["item_id"])])


async def item(call: Call[None]) -> schemas.ItemResponse:
    """Return an item as it is now."""
    return await call.service.item(call.parameters["item_id"])


async def items(call: Call[None]) -> schemas.ItemsPage:
    """Return a page of the items, in the order of their ids."""
    return await call.service.items(call.query)


async def similar(call: Call[None]) -> schemas.SimilarResponse:
    """Return the items like one that may be offered now."""
    return await call.service.similar(call.parameters["item_id"], call.query)


_BODY = (400, 404, 408, 413, 422, 503)

ITEM_ROUTES: tuple[Route[Any, Any], ...] = (
    Route(
        schemas.PUT_ITEM,
        "Put one item",
        scope="admin",
        handler=put_item,
        failures=_BODY,
        limit=ITEM_LIMIT,
    ),
    Route(
        schemas.PATCH_ITEM,
        "Change some fields of an item",
        scope="admin",
        handler=patch_item,
        failures=_BODY,
        limit=ITEM_LIMIT,
    ),
    Route(
        schemas.DELETE_ITEM,
        "Remove an item",
        scope="admin",
        handler=delete_item,
        failures=(404, 422, 503),
    ),
    Route(
        schemas.ITEM,
        "One item",
        scope=("admin", "console"),
        handler=item,
        failures=(404, 422, 503),
    ),
    Route(
        schemas.SIMILAR,
        "Items like one",
        scope=("rank", "console"),
        handler=similar,
        failures=(404, 422, 503),
    ),
    Route(
        schemas.PUT_ITEMS,
        "Put up to 10,000 items",
        scope="admin",
        handler=put_items,
        failures=_BODY,
        decodes=ItemsDecoder(schemas.ItemsRequest),
        limit=ITEMS_LIMIT,
    ),
    Route(
        schemas.ITEMS,
        "The items, in pages; or those that contain a text",
        scope=("admin", "console"),
        handler=items,
        failures=(404, 422, 503),
    ),
)
