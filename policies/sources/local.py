"""A trained model as a candidate source: pure numpy, no event loop, no torch."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ArtifactError
from bandits.types import Float32, frozen
from bandits.values import FeatureMap
from policies.artifacts.source_artifact import Calibration, TrainedSource
from policies.items.offering import Offering
from policies.rules.columns import Bools
from policies.rules.ruling import Admission
from policies.sources.base import Candidates, ImmediateSource, SourceRequest
from policies.sources.blocks import ItemSubset
from policies.sources.cf import NeighboursModel, load_als
from policies.sources.deep import AutoencoderModel
from policies.sources.highest import highest
from policies.sources.live.item_encoder import ContentModel
from policies.sources.loops import best_places, standardised, values_at
from policies.sources.places import ClosedPlaces, ItemOrder
from policies.sources.popular import PopularModel
from policies.sources.sequence.gru4rec import load_gru4rec
from policies.sources.sequence.sasrec import load_sasrec
from policies.sources.sequence.transitions import TransitionsModel
from policies.sources.towers.ncf import NcfModel
from policies.sources.towers.towers import load_towers
from policies.sources.vectors import LargeVectorModel


class Model(Protocol):
    """Maps a history to raw scores, finite, in numpy alone.

    An item whose raw score is not above ``floor`` is never proposed: there is no evidence for it.
    """

    needs_history: bool
    floor: float

    def raw(self, indices: NDArray[Any], weights: Float32) -> Float32:
        """Return the raw scores of every item, float32[items]. Pure.

        Args:
            indices: items of the history, int[h], each once, oldest first as far as it is known.
            weights: float32[h], how strongly each speaks for its item.
        """
        ...


@runtime_checkable
class ContextModel(Protocol):
    """A model that may also see what the caller says of the user."""

    def raw_in(self, context: FeatureMap, indices: NDArray[Any], weights: Float32) -> Float32:
        """Return the raw scores of every item in a context, float32[items]. Pure.

        Args:
            context: the features of the decision.
            indices: items of the history, int[h], as ``Model.raw`` has them.
            weights: float32[h], how strongly each speaks for its item.
        """
        ...


MODELS: Final[Mapping[str, Callable[[TrainedSource, int], Model]]] = {
    "als": load_als,
    "item_knn": NeighboursModel.load,
    "ease": NeighboursModel.load,
    "rp3beta": NeighboursModel.load,
    "deep": AutoencoderModel.load,
    "popular": PopularModel.load,
    "trending": PopularModel.load,
    "content": ContentModel.load,
    "content_tuned": ContentModel.load,
    "slit": TransitionsModel.load,
    "sasrec": load_sasrec,
    "gru4rec": load_gru4rec,
    "towers": load_towers,
    "ncf": NcfModel.load,
}
CACHE_BYTES = 32 * 2**20
"""Bytes of the scores of profiles that a source keeps."""
NO_SHADE: Final[Float32] = frozen(np.empty(0, np.float32))
EMPTY = Candidates((), frozen(np.empty(0, np.float32)))


class LocalSource(ImmediateSource):
    """A trained model as a candidate source: from a history to items, best first, calibrated.

    Scores are (raw - mean) / std with the artifact's constants, so 0 is a typical top candidate's
    score and 1 is one standard deviation better, for every request alike; within a request the
    order is the model's own.
    """

    def __init__(self, name: str, model: Model, items: ItemOrder, scale: Calibration) -> None:
        self.name = name
        self._model = model
        self._items = items
        self._mean, self._std = scale.numbers(name)
        self._floor = np.float32((model.floor - self._mean) / self._std)
        # Most requests are from known users, whose profiles change rarely. The cache is bounded by
        # bytes, not by users.
        self._cache: OrderedDict[str, Float32] = OrderedDict()
        self._cache_size = CACHE_BYTES // (4 * max(1, len(items)))
        self._closed: ClosedPlaces | None = None
        self._part: ItemSubset | None = None

    def over(self, offering: Offering) -> Self:
        """Return the source over what may be offered; the cache is shared, it is of every item."""
        source = copy.copy(self)
        source._closed = closed = self._items.closed(offering)  # noqa: SLF001 - its own class
        if isinstance(self._model, LargeVectorModel):
            lacking = np.flatnonzero(closed.shade)
            source._part = self._model.blocks.part(lacking)  # noqa: SLF001
        return source

    def update(self, changed: Collection[str]) -> None:
        """Take in what has changed."""
        if self._closed is None:
            return
        self._closed.update(changed)
        if self._part is not None:
            for item_id in changed:
                place = self._items.places.get(item_id)
                if place is not None:
                    self._part.change(place, held=place not in self._closed)

    @property
    def known(self) -> int:
        """How many of the items that may be offered it could propose."""
        return len(self._items) - (0 if self._closed is None else self._closed.count)

    @property
    def _shade(self) -> Float32 | None:
        """A number to add to each item's score; None while all may be proposed."""
        return self._closed.shade if self._closed is not None and self._closed.count else None

    def propose(self, request: SourceRequest, limit: int) -> Candidates:
        """Return candidates, best first, without an event loop: everything here is arithmetic.

        None is barred by the request.

        Args:
            request: what is known of its user is joined with the history sent.
            limit: how many at most; none if it is not above 0.
        """
        key, stored, weights, speaks, barred = self._items.asked(request)
        if self._model.needs_history and not speaks:
            return EMPTY

        only, admitted = self._admitted(request.admission)
        scores_at: Callable[[NDArray[np.intp]], Float32]
        if isinstance(self._model, LargeVectorModel):
            vector, blocks = self._model.user(stored, weights), self._model.blocks
            if only is None:
                near, products = blocks.nearest(vector, barred, limit, self._open_part(admitted))
            else:
                near = _without(only, barred, len(self._items))
                products = blocks.products(near, vector)
                reaching = highest(products, limit)
                near, products = near[reaching], products[reaching]
            calibrated = self._calibrated(products)
            ranked = np.lexsort((near, -calibrated))[: max(limit, 0)]
            best, best_scores = near[ranked], calibrated[ranked]

            def scores_at(places: NDArray[np.intp]) -> Float32:
                products = self._calibrated(blocks.products(places, vector))
                return np.where(places < 0, np.float32(np.nan), products)
        else:
            # A user's scores can be kept as long as the request adds nothing to what is known.
            scores = self._scores(stored, weights, key)
            best = _best(scores, barred, limit, self._floor, self._shade_of(only, admitted))
            best_scores = scores.take(best)

            def scores_at(places: NDArray[np.intp]) -> Float32:
                return values_at(scores, places)

        def score_items(ids: Sequence[str]) -> Float32:
            if not self._items.ids:
                return np.full(len(ids), np.nan, np.float32)
            return scores_at(self._items.places_of(ids))

        ids = tuple(map(self._items.ids.__getitem__, best.tolist()))
        return Candidates(ids, best_scores, score_items, admitted=self._closed is not None)

    def _admitted(
        self, admission: Admission | None
    ) -> tuple[NDArray[np.intp] | None, Bools | None]:
        """Return the places that are admitted, if these are few, or else which are, bool[items].

        None where nothing is refused that is not closed already.
        """
        if self._closed is None:
            return None, None
        only = self._closed.only(admission)
        return only, None if only is not None else self._closed.admitted(admission)

    def _open_part(self, admitted: Bools | None) -> ItemSubset | None:
        """Return what of the blocks may be proposed; None: all."""
        if admitted is not None and isinstance(self._model, LargeVectorModel):
            return self._model.blocks.narrowed(self._part, admitted)
        return None if self._shade is None else self._part

    def _shade_of(self, only: NDArray[np.intp] | None, admitted: Bools | None) -> Float32 | None:
        """Return what is added to each item's score, -inf where it is refused; None: nothing."""
        if only is None and admitted is None:
            return self._shade
        refused: Float32 = np.full(len(self._items), -np.inf, np.float32)
        refused[admitted if only is None else only] = 0.0
        return refused if self._shade is None else self._shade + refused

    def _calibrated(self, raw: Float32) -> Float32:
        return standardised(np.ascontiguousarray(raw, np.float32), self._mean, self._std)

    def _scores(self, indices: NDArray[Any], weights: Float32, key: str) -> Float32:
        if key and key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]

        scores: Float32 = frozen(self._calibrated(self._model.raw(indices, weights)))
        if key:
            self._cache[key] = scores
            if len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        return scores


def _without(places: NDArray[np.intp], barred: NDArray[Any], items: int) -> NDArray[np.intp]:
    """Return those places that are not barred.

    Args:
        places: of some items.
        barred: of others.
        items: how many there are in all.
    """
    are_barred = np.zeros(items, np.bool_)
    are_barred[barred] = True
    return places[~are_barred[places]]


def _best(
    scores: Float32,
    barred: NDArray[Any],
    limit: int,
    floor: np.float32,
    shade: Float32 | None,
) -> NDArray[np.intp]:
    """Return the places of the ``limit`` highest scores above ``floor``, best first, ties by place.

    None of them is barred, or has a shade of -inf.
    """
    return best_places(
        np.ascontiguousarray(scores, np.float32),
        NO_SHADE if shade is None else shade,
        barred,
        limit,
        floor,
    )


def load_model(source: TrainedSource, n_items: int) -> Model:
    """Return the serving model of a trained source.

    Args:
        source: of any kind in MODELS.
        n_items: how many items the artifact has.

    Raises:
        ArtifactError: an unknown kind, or arrays that do not fit.
    """
    if source.kind not in MODELS:
        raise ArtifactError(f"unknown kind of source {source.kind!r}", "kind")
    return MODELS[source.kind](source, n_items)
