"""The user's history by item, which all sources over the items of now read."""

from policies.sources.base import SourceRequest
from policies.sources.places import ItemOrder, earlier_weights


def history_of(request: SourceRequest, items: ItemOrder) -> dict[str, float]:
    """Return the user's items, the newest last, and how strongly each speaks for itself.

    Args:
        request: what is known of the user, by a file and by the log, is joined with the history
            sent, which is newer and whose items weigh 1 where nothing else is known of them.
        items: those that profiles name, in their order.
    """
    history: dict[str, float] = {}
    if request.profile is not None:
        known, live = request.profile, request.live
        places = known.indices.tolist()
        weights = known.weights.tolist() if live is None else earlier_weights(known, live)
        history = dict(zip(map(items.ids.__getitem__, places), weights, strict=True))
    if request.live is not None:
        for item_id, weight in request.live.weights.items():
            history[item_id] = max(weight, history.pop(item_id, 0.0))
    for item_id in request.history:
        history[item_id] = history.pop(item_id, 1.0)
    return history
