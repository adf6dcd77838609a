"""One item changed: put, or patched as a JSON merge patch (RFC 7386); and what no item may be."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from banditloop_client.schemas import Item, ItemPatch
from bandits.errors import (
    ArtifactError,
    InvalidInputError,
    InvalidItemIdError,
    InvalidTimesError,
    InvalidVectorError,
    TextTooLongError,
    VectorLengthError,
)
from bandits.log.codec import MALFORMED
from bandits.log.records import ItemChange
from bandits.values import Value
from policies.encoding import check_features

MAX_ID_BYTES = 1_000
MAX_TEXT_BYTES = 100_000
"""Bytes of an item's metadata, all values together; and of the names and texts of its features."""
MAX_VECTOR = 4_096
"""Numbers of a vector."""
MAX_FLOAT32 = 3.4028234663852886e38
"""The largest number of a vector: sources compare items in float32."""

T = TypeVar("T")

encode_item = msgspec.json.Encoder(order="deterministic").encode
_item = msgspec.json.Decoder(Item)
_patch = msgspec.json.Decoder(ItemPatch)


def decode_item(fields: bytes | msgspec.Raw) -> Item:
    """Return the item in JSON.

    Raises:
        ArtifactError: it is none.
    """
    try:
        return _item.decode(fields)
    except MALFORMED as error:
        raise ArtifactError(f"not an item: {error}", "item") from error


def decode_patch(fields: bytes) -> ItemPatch:
    """Return the patch in JSON.

    Raises:
        ArtifactError: it is none.
    """
    try:
        return _patch.decode(fields)
    except MALFORMED as error:
        raise ArtifactError(f"not a patch of an item: {error}", "item") from error


def patched(item: Item, patch: ItemPatch) -> Item:
    """Return an item with what a patch says; what it leaves out stays as it is.

    Args:
        item: as it was.
        patch: its maps are merged name by name, and ``None`` takes a name away, or all of them.
    """
    vectors = _merged({} if item.vectors is UNSET else item.vectors, patch.vectors)
    return Item(
        item.id,
        _merged(item.features, patch.features),
        _merged(item.metadata, patch.metadata),
        vectors or UNSET,
        _replaced(item.available_from, patch.available_from),
        _replaced(item.available_until, patch.available_until),
        _replaced(item.hidden, patch.hidden),
    )


def _merged(
    before: Mapping[str, T], after: "Mapping[str, T | None] | UnsetType | None"
) -> dict[str, T]:
    if after is None:
        return {}
    merged: dict[str, Any] = {**before, **({} if after is UNSET else after)}
    return {name: value for name, value in merged.items() if value is not None}


def _replaced(before: "T | UnsetType", after: "T | UnsetType | None") -> "T | UnsetType":
    if after is UNSET:
        return before
    return UNSET if after is None else after


def check_item_id(item_id: str, target: str = "id") -> str:
    """Return an item's id, if it can be one.

    Args:
        item_id: as it was given.
        target: its path in the request.

    Raises:
        InvalidItemIdError: it is empty, or too long.
    """
    if not 0 < len(item_id.encode(errors="replace")) <= MAX_ID_BYTES:
        raise InvalidItemIdError(f"an item's id has 1 to {MAX_ID_BYTES:,} bytes", target)
    return item_id


def check_item(item: Item, target: str = "") -> Item:
    """Return the item, if it is one that can be offered.

    Args:
        item: one that decodes.
        target: its path in the request, which errors begin with, and a dot; or nothing.

    Raises:
        InvalidInputError: it names the field.
    """
    check_item_id(item.id, f"{target}id")
    check_features(item.features, f"{target}features")

    size = sum(len(text.encode(errors="replace")) for text in item.metadata.values())
    if size > MAX_TEXT_BYTES:
        raise TextTooLongError(
            f"metadata has {size:,} bytes, at most {MAX_TEXT_BYTES:,}", f"{target}metadata"
        )

    for name, vector in ({} if item.vectors is UNSET else item.vectors).items():
        if not 0 < len(vector) <= MAX_VECTOR:
            raise InvalidVectorError(
                f"a vector has 1 to {MAX_VECTOR:,} numbers, not {len(vector)}",
                f"{target}vectors.{name}",
            )
        if not all(map(math.isfinite, vector)):
            raise InvalidVectorError("a vector's numbers are finite", f"{target}vectors.{name}")

    begins, ends = item.available_from, item.available_until
    if isinstance(begins, datetime) and isinstance(ends, datetime) and begins >= ends:
        raise InvalidTimesError(
            f"available_until ({ends.isoformat()}) is not after available_from"
            f" ({begins.isoformat()})",
            f"{target}available_until",
        )
    return item


def check_new(item: Item, target: str = "") -> Item:
    """Return the item, if it may come: it can be offered, and no text or number is too large.

    Of logs that earlier builds have written, whoever reads them asks ``check_item`` alone.

    Args:
        item: one that decodes.
        target: its path in the request, which errors begin with, and a dot; or nothing.

    Raises:
        InvalidInputError: it names the field.
    """
    size = sum(len(name) + _text_bytes(value) for name, value in item.features.items())
    if size > MAX_TEXT_BYTES:
        raise TextTooLongError(
            f"the texts of features have {size:,} bytes, at most {MAX_TEXT_BYTES:,}: what is to be"
            " shown or searched belongs in metadata",
            f"{target}features",
        )
    for name, vector in ({} if item.vectors is UNSET else item.vectors).items():
        if max(map(abs, vector), default=0.0) > MAX_FLOAT32:
            raise InvalidVectorError(
                "a vector's numbers are float32, so up to 3.4e38", f"{target}vectors.{name}"
            )
    return check_item(item, target)


def _text_bytes(value: Value) -> int:
    if isinstance(value, str):
        return len(value.encode(errors="replace"))
    return sum(map(_text_bytes, value)) if isinstance(value, list) else 0


def checked_patch(fields: bytes, item: Item) -> bytes:
    """Return a patch that names all that goes: with a feature what is below it, of size size.cm.

    Args:
        fields: the patch, as it was sent.
        item: the one that is patched, as it is now.

    Raises:
        ArtifactError: the fields are no patch.
        InvalidInputError: the item could not be offered any more; it names the field.
    """
    patch = decode_patch(fields)
    changed = patch.features or {}
    # What takes the place of an object does so whole. Where a name has a value already, what begins
    # like it has names of its own with dots in them.
    gone = tuple(
        f"{name}." for name, value in changed.items() if value is None or name not in item.features
    )
    below = dict.fromkeys(name for name in item.features if name.startswith(gone))
    if below:
        patch = msgspec.structs.replace(patch, features={**below, **changed})
    check_new(patched(item, patch))
    return encode_item(patch)


def lengths_with(lengths: Mapping[str, int], items: Iterable[Item]) -> Mapping[str, int]:
    """Return how long vectors are once items have come: what nothing says yet, most of them say.

    Args:
        lengths: by name how long those of the others are; 0 where none has one.
        items: those that are to come together.
    """
    asked = [name for name, length in lengths.items() if not length]
    counts = {name: Counter[int]() for name in asked}
    for item in items if asked else ():
        for name in asked:
            vector = None if item.vectors is UNSET else item.vectors.get(name)
            if vector is not None:
                counts[name][len(vector)] += 1
    said = {name: count.most_common(1)[0][0] for name, count in counts.items() if count}
    return {**lengths, **said}


def check_lengths(
    vectors: "Mapping[str, Sequence[float] | None] | UnsetType | None",
    lengths: Mapping[str, int],
    target: str = "",
) -> None:
    """Refuse vectors that cannot be compared with those of the other items.

    Args:
        vectors: an item's, or those that a patch changes.
        lengths: by name how long those of the others are, as far as that matters to anybody; 0
            where none has one.
        target: their path in the request, which errors begin with, and a dot; or nothing.

    Raises:
        VectorLengthError: it names the vector.
    """
    for name, vector in ({} if vectors is UNSET or vectors is None else vectors).items():
        length = lengths.get(name)
        if length and vector is not None and len(vector) != length:
            raise VectorLengthError(
                f"it has {len(vector):,} numbers, and those of the other items {length:,}: put the"
                " vectors of another encoder under another name",
                f"{target}vectors.{name}",
            )


def check_change(change: ItemChange) -> None:
    """Refuse a change that must not come, whatever the items are by then.

    Raises:
        ArtifactError: its fields are no item, or no patch of one.
        InvalidInputError: the item cannot be offered; it names the field.
    """
    check_item_id(change.id)
    if change.op == "put" and check_new(decode_item(change.fields)).id != change.id:
        raise InvalidItemIdError(f"the change is of {change.id!r}, its item is another", "id")
    if change.op == "patch":
        decode_patch(change.fields)


def refusal_of(item: Item) -> str:
    """Return why an item cannot be offered; empty if it can."""
    try:
        check_item(item)
    except InvalidInputError as error:
        return f"{error.target}: {error.message}"
    return ""
