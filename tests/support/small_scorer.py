"""A scorer whose numbers are made up: it is loaded and asked as a fitted one is."""

import numpy as np

from bandits.features.namespaces import CONTEXT, FEATURES
from policies.artifacts.source_artifact import Artifact, TrainedSource
from policies.encoding import hash_pairs

ITEMS = ("a", "b", "c")
TOLD = {"a": {"colour": "red"}, "b": {"colour": "green"}, "c": {"colour": "red", "size": 2.0}}
CATALOGUE = tuple({"id": item, "features": told} for item, told in TOLD.items())
FACTORS = 3


def small_scorer(kind="fm", *, seed=1):
    """Return a factorisation machine, or a DeepFM, of three items; contexts say who likes what."""
    rng = np.random.default_rng(seed)
    arrays = {"bias": np.zeros(1, np.float32), "calibration": np.array([1.0, -2.0], np.float32)}
    for name, namespace, maps in (
        ("feature", FEATURES, list(TOLD.values())),
        ("context", CONTEXT, [{"likes": "red"}, {"likes": "green"}]),
    ):
        hashes = sorted({hashed for told in maps for hashed, _ in hash_pairs(told, namespace)})
        fields = 2 if name == "feature" else 1
        arrays |= {
            f"{name}_hashes": np.array(hashes, np.uint32),
            f"{name}_fields": (np.arange(len(hashes)) % fields).astype(np.int32),
            f"{name}_scales": np.ones(len(hashes), np.float32),
            f"{name}_widths": np.ones(fields, np.int32),
            f"{name}_vectors": rng.normal(size=(len(hashes), FACTORS)),
            f"{name}_linear": rng.normal(size=len(hashes)),
        }
    arrays |= {
        "item_vectors": rng.normal(size=(len(ITEMS) + 1, FACTORS)),
        "item_linear": rng.normal(size=len(ITEMS) + 1),
        "history_vectors": rng.normal(size=(len(ITEMS), FACTORS)),
        "last_vectors": rng.normal(size=(len(ITEMS), FACTORS)),
    }
    if kind == "deepfm":
        fields = 2 + 1 + 1 + 2
        for number, (above, below) in enumerate([(fields * FACTORS, 4), (4, 1)]):
            arrays[f"weight_{number}"] = rng.normal(size=(above, below))
            arrays[f"bias_{number}"] = rng.normal(size=below)
    kept = {"float64": "float32"}
    arrays = {n: a.astype(kept.get(a.dtype.name, a.dtype)) for n, a in arrays.items()}
    return TrainedSource(kind, arrays, {"history": 50})


def small_scorer_artifact(*kinds):
    """Return scorers with a source that proposes: everything, most popular first."""
    counts = np.array([3.0, 2.0, 1.0], np.float32)
    popular = TrainedSource("popular", {"counts": counts})
    scorers = {kind: small_scorer(kind) for kind in kinds}
    return Artifact(CATALOGUE, ITEMS, {"popular": popular, **scorers})
