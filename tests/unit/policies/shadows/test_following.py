"""A shadow's PMFs follow from the log alone, and are those it would have served."""

from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from support.fakes import SALT, FakePast
from support.shadowed import (
    EACH,
    KEPT,
    ROUNDS,
    as_bytes,
    encoded,
    follower_of,
    policy_of,
    said,
    served,
    shadow_of,
)

from bandits.log.records import DecisionRecord, LogEntry, RollbackRecord, TickRecord
from policies.fold.checkpoint import decode_state
from policies.shadows.fold import ShadowFold
from policies.shadows.following import DecisionPmfs, ShadowFollower
from policies.spec import PolicySpec, spec_of

SOURCES = [{"kind": "remote", "name": each, "url": "http://x"} for each in ("cf", "deep")]
RIDGE = {"learner": {"kind": "ridge"}, "exploration": {"kind": "lints", "draws": 20}}
VW = {
    "learner": {"kind": "vw", "args": "--cb_explore_adf -b 12 -q cs"},
    "exploration": {"kind": "epsilon_greedy"},
}
POLICIES: dict[str, dict[str, Any]] = {
    "ridge": {**RIDGE, "sources": SOURCES},
    "vw": {**VW, "sources": SOURCES},
    "mixture": {"kind": "mixture", "sources": SOURCES, "exploration": {"kind": "softmax"}},
    "boosted": {**RIDGE, "boost": [{"when": "item.size > 4.0", "by": 0.3}]},
    "held out": {**RIDGE, "sources": SOURCES, "holdout": {"fraction": 0.3}},
    "as it arrives": {**RIDGE, "join": {"window_s": 3, "learn": "as_it_arrives"}},
}


def twin(raw: dict[str, Any], **more: Any) -> PolicySpec:
    """A policy with one shadow: of the same model, unless it says another."""
    return spec_of(policy_of(raw, {"name": "twin", **more}))


@pytest.mark.parametrize("raw", POLICIES.values(), ids=POLICIES.keys())
def test_a_shadow_with_the_policys_model_says_what_the_policy_served(raw: dict[str, Any]) -> None:
    """Byte for byte; of what was held out it says what the model would have done."""
    spec = twin(raw)
    log = served(spec)
    records = {
        each.id: each.record for each in log.entries if isinstance(each.record, DecisionRecord)
    }
    made = said(shadow_of(spec), log)
    assert [each.position for each in made] == list(records)
    compared = 0
    for each in made:
        record = records[each.position]
        if not record.holdout:
            assert each.pmfs[0].tobytes() == record.pmfs()[0].tobytes()
            compared += 1
    assert compared >= len(records) // 2


def test_of_a_slate_it_says_what_it_would_do_in_each_slot_after_what_was_chosen() -> None:
    spec = twin(POLICIES["ridge"])
    log = served(spec, slots=3)
    records = [each.record for each in log.entries if isinstance(each.record, DecisionRecord)]
    for each, record in zip(said(shadow_of(spec), log), records, strict=True):
        for slot, pmf in enumerate(each.pmfs):
            left = np.delete(record.pmfs()[slot], record.chosen[:slot])
            assert pmf.tobytes() == left.tobytes()


@pytest.mark.parametrize("model", [RIDGE, VW], ids=["ridge", "vw"])
def test_it_says_the_same_however_the_log_is_read_and_wherever_it_went_on(
    model: dict[str, Any],
) -> None:
    """From any of its checkpoints, with another model than the policy's."""
    spec = twin(POLICIES["ridge"], **model, floor=0.3)
    log, kept = served(spec), dict[str, bytes]()
    shadow, entries = shadow_of(spec), encoded(log.entries)
    whole = as_bytes(list(follower_of(shadow, log, kept).follow(entries)))
    for cuts in ((1, 2, 7, 50, 99, 100), tuple(range(1, len(entries)))):
        follower = follower_of(shadow, log)
        parts = [follower.follow(entries[low:high]) for low, high in pairwise([0, *cuts, None])]
        assert as_bytes([each for part in parts for each in part]) == whole
        assert (follower.position, follower.passed_over) == (entries[-1].id, 0)

    assert len(kept) == len(KEPT)
    for position, data in kept.items():
        past = FakePast(log)
        fold = ShadowFold(shadow, log.blobs.__getitem__, salt=SALT, past=past)
        fold.resume(decode_state(data), past)
        rest = [each for each in entries if log.past(position, each.id)]
        made: list[DecisionPmfs] = list(ShadowFollower(shadow, fold).follow(rest))
        assert as_bytes(made) == [each for each in whole if log.past(position, each[0])]


def test_it_learns_what_the_policy_earned_and_not_what_the_policy_is() -> None:
    """A rollback takes nothing from a shadow, and another model learns as much."""
    spec = twin(POLICIES["ridge"], **VW)
    log, shadow = served(spec, end=False), shadow_of(spec)
    before = as_bytes(said(shadow, log))
    log.append(RollbackRecord("s3", log.entries[40].id), at=1000 * (ROUNDS + 40))
    log.append(TickRecord(), at=1000 * (ROUNDS + 60))
    fold = ShadowFold(shadow, log.blobs.__getitem__, salt=SALT, past=FakePast(log))
    fold.apply(log.entries)
    assert as_bytes(said(shadow, log)) == before
    assert fold.learned == ROUNDS * EACH


def test_what_it_cannot_say_is_counted_with_the_reason() -> None:
    """A decision whose items are no catalogue is passed over, and the others are not."""
    spec = twin(POLICIES["ridge"])
    log = served(spec)
    at = next(at for at, each in enumerate(log.entries) if isinstance(each.record, DecisionRecord))
    broken = msgspec.structs.replace(log.entries[at].record, catalogue="0" * 32)
    log.entries[at] = LogEntry(log.entries[at].id, broken)
    log.blobs["0" * 32] = b"no catalogue"
    follower = follower_of(shadow_of(spec), log)
    made = follower.follow(log.entries[: at + 3])
    assert (len(made), follower.passed_over) == (1, 1)
    assert follower.first_passed_over.startswith(f"the decision at {log.entries[at].id}: ")
