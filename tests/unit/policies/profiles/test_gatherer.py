"""What a policy's log says of users, whoever folds it, and however it is cut."""

import random
from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from support.fakes import SALT, FakeLog, FakePast
from support.logs import RULE, decision, log_of

from bandits.exploration import LinTs
from bandits.log.codec import digest, encode
from bandits.log.encoded_decisions import read_entries
from bandits.log.join import JoinRule
from bandits.log.records import (
    ActivationRecord,
    BuildRecord,
    CheckpointRecord,
    DecisionRecord,
    ErasureRecord,
    LogEntry,
    LogRecord,
    RewardRecord,
    WarmStartRecord,
)
from bandits.log.versions import FOLD
from bandits.ridge.config import RidgeConfig
from policies.fold.checkpoint import decode_state
from policies.fold.fold import Fold
from policies.fold.join_only import JoinOnlyFold
from policies.items.catalogue import Catalogue
from policies.profiles.changes import PartChanges
from policies.profiles.gatherer import ChangeGatherer
from policies.profiles.options import ProfileOptions
from policies.profiles.part import ERASED, CutRule, ProfileEvent, encode_part, join_parts
from policies.profiles.showings import Showing
from policies.profiles.signals import SignalOptions
from policies.spec import PolicySpec

SPEC = PolicySpec(
    "home",
    learner=RidgeConfig(),
    exploration=LinTs(draws=3),
    join=RULE,
    profile=ProfileOptions(),
    signals={"click": 1.0, "hide": -2.0},
)
OTHERS = msgspec.structs.replace(
    SPEC, signals={"click": 3.0}, join=JoinRule(window_s=3.0), profile=msgspec.UNSET
)
SIGNALS = (None, "click", "hide", "other")
SEEDS = st.integers(0, 10**6)
RULE_OF_PARTS = CutRule(4, ("hide",))


def random_steps(seed: int) -> list[tuple[int, LogRecord]]:
    """Decisions for a few users, and rewards that come in time, too early, too late or twice."""
    rng, steps, made = random.Random(seed), list[tuple[int, LogRecord]](), 0
    for _ in range(70):
        name, kind = f"e{max(0, made + rng.randint(-5, 2))}", rng.random()
        if kind < 0.4:
            user = rng.choice((None, "u0", "u1", "u2"))
            chosen = rng.choice(((0,), (2,), (1, 0)))
            deferred = rng.random() < 0.2
            record = decision(f"e{made}", chosen=chosen, user=user, deferred=deferred)
            made += rng.random() < 0.9
        elif kind < 0.85:
            value, signal = rng.choice((1.0, 1.0, 2.0, 0.0, -1.0)), rng.choice(SIGNALS)
            slot = rng.choice((None, 0, 1))
            record = RewardRecord(name, value, rng.choice((None, "r")), slot, None, signal)
        else:
            record = ActivationRecord(name)
        steps.append((rng.choice((0, 10, 900, 3000)), record))
    return steps


def made_of(steps, *specs: PolicySpec) -> FakeLog:
    """A log of this build, so rewards name signals."""
    log = log_of(steps, *specs)
    log.entries.insert(0, LogEntry("0-1", BuildRecord({"fold": str(FOLD)})))
    return log


def gathered(fold: Fold, entries, cuts=()) -> list[PartChanges]:
    """What a fold finds out by some entries, cut at some places."""
    gatherer, made = ChangeGatherer(fold.spec_of), []
    fold.tell_rewards(gatherer.rewarded)
    edges = [0, *sorted(cuts), len(entries)]
    for low, high in pairwise(edges):
        batch = entries[low:high]
        fold.apply(batch)
        gatherer.read(batch)
        made.append(gatherer.taken())
    return made


def said(*changes: PartChanges) -> dict[str, bytes]:
    merged = PartChanges()
    for each in changes:
        merged.take(each)
    return {user: encode_part(join_parts([part], RULE_OF_PARTS)) for user, part in merged.parts()}


def fold_of(log, kind: type[Fold] = Fold) -> Fold:
    return kind(log.blobs.__getitem__, salt=SALT, past=FakePast(log))


@given(SEEDS, st.data())
def test_a_fold_that_learns_and_one_that_does_not_tell_the_same_however_the_log_is_cut(seed, data):
    log = made_of(random_steps(seed), SPEC, OTHERS)
    entries = log.entries
    encoded = read_entries([(e.id, encode(e.record)) for e in entries], lambda *_: None)
    places = st.lists(st.integers(0, len(entries)), max_size=4)
    learning = said(*gathered(fold_of(log), entries, data.draw(places)))
    assert said(*gathered(fold_of(log, JoinOnlyFold), entries, data.draw(places))) == learning
    assert said(*gathered(fold_of(log, JoinOnlyFold), encoded, data.draw(places))) == learning


@given(SEEDS, st.integers(0, 70))
def test_who_resumes_tells_what_comes_behind_and_together_it_is_all(seed, place):
    given_steps = random_steps(seed)
    given_steps.insert(place, (0, CheckpointRecord()))
    log = made_of(given_steps, SPEC)
    at = next(n for n, e in enumerate(log.entries) if isinstance(e.record, CheckpointRecord)) + 1
    past, taken = FakePast(log), []
    first = Fold(
        log.blobs.__getitem__,
        salt=SALT,
        past=past,
        on_checkpoint=lambda _, state: taken.append(state()),
    )
    whole = gathered(first, log.entries, (at,))

    second = fold_of(log)
    second.resume(decode_state(taken[0]), past)
    behind = gathered(second, log.entries[at:])
    assert said(*behind) == said(whole[1])
    assert said(whole[0], *behind) == said(*whole)


def test_a_reward_is_of_its_signal_and_of_the_item_of_its_slot_and_a_showing_of_its_decision():
    steps = [
        (5, decision("e", chosen=(2, 0), user="u")),
        (5, RewardRecord("e", 2.0, slot=1, signal="click")),
        (5, RewardRecord("e", 1.0, slot=0)),
        (5, RewardRecord("e", 0.0, slot=0, signal="hide", reward_id="nothing")),
        (5, decision("f", user="v")),
        (5, ErasureRecord("v", "job")),
        (5, decision("g")),
    ]
    log = made_of(steps, SPEC)
    fold = fold_of(log)
    said = dict(gathered(fold, log.entries)[0].parts())
    assert fold.join.counts["joined"] == 3
    assert said["u"].shown == (Showing(6, 0, "c"), Showing(6, 0, "a"))
    assert said["u"].events == (
        ProfileEvent(11, 11, 0, "a", "click"),
        ProfileEvent(16, 16, 0, "c", "reward"),
    )
    assert said["v"] == ERASED
    assert set(said) == {"u", "v"}


def test_a_reward_that_waited_for_an_activation_counts_when_that_comes():
    steps = [
        (5, decision("e", chosen=(2, 0), user="u", deferred=True)),
        (5, RewardRecord("e", 1.0, slot=1, signal="click")),
        (5, RewardRecord("e", 1.0, slot=0)),
        (5, RewardRecord("e", 1.0, slot=0, signal="hide")),
        (5, RewardRecord("e", -1.0, slot=1)),
        (5, ActivationRecord("e")),
        (5, ActivationRecord("e")),
        (5, decision("f", user="v", deferred=True)),
        (5, RewardRecord("f", 1.0)),
    ]
    log = made_of(steps, SPEC)
    fold = fold_of(log)
    changes = gathered(fold, log.entries)[0]
    assert fold.join.counts["joined"] == 4
    said = dict(changes.parts())
    assert set(said["u"].events) == {
        ProfileEvent(31, 31, 0, "a", "click"),
        ProfileEvent(31, 31, 0, "c", "reward"),
        ProfileEvent(31, 31, 0, "c", "hide"),
    }
    assert said["v"].events == ()


@given(SEEDS)
def test_whoever_learns_nothing_tells_the_same_also_once_a_log_was_learned_anew(seed):
    new = msgspec.structs.replace(SPEC, signals={"click": 1.0, "other": SignalOptions(2.0, "60s")})
    log = made_of(random_steps(seed), SPEC)
    log.configure(new, at=log.entries[-1].time_ms)
    beside = fold_of(log).beside(new.digest)
    beside.apply(log.entries[: -(seed % 9) or None])
    state = msgspec.msgpack.encode(beside.state())
    log.blobs[digest(state)] = state

    now_ms = log.entries[-1].time_ms
    log.append(WarmStartRecord(digest(state), beside.position), at=now_ms)
    for wait, record in random_steps(seed + 1):
        now_ms += wait
        named = {"spec": SPEC.digest, "catalogue": Catalogue().digest}
        is_decision = isinstance(record, DecisionRecord)
        log.append(msgspec.structs.replace(record, **named) if is_decision else record, at=now_ms)

    learning, joining = fold_of(log), fold_of(log, JoinOnlyFold)
    told = said(*gathered(learning, log.entries))
    assert learning.relearned is not None
    assert said(*gathered(joining, log.entries)) == told
    assert joining.join.counts == learning.join.counts
