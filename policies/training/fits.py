"""The sources that can be trained: how each is fitted, and on what it cannot be.

``policies.sources.local`` loads what is fitted here, by kind.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from bandits.errors import ArtifactError
from policies.artifacts.source_artifact import TrainedSource
from policies.training.content.descriptions import ContentConfig
from policies.typed_yaml import nearest

try:
    from policies.training.calibration import calibrate
    from policies.training.cf import AlsConfig, KnnConfig, fit_als, fit_item_knn
    from policies.training.content.fine_tuning import FineTuneConfig, fit_tuned_content
    from policies.training.content.fit import fit_content, why_no_content
    from policies.training.deep import DeepConfig, fit_deep
    from policies.training.ease import EaseConfig, fit_ease
    from policies.training.popular import fit_popular
    from policies.training.rp3beta import Rp3betaConfig, fit_rp3beta
    from policies.training.scorers.fit import fit_scorer, why_no_scorer
    from policies.training.scorers.network import ScorerConfig
    from policies.training.sequence.gru4rec import Gru4RecConfig, fit_gru4rec
    from policies.training.sequence.next_item import SequenceConfig
    from policies.training.sequence.order import in_order
    from policies.training.sequence.sasrec import SasRecConfig, fit_sasrec
    from policies.training.sequence.slit import SlitConfig, fit_slit
    from policies.training.towers.fit import fit_towers
    from policies.training.towers.ncf import NcfConfig, fit_ncf
    from policies.training.towers.network import TowersConfig
    from policies.training.training_data import Course, TrainingData
    from policies.training.trending import TrendingConfig, fit_trending, timed_events
except ModuleNotFoundError as missing:
    package = str(missing.name).partition(".")[0]
    raise ArtifactError(f"training needs {package}: pip install 'banditloop[train]'") from missing


EVERY: Final = "all"
"""Asks for every source that can be fitted, also such as are seldom worth their time."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """The hyperparameters of each source."""

    als: AlsConfig = field(default_factory=AlsConfig)
    item_knn: KnnConfig = field(default_factory=KnnConfig)
    ease: EaseConfig = field(default_factory=EaseConfig)
    rp3beta: Rp3betaConfig = field(default_factory=Rp3betaConfig)
    deep: DeepConfig = field(default_factory=DeepConfig)
    fm: ScorerConfig = field(default_factory=ScorerConfig)
    wide_deep: ScorerConfig = field(
        default_factory=lambda: ScorerConfig(pairs=False, crosses=128, hidden=(64, 32))
    )
    deepfm: ScorerConfig = field(default_factory=lambda: ScorerConfig(hidden=(64, 32)))
    trending: TrendingConfig = field(default_factory=TrendingConfig)
    content: ContentConfig = field(default_factory=ContentConfig)
    content_tuned: FineTuneConfig = field(default_factory=FineTuneConfig)
    slit: SlitConfig = field(default_factory=SlitConfig)
    sasrec: SasRecConfig = field(default_factory=SasRecConfig)
    gru4rec: Gru4RecConfig = field(default_factory=Gru4RecConfig)
    towers: TowersConfig = field(default_factory=TowersConfig)
    ncf: NcfConfig = field(default_factory=NcfConfig)


Fit = Callable[[TrainingData, TrainConfig, Course], TrainedSource]
"""Fits a source, given what it is fitted on, all hyperparameters, and how the fit is to go."""
Reason = Callable[[TrainingData, TrainConfig], str]
"""Why a source cannot be fitted on these; "" if it can."""


@dataclass(frozen=True, slots=True)
class SourceFit:
    """How one source is fitted, and why not.

    ``usual``: whether it is fitted where nobody says which sources are wanted; ``network``: whether
    it is fitted by ``fit_network``, which several workers can do together.
    """

    fit: Fit
    why_not: Reason
    usual: bool = True
    network: bool = False


def _no_weight(data: TrainingData, _config: TrainConfig) -> str:
    return "" if (data.histories.weights > 0).any() else "no interaction has a weight above 0"


def _too_few(data: TrainingData, config: TrainConfig) -> str:
    if len(data.histories.items) < 2:
        return "there is one item, and it takes two to be alike"
    if not (np.diff(data.histories.starts) > 1).any():
        return "no user has two items"
    return _no_weight(data, config)


def _too_many(data: TrainingData, most: int, why: str) -> str:
    """Return that there are more items than a source takes, and why it does not; empty: it does."""
    items = len(data.histories.items)
    return f"{items:,} items are more than {most:,}: {why}" if items > most else ""


def _takes(bytes_: float) -> str:
    return f"it would take {bytes_ / 2**30:,.1f} GiB of memory"


def _too_many_for_ease(data: TrainingData, config: TrainConfig) -> str:
    memory = 4 * len(data.histories.items) ** 2
    return _too_many(data, config.ease.max_items, _takes(memory)) or _too_few(data, config)


def _too_many_for_deep(data: TrainingData, config: TrainConfig) -> str:
    # Two layers; each weight has a gradient and two moments.
    memory = 2 * 4 * 4 * len(data.histories.items) * config.deep.hidden
    why = f"{_takes(memory)}, and see too few users in the time there is"
    return _too_many(data, config.deep.max_items, why) or _too_few(data, config)


def _too_many_for_towers(data: TrainingData, config: TrainConfig) -> str:
    # Each item's row has a gradient and two moments.
    memory = 4 * 4 * len(data.histories.items) * (config.towers.factors + 1)
    return _too_many(data, config.towers.max_items, _takes(memory)) or _too_few(data, config)


def _too_many_for_ncf(data: TrainingData, config: TrainConfig) -> str:
    why = "a request would go through the layers with each of them"
    return _too_many(data, config.ncf.max_items, why) or _too_few(data, config)


def _no_times(data: TrainingData, config: TrainConfig) -> str:
    histories = data.histories
    if histories.times is None or not (histories.times >= 0).any():
        return "the events have no times"
    if not timed_events(histories).time.size:
        return "no event with a time has a weight above 0"
    return _no_weight(data, config)


def _no_order(data: TrainingData, config: TrainConfig) -> str:
    times = data.histories.times
    if times is None or not (times >= 0).any():
        return "the events have no times, and so no order"
    if not in_order(data.histories).after.any():
        return "no user has two items with a weight above 0"
    return _too_few(data, config)


def _no_sequences(data: TrainingData, config: TrainConfig, own: SequenceConfig) -> str:
    why = f"{_takes(own.memory(len(data.histories.items)))}, and long steps"
    return _too_many(data, own.max_items, why) or _no_order(data, config)


def _too_many_for_slit(data: TrainingData, config: TrainConfig) -> str:
    memory = 8 * len(data.histories.items) ** 2
    return _too_many(data, config.slit.max_items, _takes(memory)) or _no_order(data, config)


def _no_content(data: TrainingData, config: TrainConfig) -> str:
    return why_no_content(data.histories, data.said) or _no_weight(data, config)


FITS: Final[Mapping[str, SourceFit]] = {
    "als": SourceFit(
        lambda data, config, course: fit_als(
            data.histories, config.als, seed=course.seed, step=course.step
        ),
        _too_few,
    ),
    "item_knn": SourceFit(
        lambda data, config, course: fit_item_knn(
            data.histories, config.item_knn, step=course.step
        ),
        _too_few,
    ),
    "ease": SourceFit(
        lambda data, config, course: fit_ease(data.histories, config.ease, step=course.step),
        _too_many_for_ease,
    ),
    "rp3beta": SourceFit(
        lambda data, config, course: fit_rp3beta(data.histories, config.rp3beta, step=course.step),
        _too_few,
    ),
    "deep": SourceFit(
        lambda data, config, course: fit_deep(data.histories, config.deep, course),
        _too_many_for_deep,
        network=True,
    ),
    "fm": SourceFit(
        lambda data, config, course: fit_scorer("fm", data, config.fm, course),
        lambda data, _config: why_no_scorer(data),
        usual=False,
        network=True,
    ),
    "wide_deep": SourceFit(
        lambda data, config, course: fit_scorer("wide_deep", data, config.wide_deep, course),
        lambda data, _config: why_no_scorer(data),
        usual=False,
        network=True,
    ),
    "deepfm": SourceFit(
        lambda data, config, course: fit_scorer("deepfm", data, config.deepfm, course),
        lambda data, _config: why_no_scorer(data),
        usual=False,
        network=True,
    ),
    "popular": SourceFit(
        lambda data, _config, course: fit_popular(data.histories, step=course.step),
        _no_weight,
    ),
    "trending": SourceFit(
        lambda data, config, course: fit_trending(
            data.histories, config.trending, step=course.step
        ),
        _no_times,
    ),
    "content": SourceFit(
        lambda data, config, course: fit_content(
            data.histories, data.said, config.content, seed=course.seed, step=course.step
        ),
        _no_content,
    ),
    "content_tuned": SourceFit(
        lambda data, config, course: fit_tuned_content(
            data, config.content, config.content_tuned, course
        ),
        lambda data, config: _no_content(data, config) or _too_few(data, config),
        usual=False,
        network=True,
    ),
    "slit": SourceFit(
        lambda data, config, course: fit_slit(data.histories, config.slit, step=course.step),
        _too_many_for_slit,
        usual=False,
    ),
    "sasrec": SourceFit(
        lambda data, config, course: fit_sasrec(data.histories, config.sasrec, course),
        lambda data, config: _no_sequences(data, config, config.sasrec),
        usual=False,
        network=True,
    ),
    "gru4rec": SourceFit(
        lambda data, config, course: fit_gru4rec(data.histories, config.gru4rec, course),
        lambda data, config: _no_sequences(data, config, config.gru4rec),
        usual=False,
        network=True,
    ),
    "towers": SourceFit(
        lambda data, config, course: fit_towers(data, config.towers, config.content, course),
        _too_many_for_towers,
        usual=False,
        network=True,
    ),
    "ncf": SourceFit(
        lambda data, config, course: fit_ncf(data.histories, config.ncf, course),
        _too_many_for_ncf,
        usual=False,
        network=True,
    ),
}
"""Every source that can be trained, by name."""
READS_CONTENT: Final = frozenset({"content", "content_tuned", "towers"})
"""Those that read texts and vectors of items by ``TrainConfig.content``."""


def choose_sources(
    names: Sequence[str] | None, data: TrainingData, config: TrainConfig
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the sources to fit, and by name of those left out the reason.

    Args:
        names: what is wanted; None for every usual source that can be fitted; ``all`` alone for
            every source that can be.
        data: what they are fitted on.
        config: the hyperparameters.

    Raises:
        ArtifactError: there is no name, one is none of FITS, a source that was named cannot be
            fitted, or none of all can.
    """
    wanted = [name for name, each in FITS.items() if each.usual] if names is None else list(names)
    if wanted == [EVERY]:
        names, wanted = None, list(FITS)
    if not wanted:
        raise ArtifactError(f"no source is named: there are {', '.join(FITS)}", "sources")
    if EVERY in wanted:
        raise ArtifactError(f"{EVERY!r} stands alone: leave the others out", "sources")
    for name in wanted:
        if name not in FITS:
            hint = nearest(name, list(FITS))
            raise ArtifactError(
                f"no source {name!r} can be trained: {hint}there are {', '.join(FITS)}", "sources"
            )

    reasons = {name: FITS[name].why_not(data, config) for name in wanted}
    left_out = {name: reason for name, reason in reasons.items() if reason}
    if left_out and (names or len(left_out) == len(wanted)):
        because = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ArtifactError(f"sources that cannot be trained on this data: {because}", "sources")
    return tuple(name for name in reasons if name not in left_out), left_out


def fit_source(name: str, data: TrainingData, config: TrainConfig, course: Course) -> TrainedSource:
    """Return the source of this name, fitted and calibrated: the same for the same seed.

    Args:
        name: one of FITS, for which nothing speaks against it.
        data: what it is fitted on.
        config: the hyperparameters.
        course: how the fit is to go.
    """
    fitted = FITS[name].fit(data, config, course)
    return replace(fitted, scale=calibrate(fitted, data.histories, data.items, seed=course.seed))
