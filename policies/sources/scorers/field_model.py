"""Factorisation machine, Wide & Deep and DeepFM at serving time.

Rendle 2010, "Factorization Machines", https://doi.org/10.1109/ICDM.2010.127. Guo, Tang, Ye, Li & He
2017, "DeepFM", https://arxiv.org/abs/1703.04247. Cheng et al. 2016, "Wide & Deep Learning for
Recommender Systems", https://arxiv.org/abs/1606.07792.
"""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ArtifactError
from bandits.types import Float32, Namespace, frozen
from policies.artifacts.source_artifact import TrainedSource
from policies.sources.scorers.loops import (
    finish,
    logits_of_rows,
    rectify,
    user_of_fields,
    weights_of_crosses,
)
from policies.sources.scorers.vocabulary import FeatureVocabulary, dense, one_row

HISTORY_FIELDS: Final = 2
"""All of the history, and its newest item."""
ROWS: Final = 20_000
"""Items whose layers are computed at a time."""
CONTEXTS: Final = 1_000
"""Contexts of which it is kept what they add; when there are more, all are forgotten."""
NOTHING: Final[Float32] = frozen(np.empty(0, np.float32))


class SaidPart(NamedTuple):
    """What a context adds: its fields' vectors, float32[C, d], its linear part, and crosses.

    ``crossed``: how much each of its features counts that is crossed.
    """

    fields: Float32
    linear: np.float32
    crossed: Float32


@dataclass(frozen=True, slots=True, eq=False)
class UserPart:
    """What a score has of who asks: a constant, and what is multiplied with an item's part.

    ``vector``: float32[d]; ``hidden``: what the first layer adds up; ``crossed``: the weight of
    each feature of an item that is crossed.
    """

    constant: np.float32
    vector: Float32
    hidden: Float32
    crossed: Float32


class FieldModel:
    """The logit of an action: a linear model, products of every two fields, crosses, and layers.

    The fields of who asks: the history (the mean of its items' vectors), its newest item, and each
    name in the context. Those of an action: its id, and each name among its features. A field of
    several features is their mean. The logit is b + Σ w_f + Σ_{f<g} ⟨v_f, v_g⟩ + layers(v), and
    what an item adds to it can be kept: of a request, one product for each action is left to do.
    In the place of the products of fields, Wide & Deep has a weight for each feature of the
    context, and of the history's items, crossed with each of the action.

    Differs from the papers: no user has a vector of their own, so anybody is answered who has a
    history, a context or neither; features of one field do not interact; the newest item is a field
    (as in Rendle, Freudenthaler & Schmidt-Thieme 2010, https://doi.org/10.1145/1772690.1772773).
    """

    def __init__(self, source: TrainedSource, n_items: int) -> None:
        """Take the arrays that a fit has made.

        Args:
            source: the fit.
            n_items: how many items the artifact has.

        Raises:
            ArtifactError: arrays are missing, or do not fit together.
        """
        self._bias = np.float32(source.array("bias", 1)[0])
        self._slope, self._intercept = (
            np.float32(source.array("calibration", 2)[place]) for place in (0, 1)
        )
        self._features = FeatureVocabulary.load(source, "feature")
        self._context = FeatureVocabulary.load(source, "context")

        # The row behind the last is that of an item that was never seen.
        self._item_vectors = source.array("item_vectors", n_items + 1, None)
        self.factors = factors = self._item_vectors.shape[1]
        self._item_linear = source.array("item_linear", n_items + 1)
        self._history_vectors = source.floats("history_vectors", n_items, factors)
        self._last_vectors = source.floats("last_vectors", n_items, factors)
        self._feature_linear = source.array("feature_linear", len(self._features))
        self._feature_vectors = source.array("feature_vectors", len(self._features), factors)
        self._context_linear = source.array("context_linear", len(self._context))
        self._context_vectors = source.array("context_vectors", len(self._context), factors)
        self.history = source.whole("history", 50)
        self._pairs = bool(source.config.get("pairs", True))
        self._load_crosses(source)
        self._contexts: dict[tuple[bytes, bytes], SaidPart] = {}
        self._nothing_said = SaidPart(
            np.zeros((self._context.fields, factors), np.float32),
            np.float32(0.0),
            np.zeros(len(self._said), np.float32),
        )
        self._no_vector: Float32 = frozen(np.zeros(factors, np.float32))
        self._load_layers(source)
        self._no_rows: Float32 = frozen(np.zeros((0, self.width), np.float32))

    @classmethod
    def load(cls, source: TrainedSource, n_items: int) -> Self:
        """Return the model that a trained source holds; see ``FieldModel``."""
        return cls(source, n_items)

    def _load_crosses(self, source: TrainedSource) -> None:
        self._crossed = self._said = np.zeros(0, np.int32)
        self._crosses = np.zeros((0, 0), np.float32)
        if "cross_weights" in source.arrays:
            self._crossed = source.places("crossed_features")
            self._said = source.places("crossed_contexts")
            rows = len(self._said) + len(self._crossed)
            self._crosses = source.floats("cross_weights", rows, len(self._crossed))
            for name, codes, size in (
                ("features", self._crossed, len(self._features)),
                ("contexts", self._said, len(self._context)),
            ):
                if codes.size and not 0 <= codes.min() <= codes.max() < size:
                    raise ArtifactError(f"{source.kind}: crossed_{name} are outside {size}", name)

    def _load_layers(self, source: TrainedSource) -> None:
        asks = (HISTORY_FIELDS + self._context.fields) * self.factors
        width = asks + (1 + self._features.fields) * self.factors
        weights, biases = [], []
        for number in range(sum(name.startswith("weight_") for name in source.arrays)):
            weights.append(source.floats(f"weight_{number}", width, None))
            width = weights[-1].shape[1]
            biases.append(source.floats(f"bias_{number}", width))
        if weights and width != 1:
            raise ArtifactError(f"{source.kind}: the last layer has {width} outputs", "weight")
        if len(weights) == 1:
            raise ArtifactError(f"{source.kind}: one layer is none that is hidden", "weight")

        # What the first layer adds up of who asks, and of an action, is computed apart.
        first = weights[0] if weights else np.zeros((width, 0), np.float32)
        self._of_user, self._of_item = (
            np.ascontiguousarray(part) for part in (first[:asks], first[asks:])
        )
        self._first_bias: Float32 = biases[0] if weights else NOTHING
        self.hidden = int(first.shape[1])

        # Of the last, which has one output, a vector and a number are left.
        self._between = list(zip(weights[1:-1], biases[1:-1], strict=True))
        self._last, self._last_bias = NOTHING, np.float32(0.0)
        if weights:
            self._last, self._last_bias = weights[-1].ravel(), np.float32(biases[-1][0])

    @property
    def width(self) -> int:
        """Numbers that are kept of an item."""
        return 1 + int(self.factors) + self.hidden + len(self._crossed)

    @property
    def reads_items(self) -> bool:
        """Whether it asks for what is kept of the history's items."""
        return bool(self._crossed.size)

    def user(
        self,
        context: Namespace | None,
        places: NDArray[Any],
        weights: Float32,
        rows: Float32 | None = None,
    ) -> UserPart:
        """Return what a request is scored with.

        Args:
            context: its features; None if there are none.
            places: the history's items, int[h], oldest first as far as it is known.
            weights: float32[h], how strongly each speaks for its item.
            rows: what is kept of these items, float32[h, width], where it ``reads_items``.
        """
        places, weights = places[-self.history :], weights[-self.history :]
        said = self._nothing_said if context is None else self._of_context(context)
        vector, hidden, pairs = user_of_fields(
            self._history_vectors,
            self._last_vectors,
            places.astype(np.int64, copy=False),
            weights,
            said.fields,
            self._of_user,
            self._first_bias,
        )

        constant, crossed = self._bias + said.linear, NOTHING
        if self._crossed.size:
            known = self._no_rows if rows is None else rows[-self.history :]
            crossed = weights_of_crosses(
                said.crossed, weights, known, self._columns.start, self._crosses
            )
        if not self._pairs:
            return UserPart(constant, self._no_vector, hidden, crossed)
        return UserPart(constant + pairs, vector, hidden, crossed)

    def _of_context(self, context: Namespace) -> "SaidPart":
        """Return what a context adds; many requests have the same one: they are kept."""
        if not len(self._context):
            return self._nothing_said
        key = context.hashes.tobytes(), context.values.tobytes()
        if (known := self._contexts.get(key)) is not None:
            return known

        codes = one_row(self._context.codes(context.hashes))
        counts = self._context.pooled(codes, one_row(context.values))
        made = SaidPart(
            self._context.vectors(codes, counts, self._context_vectors)[0],
            np.float32(counts[0] @ self._context_linear[codes[0]]),
            dense(codes, counts, self._said, len(self._context))[0],
        )
        if len(self._contexts) >= CONTEXTS:
            self._contexts.clear()
        self._contexts[key] = made
        return made

    @property
    def _columns(self) -> slice:
        """Which of what is kept of an item are its features that are crossed."""
        return slice(1 + self.factors + self.hidden, None)

    def items(self, places: NDArray[np.intp], features: Namespace) -> Float32:
        """Return what is kept of some items, float32[K, width].

        Args:
            places: of the items, intp[K], -1 for one that was never seen.
            features: of each, [K, F].
        """
        table, values = self._features, features.values
        codes = table.codes(features.hashes)
        own = codes if features.codes is None else codes[features.codes]
        own = np.broadcast_to(own, values.shape)
        counts = table.pooled(own, values)

        fields = np.concatenate(
            [
                self._item_vectors[places][:, None],
                table.vectors(own, counts, self._feature_vectors),
            ],
            axis=1,
        )
        made = np.empty((len(places), self.width), np.float32)
        vector = fields.sum(axis=1)
        linear = self._item_linear[places]
        if len(table):
            linear = linear + (counts * self._feature_linear[own]).sum(axis=1)
        made[:, 0] = linear + (_pairs(vector, fields) if self._pairs else 0)
        made[:, 1 : 1 + self.factors] = vector
        if self.hidden:
            inner = slice(1 + self.factors, 1 + self.factors + self.hidden)
            made[:, inner] = fields.reshape(len(places), -1) @ self._of_item
        if self._crossed.size:
            made[:, self._columns] = dense(own, counts, self._crossed, len(table))
        return made

    def logits(
        self, user: UserPart, items: Float32, rows: NDArray[np.intp] | None = None
    ) -> Float32:
        """Return the calibrated logit of each item for a request, float32[K].

        Args:
            user: see ``user``.
            items: see ``items``, float32[N, width].
            rows: int[K], of these items; None: all.
        """
        if rows is None:
            rows = np.arange(len(items))
        if len(rows) > ROWS:
            parts = [rows[at : at + ROWS] for at in range(0, len(rows), ROWS)]
            return np.concatenate([self.logits(user, items, part) for part in parts])

        logits, inner = logits_of_rows(
            items, rows, user.constant, user.vector, user.hidden, user.crossed
        )
        for weight, bias in self._between:
            inner = inner @ weight
            rectify(inner, bias)
        finish(logits, inner, self._last, self._last_bias, self._slope, self._intercept)
        return logits


def _pairs(total: Float32, fields: Float32) -> Float32:
    """Return the sum of the products of every two fields, from their sum and themselves.

    Args:
        total: float32[..., d].
        fields: float32[..., fields, d].
    """
    own = np.vecdot(fields, fields).sum(axis=-1)
    pairs: Float32 = np.float32(0.5) * (np.vecdot(total, total) - own)
    return pairs
