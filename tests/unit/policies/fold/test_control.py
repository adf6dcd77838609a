"""A state of the quotas' controller in a log: kept, in checkpoints too, and nothing learned by it."""

import msgspec
from support.fakes import SALT, FakeLog, FakePast

from bandits.log.records import CheckpointRecord, ControlRecord, TickRecord
from policies.fold.checkpoint import FoldState, decode_state
from policies.fold.fold import Fold
from policies.rules.quotas.quota import Control
from policies.spec import PolicySpec


def log_of(*records) -> FakeLog:
    log = FakeLog(PolicySpec("home"))
    for at, record in enumerate(records, start=2):
        log.append(record, at=at)
    log.append(CheckpointRecord(), at=9)
    return log


def test_the_newest_state_is_kept_and_goes_into_a_checkpoint_and_out_of_it():
    bare = log_of(TickRecord(), TickRecord()).fold()
    assert type(bare.state()) is FoldState

    log = log_of(ControlRecord({"at_least true": 0.5}), ControlRecord({"at_least true": 0.25}))
    fold = log.fold()
    assert fold.control == Control("3-0", {"at_least true": 0.25})
    assert fold.snapshot() == bare.snapshot()

    state = decode_state(msgspec.msgpack.encode(fold.state()))
    resumed = Fold(log.blobs.__getitem__, salt=SALT)
    resumed.resume(state, FakePast(log))
    assert resumed.control == fold.control
    assert resumed.state() == fold.state()
