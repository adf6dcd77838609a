"""Every kind of entry is applied, or refused alike by all, or the fold stops and names it."""

from collections.abc import Callable
from typing import get_args

import msgspec
import numpy as np
import pytest
from support.fakes import SALT, FakeLog, FakePast
from support.logs import RULE, WINDOW, archived, decision

from bandits.errors import (
    ArchiveError,
    BadRowError,
    BanditloopError,
    MissingBlobError,
    StalledError,
)
from bandits.exploration import EpsilonGreedy, LinTs, VwExploration
from bandits.log import records
from bandits.log.codec import digest, encode
from bandits.log.records import Credit, LogRecord, MergeInput, MergeRecord, kind_of
from bandits.ridge.config import RidgeConfig
from bandits.vw.config import VwConfig
from policies.artifacts.learner_model import TrainedModel
from policies.artifacts.prior import PriorDecision, PriorRows
from policies.blend import make_learner
from policies.fold import fold as folding
from policies.fold import memory, model
from policies.fold.checkpoint import Refusal, decode_state
from policies.fold.fold import Fold
from policies.fold.partition import PartitionFold
from policies.fold.verify import ServedSnapshot, verify
from policies.items.catalogue import Catalogue, Item
from policies.spec import PolicySpec, RemoteSource
from simulator.doctor.checks.references import MissingBlobs, ReferencedBlobs
from simulator.logs.archive.pieces import policy_pieces

RIDGE = PolicySpec("home", learner=RidgeConfig(), exploration=LinTs(draws=3), join=RULE)
VW = msgspec.structs.replace(
    RIDGE,
    learner=VwConfig("--cb_explore_adf --cb_type mtr -b 8 -q ci"),
    exploration=EpsilonGreedy(0.2),
)
SPECS = {"ridge": RIDGE, "vw": VW}
OTHER = msgspec.structs.replace(RIDGE, learner=RidgeConfig(l2=9.0))
CATALOGUE = Catalogue([Item("a", {"x": 1.0})])
PRIOR = PriorRows.of([PriorDecision.of({}, ["a"], {}, np.ones(1, np.float32))])
AT = 20_000
Make = Callable[[FakeLog, PolicySpec], LogRecord]


def blob(log: FakeLog, data: bytes) -> str:
    log.blobs[digest(data)] = data
    return digest(data)


def trained(spec: PolicySpec, checkpoint: bytes | None = None) -> bytes:
    model = make_learner(spec, salt=SALT).checkpoint() if checkpoint is None else checkpoint
    return TrainedModel(spec_bytes=spec.encoded, learned=7, checkpoint=model).encoded


def changed(spec: PolicySpec, **changes) -> bytes:
    return msgspec.structs.replace(spec, **changes).encoded


def named(policy: PolicySpec, **changes) -> records.DecisionRecord:
    return decision("odd", **{"spec": policy.digest, "catalogue": Catalogue().digest, **changes})


def vw_spec(args: str) -> bytes:
    plain = msgspec.to_builtins(VW)
    return msgspec.json.encode({**plain, "learner": {"kind": "vw", "args": args}})


REFUSED: dict[str, tuple[str, Make]] = {
    "spec: not JSON": ("truncated", lambda log, _: records.SpecRecord(blob(log, b"{"), "s")),
    "spec: an unknown key": (
        "unknown",
        lambda log, _: records.SpecRecord(blob(log, b'{"name":"home","z":1}'), "s"),
    ),
    "spec: a combination that cannot work": (
        "does not explore by lints",
        lambda log, _: records.SpecRecord(
            blob(log, b'{"name":"home","learner":{"kind":"vw"},"exploration":{"kind":"lints"}}'),
            "s",
        ),
    ),
    "spec: arguments that are not allowed": (
        "not one of",
        lambda log, _: records.SpecRecord(blob(log, vw_spec("--cb_explore_adf --nonsense")), "s"),
    ),
    "spec: arguments that VW refuses": (
        "VW refuses",
        lambda log, _: records.SpecRecord(
            blob(log, vw_spec("--cb_explore_adf --cb_type nonsense")), "s"
        ),
    ),
    "catalogue: not JSON": ("catalogue", lambda log, _: records.CatalogueRecord(blob(log, b"[{]"))),
    "catalogue: two items of one id": (
        "share an id",
        lambda log, _: records.CatalogueRecord(blob(log, b'[{"id":"a"},{"id":"a"}]')),
    ),
    "catalogue: a number beyond the limit": (
        "up to",
        lambda log, _: records.CatalogueRecord(blob(log, b'[{"id":"a","features":{"x":1e300}}]')),
    ),
    "decision: of a spec that is none": (
        "truncated",
        lambda log, spec: named(spec, spec=blob(log, b"{")),
    ),
    "decision: of a catalogue that is none": (
        "catalogue",
        lambda log, spec: named(spec, catalogue=blob(log, b"{")),
    ),
    "decision: a slate of such a catalogue": (
        "catalogue",
        lambda log, spec: named(spec, chosen=(2, 0), catalogue=blob(log, b"[1]")),
    ),
    "prior: no rows": (
        "no rows of a prior",
        lambda log, _: records.PriorRecord(blob(log, b"x"), 0.5),
    ),
    "warm_start: not a model": (
        "not a trained model",
        lambda log, _: records.WarmStartRecord(blob(log, b"x")),
    ),
    "warm_start: of another learner": (
        "another kind",
        lambda log, spec: records.WarmStartRecord(blob(log, trained(OTHER))),
    ),
    "warm_start: its spec is none": (
        "truncated",
        lambda log, _: records.WarmStartRecord(
            blob(log, TrainedModel(spec_bytes=b"{", learned=1, checkpoint=b"").encoded)
        ),
    ),
    "warm_start: its checkpoint is none": (
        "not a",
        lambda log, spec: records.WarmStartRecord(blob(log, trained(spec, b"x"))),
    ),
    "rollback: to before there was a spec": (
        "no spec",
        lambda _, __: records.RollbackRecord("s", "0-0"),
    ),
    "rollback: to what is not yet": (
        "no spec",
        lambda _, __: records.RollbackRecord("s", f"{AT + 9}-0"),
    ),
}
APPLIED: dict[str, Make] = {
    "decision": lambda _, spec: named(spec),
    "reward": lambda _, __: records.RewardRecord("e4", 9.0, "late"),
    "activation": lambda _, __: records.ActivationRecord("nobody"),
    "tick": lambda _, __: records.TickRecord(),
    "spec": lambda log, spec: records.SpecRecord(blob(log, changed(spec, floor=0.5)), "s"),
    "spec: VW's own exploration": lambda log, spec: records.SpecRecord(
        blob(log, changed(spec, exploration=VwExploration() if spec is VW else LinTs(draws=9))), "s"
    ),
    "catalogue": lambda log, _: records.CatalogueRecord(blob(log, CATALOGUE.encoded)),
    "artifact": lambda _, __: records.ArtifactRecord("v1"),
    "build": lambda _, __: records.BuildRecord({"machine": "x"}),
    "checkpoint": lambda _, __: records.CheckpointRecord(),
    "pin": lambda _, __: records.PinRecord("nowhere"),
    "rollback": lambda log, _: records.RollbackRecord("s", log.entries[4].id),
    "warm_start": lambda log, spec: records.WarmStartRecord(blob(log, trained(spec))),
    "prior": lambda log, _: records.PriorRecord(blob(log, PRIOR.encoded), 0.5),
    "cut": lambda _, __: records.CutRecord(1),
    "merge": lambda _, __: MergeRecord(
        1, [None, MergeInput(1, "1-0", "x", 0)], "y", "another model"
    ),
    "items": lambda _, __: records.ItemsRecord([records.ItemChange("delete", "a")]),
    "items_base": lambda _, __: records.ItemsBaseRecord("nowhere"),
    "activity": lambda _, __: records.ActivityRecord("u", "a", "view"),
    "merge_users": lambda _, __: records.MergeUsersRecord("u", "v"),
    "erasure": lambda _, __: records.ErasureRecord("u", "e1"),
    "root": lambda _, __: records.RootRecord("5-0", "nowhere"),
    "control": lambda _, __: records.ControlRecord({"at_least true": 0.5}),
    "reranked": lambda _, spec: records.RerankedRecord("odd", encode(named(spec))),
}


def log_of(spec: PolicySpec, make: Make | None) -> FakeLog:
    """Decisions with rewards, a checkpoint, what is made, then decisions whose windows close."""
    log = FakeLog(spec)
    log.blobs[Catalogue().digest] = Catalogue().encoded
    for i in range(16):
        at = 1000 * (1 + i) if i < 8 else AT + 1000 * i
        if i == 8:
            log.append(records.CheckpointRecord(), at=AT - 1)
            log.append(records.TickRecord() if make is None else make(log, spec), at=AT)
        record = decision(f"e{i}", spec=spec.digest, catalogue=Catalogue().digest, chosen=(i % 3,))
        log.append(record, at=at)
        if i % 2:
            log.append(records.RewardRecord(f"e{i}", float(i), "r"), at=at)
    log.append(records.TickRecord(), at=AT + 16_000 + WINDOW)
    return log


def whole(log: FakeLog, refusals: list[Refusal], past: FakePast | None = None) -> Fold:
    past = past or FakePast(log)
    return Fold(
        log.blobs.__getitem__,
        salt=SALT,
        past=past,
        on_checkpoint=past.keep,
        on_refused=refusals.append,
    )


def as_partition(log: FakeLog, refusals: list[Refusal]) -> PartitionFold:
    past = FakePast(log)
    return PartitionFold(
        log.blobs.__getitem__,
        salt=SALT,
        past=past,
        partition=0,
        merged=lambda _: b"",
        on_refused=refusals.append,
    )


def test_the_tables_know_every_kind_of_record():
    kinds = {each.__struct_config__.tag for each in get_args(LogRecord)}
    assert {name.partition(":")[0] for name in APPLIED} == kinds
    assert {name.partition(":")[0] for name in REFUSED} == {
        "spec",
        "catalogue",
        "decision",
        "prior",
        "warm_start",
        "rollback",
    }


@pytest.mark.parametrize("learner", SPECS)
@pytest.mark.parametrize("name", REFUSED)
def test_what_the_bytes_show_is_refused_alike_by_all_and_learning_goes_on(name, learner):
    """The model is that of the log without the entry.

    Resumed, verified, and as one partition of several, too.
    """
    spec, (why, make) = SPECS[learner], REFUSED[name]
    log, kind, told = log_of(spec, make), name.partition(":")[0], []
    fold, past = whole(log, told, kept := FakePast(log)), kept
    served = []
    for entry in log.entries:
        fold.apply([entry])
        if entry.id == f"{AT + 15_000}-0":
            served.append(
                ServedSnapshot("s", fold.snapshot(), fold.spec_id, fold.catalogue.digest, {})
            )
    assert {(each.position, each.kind) for each in told} == {(f"{AT}-0", kind)}
    assert all(why in each.reason for each in told)
    assert counted(fold, kind) == 1
    plain = whole(log_of(spec, None), [])
    plain.apply(log_of(spec, None).entries)
    assert fold.learned == plain.learned == 16
    assert fold.learner.checkpoint() == plain.learner.checkpoint()
    assert (fold.spec_id, fold.catalogue.digest) == (plain.spec_id, plain.catalogue.digest)

    again: list[Refusal] = []
    resumed = whole(log, again)
    resumed.resume(decode_state(past.checkpoints[f"{AT - 1}-0"]), past)
    resumed.apply(log.past(resumed.position, log.entries[-1].id))
    assert again == told
    assert resumed.state() == fold.state()

    assert [each.verdict for each in verify(whole(log, []), log.entries, served, build={})] == [
        "identical"
    ]

    if kind != "rollback":  # of several partitions the next merge decides
        of_several: list[Refusal] = []
        partition = as_partition(log, of_several)
        partition.apply(log.entries)
        assert [(each.position, each.kind) for each in of_several] == [
            (each.position, each.kind) for each in told
        ]
        assert partition.learned == 16


def counted(fold: Fold, kind: str) -> int:
    kept = {"rollback": fold.refused_rollbacks, "warm_start": fold.refused_warm_starts}
    return kept.get(kind, fold.join.counts[f"refused_{kind}"])


@pytest.mark.parametrize("learner", SPECS)
@pytest.mark.parametrize("name", APPLIED)
def test_what_can_be_applied_is_and_nothing_is_counted(name, learner):
    log, told = log_of(SPECS[learner], APPLIED[name]), []
    fold = whole(log, told)
    fold.apply(log.entries)
    assert not told
    assert fold.position == log.entries[-1].id
    assert not any(key.startswith("refused") for key in fold.join.counts)


BLOBS = {
    "spec": APPLIED["spec"],
    "catalogue": APPLIED["catalogue"],
    "warm_start": APPLIED["warm_start"],
    "prior": APPLIED["prior"],
    "decision: its spec": lambda log, spec: named(spec, spec=blob(log, changed(spec, floor=0.7))),
    "decision: its catalogue": lambda log, spec: named(
        spec, catalogue=blob(log, CATALOGUE.encoded)
    ),
    **{
        f"refused {name}": make
        for name, (_, make) in REFUSED.items()
        if not name.startswith("rollback")
    },
}


@pytest.mark.parametrize(
    "damage", [lambda data: None, lambda data: data[:-1], lambda data: data + b" "]
)
@pytest.mark.parametrize("name", BLOBS)
def test_without_its_blob_or_with_a_damaged_one_the_fold_stops_at_the_entry_and_later_goes_on(
    name, damage
):
    """It is not refused, whatever the blob holds: that is not known.

    With the blob back it is as if it never lacked.
    """
    log = log_of(RIDGE, BLOBS[name])
    expected = whole(log, told := [])
    expected.apply(log.entries)
    record = next(entry.record for entry in log.entries if entry.id == f"{AT}-0")
    names = {getattr(record, field, None) for field in ("digest", "spec", "catalogue")} - {
        RIDGE.digest
    }
    [missing] = [each for each in log.blobs if each in names and each != Catalogue().digest]
    data = log.blobs.pop(missing)
    if (damaged := damage(data)) is not None:
        log.blobs[missing] = damaged
    again, past = [], FakePast(log)
    fold = whole(log, again, past)
    with pytest.raises(StalledError) as stopped:
        fold.apply(log.entries)
    assert not again
    closes = (
        "its catalogue" in name or "catalogue that is none" in name or "such a catalogue" in name
    )
    assert stopped.value.position == (f"{AT + 10_000}-0" if closes else f"{AT}-0")
    assert missing[:8] in stopped.value.message
    log.blobs[missing] = data
    again.clear()
    fold = whole(log, again, past)
    fold.resume(past.checkpoint(log.entries[-1].id), past)
    fold.apply(log.past(fold.position, log.entries[-1].id))
    assert again == told
    assert fold.state() == expected.state()


@pytest.mark.parametrize(
    "error", [MemoryError("too little"), np.linalg.LinAlgError("singular"), RuntimeError("VW")]
)
@pytest.mark.parametrize("name", ["spec", "checkpoint", "warm_start", "rollback"])
def test_what_depends_on_the_machine_stops_the_fold_and_refuses_nothing(name, error, monkeypatch):
    log, told = log_of(RIDGE, APPLIED[name]), []
    fold = whole(log, told)
    fold.apply(log.past("0-0", f"{AT - 1}-0"))

    def fails(*_args, **_options):
        raise error

    for module in (memory, model, folding):
        monkeypatch.setattr(module, "make_learner", fails)
    with pytest.raises(StalledError, match=str(error)) as stopped:
        fold.apply(log.past(fold.position, log.entries[-1].id))
    assert (stopped.value.position, stopped.value.kind) == (f"{AT}-0", name)
    assert not told


@pytest.mark.parametrize(
    "error", [ArchiveError("a gap"), OSError("gone"), MissingBlobError("gone")]
)
def test_a_rollback_without_the_log_behind_it_stops_the_fold(error):
    log = log_of(RIDGE, APPLIED["rollback"])
    past = FakePast(log)

    def unreadable(*_):
        raise error

    past.entries = unreadable
    with pytest.raises(StalledError) as stopped:
        whole(log, [], past).apply(log.entries)
    assert stopped.value.kind == "rollback"


def test_a_rollback_to_a_checkpoint_that_cannot_be_used_reads_the_log_from_its_start():
    log = log_of(RIDGE, lambda log, _: records.RollbackRecord("s", log.entries[-1].id))
    expected = whole(log, [])
    expected.apply(log.entries)
    past = FakePast(log)
    past.keep = lambda position, data: past.checkpoints.update({position: broken(data())})
    fold = whole(log, told := [], past)
    fold.apply(log.entries)
    assert past.checkpoints
    assert not told
    assert fold.learner.checkpoint() == expected.learner.checkpoint()


def broken(data: bytes) -> bytes:
    return msgspec.msgpack.encode(msgspec.structs.replace(decode_state(data), learner=b"x"))


@pytest.mark.parametrize(
    ("sources", "scores"),
    [
        (["cf", "zz"], {"cf": [1.0, 2.0, 3.0]}),
        (["zz"], {}),
        (["zz"], {"zz": [np.nan] * 3, "cf": [1.0, 1.0, 1.0]}),
    ],
)
def test_a_mixtures_decision_credited_to_a_source_without_scores_is_refused(sources, scores):
    spec = msgspec.structs.replace(
        RIDGE, kind="mixture", sources=[RemoteSource("cf", "http://x"), RemoteSource("zz", "y")]
    )
    arrays = {name: np.array(each, "<f4").tobytes() for name, each in scores.items()}
    pmf = np.full(len(sources), 1 / len(sources)).tobytes()
    credit = Credit(sources, pmf, [len(sources) - 1])
    log = log_of(spec, lambda _, spec: named(spec, scores=arrays, credit=credit))
    fold = whole(log, told := [])
    fold.apply(log.entries)
    assert [(each.position, each.kind) for each in told] == [(f"{AT}-0", "decision")]
    assert "zz" in told[0].reason


def test_an_error_of_a_partitions_merge_stops_the_fold_and_refuses_nothing():
    """What is merged is not in the entry: other logs give it, or a store that may lose it."""
    log = log_of(VW, lambda _, spec: MergeRecord(1, [None, None], "0" * 32, spec.model_digest))

    def lost(_):
        raise BanditloopError("it is not stored")

    past = FakePast(log)
    fold = PartitionFold(log.blobs.__getitem__, salt=SALT, past=past, partition=0, merged=lost)
    with pytest.raises(StalledError, match="not stored") as stopped:
        fold.apply(log.entries)
    assert (stopped.value.position, stopped.value.kind) == (f"{AT}-0", "merge")


def test_a_partitions_rollback_is_refused_by_a_merge_that_does_not_restore_as_of_the_rollback():
    log = log_of(RIDGE, lambda _, __: records.RollbackRecord("s", "1-0"))
    log.append(MergeRecord(1, [None, None], "0" * 32, RIDGE.model_digest), at=AT + 90_000)
    fold = as_partition(log, told := [])
    fold.apply(log.entries)
    assert [(each.position, each.kind) for each in told] == [(f"{AT}-0", "rollback")]
    assert fold.refused_rollbacks == 1


def test_every_kind_of_record_has_a_name():
    assert kind_of(records.WarmStartRecord("x")) == "warm_start"


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("own", [False, True])
def test_a_model_that_vw_was_taught_in_another_way_is_taken_since_fold_2(version, own):
    """Earlier builds refused it; their logs are folded as they folded them."""
    explorations = {False: EpsilonGreedy(0.2), True: VwExploration()}
    spec, other = (
        msgspec.structs.replace(VW, exploration=explorations[each]) for each in (own, not own)
    )
    teacher = whole(log := log_of(other, None), [])
    teacher.apply(log.entries)
    model = TrainedModel(
        spec_bytes=other.encoded, learned=16, checkpoint=teacher.learner.checkpoint()
    )
    log = FakeLog(spec)
    if version > 1:
        log.append(records.BuildRecord({"fold": str(version)}), at=2)
    log.append(records.WarmStartRecord(blob(log, model.encoded)), at=3)
    fold = whole(log, told := [])
    fold.apply(log.entries)
    assert fold.learned == (16 if version > 1 else 0)
    assert fold.refused_warm_starts == len(told) == (version == 1)


@pytest.mark.parametrize("name", [each for each in REFUSED if not each.startswith("rollback")])
@pytest.mark.parametrize("shards", [1, 3])
def test_who_reads_the_archive_refuses_the_same(name, shards, tmp_path):
    """For ``train`` and ``replay``: the rows that were learned from, and what was left out."""
    kind, log = name.partition(":")[0], log_of(RIDGE, REFUSED[name][1])
    archived(tmp_path, log.entries, RIDGE, blobs=log.blobs)
    for digested, data in log.blobs.items():
        (tmp_path / "p" / "_blobs" / digested).write_bytes(data)  # also what only decisions name
    pieces = policy_pieces(str(tmp_path), "p", shards, skip_bad=True)
    rows = [row for piece in pieces for batch in piece.batches() for row in batch.decisions]
    assert [row.event_id for row in rows] == [f"e{i}" for i in range(16)]
    skipped = sum(piece.skipped for piece in pieces)
    assert skipped == (kind == "decision")
    if kind == "decision":
        with pytest.raises(BadRowError, match=f"{AT}-0"):
            [
                batch
                for piece in policy_pieces(str(tmp_path), "p", shards)
                for batch in piece.batches()
            ]


@pytest.mark.parametrize("name", [each for each in REFUSED if not each.startswith("rollback")])
def test_to_the_doctor_a_refused_entry_is_no_gap_and_one_without_its_blob_is(name):
    log = log_of(RIDGE, REFUSED[name][1])
    record = next(entry.record for entry in log.entries if entry.id == f"{AT}-0")
    names = {getattr(record, field, None) for field in ("digest", "spec", "catalogue")} - {
        RIDGE.digest
    }
    [odd] = [each for each in log.blobs if each in names and each != Catalogue().digest]
    for missing, severity in ((False, "ok"), (True, "failure")):
        blobs = {each: data for each, data in log.blobs.items() if not (missing and each == odd)}
        gaps = MissingBlobs(ReferencedBlobs(blobs.get))
        for entry in log.entries:
            gaps.add(entry)
        [finding] = gaps.findings()
        assert finding.severity == severity
        assert finding.figures["first"] == (odd if missing else None)
