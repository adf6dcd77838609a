"""The reward model of DM and DR: one of several regressions on hashed features, cross-fitted on a sample of the log.

The sample holds the rows whose keys have the smallest hashes, at most SAMPLE of them: the same rows
however the log is cut, and all of a log that has no more. So what is fitted does not depend on
pieces, and a model of any kind can be.

Cross-fitting (Chernozhukov et al. 2018, arXiv:1608.00060, definition 3.2): a row is predicted by
the model of the other folds, so that no prediction has seen its own reward. A row's fold follows
from its key: all slots of a decision share it, however the log is cut.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.errors import ReplayError
from bandits.features.hashing import UInt64, splitmix64
from bandits.types import Float64
from simulator.ope.hashed_features import (
    FeatureScales,
    HashedFeatures,
    concatenate_features,
    hashed_design,
    no_features,
    to_dense,
)
from simulator.ope.regressions import (
    cross_fit_logistic,
    cross_fit_ridge,
    cross_fit_trees,
    predict_by_trees,
    sigmoid,
)

BITS = 8
FOLDS = 5
SAMPLE = 20_000
KINDS = ("ridge", "logistic", "gbm")
DEFAULT_KINDS = ("ridge", "logistic")
"""The kinds that are tried where none is named: ``gbm`` takes a library, and many times as long."""
CELLS = 1 << 20
"""Numbers of a dense matrix, or of gathered coefficients, held at once."""
DRAWN = np.uint64(0xD1B54A32D192ED03)
"""Which rows are in the sample has nothing to do with which fold they are in."""


class ModelSummary(msgspec.Struct, frozen=True):
    """Which reward model was chosen, and why.

    ``kind``: ridge, logistic or gbm. ``losses``: by kind, the mean squared error of predictions of
    rewards that the model had not seen; ``constant``: that of their mean. ``rows``: of the sample,
    ``of``: of the log.
    """

    kind: str
    losses: dict[str, float]
    constant: float
    rows: int
    of: int

    @property
    def said(self) -> str:
        """In one sentence."""
        losses = ", ".join(f"{name} {loss:.6g}" for name, loss in self.losses.items())
        chosen = f"reward model of dm and dr: {self.kind}"
        chosen += ", which predicts unseen rewards best" if len(self.losses) > 1 else ""
        of = f" of {self.of:,}" if self.of != self.rows else ""
        alone = (
            f"{self.constant:.6g}, which no model improves on"
            if self.useless
            else f"{self.constant:.6g}"
        )
        return f"{chosen} (mean squared error on {self.rows:,}{of} rows: {losses}; their mean alone {alone})"

    @property
    def useless(self) -> bool:
        """Whether the plain mean predicts as well: DR is then as good as SNIPS, and no better."""
        return self.losses[self.kind] >= self.constant


class RewardModel:
    """What is to be fitted.

    A feature's column is its hash modulo 2^bits; features that collide share a coefficient.

    ``kinds``: names of KINDS; of several, the one that predicts unseen rewards best. ``penalties``:
    of ridge.
    """

    def __init__(
        self,
        *,
        bits: int = BITS,
        folds: int = FOLDS,
        kinds: Sequence[str] = DEFAULT_KINDS,
        sample: int = SAMPLE,
        penalties: Sequence[float] | None = None,
    ) -> None:
        if not kinds or any(kind not in KINDS for kind in kinds):
            raise ReplayError(
                f"a reward model is one of {', '.join(KINDS)}, not {list(kinds)}", "reward_model"
            )
        self._given = (
            bits,
            folds,
            tuple(kinds),
            sample,
            None if penalties is None else tuple(penalties),
        )
        self._drawn, self._keys = np.zeros(0, np.uint64), np.zeros(0, np.uint64)
        self._reward = np.zeros(0)
        self._features = no_features()
        self._rows = 0

    def wanted(self, keys: UInt64) -> NDArray[np.bool_]:
        """Which rows the sample may take, bool[n]: of the others, no features are needed."""
        sample = self._given[3]
        if len(self._drawn) < sample:
            return np.ones(len(keys), np.bool_)
        wanted: NDArray[np.bool_] = splitmix64(keys ^ DRAWN) < self._drawn[-1]
        return wanted

    def update(
        self, features: HashedFeatures, reward: Float64, keys: UInt64, *, rows: int | None = None
    ) -> None:
        """Add rows, those that are ``wanted`` at least. ``features``: of the chosen actions, K = 1.

        ``rows``: of all.

        Raises:
            ReplayError: a reward is not finite.
        """
        if not np.isfinite(reward).all():
            raise ReplayError("a reward is infinite or NaN; leave such rows out", "reward")
        self._add(splitmix64(keys ^ DRAWN), keys, reward, features)
        self._rows += len(keys) if rows is None else rows

    def merge(self, other: "RewardModel") -> None:
        """Add the rows of another, which come after these.

        Raises:
            ReplayError: it has other bits, folds, kinds or another size.
        """
        if other._given != self._given:  # noqa: SLF001
            raise ReplayError(
                "cannot merge reward models of different bits or folds", "reward_model"
            )
        self._add(other._drawn, other._keys, other._reward, other._features)  # noqa: SLF001
        self._rows += other._rows  # noqa: SLF001

    def _add(self, drawn: UInt64, keys: UInt64, reward: Float64, features: HashedFeatures) -> None:
        drawn = np.concatenate([self._drawn, drawn])
        # slots of a decision are drawn alike
        kept = np.argsort(drawn, kind="stable")[: self._given[3]]
        self._drawn = drawn[kept]
        self._keys = np.concatenate([self._keys, keys])[kept]
        self._reward = np.concatenate([self._reward, reward])[kept]
        self._features = concatenate_features([self._features, features]).take(kept)

    def fit(self) -> "FittedRewardModel":
        """Fit every kind, and keep the one that predicts best."""
        bits, folds, kinds, _, penalties = self._given
        scales, size = FeatureScales.of(self._features), 1 << bits
        laid = hashed_design(self._features, scales)
        fold = fold_of(self._keys, folds)
        low, high = (
            float(self._reward.min(initial=np.inf)),
            float(self._reward.max(initial=-np.inf)),
        )
        low, span = (low, high - low) if high > low else (low if len(fold) else 0.0, 0.0)
        y = (self._reward - low) / span if span else np.zeros(len(fold))
        wide = (
            to_dense(laid.columns[:, 0], laid.values[:, 0], size)
            if len(fold)
            else np.zeros((0, size))
        )
        used = np.flatnonzero(wide.any(axis=0))
        x = wide[:, used]
        fits: dict[str, tuple[float, Any]] = {}
        for kind in kinds:
            if kind == "ridge":
                fits[kind] = cross_fit_ridge(
                    x, y, fold, folds, *([] if penalties is None else [penalties])
                )
            else:
                fits[kind] = (
                    cross_fit_logistic(x, y, fold, folds)
                    if kind == "logistic"
                    else cross_fit_trees(x, y, fold, folds)
                )
        chosen = min(fits, key=lambda kind: fits[kind][0])
        coefficients, grown = np.zeros((folds, size + 1)), None
        if chosen == "gbm":
            grown = fits[chosen][1]
        else:
            coefficients[:, [*used, size]] = fits[chosen][1]
        summary = ModelSummary(
            chosen,
            {kind: span**2 * loss for kind, (loss, _) in fits.items()},
            float(self._reward.var()) if len(fold) else 0.0,
            len(fold),
            self._rows,
        )
        return FittedRewardModel(chosen, scales, coefficients, low, span, summary, used, grown)


@dataclass(frozen=True, slots=True, eq=False)
class FittedRewardModel:
    """Predicts rewards, within the range of those it has seen.

    ``coefficients``: float64[folds, 2^bits + 1], the intercept last; those of a fold were fitted
    without it. ``low``, ``span``: where rewards begin, and how far they reach. ``trees``: by fold,
    of ``gbm``, on the columns ``used``.
    """

    kind: str
    scales: FeatureScales
    coefficients: Float64
    low: float
    span: float
    summary: ModelSummary
    used: NDArray[np.intp]
    trees: list[Any] | None = None

    def predict(self, features: HashedFeatures, keys: UInt64) -> Float64:
        """Rewards, float64[n, K], of every action. ``keys``: uint64[n]."""
        fold = fold_of(keys, len(self.coefficients))
        out = np.empty(features.ids.shape)
        wide = (
            features.context.shape[1] * 4 + features.own.shape[-1] * 2 + 1
            if self.trees is None
            else len(self.coefficients[0])
        )
        for part in _parts(len(out), max(1, features.ids.shape[1] * wide)):
            out[part] = self._shares(features.take(part), fold[part])
        return self.low + self.span * out

    def _shares(self, features: HashedFeatures, fold: NDArray[np.intp]) -> Float64:
        laid, size = hashed_design(features, self.scales), self.coefficients.shape[1] - 1
        if self.trees is not None:
            out = np.empty(features.ids.shape)
            for each, model in enumerate(self.trees):
                rows = np.flatnonzero(fold == each)
                wide = laid.values.shape[2]
                x = to_dense(
                    laid.columns[rows].reshape(-1, wide), laid.values[rows].reshape(-1, wide), size
                )
                out[rows] = predict_by_trees(model, x[:, self.used]).reshape(
                    len(rows), features.ids.shape[1]
                )
            return out
        at = fold[:, None, None]
        margins = np.einsum("nkw,nkw->nk", self.coefficients[at, laid.columns % size], laid.values)
        margins += self.coefficients[fold, -1][:, None]
        return sigmoid(margins) if self.kind == "logistic" else np.clip(margins, 0.0, 1.0)


def fold_of(keys: UInt64, folds: int) -> NDArray[np.intp]:
    """int[n]: a fold for each key."""
    return (splitmix64(keys) % np.uint64(folds)).astype(np.intp)


def _parts(rows: int, width: int) -> Iterator[slice]:
    """Rows in parts of at most CELLS numbers."""
    step = max(1, CELLS // width)
    return (slice(start, start + step) for start in range(0, rows, step))
