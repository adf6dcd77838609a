"""A prior in the log: a model that has learned nothing is taught it, and no other model is."""

from functools import partial

import msgspec
import numpy as np
import pytest
from support.fake_partitions import BUILD, Partitions
from support.fakes import SALT, FakeLog, FakePast
from support.logs import RULE, WINDOW, decision
from support.priors import prior_rows

from bandits.errors import StalledError
from bandits.exploration import EpsilonGreedy, LinTs
from bandits.log.codec import digest
from bandits.log.records import (
    CatalogueRecord,
    CheckpointRecord,
    PriorRecord,
    RewardRecord,
    RollbackRecord,
    TickRecord,
    WarmStartRecord,
)
from bandits.ridge.config import RidgeConfig
from bandits.ridge.payloads import decode_sums
from bandits.vw.config import VwConfig
from policies.artifacts.learner_model import TrainedModel
from policies.artifacts.prior import PriorRows
from policies.blend import make_learner
from policies.fold.all_partitions import verify_partitions
from policies.fold.checkpoint import FoldState, PartitionState, decode_state
from policies.fold.fold import Fold
from policies.fold.partition import merge_models
from policies.fold.prior import teach_prior
from policies.items.catalogue import Catalogue
from policies.requests import Item
from policies.spec import PolicySpec, Prior

RIDGE = PolicySpec("home", learner=RidgeConfig(), exploration=LinTs(draws=4), join=RULE)
VW = msgspec.structs.replace(
    RIDGE,
    learner=VwConfig("--cb_explore_adf --cb_type mtr -q ci"),
    exploration=EpsilonGreedy(),
)
AS_IT_ARRIVES = msgspec.structs.replace(
    RIDGE, join=msgspec.structs.replace(RULE, learn="as_it_arrives", late="correct")
)
SPECS = {"ridge": RIDGE, "vw": VW, "as it arrives": AS_IT_ARRIVES}


_rows = partial(prior_rows, decisions=30, chances=(0.2, 0.5, 0.8))
PRIOR = _rows()
CATALOGUE = Catalogue([Item("a", {"genre": "jazz"}), Item("c", {"genre": "rock"})])


class Log(FakeLog):
    """A log with an empty catalogue, to which decisions are added with their rewards."""

    def __init__(self, spec: PolicySpec = RIDGE) -> None:
        super().__init__(spec)
        self.spec, self.now = spec, 1
        self.blobs[Catalogue().digest] = Catalogue().encoded

    def configured(self, spec: PolicySpec) -> None:
        self.spec = spec
        self.configure(spec, at=self.now)

    def prior(self, rows: PriorRows = PRIOR, strength: float = 0.5) -> str:
        self.blobs[rows.digest] = rows.encoded
        return self.append(PriorRecord(rows.digest, strength), at=self.now).id

    def decide(self, count: int, start: int = 0) -> None:
        """Decisions that are rewarded, and close."""
        for number in range(start, start + count):
            self.now += 10
            event = f"e{number}"
            self.append(
                decision(
                    event,
                    chosen=(number % 3,),
                    spec=self.spec.digest,
                    catalogue=Catalogue().digest,
                ),
                at=self.now,
            )
            self.append(RewardRecord(event, float(number % 2)), at=self.now)
        self.now += 2 * WINDOW
        self.append(TickRecord(), at=self.now)


def _taught(spec: PolicySpec, rows: PriorRows = PRIOR, strength: float = 0.5) -> bytes:
    learner = make_learner(spec, salt=SALT)
    teach_prior(learner, spec, Catalogue(), rows, strength)
    return learner.checkpoint()


def _resumed(log: Log, position: str, past: FakePast) -> Fold:
    """A fold that goes on from the checkpoint at a position."""
    fold = Fold(log.blobs.__getitem__, salt=SALT, past=past)
    fold.resume(decode_state(past.checkpoints[position]), past)
    fold.apply(log.past(position, log.entries[-1].id))
    return fold


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_fresh_model_is_taught_the_prior_and_learns_on_top_of_it(spec):
    """Exactly what the rows teach, before the first decision."""
    log = Log(spec)
    log.prior()
    fold = log.fold()
    assert fold.learner.checkpoint() == _taught(spec)
    assert fold.learned == 0
    assert fold.prior.taught.rows == 90
    assert fold.prior.taught.strength == 0.5
    assert fold.changes == 1

    log.decide(12)
    after = log.fold()
    assert after.learned == 12
    assert after.learner.learned == 12 + 45
    assert after.prior == fold.prior


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_every_batching_and_every_checkpoint_give_the_same_bytes(spec):
    """Checkpoints before the prior, right after it, and after decisions."""
    log = Log(spec)
    log.append(CheckpointRecord(), at=1)
    log.prior()
    log.append(CheckpointRecord(), at=log.now)
    log.decide(5)
    log.append(CheckpointRecord(), at=log.now)
    log.prior(_rows(2))
    log.decide(5, start=5)

    past = FakePast(log)
    whole = Fold(log.blobs.__getitem__, salt=SALT, past=past, on_checkpoint=past.keep)
    whole.apply(log.entries)
    assert len(past.checkpoints) == 3
    for position in past.checkpoints:
        resumed = _resumed(log, position, past)
        assert resumed.snapshot() == whole.snapshot()
        assert resumed.state() == whole.state()
    cut = log.fold(range(0, len(log.entries), 3))
    assert cut.snapshot() == whole.snapshot()
    assert cut.prior == whole.prior


def test_a_model_that_has_learned_is_not_touched_and_the_next_one_is_taught():
    """The newest prior waits for a spec that begins a model; each model says what it was taught."""
    log, without = Log(), Log()
    for each in (log, without):
        each.decide(6)
    log.prior()
    fold = log.fold()
    assert fold.learner.checkpoint() == without.fold().learner.checkpoint()
    assert fold.prior.taught is None
    assert fold.prior.reason == "the model had learned before"
    assert not any(kind.startswith("refused") for kind in fold.join.counts)

    # A change that keeps the model changes nothing; one that begins a model teaches it.
    log.configured(msgspec.structs.replace(RIDGE, floor=0.5))
    assert log.fold().prior.taught is None
    other = msgspec.structs.replace(RIDGE, learner=RidgeConfig(l2=7.0))
    log.configured(other)
    fold = log.fold()
    assert fold.learner.checkpoint() == _taught(other)
    assert fold.prior.reason == ""
    assert fold.learned == 6

    # And the spec's own strength is the one that counts.
    third = msgspec.structs.replace(RIDGE, learner=RidgeConfig(l2=9.0), prior=Prior(2.0))
    log.configured(third)
    assert log.fold().learner.checkpoint() == _taught(third, strength=2.0)


def test_a_model_that_knows_a_prior_alone_is_begun_again_with_what_is_new():
    """Another prior, another strength, none: until the first decision has taught."""
    log = Log()
    log.prior()
    log.prior(_rows(2), strength=0.25)
    assert log.fold().learner.checkpoint() == _taught(RIDGE, _rows(2), 0.25)

    log.configured(msgspec.structs.replace(RIDGE, prior=Prior(3.0)))
    assert log.fold().learner.checkpoint() == _taught(RIDGE, _rows(2), 3.0)

    log.configured(msgspec.structs.replace(RIDGE, prior="none"))
    fold = log.fold()
    assert fold.learner.checkpoint() == make_learner(RIDGE, salt=SALT).checkpoint()
    assert (fold.prior.taught, fold.prior.reason) == (None, "the spec says prior: none")

    log.configured(RIDGE)
    log.decide(3)
    learned = log.fold().learner.checkpoint()
    log.configured(msgspec.structs.replace(RIDGE, prior="none"))
    assert log.fold().learner.checkpoint() == learned


def test_features_of_the_rows_are_those_of_the_newest_catalogue_of_the_log():
    """Rows of items that it lacks are left out, and counted."""
    log = Log()
    log.blobs[CATALOGUE.digest] = CATALOGUE.encoded
    log.append(CatalogueRecord(CATALOGUE.digest), at=2)
    log.prior()
    fold = log.fold()

    learner = make_learner(RIDGE, salt=SALT)
    assert teach_prior(learner, RIDGE, CATALOGUE, PRIOR, 0.5) == (60, 30)
    assert fold.learner.checkpoint() == learner.checkpoint()
    assert (fold.prior.taught.rows, fold.prior.taught.skipped) == (60, 30)


def test_a_rollback_to_before_the_prior_and_to_after_it():
    """The model is the one of that position, also if it was taught no prior."""
    log = Log()
    log.append(TickRecord(), at=1)
    before = log.entries[-1].id
    after = log.prior()
    log.decide(4)

    for position, wanted in ((after, _taught(RIDGE)), (before, None)):
        log.append(RollbackRecord("s", position), at=log.now)
        fold = log.fold()
        fresh = make_learner(RIDGE, salt=SALT).checkpoint()
        assert fold.learner.checkpoint() == (wanted or fresh)
        assert fold.prior.digest == PRIOR.digest
        assert (fold.prior.taught is None) == (wanted is None)
    assert fold.prior.reason == "the model was rolled back to before it"


def test_a_warm_start_replaces_what_the_prior_taught():
    """Nothing is taught on top of a model that was trained elsewhere."""
    trained = make_learner(RIDGE, salt=SALT)
    other = Log()
    other.decide(7)
    model = TrainedModel(
        spec_bytes=RIDGE.encoded, learned=7, checkpoint=other.fold().learner.checkpoint()
    )
    log = Log()
    log.prior()
    log.blobs[digest(model.encoded)] = model.encoded
    log.append(WarmStartRecord(digest(model.encoded)), at=2)
    log.prior(_rows(2))

    fold = log.fold()
    assert fold.learner.checkpoint() == model.checkpoint != trained.checkpoint()
    assert (fold.prior.taught, fold.prior.reason) == (None, "the model had learned before")


def test_corrections_and_late_rewards_after_a_prior_equal_those_at_close():
    """as_it_arrives: the sums are those of at_close, on top of the same prior."""
    arrays = []
    for spec in (RIDGE, AS_IT_ARRIVES):
        log = Log(spec)
        log.prior()
        log.decide(9)
        arrays.append(decode_sums(log.fold().learner.checkpoint()))
    for one, other in zip(arrays[0].arrays(), arrays[1].arrays(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (b"nothing", "no rows of a prior"),
        (msgspec.msgpack.encode(PriorRows([])), "1 to 100,000 rows, not 0"),
    ],
)
def test_rows_that_are_none_are_refused_and_learning_goes_on(blob, reason):
    """Whoever folds the log refuses them alike."""
    log = Log()
    log.blobs[digest(blob)] = blob
    refused = []
    log.append(PriorRecord(digest(blob), 0.5), at=2)
    log.decide(4)
    log.configured(msgspec.structs.replace(RIDGE, learner=RidgeConfig(l2=3.0)))
    log.decide(4, start=4)

    fold = Fold(log.blobs.__getitem__, salt=SALT, on_refused=refused.append)
    fold.apply(log.entries)
    assert fold.learned == 8
    assert fold.prior is None
    assert [each.kind for each in refused] == ["prior"]
    assert reason in refused[0].reason
    assert fold.join.counts["refused_prior"] == 1


def test_a_refused_prior_leaves_the_one_that_was_taught():
    """A fresh model keeps what it knows."""
    log = Log()
    log.prior()
    log.blobs[digest(b"x")] = b"x"
    log.append(PriorRecord(digest(b"x"), 0.5), at=2)
    fold = log.fold()
    assert fold.learner.checkpoint() == _taught(RIDGE)
    assert fold.prior.digest == fold.prior.taught.digest == PRIOR.digest
    assert fold.join.counts["refused_prior"] == 1


def test_a_prior_of_other_items_is_refused_and_taught_once_the_catalogue_has_them():
    """It is kept for the model that comes next."""
    log, other = Log(), Catalogue([Item("z")])
    log.blobs[other.digest] = other.encoded
    log.append(CatalogueRecord(other.digest), at=2)
    log.prior()
    fold = log.fold()
    assert fold.prior.taught is None
    assert "none of its items" in fold.prior.reason
    assert fold.join.counts["refused_prior"] == 1

    log.blobs[CATALOGUE.digest] = CATALOGUE.encoded
    log.append(CatalogueRecord(CATALOGUE.digest), at=2)
    log.configured(msgspec.structs.replace(RIDGE, learner=RidgeConfig(l2=3.0)))
    assert log.fold().prior.taught.rows == 60


def test_rows_that_are_not_stored_stop_learning():
    """What depends on the machine stops; with the blob, another fold gets past it."""
    log = Log()
    log.append(PriorRecord(PRIOR.digest, 0.5), at=2)
    with pytest.raises(StalledError):
        log.fold()
    log.blobs[PRIOR.digest] = PRIOR.encoded
    assert log.fold().prior.taught.rows == 90


def test_a_log_without_a_prior_has_the_checkpoints_that_it_always_had():
    """Not one byte says that there are priors."""
    log = Log()
    log.decide(3)
    state = log.fold().state()
    assert type(state) is FoldState
    assert len(msgspec.msgpack.decode(msgspec.msgpack.encode(state))) == 13
    earlier = msgspec.msgpack.encode(PartitionState(**msgspec.structs.asdict(state), merging=None))
    assert decode_state(earlier).prior is None


# Partitions


def _partitioned(spec: PolicySpec) -> Partitions:
    return Partitions(msgspec.structs.replace(spec, partitions=4))


def _teach(partitions: Partitions, rows: PriorRows = PRIOR, partition: int = 0) -> None:
    log = partitions.logs[partition]
    log.blobs[rows.digest] = rows.encoded
    partitions.append(partition, PriorRecord(rows.digest, 0.5))


@pytest.mark.parametrize("spec", [RIDGE, VW], ids=["ridge", "vw"])
def test_four_partitions_know_what_one_would(spec):
    """The first merge is the prior; then all learn on top of it, and verify finds each byte."""
    partitions = _partitioned(spec)
    _teach(partitions)
    assert partitions.folds[0].owes_prior
    partitions.cut(0)
    partitions.merge()
    assert not any(fold.owes_prior for fold in partitions.folds)
    assert partitions.models[partitions.merges[0].digest] == _taught(spec)

    for number in range(40):
        partitions.decide(f"e{number}", chosen=number % 3, reward=float(number % 2))
    partitions.wait(2 * WINDOW)
    partitions.checkpoint(0)
    for partition in range(4):
        partitions.cut(partition)
    partitions.merge()

    together = partitions.together()
    results = list(verify_partitions(together, partitions.served, build=BUILD))
    assert [each.verdict for each in results] == ["identical"] * 2
    merged = partitions.models[partitions.merges[-1].digest]
    assert make_learner(spec, salt=SALT, checkpoint=merged).learned == 45 + 40

    # A resume from the checkpoint is as whoever folded on.
    position = next(iter(partitions.pasts[0].checkpoints))
    resumed = partitions.fold(0, decode_state(partitions.pasts[0].checkpoints[position]))
    resumed.apply(partitions.logs[0].past(position, partitions.logs[0].entries[-1].id))
    assert resumed.state() == partitions.folds[0].state()


def test_four_partitions_merge_to_the_sums_of_one_log():
    """To 1e-9, prior and all."""
    partitions, one = _partitioned(RIDGE), Log(RIDGE)
    _teach(partitions)
    one.prior()
    for number in range(40):
        partitions.decide(f"e{number}", chosen=number % 3, reward=float(number % 2), hour=3.0)
    one.decide(40)
    partitions.wait(2 * WINDOW)
    partitions.merge()
    for partition in range(4):
        partitions.cut(partition)
    partitions.merge()

    merged = decode_sums(partitions.models[partitions.merges[-1].digest])
    alone = decode_sums(one.fold().learner.checkpoint())
    order = [merged.action_ids.index(each) for each in alone.action_ids]
    columns = [merged.hashes.index(each) for each in alone.hashes]
    a, b, cross, count, total = merged.arrays()
    given = a[np.ix_(columns, columns)], b[columns], cross[np.ix_(order, columns)]
    for got, wanted in zip((*given, count[order], total[order]), alone.arrays(), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-9)


@pytest.mark.parametrize("spec", [RIDGE, VW], ids=["ridge", "vw"])
def test_a_policy_of_which_any_partition_has_learned_is_not_touched(spec):
    """What another partition learned is known by the merges that were adopted."""
    partitions = _partitioned(spec)
    partitions.merge()
    name = next(f"e{n}" for n in range(99) if partitions_of(partitions, f"e{n}") == 2)
    partitions.decide(name)
    partitions.wait(2 * WINDOW)
    partitions.cut(2)
    partitions.merge()
    before = partitions.folds[0].learner.checkpoint()
    _teach(partitions)
    assert partitions.folds[0].learner.checkpoint() == before
    assert partitions.folds[0].prior.reason == "the model had learned before"

    # Nor is a prior taken that an entry of another partition brings.
    _teach(partitions, partition=1)
    assert partitions.folds[1].prior is None
    assert partitions.folds[1].join.counts["refused_prior"] == 1


def partitions_of(partitions: Partitions, name: str) -> int:
    from bandits.features.hashing import partition_of  # noqa: PLC0415

    return partition_of(name, partitions.spec.partitions)


@pytest.mark.parametrize("spec", [RIDGE, VW], ids=["ridge", "vw"])
def test_a_rollback_of_partitions_to_the_merge_of_the_prior(spec):
    """The model is the prior's again, and verify derives it."""
    partitions = _partitioned(spec)
    _teach(partitions)
    partitions.cut(0)
    partitions.merge()
    first = partitions.merges[0]
    for number in range(20):
        partitions.decide(f"e{number}", chosen=number % 3, reward=1.0)
    partitions.wait(2 * WINDOW)
    for partition in range(4):
        partitions.cut(partition)
    partitions.merge()

    position = partitions.served[0].snapshot.position
    partitions.append(0, RollbackRecord("s1", position))
    partitions.restore(first)
    assert partitions.folds[0].learner.checkpoint() == _taught(spec)
    assert partitions.folds[0].prior.taught.rows == 90
    results = list(verify_partitions(partitions.together(), partitions.served, build=BUILD))
    assert {each.verdict for each in results} == {"identical"}


def test_a_merge_of_nothing_but_the_prior_is_its_model():
    """Partitions that gave nothing have no part in it."""
    spec = msgspec.structs.replace(VW, partitions=2)
    assert merge_models(spec, SALT, None, [(None, _taught(VW))]) == _taught(VW)
