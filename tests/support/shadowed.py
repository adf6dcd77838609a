"""Logs of a policy that has shadows, as its own learner and replica would have made them."""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
from support.fakes import SALT, FakeLog, FakePast, FakeSource

from bandits.errors import CodecError
from bandits.log.codec import encode
from bandits.log.encoded_decisions import read_entries
from bandits.log.records import (
    CatalogueRecord,
    CheckpointRecord,
    DecisionRecord,
    LogEntry,
    RewardRecord,
    TickRecord,
)
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue, Item
from policies.ranker import Ranker
from policies.requests import ActionRequest, RankRequest
from policies.shadows.fold import ShadowFold
from policies.shadows.following import DecisionPmfs, ShadowFollower
from policies.shadows.opening import shadows_of
from policies.spec import PolicySpec

IDS = tuple(f"i{k}" for k in range(9))
ITEMS = Catalogue([Item(name, {"size": float(k)}) for k, name in enumerate(IDS)])
ROUNDS, EACH = 24, 3
KEPT = (5, 11, 17)
"""Rounds after which there is a checkpoint."""

Pays = Callable[[DecisionRecord, np.random.Generator], float]


def evenly(_record: DecisionRecord, rng: np.random.Generator) -> float:
    return float(rng.random() < 0.5)


def served(
    spec: PolicySpec,
    *,
    rounds: int = ROUNDS,
    each_round: int = EACH,
    slots: int = 1,
    pays: Pays = evenly,
    ids: tuple[str, ...] = IDS,
    end: bool = True,
) -> FakeLog:
    """Some decisions a second, each made by what was learned before its second, and paid at once."""
    rng = np.random.default_rng(5)
    sources = [
        FakeSource(each.name, dict(zip(IDS, rng.normal(size=9).tolist(), strict=True)))
        for each in spec.sources
    ]
    ranker, log = Ranker(spec, sources, salt=SALT), FakeLog(spec)
    ranker.offer(ITEMS)
    log.blobs[ITEMS.digest] = ITEMS.encoded
    log.append(CatalogueRecord(ITEMS.digest), at=2)
    fold, applied, changes = Fold(log.blobs.__getitem__, salt=SALT), 0, -1
    actions = None if sources else [ActionRequest(name) for name in ids]
    with asyncio.Runner() as runner:
        for number in range(rounds):
            now = 1000 * (10 + number)
            fold.apply(log.entries[applied:])
            applied = len(log.entries)
            if fold.changes != changes or log.entries[-1].record == CheckpointRecord():
                ranker.serve(f"s{number}", fold.snapshot())
                changes = fold.changes
            for place in range(each_round):
                context = {"hour": float(number % 5), "device": f"d{place % 3}"}
                request = RankRequest(
                    f"e{number}-{place}",
                    user_id=f"u{number % 7}",
                    context=context,
                    actions=actions,
                    slots=slots,
                )
                record = ranker.decide(request, runner.run(ranker.pool(request)))
                at = now + 800 * place // each_round
                log.append(record, at=at)
                log.append(RewardRecord(record.event_id, pays(record, rng), "r"), at=at)
            log.append(CheckpointRecord() if number in KEPT else TickRecord(), at=now + 900)
    if end:
        log.append(TickRecord(), at=1000 * (rounds + 200))
    return log


def shadow_of(spec: PolicySpec, number: int = 0) -> PolicySpec:
    """One of a policy's shadows, which can be followed."""
    shadow = shadows_of(spec)[number]
    assert shadow.spec is not None, shadow.refused
    return shadow.spec


def follower_of(
    shadow: PolicySpec, log: FakeLog, kept: dict[str, bytes] | None = None
) -> ShadowFollower:
    """One that begins where the log does; ``kept``: where its checkpoints are put."""
    states = {} if kept is None else kept
    fold = ShadowFold(
        shadow,
        log.blobs.__getitem__,
        salt=SALT,
        past=FakePast(log),
        on_checkpoint=lambda at, data: states.update({at: data()}),
    )
    return ShadowFollower(shadow, fold)


def said(shadow: PolicySpec, log: FakeLog) -> list[DecisionPmfs]:
    """What a shadow says of a whole log."""
    return list(follower_of(shadow, log).follow(encoded(log.entries)))


def encoded(entries: list[LogEntry]) -> list[LogEntry]:
    """Entries as a service reads them."""

    def undecodable(position: str, error: CodecError) -> None:
        raise AssertionError(position) from error

    return read_entries([(each.id, encode(each.record)) for each in entries], undecodable)


def as_bytes(made: list[DecisionPmfs]) -> list[tuple[str, int, list[bytes]]]:
    """What can be compared."""
    return [(each.position, each.event, [pmf.tobytes() for pmf in each.pmfs]) for each in made]


def policy_of(raw: dict[str, Any], *shadows: Any) -> dict[str, Any]:
    """A policy's spec with shadows of its own model, but for what they say."""
    own = {key: raw[key] for key in ("kind", "learner", "exploration") if key in raw}
    return {
        "name": "home",
        "join": {"window_s": 3},
        **raw,
        "shadow": [{**own, **each} if isinstance(each, dict) else each for each in shadows],
    }
