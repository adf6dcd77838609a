"""A trial: a source is fitted with some values, and judged by what users did next."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bandits.errors import BanditloopError
from bandits.types import Float64
from simulator.ranking.asking import TrainedModels, ask, best_of
from simulator.ranking.metrics.lists import hits_of, ndcg
from simulator.ranking.task import RankingTask
from simulator.tuning.spaces import with_values

if TYPE_CHECKING:
    from policies.training.fits import TrainConfig
    from policies.training.training_data import TrainingData

K: Final = 10


@dataclass(frozen=True, slots=True)
class FitTask:
    """What a trial fits: a source, the values that differ, and the share of its epochs."""

    source: str
    trial: int
    values: Mapping[str, Any]
    share: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class FitPart:
    """What trials are fitted on, and the users who judge them."""

    data: "TrainingData"
    judges: RankingTask


def score_source(
    task: FitTask, part: FitPart, config: "TrainConfig", seed: int, folder: Path
) -> dict[str, Any]:
    """Return ``ndcg``, of each user who judges, and ``seconds``; or ``note``, why there is none.

    Args:
        task: the trial.
        part: what it is fitted on, and who judges.
        config: the hyperparameters that its values differ from.
        seed: of all random numbers.
        folder: where a network's fit keeps how far it has come: the next rung goes on from there.
    """
    from policies.sources import model_of  # noqa: PLC0415 - as all that imports torch
    from policies.training.fits import FITS  # noqa: PLC0415
    from policies.training.neural.checkpoints import FolderCheckpoints  # noqa: PLC0415
    from policies.training.training_data import Course  # noqa: PLC0415

    began = time.process_time()
    items = part.data.histories.items
    try:
        tried = with_values(config, task.source, task.values, share=task.share)
        reason = FITS[task.source].why_not(part.data, tried)
        if reason:
            return {"note": reason, "seconds": 0.0}

        kept = FolderCheckpoints(folder / f"{task.source}-{task.trial}")
        course = Course(seed, checkpoints=kept)
        fitted = FITS[task.source].fit(part.data, tried, course)
        model = model_of(fitted, items, part.data.items)
        trained = TrainedModels(items, {task.source: model}, {task.source: fitted.scale})
        judged = ndcg_of_users(trained, task.source, part.judges)
    except BanditloopError as error:  # the next values may be less extreme
        return {"note": error.message, "seconds": time.process_time() - began}
    return {"ndcg": judged.tolist(), "seconds": time.process_time() - began}


def ndcg_of_users(trained: TrainedModels, source: str, judges: RankingTask) -> Float64:
    """Return nDCG@10 of the lists of each user, float64[users].

    Args:
        trained: the sources.
        source: whose lists.
        judges: the users.
    """
    lists = np.concatenate(
        [best_of(answers.open[source], K) for answers in ask(trained, judges.known)]
    )
    return ndcg(hits_of(lists, judges.relevant, K))
