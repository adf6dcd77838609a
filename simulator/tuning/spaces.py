"""What the hyperparameters of each source may be in a search."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from policies.artifacts.fitted_with import with_changes
from simulator.domains import ChoiceDomain, Domain, LogUniformDomain, UniformDomain, draw_from

if TYPE_CHECKING:
    from policies.training.fits import TrainConfig

DRAWS_PER_TRIAL: Final = 20
"""Draws in which a space that is nearly used up may find values that were not tried."""


@dataclass(frozen=True, slots=True)
class SourceSpace:
    """The space of one source.

    ``vary``: by field of its config, what it may be. ``epochs``: the field that says how long a fit
    goes on; the first rungs of a search give it a part of that. None: a fit is one piece.
    """

    vary: Mapping[str, Domain]
    epochs: str | None = None


_LAYERED_SCORER = SourceSpace(
    {
        "factors": ChoiceDomain([8, 16, 32]),
        "dropout": UniformDomain((0.0, 0.4)),
        "negatives": ChoiceDomain([2, 4, 8]),
        "learning_rate": LogUniformDomain((1e-3, 1e-2)),
        "weight_decay": LogUniformDomain((1e-7, 1e-4)),
    },
    epochs="epochs",
)
SPACES: Final[Mapping[str, SourceSpace]] = {
    "als": SourceSpace(
        {
            "factors": ChoiceDomain([16, 32, 64, 96, 128]),
            "regularization": LogUniformDomain((1.0, 300.0)),
            "alpha": LogUniformDomain((0.5, 50.0)),
        }
    ),
    "item_knn": SourceSpace(
        {
            "neighbours": ChoiceDomain([20, 50, 100, 200, 400]),
            "weighting": ChoiceDomain(["cosine", "tfidf", "bm25"]),
        }
    ),
    "ease": SourceSpace(
        {
            "regularization": LogUniformDomain((10.0, 3000.0)),
            "neighbours": ChoiceDomain([100, 200, 400, 800]),
        }
    ),
    "rp3beta": SourceSpace(
        {
            "alpha": UniformDomain((0.2, 1.5)),
            "beta": UniformDomain((0.0, 1.2)),
            "neighbours": ChoiceDomain([50, 100, 200, 400]),
        }
    ),
    "deep": SourceSpace(
        {
            "hidden": ChoiceDomain([100, 200, 400]),
            "dropout": UniformDomain((0.2, 0.7)),
            "learning_rate": LogUniformDomain((5e-4, 1e-2)),
        },
        epochs="epochs",
    ),
    "trending": SourceSpace({"half_life_days": LogUniformDomain((0.1, 120.0))}),
    "content": SourceSpace(
        {
            "size": ChoiceDomain([64, 128, 256]),
            "factors": ChoiceDomain([16, 32, 64]),
            "ridge": LogUniformDomain((0.3, 30.0)),
        }
    ),
    "content_tuned": SourceSpace(
        {
            "size": ChoiceDomain([32, 64, 128]),
            "steps": ChoiceDomain([0, 1, 2, 3]),
            "dropout": UniformDomain((0.1, 0.8)),
            "learning_rate": LogUniformDomain((1e-3, 3e-2)),
        },
        epochs="epochs",
    ),
    "fm": SourceSpace(
        {
            "factors": ChoiceDomain([8, 16, 32]),
            "negatives": ChoiceDomain([2, 4, 8]),
            "learning_rate": LogUniformDomain((1e-3, 1e-2)),
            "weight_decay": LogUniformDomain((1e-7, 1e-4)),
        },
        epochs="epochs",
    ),
    "wide_deep": _LAYERED_SCORER,
    "deepfm": _LAYERED_SCORER,
    "slit": SourceSpace(
        {
            "half_life": LogUniformDomain((1.0, 50.0)),
            "length": ChoiceDomain([10, 20, 50, 100]),
            "regularization": LogUniformDomain((100.0, 30_000.0)),
        }
    ),
    "sasrec": SourceSpace(
        {
            "factors": ChoiceDomain([32, 64, 128]),
            "blocks": ChoiceDomain([1, 2]),
            "heads": ChoiceDomain([1, 2]),
            "negatives": ChoiceDomain([64, 128, 256, 512]),
            "dropout": UniformDomain((0.1, 0.5)),
            "learning_rate": LogUniformDomain((5e-4, 5e-3)),
        },
        epochs="epochs",
    ),
    "gru4rec": SourceSpace(
        {
            "factors": ChoiceDomain([32, 64, 128]),
            "negatives": ChoiceDomain([64, 128, 256, 512]),
            "dropout": UniformDomain((0.1, 0.5)),
            "learning_rate": LogUniformDomain((5e-4, 5e-3)),
        },
        epochs="epochs",
    ),
    "towers": SourceSpace(
        {
            "factors": ChoiceDomain([32, 64, 96]),
            "hidden": ChoiceDomain([64, 128, 256]),
            "forget": UniformDomain((0.0, 0.3)),
            "dropout": UniformDomain((0.1, 0.6)),
            "learning_rate": LogUniformDomain((5e-4, 8e-3)),
        },
        epochs="epochs",
    ),
    "ncf": SourceSpace(
        {
            "factors": ChoiceDomain([16, 32, 64]),
            "hidden": ChoiceDomain([[32, 16], [64, 32], [128, 64]]),
            "negatives": ChoiceDomain([2, 4, 8]),
            "dropout": UniformDomain((0.1, 0.6)),
            "learning_rate": LogUniformDomain((5e-4, 8e-3)),
        },
        epochs="epochs",
    ),
}
"""The space of each source that has hyperparameters, by name."""


def values_to_try(source: str, trials: int, *, seed: int) -> list[dict[str, Any]]:
    """Return what to try, without repetition: the unchanged values first, which are {}.

    It does not matter which other sources are searched.

    Args:
        source: one of SPACES.
        trials: how many; fewer where the space has not so many.
        seed: of the draws.
    """
    rng = np.random.default_rng([seed, zlib.crc32(source.encode())])
    found: dict[bytes, dict[str, Any]] = {b"{}": {}}
    for _ in range(DRAWS_PER_TRIAL * trials):
        if len(found) >= trials:
            break
        drawn = {name: draw_from(domain, rng) for name, domain in SPACES[source].vary.items()}
        found.setdefault(msgspec.json.encode(drawn), drawn)
    return list(found.values())


def with_values(
    config: "TrainConfig", source: str, values: Mapping[str, Any], *, share: float = 1.0
) -> "TrainConfig":
    """Return the hyperparameters with those of one source changed.

    Args:
        config: of all sources.
        source: whose are changed.
        values: by field.
        share: of its epochs, where it has such.
    """
    epochs = SPACES[source].epochs
    if share < 1 and epochs is not None:
        whole = values.get(epochs, getattr(getattr(config, source), epochs))
        values = {**values, epochs: max(1, round(share * whole))}
    return with_changes(config, {source: values})
