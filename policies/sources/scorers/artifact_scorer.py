"""A trained scorer of the pool: it scores a decision's actions in context, and proposes none."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ArtifactError
from bandits.features.namespaces import CONTEXT, FEATURES
from bandits.types import Float32, Namespace
from bandits.values import FeatureMap
from policies.artifacts.source_artifact import Calibration, TrainedSource
from policies.encoding import coded_rows, namespace_of
from policies.items.catalogue import Catalogue
from policies.items.table import FeatureTable
from policies.sources.base import SourceRequest
from policies.sources.places import ItemOrder
from policies.sources.scorers.field_model import FieldModel
from policies.sources.scorers.loops import all_there

SCORERS: Final = frozenset({"fm", "wide_deep", "deepfm"})
"""The kinds of trained sources that score what the others propose."""
KEPT_BYTES: Final = 64 * 2**20
"""Bytes of what a scorer keeps of items; of those beyond it is computed for each request."""


class ArtifactScorer:
    """A scorer of an artifact: its score of an action is (logit - mean) / std.

    It sees the context, what is known of who asks, and the features of the actions: the request's
    own, or else the catalogue's of now. An item that training never saw is scored by its features.
    """

    def __init__(self, name: str, model: FieldModel, items: ItemOrder, scale: Calibration) -> None:
        self.name = name
        self._model = model
        self._items = items
        self._mean, self._std = scale.numbers(name)
        self._kept = KeptItems(model, items)

    def score_actions(
        self,
        catalogue: Catalogue,
        request: SourceRequest,
        ids: Sequence[str],
        features: Sequence[FeatureMap | None] | None,
        scores: Mapping[str, Float32],  # noqa: ARG002 - it looks at no other source
    ) -> Float32:
        """Return the score of each action, float32[K].

        Args:
            catalogue: what the decision's record names.
            request: the features of the decision, and what is known of who asks.
            ids: the K actions.
            features: the request's own features of each action; None if it sent none.
            scores: by candidate source; of no account.
        """
        _, places, weights = self._items.history(request)
        known = None
        if self._model.reads_items:
            known = self._kept.of(catalogue, self._items.named(places))
        user = self._model.user(self._items.context(request), places, weights, known)

        rows = self._kept.rows(catalogue, ids) if features is None else None
        if rows is not None:
            logits = self._model.logits(user, self._kept.table, rows)
        else:
            kept = self._kept.of(catalogue, ids)
            if features is not None:
                own = [row for row, each in enumerate(features) if each is not None]
                kept[own] = self._own(ids, features, own)
            logits = self._model.logits(user, kept)
        logits -= self._mean
        logits /= self._std
        return logits

    def _own(
        self, ids: Sequence[str], features: Sequence[FeatureMap | None], rows: list[int]
    ) -> Float32:
        """Return what would be kept of actions with the request's own features."""
        hashes, codes, values = coded_rows([features[row] for row in rows])
        places = self._kept.places([ids[row] for row in rows])
        return self._model.items(places, Namespace(FEATURES, hashes, values, codes))


class KeptItems:
    """What a model keeps of the items of a catalogue, computed when it is first asked for."""

    def __init__(self, model: FieldModel, items: ItemOrder) -> None:
        self._model = model
        self._items = items
        self._most = KEPT_BYTES // (4 * model.width)
        self._table: FeatureTable | None = None
        self._rows = np.zeros((0, model.width), np.float32)
        # One more than there are rows: that of -1, and of what is beyond, is never there.
        self._there = np.zeros(1, np.bool_)

    def places(self, ids: Sequence[str]) -> NDArray[np.intp]:
        """Return the place of each item, -1 for one that was never seen."""
        return self._items.places_of(ids)

    def of(self, catalogue: Catalogue, ids: Sequence[str]) -> Float32:
        """Return what is kept of some items, float32[K, width].

        Args:
            catalogue: has their features.
            ids: of the items.
        """
        kept_rows = self.rows(catalogue, ids)
        if kept_rows is not None:
            return self._rows.take(kept_rows, axis=0)

        rows = catalogue.rows(ids)
        there = self._there.take(np.minimum(rows, self._room))
        self._make_room(int(rows.max()))
        made = np.empty((len(ids), self._model.width), np.float32)
        known, new = np.flatnonzero(there), np.flatnonzero(~there)
        fresh = [ids[at] for at in new.tolist()]
        made[known] = self._rows[rows[known]]
        made[new] = self._model.items(self.places(fresh), catalogue.namespace(fresh))

        kept = new[(rows[new] >= 0) & (rows[new] < self._room)]
        self._rows[rows[kept]], self._there[rows[kept]] = made[kept], True
        return made

    def rows(self, catalogue: Catalogue, ids: Sequence[str]) -> NDArray[np.intp] | None:
        """Return where in ``table`` some items are; None if one of them is not.

        Args:
            catalogue: has their features.
            ids: of the items.
        """
        # A row of its table is one version of one item, for good.
        rows, table = catalogue.rows(ids), catalogue.features
        if table is not self._table:
            self._table, self._there = table, np.zeros(1, np.bool_)
        return rows if all_there(self._there, rows) else None

    @property
    def table(self) -> Float32:
        """What is kept, float32[rows, width]."""
        return self._rows

    @property
    def _room(self) -> int:
        """Rows for which there is room."""
        return self._there.size - 1

    def _make_room(self, row: int) -> None:
        """Make room for a row, as far as it may be kept."""
        held = self._room
        if row < held or held == self._most or self._table is None:
            return
        count = min(max(self._table.rows, 2 * held), self._most)
        room = np.zeros((count, self._model.width), np.float32)
        there = np.zeros(count + 1, np.bool_)
        room[:held], there[:held] = self._rows[:held], self._there[:held]
        self._rows, self._there = room, there


class CataloguedScorer:
    """A scorer as a model of a whole catalogue: the logit of every item of an artifact.

    So it is calibrated and evaluated, as sources are that propose.

    Args:
        model: the scorer.
        ids: the artifact's items, in their order.
        features: of each item that has any, by id.
    """

    needs_history = False
    floor = -np.inf

    def __init__(
        self, model: FieldModel, ids: Sequence[str], features: Mapping[str, FeatureMap]
    ) -> None:
        self._model = model
        hashes, codes, values = coded_rows([features.get(item) for item in ids])
        table = Namespace(FEATURES, hashes, values, codes)
        self._rows = model.items(np.arange(len(ids)), table)

    def raw(self, indices: NDArray[Any], weights: Float32) -> Float32:
        """Return the logit of every item for somebody of whom no context is said, float32[items].

        Args:
            indices: places of the history's items, int[h], oldest first as far as it is known.
            weights: float32[h], how strongly each speaks for its item.
        """
        return self.raw_in({}, indices, weights)

    def raw_in(self, context: FeatureMap, indices: NDArray[Any], weights: Float32) -> Float32:
        """Return the logit of every item in a context, float32[items].

        Args:
            context: what is said with the request.
            indices: places of the history's items, int[h], oldest first as far as it is known.
            weights: float32[h], how strongly each speaks for its item.
        """
        said = namespace_of(context, CONTEXT) if context else None
        rows = self._rows[indices] if self._model.reads_items else None
        return self._model.logits(self._model.user(said, indices, weights, rows), self._rows)


def load_scorer(source: TrainedSource, n_items: int) -> FieldModel:
    """Return the serving model of a trained scorer.

    Args:
        source: of any kind in SCORERS.
        n_items: how many items the artifact has.

    Raises:
        ArtifactError: an unknown kind, or arrays that do not fit.
    """
    if source.kind not in SCORERS:
        raise ArtifactError(f"unknown kind of scorer {source.kind!r}", "kind")
    return FieldModel.load(source, n_items)
