"""Learning from a log outside the service: as in order.

Then evaluated frozen, or taken over by a fold.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
import pytest
from support.fakes import SALT, FakeLog, FakePast
from support.logs import RULE, WINDOW, decision, log_of
from typer.testing import CliRunner

from bandits.errors import ReplayError, SnapshotError
from bandits.exploration import EpsilonGreedy, LinTs
from bandits.log.codec import digest
from bandits.log.join import JoinedDecision
from bandits.log.records import CheckpointRecord, PinRecord, TickRecord, WarmStartRecord
from bandits.ridge.config import RidgeConfig
from bandits.ridge.model import RidgeModel
from bandits.types import Interaction
from bandits.vw.config import VwConfig
from policies.artifacts.learner_model import TrainedModel, decode_trained
from policies.blend import load_policy, make_learner
from policies.features import featurise, featurise_record
from policies.fold.checkpoint import decode_state
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue, Item
from policies.spec import ArtifactSource, PolicySpec
from serve_app.cli.main import app
from serve_app.cli.train import app as train_app
from simulator.learners.features import featurise_row
from simulator.learners.online import OnlinePolicy, salt_of
from simulator.learners.trained import FrozenPolicy, read_trained, snapshot_of, train_on_log
from simulator.logs.archive.rows import decision_rows
from simulator.logs.rows import LogBatch, LoggedDecision, batch_of
from simulator.logs.text_records import WEIGHT
from simulator.ope.targets import UniformTarget
from simulator.replay.evaluate import OpeQuestion, evaluate
from simulator.replay.parse_policy import parse_policy

RIDGE = PolicySpec(
    "home", learner=RidgeConfig(interactions=[("context", "item")]), exploration=LinTs(), join=RULE
)
VW = msgspec.structs.replace(
    RIDGE,
    learner=VwConfig("--cb_explore_adf --cb_type mtr -b 10 -q ci"),
    exploration=EpsilonGreedy(),
)
SPECS = {"ridge": RIDGE, "vw": VW}


@dataclass
class Rows:
    """A piece of rows that are there already."""

    rows: list[LoggedDecision]
    columns: dict = field(default_factory=dict)
    skipped: int = 0

    def batches(self) -> Iterator[LogBatch]:
        batch = batch_of(self.rows)
        yield LogBatch(
            batch.keys, batch.times_ms, batch.reward, batch.propensity, self.rows, self.columns
        )


def rows(count: int = 400, seed: int = 0) -> list[LoggedDecision]:
    """On the phone "a" is good, on the web "b"; chosen uniformly."""
    rng = np.random.default_rng(seed)
    out = []
    for number in range(count):
        device, chosen = ("phone", "web")[int(rng.integers(2))], int(rng.integers(3))
        good = chosen == (0 if device == "phone" else 1)
        reward = float(rng.random() < (0.8 if good else 0.2))
        pmf = np.full(3, 1 / 3)
        out.append(
            LoggedDecision(
                f"{seed}-{number}", {"device": device}, list("abc"), chosen, 1 / 3, reward, pmf=pmf
            )
        )
    return out


@pytest.mark.parametrize("name", SPECS)
def test_training_is_learning_in_the_logs_order(name):
    spec, log = SPECS[name], rows()
    by_hand = make_learner(spec, salt=b"")
    for row in log:
        context, actions = featurise(spec, Catalogue(), row.context, row.action_ids, None, {})
        by_hand.learn(
            [Interaction(row.event_id, 0, context, actions, row.chosen, row.propensity, row.reward)]
        )
    seen: list[int] = []
    model = train_on_log(spec, [Rows(log[:150]), Rows(log[150:])], progress=seen.append)
    assert model.checkpoint == by_hand.checkpoint()
    assert model.learned == seen[-1] == 400
    assert decode_trained(model.encoded) == model


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_a_trained_policy_is_evaluated_as_a_replica_would_serve_it(name):
    spec = SPECS[name]
    model = train_on_log(spec, [Rows(rows())])
    snapshot = snapshot_of(model, salt=SALT)
    frozen = FrozenPolicy("trained", spec, snapshot)
    row = rows(1, seed=1)[0]
    served = load_policy(spec, snapshot).pmf(*featurise_row(spec, row))
    np.testing.assert_array_equal(frozen.pmf(row), served)
    np.testing.assert_array_equal(copy.copy(frozen).pmf(row), served)
    report = evaluate(OpeQuestion([frozen, UniformTarget()]), [Rows(rows(1500, seed=2))])
    value, uniform = (result.estimates["dr"] for result in report.results)
    assert value.interval[0] < 0.8
    assert value.value > uniform.value + 0.1
    assert report.winner == "trained"


def test_rows_of_the_projects_own_log_have_the_features_of_the_catalogue_they_name():
    catalogue = Catalogue([Item("a", {"price": 2.0}), Item("b", {"price": 3.0})])
    record = decision("e", chosen=(2, 0), catalogue=catalogue.digest)
    _, second = decision_rows(JoinedDecision("5-0", record, (0, 1), (1.0, 0.0)), catalogue)
    _, whole = featurise_record(RIDGE, catalogue, record)
    _, left = featurise_row(RIDGE, second)
    assert left.ids == ("a", "b")
    for mine, expected in zip(left.namespaces, whole.take([0, 1]).namespaces, strict=True):
        np.testing.assert_array_equal(mine.values, expected.values)
    assert [3.0] in left.namespaces[1].values.tolist()


def test_what_cannot_be_learned_from_is_refused_by_name(tmp_path):
    numbers = LogBatch(np.zeros(1, np.uint64), np.zeros(1, np.int64), np.ones(1), np.ones(1))

    class Numbers(Rows):
        def batches(self):
            yield numbers

    mixture = PolicySpec("m", kind="mixture", sources=[ArtifactSource("cf")], artifact="x")
    for spec, piece, said in (
        (RIDGE, Numbers([]), "only numbers"),
        (RIDGE, Rows([]), "no row"),
        (RIDGE, Rows(rows(2), {WEIGHT: np.array([1.0, 2.0])}), "pdrop"),
        (mixture, Rows(rows(2)), "mixture"),
    ):
        with pytest.raises(ReplayError, match=said):
            train_on_log(spec, [piece])
    with pytest.raises(ReplayError, match=r"nothing\.model"):
        read_trained(tmp_path / "nothing.model")
    damaged = tmp_path / "damaged.model"
    whole = train_on_log(RIDGE, [Rows(rows(20))]).encoded
    for data in (whole[:-3], whole.replace(b"model 1", b"model 9"), b"\x93\x01"):
        damaged.write_bytes(data)
        with pytest.raises(SnapshotError, match="trained model"):
            read_trained(damaged)


FORGETS = msgspec.structs.replace(
    RIDGE, learner=msgspec.structs.replace(RIDGE.learner, half_life="10s")
)


@pytest.mark.parametrize("spec", [FORGETS, msgspec.structs.replace(FORGETS, use=["item"])])
def test_a_row_counts_by_its_own_time_and_the_model_is_as_of_the_newest(spec):
    """Whatever number the snapshot of an evaluation has for a position."""
    timed = [replace(row, time_ms=10**12 + 1000 * number) for number, row in enumerate(rows(50))]
    model = train_on_log(spec, [Rows(timed[:20]), Rows(timed[20:])])
    worth = RidgeModel(snapshot_of(model, salt=SALT)).worth
    assert worth == pytest.approx(sum(2 ** (-age / 10) for age in range(50)), rel=1e-12)
    online = OnlinePolicy(spec, publish_every=50, seed=0)
    for row in timed:
        online.learn(row, *online.features(row), row.propensity)
    assert online.pmf(timed[0], *online.features(timed[0])) == pytest.approx(
        load_policy(spec, snapshot_of(model, salt=salt_of(0))).pmf(*online.features(timed[0]))
    )


def test_a_log_without_times_teaches_no_model_that_forgets():
    with pytest.raises(ReplayError, match="without a time") as refused:
        train_on_log(FORGETS, [Rows(rows(20))])
    assert refused.value.target == "learner.half_life"
    online, row = OnlinePolicy(FORGETS, publish_every=5, seed=0), rows(1)[0]
    with pytest.raises(ReplayError, match="without a time"):
        online.learn(row, *online.features(row), row.propensity)


def test_a_log_is_learned_and_the_policy_evaluated_from_the_command_line(tmp_path):
    for seed, name in enumerate(("first.csv", "second.csv")):
        lines = ["id,device,action,p,click"]
        lines += [
            f"{row.event_id},{row.context['device']},{row.action_ids[row.chosen]},"
            f"{row.propensity},{row.reward}"
            for row in rows(600, seed)
        ]
        (tmp_path / name).write_text("\n".join(lines))
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "{name: home, learner: {kind: ridge, interactions: [[context, item]]}, exploration: {kind:"
        " lints}}"
    )
    columns = (
        "{reward: click, propensity: p, event_id: id, action: action, action_ids: [a, b, c],"
        " context: [device]}"
    )
    log = ["--format", "csv", "--columns", columns, "--log"]
    model, report = str(tmp_path / "home.model"), tmp_path / "report.json"
    done = CliRunner().invoke(
        train_app, ["policy", str(spec), *log, str(tmp_path / "first.csv"), "--out", model]
    )
    assert done.exit_code == 0, done.output
    assert "600 rows" in done.output
    command = [
        "replay",
        *log,
        str(tmp_path / "second.csv"),
        "--policy",
        model,
        "--policy",
        "uniform",
    ]
    done = CliRunner().invoke(app, [*command, "--out", str(report)])
    assert done.exit_code == 0, done.output
    found = msgspec.json.decode(report.read_bytes())
    assert found["winner"] == "home"
    assert "600 rows" in found["results"][1]["notes"][0]
    assert isinstance(parse_policy(f"{{kind: trained, path: {model}, name: x}}"), FrozenPolicy)
    done = CliRunner().invoke(train_app, ["policy", str(spec), *log, str(tmp_path / "first.csv")])
    assert isinstance(done.exception, ReplayError)
    assert "--out" in done.exception.message


# A fold that goes on from a trained model


def started(spec: PolicySpec, model: TrainedModel | bytes, *, before: int = 5) -> FakeLog:
    log = log_of([(1000, decision(f"e{i}")) for i in range(before)], spec)
    log.append(PinRecord("some"), at=1000 * before + WINDOW)
    data = model if isinstance(model, bytes) else model.encoded
    log.blobs[digest(data)] = data
    log.append(WarmStartRecord(digest(data)), at=1000 * before + WINDOW + 1)
    return log


@pytest.mark.parametrize("name", SPECS)
def test_a_fold_goes_on_from_a_trained_model(name):
    spec = SPECS[name]
    model = train_on_log(spec, [Rows(rows())])
    log = started(spec, model)
    fold = log.fold()
    assert fold.learned == model.learned
    assert fold.learner.checkpoint() == model.checkpoint
    assert fold.pinned is None
    assert not fold.refused_warm_starts
    log.append(decision("after", spec=spec.digest, catalogue=Catalogue().digest), at=30_000)
    log.append(TickRecord(), at=30_000 + WINDOW)
    assert log.fold().learned == model.learned + 1


def test_a_resume_past_a_warm_start_gives_the_same_bytes():
    log, states = started(RIDGE, train_on_log(RIDGE, [Rows(rows())])), []
    log.append(CheckpointRecord(), at=30_000)
    log.append(decision("after", spec=RIDGE.digest, catalogue=Catalogue().digest), at=30_001)
    log.append(TickRecord(), at=30_001 + WINDOW)
    whole = Fold(
        log.blobs.__getitem__, salt=SALT, on_checkpoint=lambda _, data: states.append(data())
    )
    whole.apply(log.entries)
    again = Fold(log.blobs.__getitem__, salt=SALT)
    again.resume(decode_state(states[0]), FakePast(log))
    again.apply(log.past(again.position, log.entries[-1].id))
    assert again.snapshot() == whole.snapshot()


def test_a_model_that_does_not_fit_changes_nothing_and_is_counted():
    other = train_on_log(
        msgspec.structs.replace(RIDGE, learner=RidgeConfig(l2=9.0)), [Rows(rows())]
    )
    fits = train_on_log(RIDGE, [Rows(rows())])
    untouched = log_of([(1000, decision(f"e{i}")) for i in range(5)], RIDGE)
    untouched.append(TickRecord(), at=5000 + WINDOW + 1)
    for model in (other, b"garbage", msgspec.structs.replace(fits, checkpoint=b"garbage")):
        fold = started(RIDGE, model).fold()
        assert fold.refused_warm_starts == 1
        assert fold.learner.checkpoint() == untouched.fold().learner.checkpoint()
        assert fold.pinned == "some"
