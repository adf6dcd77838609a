"""The sources that can be trained: how each is fitted, and on what it cannot be.

``policies.sources.local`` loads what is fitted here, by kind.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from bandits.errors import ArtifactError
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import Calibration, TrainedSource
from policies.sources import load_model
from policies.training.content.descriptions import ContentConfig, Descriptions
from policies.typed_yaml import nearest

try:
    from policies.training.cf import AlsConfig, KnnConfig, Step, fit_als, fit_item_knn
    from policies.training.content.fit import fit_content, why_no_content
    from policies.training.deep import DeepConfig, fit_deep
    from policies.training.ease import EaseConfig, fit_ease
    from policies.training.popular import fit_popular
    from policies.training.rp3beta import Rp3betaConfig, fit_rp3beta
    from policies.training.trending import TrendingConfig, fit_trending, timed_events
except ModuleNotFoundError as missing:
    package = str(missing.name).partition(".")[0]
    raise ArtifactError(f"training needs {package}: pip install 'banditloop[train]'") from missing

CALIBRATION_TOP: Final = 50
"""Best candidates by user that scores are calibrated on: about as many as a request asks for."""
CALIBRATION_USERS: Final = 1000
"""Users that scores are calibrated on, drawn where there are more."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """The hyperparameters of each source."""

    als: AlsConfig = field(default_factory=AlsConfig)
    item_knn: KnnConfig = field(default_factory=KnnConfig)
    ease: EaseConfig = field(default_factory=EaseConfig)
    rp3beta: Rp3betaConfig = field(default_factory=Rp3betaConfig)
    deep: DeepConfig = field(default_factory=DeepConfig)
    trending: TrendingConfig = field(default_factory=TrendingConfig)
    content: ContentConfig = field(default_factory=ContentConfig)


Fit = Callable[[Histories, Descriptions, TrainConfig, int, Step], TrainedSource]
"""Fits a source, given who did what, what is said of items, all hyperparameters, a seed, and whom
to tell of steps."""
Reason = Callable[[Histories, Descriptions, TrainConfig], str]
"""Why a source cannot be fitted on these; "" if it can."""


@dataclass(frozen=True, slots=True)
class SourceFit:
    """How one source is fitted, and why not."""

    fit: Fit
    why_not: Reason


def _no_weight(histories: Histories, _said: Descriptions, _config: TrainConfig) -> str:
    return "" if (histories.weights > 0).any() else "no interaction has a weight above 0"


def _too_few(histories: Histories, said: Descriptions, config: TrainConfig) -> str:
    if len(histories.items) < 2:
        return "there is one item, and it takes two to be alike"
    if not (np.diff(histories.starts) > 1).any():
        return "no user has two items"
    return _no_weight(histories, said, config)


def _too_many_for_ease(histories: Histories, said: Descriptions, config: TrainConfig) -> str:
    items, most = len(histories.items), config.ease.max_items
    if items > most:
        return (
            f"{items:,} items are more than {most:,}: it would take"
            f" {4 * items**2 / 2**30:,.1f} GiB of memory"
        )
    return _too_few(histories, said, config)


def _too_many_for_deep(histories: Histories, said: Descriptions, config: TrainConfig) -> str:
    items, most = len(histories.items), config.deep.max_items
    if items > most:
        # Two layers; each weight has a gradient and two moments.
        memory = 2 * 4 * 4 * items * config.deep.hidden
        return (
            f"{items:,} items are more than {most:,}: it would take {memory / 2**30:,.1f} GiB of"
            " memory, and see too few users in the time there is"
        )
    return _too_few(histories, said, config)


def _no_times(histories: Histories, said: Descriptions, config: TrainConfig) -> str:
    if histories.times is None or not (histories.times >= 0).any():
        return "the events have no times"
    if not timed_events(histories).time.size:
        return "no event with a time has a weight above 0"
    return _no_weight(histories, said, config)


def _no_content(histories: Histories, said: Descriptions, config: TrainConfig) -> str:
    return why_no_content(histories, said) or _no_weight(histories, said, config)


FITS: Final[Mapping[str, SourceFit]] = {
    "als": SourceFit(
        lambda histories, _said, config, seed, step: fit_als(
            histories, config.als, seed=seed, step=step
        ),
        _too_few,
    ),
    "item_knn": SourceFit(
        lambda histories, _said, config, _seed, step: fit_item_knn(
            histories, config.item_knn, step=step
        ),
        _too_few,
    ),
    "ease": SourceFit(
        lambda histories, _said, config, _seed, step: fit_ease(histories, config.ease, step=step),
        _too_many_for_ease,
    ),
    "rp3beta": SourceFit(
        lambda histories, _said, config, _seed, step: fit_rp3beta(
            histories, config.rp3beta, step=step
        ),
        _too_few,
    ),
    "deep": SourceFit(
        lambda histories, _said, config, seed, step: fit_deep(
            histories, config.deep, seed=seed, step=step
        ),
        _too_many_for_deep,
    ),
    "popular": SourceFit(
        lambda histories, _said, _config, _seed, step: fit_popular(histories, step=step),
        _no_weight,
    ),
    "trending": SourceFit(
        lambda histories, _said, config, _seed, step: fit_trending(
            histories, config.trending, step=step
        ),
        _no_times,
    ),
    "content": SourceFit(
        lambda histories, said, config, seed, step: fit_content(
            histories, said, config.content, seed=seed, step=step
        ),
        _no_content,
    ),
}
"""Every source that can be trained, by name."""


def choose_sources(
    names: Sequence[str] | None, histories: Histories, said: Descriptions, config: TrainConfig
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the sources to fit, and by name of those left out the reason.

    Args:
        names: what is wanted; None for every source that can be fitted.
        histories: what they are fitted on.
        said: of the items.
        config: the hyperparameters.

    Raises:
        ArtifactError: a name is none of FITS, a source that was named cannot be fitted, or none of
            all can.
    """
    for name in names or ():
        if name not in FITS:
            hint = nearest(name, list(FITS))
            raise ArtifactError(
                f"no source {name!r} can be trained: {hint}there are {', '.join(FITS)}", "sources"
            )

    reasons = {name: FITS[name].why_not(histories, said, config) for name in names or FITS}
    left_out = {name: reason for name, reason in reasons.items() if reason}
    if left_out and (names or len(left_out) == len(FITS)):
        because = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ArtifactError(f"sources that cannot be trained on this data: {because}", "sources")
    return tuple(name for name in reasons if name not in left_out), left_out


def fit_source(
    name: str,
    histories: Histories,
    said: Descriptions,
    config: TrainConfig,
    *,
    seed: int,
    step: Step,
) -> TrainedSource:
    """Return the source of this name, fitted and calibrated: the same for the same seed.

    Args:
        name: one of FITS, for which nothing speaks against it.
        histories: what it is fitted on.
        said: of the items.
        config: the hyperparameters.
        seed: of all random numbers.
        step: told (done, total) after each step.
    """
    fitted = FITS[name].fit(histories, said, config, seed, step)
    return replace(fitted, scale=calibrate(fitted, histories, seed=seed))


def calibrate(source: TrainedSource, histories: Histories, *, seed: int = 0) -> Calibration:
    """Return mean and standard deviation of the raw scores of known users' best candidates.

    Args:
        source: what is calibrated.
        histories: what it was fitted on.
        seed: of the users that are drawn, where there are many.
    """
    model = load_model(source, len(histories.items))
    users = np.arange(len(histories.users))
    if users.size > CALIBRATION_USERS:
        rng = np.random.default_rng(seed)
        users = np.sort(rng.choice(users, CALIBRATION_USERS, replace=False))

    best = []
    for user in users.tolist():
        indices, weights = histories.row(user)
        if model.needs_history and not weights.any():
            continue
        scores = model.raw(indices, weights).astype(np.float64)
        scores[indices] = -np.inf
        if scores.size > CALIBRATION_TOP:
            scores = np.partition(scores, -CALIBRATION_TOP)[-CALIBRATION_TOP:]
        best.append(np.sort(scores))

    pooled = np.concatenate([np.zeros(0), *best])
    pooled = pooled[np.isfinite(pooled) & (pooled > model.floor)]
    # Too few items, or all alike, are nothing to calibrate by.
    if pooled.size == 0 or pooled.std() == 0:
        return Calibration()
    return Calibration(float(pooled.mean()), float(pooled.std()))
