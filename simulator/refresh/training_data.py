"""Events and items that a refresh trains on, and the file in which the training process gets them.

No pickle: arrays are safetensors, ids are JSON.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import load_file, save_file

from policies.data.coded import CodedEvents
from simulator.refresh.rewarded import coded_events

EVENTS, NAMES, ITEMS = "events.safetensors", "names.json", "items.json"
_ARRAYS = ("user", "item", "type", "time", "value", "weight")
_IDS = ("user_ids", "item_ids", "types")
_TRAINED_ON = ("id", "features", "metadata", "vectors")


def joined_events(parts: Sequence[CodedEvents]) -> CodedEvents:
    """Return several events as one; a user or an item of the same id is the same.

    Args:
        parts: at least one; users by the same kind of id.
    """
    parts = [part for part in parts if len(part)] or list(parts[:1])
    if len(parts) == 1:
        return parts[0]

    codes: dict[str, dict[str, int]] = {ids: {} for ids in _IDS}
    columns: dict[str, list[np.ndarray]] = {name: [] for name in _ARRAYS}
    for part in parts:
        places = {}
        for ids, known in codes.items():
            listed = [known.setdefault(name, len(known)) for name in getattr(part, ids)]
            places[ids] = np.array(listed, np.int64)
        columns["user"].append(places["user_ids"][part.user])
        columns["item"].append(places["item_ids"][part.item])
        columns["type"].append(places["types"][part.type])
        for name in ("time", "value", "weight"):
            columns[name].append(getattr(part, name))

    whole = {name: np.concatenate(arrays) for name, arrays in columns.items()}
    return coded_events(
        list(codes["user_ids"]),
        list(codes["item_ids"]),
        tuple(codes["types"]),
        whole["user"],
        whole["item"],
        whole["type"],
        whole["time"],
        whole["value"],
        whole["weight"],
    )


def before(events: CodedEvents, cut_ms: int) -> CodedEvents:
    """Return the events before a time, and those without one, without users and items of others.

    Args:
        events: all of them.
        cut_ms: in ms since 1970.
    """
    return events.select(events.time < cut_ms).compact()


def catalogue_for(
    items: Sequence[Mapping[str, Any]], events: CodedEvents
) -> tuple[list[dict[str, Any]], int]:
    """Return a catalogue with an entry for each item that events name, and how many it lacked.

    Args:
        items: the catalogue, ``{"id", "features", "metadata"?, "vectors"?}`` each; when they are
            offered is not trained on.
        events: what is trained on.
    """
    listed = [
        {"features": {}, **{name: item[name] for name in _TRAINED_ON if name in item}}
        for item in items
    ]
    known = {item["id"] for item in listed}
    lacking = [item for item in events.item_ids if item not in known]
    return [*listed, *({"id": item, "features": {}} for item in lacking)], len(lacking)


def write_training_data(
    folder: Path, events: CodedEvents, items: Sequence[Mapping[str, Any]]
) -> None:
    """Write what is trained on.

    Args:
        folder: where; it is there.
        events: all of them.
        items: the catalogue.
    """
    arrays = {name: np.ascontiguousarray(getattr(events, name)) for name in _ARRAYS}
    save_file(arrays, folder / EVENTS)
    names = {ids: getattr(events, ids) for ids in _IDS}
    (folder / NAMES).write_bytes(msgspec.json.encode(names))
    (folder / ITEMS).write_bytes(msgspec.json.encode(list(items)))


def read_training_data(folder: Path) -> tuple[CodedEvents, list[dict[str, Any]]]:
    """Return what ``write_training_data`` wrote."""
    names = msgspec.json.decode((folder / NAMES).read_bytes(), type=dict[str, tuple[str, ...]])
    fields: dict[str, Any] = {**names, **load_file(folder / EVENTS)}
    events = CodedEvents(**fields)
    return events, msgspec.json.decode((folder / ITEMS).read_bytes())
