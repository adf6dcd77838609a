"""The catalogue: features of items, hashed once, named by digest, replaceable while served."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice, repeat
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.errors import ArtifactError, InvalidInputError
from bandits.features.namespaces import FEATURES
from bandits.kernels.actions import take_rows
from bandits.log.codec import MALFORMED, digest
from bandits.types import Float32, Namespace, UInt32, frozen
from policies.encoding import check_features
from policies.items.table import FeatureTable
from policies.requests import Item

RowOf = Callable[[str, int], int]
"""Gives an item's row, or what it is given for an item that is not there."""
PART = 10_000
"""Items taken in at a time: a million Python objects are several times what is kept of them."""
EMPTIED = b"[ ]"
"""How a catalogue that was put without items is stored: a log in which none was put has b"[]"."""
NEVER_PUT = digest(b"[]")
"""The digest of the catalogue of a log in which none was put."""

_NO_FEATURES = Namespace(FEATURES, np.zeros(0, np.uint32), np.zeros(0, np.float32))


class Catalogue:
    """The hashed features of N items: row i of [N, F] holds item i's, padded with zeros.

    ``Catalogue()`` is that of a log in which none was ever put; ``put`` makes that of somebody who
    says what there is.

    Attributes:
        encoded: the items as JSON.
        sizes: how many bytes of it each item has, int64[N].
    """

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self._features = FeatureTable()
        texts, sizes, ids = [], [], []

        iterator = iter(items)
        while part := list(islice(iterator, PART)):
            for item in part:
                check_item_features(item)
            text = msgspec.json.encode(part, order="deterministic")
            texts.append(text[1:-1])
            sizes.append(sizes_of(msgspec.json.decode(text, type=list[msgspec.Raw])))
            ids += [item.id for item in part]
            self._features.extend([item.features for item in part])
        self._features.trim()

        self.encoded = b"[" + b",".join(texts) + b"]"
        self.sizes = np.concatenate(sizes) if sizes else np.zeros(0, np.int64)
        self.digest = digest(self.encoded)
        self.ids = tuple(ids)
        self._rows = {item_id: row for row, item_id in enumerate(self.ids)}
        if len(self._rows) != len(self.ids):
            raise ArtifactError("two items share an id", "catalogue")
        self._row: RowOf = self._rows.get
        self._lacking: tuple[tuple[str, ...], NDArray[np.intp]] | None = None
        # What several look for, for one decision, is looked up once.
        self._last: tuple[Sequence[str], NDArray[np.intp]] | None = None
        self._before: tuple[Sequence[str], NDArray[np.intp]] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def decode(cls, data: bytes) -> "Catalogue":
        """Return the catalogue in a blob or a ``catalogue.json``.

        Raises:
            ArtifactError: it is malformed, has an id twice, or features that are not finite.
        """
        try:
            catalogue = cls(map(_item, msgspec.json.decode(data, type=list[msgspec.Raw])))
        except MALFORMED as error:
            raise ArtifactError(f"not a catalogue: {error}", "catalogue") from error

        if catalogue.encoded == data:
            catalogue.encoded = data  # the bytes are in memory once
        elif data == EMPTIED:
            catalogue.encoded, catalogue.digest = data, digest(data)
        return catalogue

    @classmethod
    def put(cls, items: Sequence[Item]) -> "Catalogue":
        """Return the catalogue of these items; if there are none, sources may propose nothing."""
        return cls(items) if items else cls.decode(EMPTIED)

    @classmethod
    def of(cls, items: Sequence[Mapping[str, Any]]) -> "Catalogue":
        """Return the catalogue of ``{"id", "features"}`` mappings, as an artifact has them."""
        return cls.decode(msgspec.json.encode(list(items)))

    @property
    def limits(self) -> bool:
        """Whether sources may propose only what is here.

        They may propose anything while no catalogue was ever put.
        """
        return self.digest != NEVER_PUT

    @property
    def features(self) -> FeatureTable:
        """The rows of features, those of later versions included."""
        return self._features

    def __contains__(self, item_id: str) -> bool:
        return self._row(item_id, -1) >= 0

    def lacking(self, items: tuple[str, ...]) -> NDArray[np.intp]:
        """Return the places of a source's ``items`` that are not here, ascending.

        The sources of one artifact share the answer.
        """
        # A part takes a thousandth of a second: in between, the thread that answers requests gets
        # its turns.
        if self._lacking is None or self._lacking[0] is not items:
            parts = [self.rows(items[at : at + PART]) for at in range(0, len(items), PART)]
            places = np.flatnonzero(np.concatenate(parts) < 0) if parts else np.zeros(0, np.intp)
            self._lacking = items, frozen(places)
        return self._lacking[1]

    def rows(self, ids: Sequence[str]) -> NDArray[np.intp]:
        """Return the row of each id, -1 for one that is not here."""
        for known in (self._last, self._before):
            if known is not None and known[0] is ids:
                return known[1]
        found: NDArray[np.intp] = np.fromiter(map(self._row, ids, repeat(-1)), np.intp, len(ids))
        if isinstance(ids, tuple):  # what may change is looked up again
            self._before, self._last = self._last, (ids, frozen(found))
        return found

    def namespace(self, ids: Sequence[str]) -> Namespace:
        """Return the features of some items; an unknown item has none."""
        rows, table = self.rows(ids), self._features
        if not table.rows:
            return Namespace(FEATURES, np.zeros(0, np.uint32), np.zeros((len(ids), 0), np.float32))
        values, alike = take_rows(table.values, rows), table.alike
        if alike is not None:
            return Namespace(FEATURES, alike, values)

        # Of more names than there are values, those that occur are enough.
        hashes, codes = table.hashes, table.codes[rows]
        if hashes.size <= codes.size:
            return Namespace(FEATURES, hashes, values, codes)
        kept, which = np.unique(codes, return_inverse=True)
        return Namespace(FEATURES, hashes[kept], values, which.reshape(values.shape))

    @property
    def table(self) -> tuple[UInt32, NDArray[np.int32], Float32]:
        """All features: uint32[U], the distinct hashes; int32[N or 1, F], which each value is of.

        And the values, float32[N, F]. Where all items are alike, one row of codes does for all.
        """
        table = self._features
        alike = table.alike is not None
        return table.hashes, table.codes[:1] if alike else table.codes, table.values

    def one(self, item_id: str) -> Namespace:
        """Return the features of one item, [n]; an unknown item has none."""
        row, table = self._row(item_id, -1), self._features
        if row < 0:
            return _NO_FEATURES
        alike = table.alike
        hashes = table.hashes[table.codes[row]] if alike is None else alike
        return Namespace(FEATURES, hashes, table.values[row])


def check_item_features(item: Item) -> None:
    """Refuse an item whose features are too many, or not finite.

    Raises:
        ArtifactError: it names the item.
    """
    try:
        check_features(item.features, "features")
    except InvalidInputError as error:
        raise ArtifactError(f"item {item.id!r}: {error.message}", error.target) from error


_item = msgspec.json.Decoder(Item).decode


def sizes_of(texts: Sequence[bytes | msgspec.Raw]) -> NDArray[np.int64]:
    """Return how many bytes each text has, int64[n]."""
    return np.fromiter((len(memoryview(text)) for text in texts), np.int64, len(texts))
