"""Random decisions with all that a record may say of features, and their rows."""

import numpy as np
from support.logs import decision

from bandits.log.join import JoinedDecision
from policies.items.catalogue import Catalogue, Item
from simulator.logs.archive.rows import decision_rows
from simulator.logs.rows import LoggedDecision

CATALOGUE = Catalogue(
    [Item(f"i{n}", {"price": float(n), "tags": ["x", f"t{n % 3}"]}) for n in range(6)]
    + [Item("i6", {"new": True}), Item("i7", {})]
)
CONTEXTS = (
    {},
    {"hour": 3.0},
    {"hour": -0.0, "device": "phone"},
    {"device": "12.50", "hour": 0.0, "live": True},
    {"live": False, "tags": ["b", "a", "7"], "hour": 1e-7, "zeta": []},
    {"tags": [], "größe": 1 / 3},
)
OWN = (None, {}, {"topic": "sport"}, {"price": 2.5, "tags": ["x", "y"]}, {"live": False})


def random_rows(count: int, seed: int = 0, *, inline: bool = True) -> list[LoggedDecision]:
    """The slots of so many decisions: slates, scores, features of requests and of a catalogue."""
    rng = np.random.default_rng(seed)
    rows: list[LoggedDecision] = []
    for number in range(count):
        ids = [f"i{n}" for n in rng.choice(9, int(rng.integers(2, 8)), replace=False)]
        slots = int(rng.integers(1, min(4, len(ids) + 1)))
        scores = {}
        for source in ("cf", "deep", "popular")[: int(rng.integers(0, 4))]:
            values = rng.integers(-3, 3, len(ids)).astype(np.float32)
            values[rng.random(len(ids)) < 0.3] = np.nan
            scores[source] = values.tobytes()
        features = None
        if inline and rng.random() < 0.5:
            features = [OWN[n] for n in rng.integers(0, len(OWN), len(ids))]

        known = CATALOGUE if rng.random() < 0.7 else Catalogue()
        record = decision(
            f"event-{number}-é",
            ids=tuple(ids),
            chosen=tuple(rng.choice(len(ids), slots, replace=False).tolist()),
            context=CONTEXTS[int(rng.integers(len(CONTEXTS)))],
            features=features,
            scores=scores,
            catalogue=known.digest,
        )
        joined = JoinedDecision(
            f"{1_700_000_000_000 + number}-0",
            record,
            tuple(range(slots)),
            tuple(rng.normal(size=slots).tolist()),
        )
        rows += decision_rows(joined, known)
    return rows
