"""The towers of an item and of a user, as ``policies.training.towers`` has fitted them."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bandits.features.namespaces import CONTEXT, FEATURES
from bandits.types import Float32, Namespace
from bandits.values import FeatureMap
from policies.artifacts.source_artifact import TrainedSource
from policies.encoding import namespace_of
from policies.sources.loops import newest_that_speak
from policies.sources.towers.hashed import FeatureRows
from policies.sources.towers.loops import tower_of_user
from policies.sources.vectors import VectorModel


@dataclass(frozen=True, slots=True, eq=False)
class HiddenLayer:
    """Two layers: relu(x W₁ + b₁) W₂ + b₂."""

    weight_1: Float32
    bias_1: Float32
    weight_2: Float32
    bias_2: Float32

    @classmethod
    def load(cls, source: TrainedSource, prefix: str, size_in: int, size_out: int) -> Self:
        """Return what training has fitted.

        Args:
            source: its arrays ``{prefix}_weight_1``, ``_bias_1``, ``_weight_2`` and ``_bias_2``.
            prefix: of their names.
            size_in: numbers that it is given.
            size_out: numbers that it returns.

        Raises:
            ArtifactError: one is missing, or has another shape.
        """
        bias = source.floats(f"{prefix}_bias_1", None)
        return cls(
            source.floats(f"{prefix}_weight_1", size_in, len(bias)),
            bias,
            source.floats(f"{prefix}_weight_2", len(bias), size_out),
            source.floats(f"{prefix}_bias_2", size_out),
        )

    def of(self, x: Float32) -> Float32:
        """Return what it makes of float32[..., size_in]: float32[..., size_out]."""
        hidden = np.maximum(x @ self.weight_1 + self.bias_1, np.float32(0))
        made: Float32 = hidden @ self.weight_2 + self.bias_2
        return made


@dataclass(frozen=True, slots=True, eq=False)
class ItemTower:
    """Makes the vector of an item that training has not met, of its features and descriptions.

    The last of its numbers is added to every user's score: the item's bias. ``content``:
    float32[parts, d + 1], what the vector of its texts and own vectors is multiplied with.
    """

    features: FeatureRows
    hidden: HiddenLayer
    content: Float32 | None

    @classmethod
    def load(cls, source: TrainedSource, size: int, parts: int) -> Self:
        """Return what training has fitted.

        Args:
            source: of kind ``towers``.
            size: numbers of an item's vector.
            parts: numbers of the vector of its texts and own vectors; 0: it has none.

        Raises:
            ArtifactError: an array is missing, or has another shape.
        """
        return cls(
            FeatureRows.load(source, "item", size, FEATURES),
            HiddenLayer.load(source, "item", size, size),
            source.array("item_content", parts, size) if parts else None,
        )

    def of(self, features: FeatureMap, described: Float32 | None) -> Float32 | None:
        """Return the item's vector, float32[d + 1]; None if nothing is known of it.

        Args:
            features: the catalogue's.
            described: float32[parts], the vector of its texts and own vectors.
        """
        x = self.features.sum(features)
        if described is not None and self.content is not None:
            said = described @ self.content
            x = said if x is None else x + said
        return None if x is None else x + self.hidden.of(x)


@dataclass(frozen=True, slots=True, eq=False)
class UserTower:
    """Makes the vector of a user: of the history's items, of the latest of them, and of context.

    ``whole`` and ``latest``, float32[d, d], are what the means of the vectors of the last ``most``
    items and of the last ``recent`` are multiplied with; ``context`` is added. The
    last number of the vector is 1.
    """

    context: FeatureRows
    hidden: HiddenLayer
    whole: Float32
    latest: Float32
    most: int
    recent: int

    @classmethod
    def load(cls, source: TrainedSource, size: int) -> Self:
        """Return what training has fitted.

        Args:
            source: of kind ``towers``.
            size: d, numbers of an item's vector without its bias.

        Raises:
            ArtifactError: an array is missing, or has another shape.
        """
        return cls(
            FeatureRows.load(source, "user", size, CONTEXT),
            HiddenLayer.load(source, "user", 3 * size, size),
            source.floats("user_whole", size, size),
            source.floats("user_latest", size, size),
            source.whole("most"),
            source.whole("recent"),
        )

    def of(self, rows: Float32, weights: Float32, context: Namespace | None) -> Float32 | None:
        """Return the user's vector, float32[d + 1]; None if neither items nor context are known.

        Args:
            rows: the vectors of the history's items, float32[h, d + 1], oldest first.
            weights: float32[h], how strongly each speaks for its item.
            context: what the caller says of the user, hashed; None: nothing.
        """
        told = None if context is None else self.context.kept_sum_of(context)
        weights = np.ascontiguousarray(weights, np.float32)
        speaks = newest_that_speak(weights, self.most)
        if speaks.size < weights.size:
            rows, weights = rows[speaks], weights[speaks]
        if told is None and not weights.size:
            return None

        hidden = self.hidden
        user: Float32 = tower_of_user(
            rows,
            weights,
            np.zeros(self.whole.shape[0], np.float32) if told is None else told,
            self.whole,
            self.latest,
            hidden.weight_1,
            hidden.bias_1,
            hidden.weight_2,
            hidden.bias_2,
            self.recent,
        )
        return user

    def encode(self, indices: NDArray[Any], rows: Float32, weights: Float32) -> Float32:
        """Return the vector of a user of whom only a history is known, float32[d + 1].

        Args:
            indices: places of the history's items, int[h].
            rows: their vectors, float32[h, d + 1], oldest first as far as it is known.
            weights: float32[h], how strongly each speaks for its item.
        """
        del indices
        user = self.of(rows, weights, None)
        return np.zeros(self.whole.shape[0] + 1, np.float32) if user is None else user


class TowersModel(VectorModel):
    """Vectors of the items that training has met, and the tower of users.

    Args:
        vectors: float32[items, d + 1].
        tower: makes a user's.
    """

    def __init__(self, vectors: Float32, tower: UserTower) -> None:
        super().__init__(vectors, tower)
        self._tower = tower

    def raw_in(self, context: FeatureMap, indices: NDArray[Any], weights: Float32) -> Float32:
        """Return the product of every item's vector with that of a user of whom more is said.

        Args:
            context: what the caller says of the user.
            indices: places of the history's items, int[h], oldest first as far as it is known.
            weights: float32[h], how strongly each speaks for its item.
        """
        said = namespace_of(context, CONTEXT) if context else None
        user = self._tower.of(self._vectors[indices], weights, said)
        if user is None:
            return self.raw(indices, weights)
        scores: Float32 = self._vectors @ user
        return scores


def load_towers(source: TrainedSource, n_items: int) -> TowersModel:
    """Return the model of the items that training has met.

    Args:
        source: its ``vectors``, float32[n_items, d + 1], and the tower of users.
        n_items: how many items the artifact has.

    Raises:
        ArtifactError: an array is missing, or has another shape.
    """
    vectors = source.array("vectors", n_items, None)
    return TowersModel(vectors, UserTower.load(source, vectors.shape[1] - 1))
