"""The model of a decision of long ago is made again from the nearest state that can give it."""

import asyncio
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from support.fakes import SALT, FakeLog, FakePast
from support.shadowed import IDS, ITEMS, encoded, served

from bandits.exploration import EpsilonGreedy
from bandits.log.positions import START
from bandits.log.records import CheckpointRecord, DecisionRecord, TickRecord
from policies.fold.checkpoint import decode_state
from policies.fold.fold import Fold
from policies.ranker import Ranker
from policies.requests import ActionRequest, RankRequest
from policies.spec import PolicySpec, spec_of
from serve_app.admin.replayed.made_again import Beginning, Sought, made_again

SPEC = spec_of(
    {
        "name": "home",
        "join": {"window_s": 3},
        "learner": {"kind": "ridge"},
        "exploration": {"kind": "lints", "draws": 20},
    }
)
STILL = 224_000
"""When the last window of the log is over: nothing is learned from there on."""


class Kept:
    """A log with its checkpoints, and which of them were used."""

    def __init__(self, spec: PolicySpec = SPEC) -> None:
        self.spec, self.log = spec, served(spec)
        self.used: list[str] = []

    def made_at(self, position: str, at: int) -> Sought:
        """A decision, made so late by the model as of an entry."""
        fold = Fold(self.log.blobs.__getitem__, salt=SALT)
        fold.apply(self.log.past(START, position))
        ranker = Ranker(self.spec, (), salt=SALT)
        ranker.offer(ITEMS)
        ranker.serve("s", fold.snapshot())
        request = RankRequest("late", actions=[ActionRequest(name) for name in IDS])
        record = asyncio.run(ranker.rank(request))
        return Sought(self.spec, ITEMS, record, self.log.append(record, at=at).id)

    def again(self, sought: Sought) -> str | None:
        """The state from which its model was made again; None: it was not found."""
        found = made_again(sought, self._beginnings(sought), self._entries, lambda _: None)
        if found is None:
            return None
        assert sought.is_made_by(found[0])
        return found[1]

    def _entries(self, after: str, through: str):
        return encoded(self.log.past(after, through))

    def _beginnings(self, sought: Sought) -> Iterator[Beginning]:
        past, blob = FakePast(self.log), self.log.blobs.__getitem__
        whole = Fold(blob, salt=SALT, past=past, on_checkpoint=past.keep)
        whole.apply(self.log.past(START, sought.served))

        def resumed(position: str) -> Fold:
            fold = Fold(blob, salt=SALT, past=past)
            fold.resume(decode_state(past.checkpoints[position]), past)
            return fold

        for position in reversed(past.checkpoints):
            self.used.append(position)
            yield Beginning(position, lambda position=position: resumed(position))
        self.used.append("start")
        yield Beginning("start", lambda: Fold(blob, salt=SALT, past=past))


@pytest.fixture
def kept() -> Kept:
    return Kept()


def checkpoints(log: FakeLog) -> list[str]:
    return [each.id for each in log.entries if isinstance(each.record, CheckpointRecord)]


def test_every_decision_is_made_again_from_the_checkpoint_before_its_model(kept: Kept):
    """Those of a second have a model that is as old as the entry before it."""
    decisions = [each for each in kept.log.entries if isinstance(each.record, DecisionRecord)]
    first: dict[str, str] = {}
    for each in decisions[::7]:
        assert isinstance(each.record, DecisionRecord)
        served = first.setdefault(each.record.snapshot_id, each.id)
        before = [at for at in checkpoints(kept.log) if int(at[:-2]) < int(served[:-2])]
        sought = Sought(SPEC, ITEMS, each.record, served)
        assert kept.again(sought) == (before[-1] if before else "start")


def test_a_model_that_stood_still_for_an_hour_is_the_one_of_when_it_learned_last(kept: Kept):
    for after in (300, 600, 3_000_000):
        kept.log.append(TickRecord(), at=STILL + after)
    assert kept.again(kept.made_at(f"{STILL + 600}-0", STILL + 3_600_000)) is not None
    assert len(kept.used) == 1


def test_where_nothing_was_learned_since_a_checkpoint_the_one_before_it_is_used(kept: Kept):
    last = checkpoints(kept.log)[-1]
    for at, record in ((300, TickRecord()), (9000, CheckpointRecord()), (9500, TickRecord())):
        kept.log.append(record, at=STILL + at)
    assert kept.again(kept.made_at(f"{STILL + 300}-0", STILL + 3_600_000)) == last
    assert kept.used == [f"{STILL + 9000}-0", last]


def test_a_model_without_draws_is_found_wherever_in_its_time_it_was_published():
    kept = Kept(msgspec.structs.replace(SPEC, exploration=EpsilonGreedy(0.1)))
    kept.log.append(TickRecord(), at=STILL + 300)
    assert kept.again(kept.made_at(f"{STILL + 300}-0", STILL + 3_600_000)) is not None


def test_what_no_model_of_the_time_has_made_is_not_looked_for_in_all_of_the_log(kept: Kept):
    sought = kept.made_at(f"{STILL}-0", STILL + 100_000)
    pmf = np.roll(np.frombuffer(sought.record.pmf), 1).tobytes()
    forged = sought._replace(record=msgspec.structs.replace(sought.record, pmf=pmf))
    assert kept.again(forged) is None
    assert kept.used == checkpoints(kept.log)[-1:]
