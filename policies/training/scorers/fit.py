"""The fit of a scorer: what was taken against what was not, with its logit calibrated.

Rendle 2010, "Factorization Machines", https://doi.org/10.1109/ICDM.2010.127. Guo, Tang, Ye, Li & He
2017, "DeepFM", https://arxiv.org/abs/1703.04247. Cheng et al. 2016, "Wide & Deep Learning for
Recommender Systems", https://arxiv.org/abs/1606.07792.
"""

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bandits.features.namespaces import CONTEXT, FEATURES
from bandits.values import FeatureMap
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import TrainedSource
from policies.training.logistic import fit_logistic, log_loss, probability
from policies.training.neural.loop import LoopConfig, fit_network, one_thread, own_random_numbers
from policies.training.scorers.encoding import arrays_of, encode_features
from policies.training.scorers.network import ScorerConfig, ScorerNetwork
from policies.training.scorers.rows import DRAWN, Interactions
from policies.training.training_data import Course, TrainingData


def why_no_scorer(data: TrainingData) -> str:
    """Return why a scorer cannot be fitted on these; "" if it can."""
    histories = data.histories
    if not (histories.weights > 0).any():
        return "the training set has one class: no interaction has a weight above 0"
    counts = np.diff(histories.starts)
    if (counts == len(histories.items)).all() and (histories.weights > 0).all():
        return "the training set has one class: every user has every item, none was passed over"
    return ""


def fit_scorer(
    kind: str, data: TrainingData, config: ScorerConfig, course: Course
) -> TrainedSource:
    """Fit a scorer to tell what was taken from what was not, by the logistic loss.

    Beside each interaction of weight above 0 some items that the user does not have are drawn; one
    of weight 0 was not taken. From each logit the log of how often its item is drawn is subtracted,
    so that what is left says what is wanted, and not what it was compared with (noise-contrastive
    estimation, Gutmann & Hyvärinen 2010, https://proceedings.mlr.press/v9/gutmann10a.html).

    The logit is then calibrated on what was held out, the last item of some users among DRAWN
    others: its probability is that an item drawn uniformly of those that the user does not have is
    the one taken next.

    Args:
        kind: fm, wide_deep or deepfm.
        data: who interacted with what, features of items, contexts of users.
        config: see ScorerConfig.
        course: how the fit is to go.
    """
    histories, items = data.histories, data.histories.items
    features = encode_features([data.items.get(item, {}) for item in items], FEATURES)
    said, users = _contexts(histories, data.contexts)
    contexts = encode_features(said, CONTEXT)

    taken = Interactions.of(histories, users)
    judged = torch.from_numpy(taken.held_out(course.seed))
    rows = np.setdiff1d(np.arange(len(taken.item)), judged.numpy(), assume_unique=True)
    with own_random_numbers(course.seed):
        module = ScorerNetwork(features, contexts, config)
        module.start_from(taken.counts)
    network = _Fit(kind, module, taken, torch.from_numpy(rows), judged, config, course.seed)
    loop = LoopConfig(
        batch=config.batch,
        epochs=max(1, min(config.epochs, config.budget // len(rows))),
        patience=config.patience,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
    )
    fitted = fit_network(network, len(rows), loop, course)

    with one_thread():
        slope, intercept, metrics = network.calibration()
        arrays = {
            **arrays_of(features.vocabulary, "feature"),
            **arrays_of(contexts.vocabulary, "context"),
            **module.arrays(),
            **module.crosses(),
            "calibration": np.array([slope, intercept], np.float32),
        }
    told = {**asdict(config), "hidden": list(config.hidden)}
    return TrainedSource(kind, arrays, told, metrics={"epochs": fitted.best, **metrics})


def _contexts(
    histories: Histories, contexts: Mapping[str, FeatureMap]
) -> tuple[list[FeatureMap], np.ndarray]:
    """Return the contexts that there are, and the row of each user's, -1 for none."""
    said = [contexts[user] for user in histories.users if contexts.get(user)]
    known = np.array([bool(contexts.get(user)) for user in histories.users], np.bool_)
    rows = np.where(known, np.cumsum(known) - 1, -1).astype(np.int64)
    return said or [{}], rows


class _Fit:
    """A scorer as ``fit_network`` fits it."""

    def __init__(
        self,
        name: str,
        module: ScorerNetwork,
        taken: Interactions,
        rows: Tensor,
        judged: Tensor,
        config: ScorerConfig,
        seed: int,
    ) -> None:
        self.name, self.module = name, module
        self._taken, self._rows, self._judged = taken, rows, judged
        self._config = config
        self._owner = torch.from_numpy(taken.owner)
        self._item = torch.from_numpy(taken.item)
        self._label = torch.from_numpy((taken.weight > 0).astype(np.float32))
        # What is drawn often is not the less wanted for it.
        often = np.log(taken.items * taken.chances).astype(np.float32)
        self._often = torch.from_numpy(often)
        generator = torch.Generator().manual_seed(seed)
        others = taken.drawn((len(judged), DRAWN), generator)
        self._others = others
        foreign = ~taken.has(self._owner[judged], others)
        self._counts = foreign / torch.exp(self._often[others])

    def loss(self, rows: Tensor) -> Tensor:
        """Return the mean logistic loss of some interactions, and of what was drawn beside them."""
        own = self._rows[rows]
        owner, item, label = self._owner[own], self._item[own], self._label[own]
        drawn = self._taken.drawn((len(own), self._config.negatives))
        offered = torch.cat([item[:, None], drawn], dim=1)
        logits = self.module(self._taken.asked(own, self._config.history), offered)
        logits = logits - self._often[offered]

        # What was not taken in so many words stands for itself; nothing is drawn beside it.
        counts = ~self._taken.has(owner, drawn) & (label > 0)[:, None]
        counts = torch.cat([torch.ones(len(own), 1, dtype=torch.bool), counts], dim=1)
        labels = torch.cat([label[:, None], torch.zeros(drawn.shape)], dim=1)
        losses = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return (losses * counts).sum() / counts.sum()

    def quality(self) -> float:
        """Return the mean AUC of what was held out; of too few users, less the loss."""
        if not len(self._judged):
            with own_random_numbers(0):
                return -float(self.loss(torch.arange(min(len(self._rows), self._config.batch))))
        logits = self._logits()
        return float(_auc(logits, self._counts).mean())

    def _logits(self) -> Tensor:
        """Return the logits of what was held out, and behind it of those drawn, [n, 1 + DRAWN]."""
        items = torch.cat([self._item[self._judged][:, None], self._others], dim=1)
        parts = zip(
            self._judged.split(self._config.batch), items.split(self._config.batch), strict=True
        )
        return torch.cat(
            [
                self.module(self._taken.asked(rows, self._config.history), offered)
                for rows, offered in parts
            ]
        )

    def calibration(self) -> tuple[float, float, dict[str, float]]:
        """Return the slope and intercept that make logits probabilities, and what was measured.

        Those that were drawn count for as many as there are of their kind.
        """
        if not len(self._judged):
            # Of each that was taken, so many were shown; there are as many as there are items.
            return 1.0, float(np.log(self._config.negatives / self._taken.items)), {}
        with torch.no_grad():
            found = self._logits()
        logits = found.numpy().astype(np.float64)
        others = self._counts.numpy() * (self._taken.items / DRAWN)
        weights = np.concatenate([np.ones((len(logits), 1)), others], axis=1).ravel()
        labels = np.zeros(logits.shape)
        labels[:, 0] = 1.0

        flat, wanted = logits.ravel(), labels.ravel()
        slope, intercept = fit_logistic(flat, wanted, weights)
        share = np.full(flat.size, (weights * wanted).sum() / weights.sum())
        chance = probability(slope * flat + intercept)
        metrics = {
            "auc": float(_auc(found, self._counts).mean()),
            "log_loss": log_loss(chance, wanted, weights),
            "log_loss_of_share": log_loss(share, wanted, weights),
            "held_out": float(len(logits)),
        }
        return slope, intercept, metrics


def _auc(logits: Tensor, counts: Tensor) -> Tensor:
    """Return the share of the others that the first is above, by row, ties half.

    ``counts``: for how many each of them stands.
    """
    first, others = logits[:, :1], logits[:, 1:]
    above = (first > others).float() + 0.5 * (first == others).float()
    return (above * counts).sum(dim=1) / counts.sum(dim=1).clamp(min=1e-6)
