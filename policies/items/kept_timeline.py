"""A timeline of items that tells of every version each item as it was, with all its fields."""

from bisect import bisect_right

from banditloop_client.schemas import Item
from bandits.log.records import ItemsRecord
from policies.items.catalogue import Catalogue
from policies.items.changes import decode_item
from policies.items.timeline import ItemTimeline, RefusedChange


class KeptTimeline(ItemTimeline):
    """Keeps what each item was that has changed, as far back as its versions go."""

    def _begin(self, catalogue: Catalogue, version: str | None) -> None:
        super()._begin(catalogue, version)
        # From which step on each was what, as JSON; None: it was not there.
        self._were: dict[str, list[tuple[int, bytes | None]]] = {}

    def _change(self, record: ItemsRecord) -> list[RefusedChange]:
        ids = {change.id for change in record.changes}
        for item_id in ids - self._were.keys():
            self._were[item_id] = [(self._first, self.text(item_id))]

        refused = super()._change(record)
        step = self._first + len(self._counts)
        for item_id in ids:
            self._were[item_id].append((step, self.text(item_id)))
        return refused

    def item_then(self, version: str, item_id: str) -> Item | None:
        """Return an item as it was at a version that this timeline holds; None: there was none.

        Args:
            version: the one.
            item_id: the item.
        """
        were = self._were.get(item_id)
        if were is None:
            return self.item(item_id)
        _, text = were[bisect_right(were, self._steps[version], key=_step_of) - 1]
        return None if text is None else decode_item(text)

    def _forget_rows(self, kept: int) -> None:
        super()._forget_rows(kept)
        for were in self._were.values():
            del were[: bisect_right(were, kept, key=_step_of) - 1]
        self._were = {item_id: were for item_id, were in self._were.items() if len(were) > 1}


def _step_of(was: tuple[int, bytes | None]) -> int:
    return was[0]
