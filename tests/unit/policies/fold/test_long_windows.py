"""Windows that are open for long: what is not in memory, or in no checkpoint, changes no byte."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakes import SALT, FakeLog, FakePast
from support.logs import NAMES, RULE, WINDOW, decision
from support.strategies import tries

from bandits.errors import CodecError, StalledError
from bandits.exploration import EpsilonGreedy, LinTs
from bandits.log.codec import digest
from bandits.log.join_state import ClosedState, EarlierJoinState, OpenState
from bandits.log.records import (
    ActivationRecord,
    BuildRecord,
    CheckpointRecord,
    DecisionRecord,
    LogEntry,
    RewardRecord,
    RollbackRecord,
    TickRecord,
)
from bandits.log.remembered_decisions import RememberedDecision
from bandits.ridge.config import RidgeConfig
from bandits.vw.config import VwConfig
from policies.fold.checkpoint import EARLIER, decode_state
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec

SPEC = PolicySpec("home", learner=RidgeConfig(l2=2.0), exploration=LinTs(draws=3), join=RULE)
VW_SPEC = msgspec.structs.replace(
    SPEC, learner=VwConfig("--cb_explore_adf --cb_type mtr -b 8"), exploration=EpsilonGreedy()
)
NO_SPEC = digest(b"no spec")
"""Names bytes that are no spec: its decisions are refused."""
RULES = [
    RULE,
    msgspec.structs.replace(RULE, late="correct"),
    msgspec.structs.replace(RULE, learn="as_it_arrives", aggregation="sum", late="correct"),
    msgspec.structs.replace(RULE, learn="as_it_arrives", aggregation="last", window_s=3.0),
    msgspec.structs.replace(RULE, aggregation="max", window_s=25.0),
]

STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 700, 2500, 6000, WINDOW]),
        st.one_of(
            st.builds(
                lambda name, deferred, chosen, refused: decision(
                    name, deferred=deferred, chosen=chosen, spec=NO_SPEC if refused else "spec"
                ),
                NAMES,
                st.booleans(),
                st.sampled_from([(0,), (1, 0), (2, 1, 0)]),
                st.sampled_from([False, False, False, True]),
            ),
            st.builds(
                RewardRecord,
                NAMES,
                st.sampled_from([0.0, 1.0, -1.0, -2.0]),
                st.none() | st.sampled_from(["r1", "r2"]),
                st.none() | st.integers(0, 3),
                st.none() | st.sampled_from(["a", "b", "z"]),
            ),
            st.builds(ActivationRecord, NAMES),
            st.just(TickRecord()),
            st.just(CheckpointRecord()),
            st.builds(lambda fold: BuildRecord({"fold": str(fold)}), st.sampled_from([1, 2])),
            st.builds(lambda back: ("rollback", back), st.floats(0, 1)),
            st.builds(
                lambda rule, l2: ("spec", rule, l2),
                st.sampled_from(RULES),
                st.sampled_from([2.0, 3.0]),
            ),
        ),
    ),
    max_size=70,
)


def log_of(base: PolicySpec, steps) -> FakeLog:
    """The steps; a decision names the spec in force, unless it is refused."""
    spec = base
    log, now = FakeLog(spec), 1
    log.blobs[Catalogue().digest] = Catalogue().encoded
    log.blobs[NO_SPEC] = b"no spec"
    for wait, step in steps:
        now += wait
        if isinstance(step, tuple) and step[0] == "spec":
            _, rule, l2 = step
            if isinstance(spec.learner, VwConfig):
                rule = msgspec.structs.replace(rule, late="ignore", aggregation="first")
                spec = msgspec.structs.replace(spec, join=rule)
            else:
                spec = msgspec.structs.replace(spec, join=rule, learner=RidgeConfig(l2=l2))
            log.configure(spec, at=now)
        elif isinstance(step, tuple):
            to = log.entries[int(step[1] * (len(log.entries) - 1))].id
            log.append(RollbackRecord("s", to), at=now)
        elif isinstance(step, DecisionRecord):
            named = step.spec if step.spec == NO_SPEC else spec.digest
            log.append(
                msgspec.structs.replace(step, spec=named, catalogue=Catalogue().digest), at=now
            )
        else:
            log.append(step, at=now)
    log.append(CheckpointRecord(), at=now + 1)
    log.append(TickRecord(), at=now + 3 * WINDOW)
    return log


def folder(log: FakeLog, past: FakePast, recent_bytes: int, **options) -> Fold:
    fold = Fold(log.blobs.__getitem__, salt=SALT, past=past, **options)
    fold.join.recent_bytes = recent_bytes
    return fold


def bytes_of(fold: Fold) -> bytes:
    return msgspec.msgpack.encode(fold.state()) + msgspec.msgpack.encode(fold.snapshot().payload)


@pytest.mark.parametrize("base", [SPEC, VW_SPEC], ids=["ridge", "vw"])
@tries(150)
@given(steps=STEPS, recent=st.sampled_from([0, 0, 3000, 6000]), data=st.data())
def test_neither_what_is_in_memory_nor_a_resume_changes_a_byte(base, steps, recent, data):
    """Of a log in which anybody names anything again, before or after its time.

    A fold that keeps all records, one that keeps few, and one from each checkpoint give the same
    checkpoints on the way, and the same end.
    """
    log = log_of(base, steps)
    past, few = FakePast(log), FakePast(log)
    whole = folder(log, past, 1 << 40, on_checkpoint=past.keep)
    whole.apply(log.entries)
    expected = bytes_of(whole)

    lean = folder(log, few, recent, on_checkpoint=few.keep)
    lean.apply(log.entries)
    assert few.checkpoints == past.checkpoints
    assert bytes_of(lean) == expected
    assert lean.join.counts == whole.join.counts

    start = data.draw(st.sampled_from(sorted(past.checkpoints)))
    later: dict[str, bytes] = {}
    resumed = folder(log, past, recent, on_checkpoint=lambda at, made: later.update({at: made()}))
    resumed.resume(decode_state(past.checkpoints[start]), past)
    assert bytes_of(resumed)
    assert msgspec.msgpack.encode(resumed.state().join) == msgspec.msgpack.encode(
        decode_state(past.checkpoints[start]).join
    )
    resumed.apply(past.entries(start, log.entries[-1].id))
    assert later == {at: made for at, made in past.checkpoints.items() if at in later}
    assert bytes_of(resumed) == expected


def slates(count: int, spec: PolicySpec, every: int = 100) -> FakeLog:
    log = FakeLog(spec)
    log.blobs[Catalogue().digest] = Catalogue().encoded
    for number in range(count):
        log.append(
            decision(
                f"e{number}",
                chosen=(number % 3, (number + 1) % 3),
                spec=spec.digest,
                catalogue=Catalogue().digest,
            ),
            at=10 + every * number,
        )
        if number % 7 == 3:
            log.append(RewardRecord(f"e{number - 2}", 1.0, slot=1), at=10 + every * number)
    return log


class CountedPast(FakePast):
    """Counts the entries that were read."""

    read = 0

    def entries(self, after: str, through: str):
        for entry in super().entries(after, through):
            self.read += 1
            yield entry


def test_a_reader_behind_the_fold_goes_through_the_log_once():
    log = slates(
        1000, msgspec.structs.replace(SPEC, join=msgspec.structs.replace(RULE, window_s=30))
    )
    log.append(TickRecord(), at=200_000)
    past = CountedPast(log)
    fold = folder(log, past, 0)
    fold.apply(log.entries)
    assert fold.learned == 2000
    assert past.read <= len(log.entries)


def test_a_checkpoint_does_not_grow_with_what_is_open():
    sizes = []
    for count in (100, 2000):
        log = slates(
            count, msgspec.structs.replace(SPEC, join=msgspec.structs.replace(RULE, window_s=3600))
        )
        fold = folder(log, FakePast(log), 0)
        fold.apply(log.entries)
        assert fold.learned == 0
        sizes.append(len(msgspec.msgpack.encode(fold.state().join)))
    assert max(sizes) < 200


def test_a_log_that_cannot_be_read_behind_the_fold_stops_it_and_teaches_nothing_twice():
    log = slates(200, SPEC)
    past = FakePast(log)
    fold = folder(log, past, 0, on_checkpoint=past.keep)
    log.append(CheckpointRecord(), at=10 + 100 * 200)
    fold.apply(log.entries)
    log.append(TickRecord(), at=10 + 100 * 200 + WINDOW)

    class Gone(FakePast):
        def entries(self, after, through):
            raise CodecError("the archive is gone")

    at, data = past.checkpoints.popitem()
    state = decode_state(data)
    resumed = folder(log, past, 0)
    resumed.resume(state, past)
    resumed.join.behind._past = Gone(log)
    with pytest.raises(StalledError, match="the archive is gone"):
        resumed.apply(past.entries(at, log.entries[-1].id))

    again = folder(log, past, 0)
    again.resume(state, past)
    again.apply(past.entries(at, log.entries[-1].id))
    assert bytes_of(again) == bytes_of(log.fold())


def test_a_checkpoint_whose_decisions_are_gone_from_the_log_is_refused():
    log = slates(20, SPEC)
    fold = log.fold()
    state = fold.state()
    del log.entries[4]
    with pytest.raises(CodecError, match="no decision"):
        folder(log, FakePast(log), 0).resume(state, FakePast(log))


def test_an_entry_is_read_as_it_was_also_where_ids_are_large():
    log = FakeLog(SPEC)
    named = {"spec": SPEC.digest, "catalogue": Catalogue().digest}
    log.blobs[Catalogue().digest] = Catalogue().encoded
    log.entries += [
        LogEntry(f"10-{2**64 - 1}", decision("a", **named)),
        LogEntry("11-0", decision("b", **named)),
        LogEntry(f"{11 + WINDOW}-0", TickRecord()),
    ]
    fold = folder(log, FakePast(log), 0)
    fold.apply(log.entries)
    assert fold.learned == 2


def earlier_checkpoint(fold: Fold) -> bytes:
    """What a build before this one would have stored: every decision that is remembered."""
    join, state = fold.join, fold.state()
    assert not join._older

    def state_of(event_id: str, decision: RememberedDecision) -> OpenState:
        return OpenState(
            event_id,
            decision.position,
            7,
            decision.activated,
            decision.values,
            list(decision.seen),
            decision.taught,
            decision.forgotten_ms,
            decision.waiting,
        )

    closed = join._closed.items()
    said = EarlierJoinState(
        99,
        dict(join.counts),
        [state_of(*each) for each in join._open.items()],
        [state_of(*each) for each in closed if each[1].slots],
        [ClosedState(name, 7, each.forgotten_ms) for name, each in closed if not each.slots],
        state.join.early,
        state.join.activations,
    )
    fields = [getattr(state, name) for name in state.__struct_fields__]
    fields[state.__struct_fields__.index("join")] = said
    return msgspec.msgpack.encode(fields)


@pytest.mark.parametrize("base", [SPEC, VW_SPEC], ids=["ridge", "vw"])
@tries(100)
@given(steps=STEPS, recent=st.sampled_from([0, 3000]), data=st.data())
def test_a_checkpoint_of_an_earlier_build_is_gone_on_from(base, steps, recent, data):
    """Also from the checkpoints that come after it, as long as it has a part in them."""
    log = log_of(base, steps)
    past, since = FakePast(log), FakePast(log)
    left: dict[str, bytes] = {}
    whole = folder(log, past, 1 << 40)
    whole._on_checkpoint = lambda at, made: left.update({at: earlier_checkpoint(whole)}) or made()
    whole.apply(log.entries)

    def ended(fold: Fold) -> tuple[object, ...]:
        counts = {name: count for name, count in fold.join.counts.items() if count}
        return fold.learner.checkpoint(), counts, fold.learned, fold.pinned, fold.version

    start = data.draw(st.sampled_from(sorted(left)))
    state = decode_state(left[start])
    assert not state.is_pure
    first = folder(log, since, recent, on_checkpoint=since.keep)
    first.resume(state, past)
    first.apply(past.entries(start, log.entries[-1].id))
    assert ended(first) == ended(whole)

    for again, made in since.checkpoints.items():
        second = folder(log, past, recent)
        second.resume(decode_state(made), past)
        second.apply(past.entries(again, log.entries[-1].id))
        assert ended(second) == ended(whole)
        assert bytes_of(second) == bytes_of(first)
    if first.state().is_pure:
        assert bytes_of(first) == bytes_of(whole)


def test_an_earlier_build_takes_no_checkpoint_of_this_one_for_its_own():
    log = slates(20, SPEC)
    with pytest.raises(msgspec.ValidationError):
        EARLIER.decode(msgspec.msgpack.encode(log.fold().state()))
