"""A shop of two tastes: its log, and artifacts that know the tastes, do not, or know them louder."""

from dataclasses import replace

import msgspec
import numpy as np
from support.fakes import SALT, FakeLog

from bandits.exploration import Softmax
from bandits.log.join import JoinRule
from bandits.log.records import DecisionRecord, RewardRecord, TickRecord
from bandits.ridge.config import RidgeConfig
from policies.artifacts.source_artifact import Artifact, Calibration, TrainedSource, write
from policies.data.coded import CodedEvents
from policies.items.catalogue import Catalogue
from policies.pseudonyms import pseudonym
from policies.spec import ArtifactSource, PolicySpec
from simulator.refresh.rewarded import coded_events

ITEMS = tuple(f"i{number:02}" for number in range(100))
USERS = 60
CATALOGUE = [{"id": item, "features": {}} for item in ITEMS]
SPEC = PolicySpec(
    "shop",
    sources=[ArtifactSource("item_knn")],
    artifact="artifacts/shop",
    use=["scores"],
    limit=10,
    learner=RidgeConfig(),
    exploration=Softmax(temperature=0.05),
    join=JoinRule(window_s=10.0),
)
STEP_MS = 1000


def artifact(tmp_path, *, knows: bool = True, std: float = 10.0, items=ITEMS) -> Artifact:
    """One that was written and read: items of a taste are alike, or those of the other one are."""
    places = np.arange(len(items))
    order = [
        np.concatenate([places[(places % 2 == place % 2) == knows], places])[: len(items) // 2]
        for place in places
    ]
    neighbours = np.array(order, np.int32)
    similarities = np.full(neighbours.shape, 0.5, np.float32)
    source = TrainedSource(
        "item_knn",
        {"neighbours": neighbours, "similarities": similarities},
        scale=Calibration(0.0, std),
    )
    made = Artifact(
        tuple({"id": each, "features": {}} for each in items), items, {"item_knn": source}
    )
    version = write(made, tmp_path / "artifacts")
    return replace(made, version=version)


def history() -> CodedEvents:
    """Five items of its own taste for each user, long ago, by the user's own id."""
    rng = np.random.default_rng(1)
    user = np.repeat(np.arange(USERS), 5)
    item = np.concatenate(
        [rng.choice(np.arange(each % 2, len(ITEMS), 2), 5, replace=False) for each in range(USERS)]
    )
    count = len(user)
    return coded_events(
        [f"u{number}" for number in range(USERS)],
        list(ITEMS),
        ("view",),
        user,
        item,
        np.zeros(count, np.int16),
        np.full(count, 5),
        np.full(count, np.nan),
        np.ones(count),
    )


def shop_log(
    decisions: int,
    *,
    spec: PolicySpec = SPEC,
    seed: int = 0,
    named: bool = True,
    rewarded: bool = True,
    salt: bytes = SALT,
) -> FakeLog:
    """Decisions among eight items, chosen uniformly; who is offered the own taste takes it.

    Scores are those of an artifact that knows the tastes.
    """
    rng = np.random.default_rng(seed)
    log, catalogue = FakeLog(spec), Catalogue.of(CATALOGUE)
    log.blobs[catalogue.digest] = catalogue.encoded
    at = 10_000
    for number in range(decisions):
        user = int(rng.integers(USERS))
        items = rng.choice(len(ITEMS), 8, replace=False)
        chosen = int(rng.integers(8))
        likes = items % 2 == user % 2
        record = DecisionRecord(
            event_id=f"e{number}",
            policy="shop",
            spec=spec.digest,
            snapshot_id="s",
            catalogue=catalogue.digest,
            context={},
            action_ids=[ITEMS[item] for item in items],
            features=None,
            scores={"item_knn": likes.astype("<f4").tobytes()},
            pmf=np.full(8, 1 / 8).tobytes(),
            chosen=[chosen],
            user=pseudonym(salt, f"u{user}") if named else None,
        )
        log.append(record, at=at)
        if rewarded and rng.random() < (0.7 if likes[chosen] else 0.1):
            log.append(RewardRecord(f"e{number}", 1.0), at=at + 100)
        at += STEP_MS
    log.append(TickRecord(), at=at + 60_000)
    return log


def spec_with(**changes) -> PolicySpec:
    return msgspec.structs.replace(SPEC, **changes)
