"""A small artifact of three sources with random arrays: what they were trained on does not matter."""

import numpy as np

from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import Artifact, TrainedSource

ITEMS = tuple(f"i{n:02}" for n in range(30))
NAMES = ("popular", "als", "item_knn")
HISTORIES = Histories(
    ITEMS, ("known",), np.array([0, 2]), np.array([0, 1], np.int32), np.ones(2, np.float32)
)


def make_artifact() -> Artifact:
    rng = np.random.default_rng(3)
    neighbours = np.argsort(rng.random((30, 30)), axis=1).astype(np.int32)
    return Artifact(
        tuple({"id": item, "features": {}} for item in ITEMS),
        ITEMS,
        {
            "popular": TrainedSource(
                "popular", {"counts": rng.integers(1, 90, 30).astype(np.float32)}
            ),
            "als": TrainedSource(
                "als",
                {"item_factors": rng.normal(size=(30, 4)).astype("f4")},
                {"alpha": 5.0, "regularization": 3.0},
            ),
            "item_knn": TrainedSource(
                "item_knn",
                {
                    "neighbours": neighbours,
                    "similarities": rng.uniform(0.1, 1, (30, 30)).astype("f4"),
                },
            ),
        },
    )
