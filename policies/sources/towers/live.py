"""Two towers over the items of now: a new item has a vector by what the catalogue says of it."""

from bandits.types import Float32
from policies.artifacts.source_artifact import TrainedSource
from policies.requests import Item
from policies.sources.base import SourceRequest
from policies.sources.live.item_encoder import ItemEncoder
from policies.sources.live.live_vectors import LiveVectors
from policies.sources.places import ItemOrder
from policies.sources.towers.towers import ItemTower, UserTower


class LiveTowers(LiveVectors):
    """Proposes the items whose vectors have the highest products with that of the user's tower.

    It sees the context of the decision, too: a stranger of whom the caller says something that
    training has met gets an answer without a history.

    Args:
        name: the source's.
        source: of kind ``towers``.
        items: those that profiles name, in their order.

    Raises:
        ArtifactError: an array is missing, or has another shape; the package of the encoder of
            texts is not installed.
    """

    reads_order = True
    least = float("-inf")

    def __init__(self, name: str, source: TrainedSource, items: ItemOrder) -> None:
        vectors = source.array("vectors", len(items), None)
        super().__init__(name, source.scale, items, vectors)
        self._size = int(vectors.shape[1])
        self._described = described_by(source)
        parts = 0 if self._described is None else self._described.size
        self._item = ItemTower.load(source, self._size, parts)
        self._user = UserTower.load(source, self._size - 1)

    @property
    def size(self) -> int:
        """Numbers of an item's vector."""
        return self._size

    def vector_of(self, item_id: str, item: Item | None) -> Float32 | None:
        """Return an item's vector: the one that training gave it, or one of what is said of it.

        Args:
            item_id: whose.
            item: as it is now; None if it is gone.

        Raises:
            InvalidFieldError: a vector that it brings has another length than the others'.
        """
        trained = self.trained_vector(item_id)
        if trained is not None or item is None:
            return trained
        described = None if self._described is None else self._described.of(item)
        return self._item.of(item.features, described)

    def user_of(self, request: SourceRequest, rows: Float32, weights: Float32) -> Float32 | None:
        """Return the user's vector; None if neither history nor context says anything.

        Args:
            request: its context is looked at.
            rows: the vectors of the history's items, float32[h, size], oldest first.
            weights: float32[h], how strongly each speaks for its item.
        """
        return self._user.of(rows, weights, self._items.context(request))


def described_by(source: TrainedSource) -> ItemEncoder | None:
    """Return what makes vectors of items' texts and own vectors, None if towers read none.

    Args:
        source: of kind ``towers``; the arrays of the encoder begin with ``content_``.
    """
    config = source.config.get("content")
    if not config:
        return None
    arrays = {
        name.removeprefix("content_"): array
        for name, array in source.arrays.items()
        if name.startswith("content_")
    }
    return ItemEncoder.load(TrainedSource("content", arrays, config))
