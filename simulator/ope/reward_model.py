"""The reward model of DM and DR: regressions on hashed features, cross-fitted on part of the log.

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
from bandits.sums import sum_products
from bandits.types import Float64
from simulator.ope.feature_design import FeatureScales, HashedDesign, hashed_design, to_dense
from simulator.ope.hashed_features import HashedFeatures, concatenate_features, no_features
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
ADDED_AT_ONCE = 4
"""Rows are merged into the sample once they are so large a part of it, for the sample is moved."""
DRAWN = np.uint64(0xD1B54A32D192ED03)
"""Mixed into keys so that being in the sample has nothing to do with the fold."""


class ModelSummary(msgspec.Struct, frozen=True):
    """Which reward model was chosen, and why.

    ``kind`` is ridge, logistic or gbm. ``losses`` has, by kind, the mean squared error of
    predictions of rewards that the model had not seen; ``constant`` is that of their mean. ``rows``
    are of the sample, ``of`` those of the log.
    """

    kind: str
    losses: dict[str, float]
    constant: float
    rows: int
    of: int

    @property
    def sentence(self) -> str:
        """Return the summary in one sentence."""
        losses = ", ".join(f"{name} {loss:.6g}" for name, loss in self.losses.items())
        chosen = f"reward model of dm and dr: {self.kind}"
        chosen += ", which predicts unseen rewards best" if len(self.losses) > 1 else ""
        rows = f"{self.rows:,} of {self.of:,}" if self.of != self.rows else f"{self.rows:,}"
        mean = f"{self.constant:.6g}"
        mean += ", which no model improves on" if self.useless else ""
        return f"{chosen} (mean squared error on {rows} rows: {losses}; their mean alone {mean})"

    @property
    def useless(self) -> bool:
        """Whether the plain mean predicts as well: DR is then as good as SNIPS, and no better."""
        return self.losses[self.kind] >= self.constant


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The options of a reward model: see RewardModel."""

    bits: int
    folds: int
    kinds: tuple[str, ...]
    sample: int
    penalties: tuple[float, ...] | None


_Rows = tuple[UInt64, UInt64, Float64, HashedFeatures]
"""Rows of a sample: what they are drawn by, keys, rewards and the chosen actions' features."""


class RewardModel:
    """A sample of the log, to fit a reward model on; a monoid.

    A feature's column is its hash modulo 2^bits; features that collide share a coefficient. Of
    several ``kinds``, names of KINDS, the one that predicts unseen rewards best is chosen.
    ``penalties`` are ridge's.
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

        self._options = ModelOptions(
            bits, folds, tuple(kinds), sample, None if penalties is None else tuple(penalties)
        )
        nothing = np.zeros(0, np.uint64)
        self._kept: _Rows = (nothing, nothing, np.zeros(0), no_features())
        self._added: list[_Rows] = []
        self._rows = 0

    def wanted(self, keys: UInt64) -> NDArray[np.bool_]:
        """Return which rows the sample may take, bool[n]: of the others, no features are needed."""
        drawn = self._kept[0]
        if len(drawn) < self._options.sample:
            return np.ones(len(keys), np.bool_)
        wanted: NDArray[np.bool_] = splitmix64(keys ^ DRAWN) < drawn[-1]
        return wanted

    def update(
        self, features: HashedFeatures, reward: Float64, keys: UInt64, *, rows: int | None = None
    ) -> None:
        """Add rows, at least those that are ``wanted``.

        Args:
            features: of the chosen actions, K = 1.
            reward: float64[n].
            keys: uint64[n].
            rows: how many there are with those that are not given.

        Raises:
            ReplayError: a reward is not finite.
        """
        if not np.isfinite(reward).all():
            raise ReplayError("a reward is infinite or NaN; leave such rows out", "reward")
        self._added.append((splitmix64(keys ^ DRAWN), keys, reward, features))
        if sum(len(part[0]) for part in self._added) > self._options.sample // ADDED_AT_ONCE:
            self._sample()
        self._rows += len(keys) if rows is None else rows

    def merge(self, other: "RewardModel") -> None:
        """Add the rows of another, which come after these.

        Raises:
            ReplayError: it has other bits, folds, kinds or another size.
        """
        if other._options != self._options:  # noqa: SLF001
            raise ReplayError(
                "cannot merge reward models of different bits or folds", "reward_model"
            )
        self._added.append(other._sample())  # noqa: SLF001
        self._sample()
        self._rows += other._rows  # noqa: SLF001

    def _sample(self) -> "_Rows":
        """Keep the rows with the smallest hashes, and return them; slots are drawn together."""
        if self._added:
            parts = [self._kept, *self._added]
            drawn, keys, reward = (np.concatenate([part[at] for part in parts]) for at in range(3))
            kept = np.argsort(drawn, kind="stable")[: self._options.sample]
            features = concatenate_features([part[3] for part in parts]).take(kept)
            self._kept, self._added = (drawn[kept], keys[kept], reward[kept], features), []
        return self._kept

    def fit(self) -> "FittedRewardModel":
        """Fit every kind, and keep the one that predicts best."""
        options, size = self._options, 1 << self._options.bits
        _, keys, reward, features = self._sample()
        fold = fold_of(keys, options.folds)
        scales = FeatureScales.of(features)

        # Columns that no row uses are left out of the fit.
        laid = hashed_design(features, scales)
        wide = np.zeros((0, size))
        if len(fold):
            wide = to_dense(laid.columns[:, 0], laid.values[:, 0], size)
        used = np.flatnonzero(wide.any(axis=0))

        # Regressions are of rewards in [0, 1]; rewards that are all alike have no span.
        low, span = _range(reward)
        y = (reward - low) / span if span else np.zeros(len(fold))
        fits = {kind: self._fit_kind(kind, wide[:, used], y, fold) for kind in options.kinds}
        chosen = min(fits, key=lambda kind: fits[kind][0])

        coefficients, trees = np.zeros((options.folds, size + 1)), None
        if chosen == "gbm":
            trees = fits[chosen][1]
        else:
            coefficients[:, [*used, size]] = fits[chosen][1]

        summary = ModelSummary(
            chosen,
            {kind: span**2 * loss for kind, (loss, _) in fits.items()},
            float(reward.var()) if len(fold) else 0.0,
            len(fold),
            self._rows,
        )
        return FittedRewardModel(chosen, scales, coefficients, low, span, summary, used, trees)

    def _fit_kind(
        self, kind: str, x: Float64, y: Float64, fold: NDArray[np.intp]
    ) -> tuple[float, Any]:
        """Return the squared error of predictions of unseen rows, and what was fitted."""
        folds, penalties = self._options.folds, self._options.penalties
        if kind == "gbm":
            return cross_fit_trees(x, y, fold, folds)
        if kind == "logistic":
            return cross_fit_logistic(x, y, fold, folds)
        return cross_fit_ridge(x, y, fold, folds, *([] if penalties is None else [penalties]))


@dataclass(frozen=True, slots=True, eq=False)
class FittedRewardModel:
    """Predicts rewards, within the range of those it has seen.

    Attributes:
        kind: ridge, logistic or gbm.
        scales: the units of features.
        coefficients: float64[folds, 2^bits + 1], the intercept last; those of a fold were fitted
            without it.
        low: the least reward.
        span: how far rewards reach above it.
        summary: for the report.
        used: the columns that ``trees`` look at.
        trees: by fold, of gbm.
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
        """Predict the reward of every action, float64[n, K].

        Args:
            features: of n rows of K actions.
            keys: uint64[n], which say the fold of each row.
        """
        fold = fold_of(keys, len(self.coefficients))
        out = np.empty(features.ids.shape)
        width = (
            features.context.shape[1] * 4 + features.own.shape[-1] * 2 + 1
            if self.trees is None
            else len(self.coefficients[0])
        )
        for part in _parts(len(out), max(1, features.ids.shape[1] * width)):
            out[part] = self._shares(features.take(part), fold[part])
        return self.low + self.span * out

    def from_margins(self, margins: Float64) -> Float64:
        """Return predicted rewards from the sums of coefficients times features, float64[...]."""
        return self.low + self.span * self._link(margins)

    def _link(self, margins: Float64) -> Float64:
        return sigmoid(margins) if self.kind == "logistic" else np.clip(margins, 0.0, 1.0)

    def _shares(self, features: HashedFeatures, fold: NDArray[np.intp]) -> Float64:
        """Predict rewards as shares of their span, float64[n, K]."""
        laid = hashed_design(features, self.scales)
        if self.trees is not None:
            return self._shares_by_trees(laid, fold)

        size = self.coefficients.shape[1] - 1
        at = fold[:, None, None]
        margins = sum_products(
            "nkw,nkw->nk", self.coefficients[at, laid.columns % size], laid.values
        )
        margins += self.coefficients[fold, -1][:, None]
        return self._link(margins)

    def _shares_by_trees(self, laid: HashedDesign, fold: NDArray[np.intp]) -> Float64:
        """Predict shares by the trees of each row's fold, float64[n, K]."""
        size, (_, actions, width) = self.coefficients.shape[1] - 1, laid.values.shape
        out = np.empty(laid.values.shape[:2])
        for number, model in enumerate(self.trees or ()):
            rows = np.flatnonzero(fold == number)
            columns = laid.columns[rows].reshape(-1, width)
            x = to_dense(columns, laid.values[rows].reshape(-1, width), size)
            out[rows] = predict_by_trees(model, x[:, self.used]).reshape(len(rows), actions)
        return out


def _range(reward: Float64) -> tuple[float, float]:
    """Return the least reward, and how far rewards reach above it."""
    if not len(reward):
        return 0.0, 0.0
    low, high = float(reward.min()), float(reward.max())
    return low, high - low


def fold_of(keys: UInt64, folds: int) -> NDArray[np.intp]:
    """Return the fold of each key, int[n].

    Args:
        keys: uint64[n].
        folds: how many there are.
    """
    return (splitmix64(keys) % np.uint64(folds)).astype(np.intp)


def _parts(rows: int, width: int) -> Iterator[slice]:
    """Return slices of rows with at most CELLS numbers each."""
    step = max(1, CELLS // width)
    return (slice(start, start + step) for start in range(0, rows, step))
