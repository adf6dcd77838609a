"""Small data sets for evaluations of sources, and sources that are trained in no time."""

import numpy as np

from policies.artifacts.source_artifact import Artifact, Calibration, TrainedSource
from policies.data.coded import CodedEvents
from simulator.ranking.training import models_of


def events_of(user, item, time, *, value=None):
    """Events whose users and items are numbers; those of a user stand together, in time order."""
    user, item, time = (np.asarray(column) for column in (user, item, time))
    order = np.lexsort((time, user))
    users, user = np.unique(user[order], return_inverse=True)
    items, item = np.unique(item[order], return_inverse=True)
    values = np.full(len(order), np.nan) if value is None else np.asarray(value)[order]
    return CodedEvents(
        user_ids=tuple(f"u{number:05}" for number in users.tolist()),
        item_ids=tuple(f"i{number:05}" for number in items.tolist()),
        types=("event",),
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        type=np.zeros(len(order), np.int16),
        time=time[order].astype(np.int64),
        value=values.astype(np.float32),
        weight=np.ones(len(order), np.float32),
    )


def crowds(users=240, items=120, each=12, seed=0):
    """Users who want what those of their own crowd want: neighbours of items know it."""
    rng = np.random.default_rng(seed)
    crowd = rng.integers(6, size=users)
    part = items // 6
    chosen = [crowd[user] * part + rng.permutation(part)[:each] for user in range(users)]
    return events_of(
        np.repeat(np.arange(users), each), np.concatenate(chosen), np.tile(np.arange(each), users)
    )


def fashions(users=240, items=120, each=12, seed=0):
    """Users who want what everybody wants: popularity knows it, and neighbours only blur it."""
    rng = np.random.default_rng(seed)
    chance = 1.0 / (1 + np.arange(items)) ** 0.8
    chosen = [rng.choice(items, each, replace=False, p=chance / chance.sum()) for _ in range(users)]
    return events_of(
        np.repeat(np.arange(users), each), np.concatenate(chosen), np.tile(np.arange(each), users)
    )


def small_artifact(events, *, neighbours=15):
    """Return ``item_knn`` (cosine) and ``popular``, fitted by a few products of matrices."""
    items = events.item_ids
    owned = np.zeros((len(events.user_ids), len(items)), np.float32)
    owned[events.user, events.item] = 1
    counts = owned.sum(axis=0)
    cosine = (owned.T @ owned) / np.sqrt(np.outer(counts, counts) + 1e-9)
    np.fill_diagonal(cosine, 0)
    kept = min(neighbours, len(items))
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :kept].astype(np.int32)
    similarities = np.take_along_axis(cosine, nearest, axis=1).astype(np.float32)
    return Artifact(
        catalogue=tuple(items_of(events)),
        items=items,
        sources={
            "item_knn": TrainedSource(
                "item_knn",
                {"neighbours": nearest, "similarities": similarities},
                scale=Calibration(1.0, 0.5),
            ),
            "popular": TrainedSource("popular", {"counts": counts}, scale=Calibration(4.0, 0.5)),
        },
    )


def train_small(events, _purpose="sources"):
    """Train the sources of a small artifact."""
    return models_of(small_artifact(events))


def items_of(events, **features):
    """Return the catalogue of some events."""
    return [{"id": item, "features": dict(features)} for item in events.item_ids]
