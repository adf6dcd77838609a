"""The catalogue: features of items, hashed once, named by digest, replaceable while served."""

from collections.abc import Iterable, Mapping, Sequence
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
from policies.encoding import check_features, code_pairs, hash_pairs
from policies.requests import Item

PART = 10_000
"""Items taken in at a time: a million Python objects are several times what is kept of them."""
EMPTIED = b"[ ]"
"""How a catalogue that was put without items is stored: a log in which none was put has b"[]"."""

_NO_FEATURES = Namespace(FEATURES, np.zeros(0, np.uint32), np.zeros(0, np.float32))


class Catalogue:
    """The hashed features of N items: row i of [N, F] holds item i's, padded with zeros.

    ``Catalogue()`` is that of a log in which none was ever put; ``put`` makes that of somebody who
    says what there is.
    """

    def __init__(self, items: Iterable[Item] = ()) -> None:
        texts, ids, seen = [], [], dict[int, int]()
        codes, values = [np.zeros((0, 0), np.int32)], [np.zeros((0, 0), np.float32)]

        iterator = iter(items)
        while part := list(islice(iterator, PART)):
            for item in part:
                try:
                    check_features(item.features, "features")
                except InvalidInputError as error:
                    raise ArtifactError(
                        f"item {item.id!r}: {error.message}", error.target
                    ) from error
            texts.append(msgspec.json.encode(part, order="deterministic")[1:-1])
            ids += [item.id for item in part]
            part_codes, part_values = code_pairs(
                [hash_pairs(item.features, FEATURES) for item in part], seen
            )
            codes.append(part_codes)
            values.append(part_values)

        self.encoded = b"[" + b",".join(texts) + b"]"
        self.digest = digest(self.encoded)
        self.ids = tuple(ids)
        self._rows = {item_id: row for row, item_id in enumerate(self.ids)}
        if len(self._rows) != len(self.ids):
            raise ArtifactError("two items share an id", "catalogue")

        self._names, self._codes = np.array(list(seen), np.uint32), _stacked(codes)
        self._values = frozen(_stacked(values))
        # Items that all have the same features share one row of hashes.
        alike = bool(ids) and bool((self._codes == self._codes[0]).all())
        self._alike = frozen(self._names[self._codes[0]]) if alike else None
        self._lacking: tuple[tuple[str, ...], NDArray[np.intp]] | None = None

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
        return self.digest != _NEVER_PUT

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._rows

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
        return np.fromiter(map(self._rows.get, ids, repeat(-1)), np.intp, len(ids))

    def namespace(self, ids: Sequence[str]) -> Namespace:
        """Return the features of some items; an unknown item has none."""
        rows = self.rows(ids)
        if not len(self.ids):
            return Namespace(FEATURES, np.zeros(0, np.uint32), np.zeros((len(ids), 0), np.float32))
        values = take_rows(self._values, rows)
        if self._alike is not None:
            return Namespace(FEATURES, self._alike, values)

        # Of more names than there are values, those that occur are enough.
        codes = self._codes[rows]
        if self._names.size <= codes.size:
            return Namespace(FEATURES, self._names, values, codes)
        kept, which = np.unique(codes, return_inverse=True)
        return Namespace(FEATURES, self._names[kept], values, which.reshape(values.shape))

    @property
    def table(self) -> tuple[UInt32, NDArray[np.int32], Float32]:
        """All features: uint32[U], the distinct hashes; int32[N or 1, F], which each value is of.

        And the values, float32[N, F]. Where all items are alike, one row of codes does for all.
        """
        if self._alike is None:
            return self._names, self._codes, self._values
        return self._names, self._codes[:1], self._values

    def one(self, item_id: str) -> Namespace:
        """Return the features of one item, [n]; an unknown item has none."""
        row = self._rows.get(item_id)
        if row is None:
            return _NO_FEATURES
        hashes = self._names[self._codes[row]] if self._alike is None else self._alike
        return Namespace(FEATURES, hashes, self._values[row])


_NEVER_PUT = digest(b"[]")


def _stacked(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the parts one below the other, filled up with zeros to the widest."""
    stacked = np.zeros((sum(map(len, parts)), max(part.shape[1] for part in parts)), parts[0].dtype)
    at = 0
    for part in parts:
        stacked[at : at + len(part), : part.shape[1]] = part
        at += len(part)
    return stacked


_item = msgspec.json.Decoder(Item).decode
