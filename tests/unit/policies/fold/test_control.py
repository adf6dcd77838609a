"""A state of the quotas' controller in a log: kept, in checkpoints too, and nothing learned by it."""

import msgspec
from support.fakes import SALT, FakeLog, FakePast

from bandits.log.records import CheckpointRecord, ControlRecord
from policies.fold.checkpoint import FoldState, decode_state
from policies.fold.fold import Fold
from policies.rules.quotas.quota import Control
from policies.spec import PolicySpec


def test_the_newest_state_is_kept_and_goes_into_a_checkpoint_and_out_of_it():
    log = FakeLog(PolicySpec("home"))
    past = FakePast(log)
    assert type(log.fold().state()) is FoldState
    log.append(CheckpointRecord(), at=2)
    bare = log.fold()
    log.append(ControlRecord({"at_least true": 0.5}), at=2)
    entry = log.append(ControlRecord({"at_least true": 0.25}), at=3)
    log.append(CheckpointRecord(), at=4)
    fold = log.fold()
    assert fold.control == Control(entry.id, {"at_least true": 0.25})
    assert fold.snapshot().payload == bare.snapshot().payload

    state = decode_state(msgspec.msgpack.encode(fold.state()))
    resumed = Fold(log.blobs.__getitem__, salt=SALT)
    resumed.resume(state, past)
    assert resumed.control == fold.control
    assert resumed.state() == fold.state()
