"""A ridge model's columns run out: the doctor, the learner's figures and the metrics say so."""

import msgspec
import pytest
from support.fakes import SALT, FakeLog
from support.logs import decision

from bandits.exploration import LinTs, Softmax
from bandits.log.join import JoinRule
from bandits.log.records import BuildRecord, RewardRecord, TickRecord
from bandits.log.versions import FOLD
from bandits.ridge.config import RidgeConfig
from bandits.vw.config import VwConfig
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec
from serve_app.store.stats import Stats, summed
from simulator.doctor.checks.findings import Finding
from simulator.doctor.checks.references import ReferencedBlobs
from simulator.doctor.examine import examine

SPEC = PolicySpec(
    "home", learner=RidgeConfig(), exploration=LinTs(draws=3), join=JoinRule(window_s=1)
)


def found(
    spec: PolicySpec, texts: int, *, features: int = 0, rounds: int = 320
) -> tuple[dict[str, Finding], object]:
    """A log whose contexts hold so many different texts, then one that decides.

    The findings, and its fold.
    """
    log = FakeLog()
    log.append(BuildRecord({"fold": str(FOLD)}), at=0)
    log.configure(spec, at=0)
    log.blobs[Catalogue().digest] = Catalogue().encoded
    fold = log.fold()
    snapshot = fold.snapshot()
    for number in range(rounds):
        if number % 40 == 0:
            snapshot = fold.snapshot()
        context = {"query": f"q{number % texts}"} if number < rounds - 20 else {"member": True}
        own = [{f"f{number % features}": 1.0}] * 3 if features else None
        record = decision(f"e{number}", chosen=(number % 3,), context=context, features=own)
        record = msgspec.structs.replace(record, spec=spec.digest, catalogue=Catalogue().digest)
        fold.apply([log.append(record, at=1 + 100 * number)])
        fold.apply([log.append(RewardRecord(f"e{number}", 1.0), at=2 + 100 * number)])
    fold.apply([log.append(TickRecord(), at=100 * rounds + 5000)])
    snapshot = fold.snapshot()
    report = examine(
        log.entries, salts={"salt": SALT}, stored=ReferencedBlobs(log.blobs.get, lambda _: snapshot)
    )
    return {each.check: each for each in report.findings}, fold


@pytest.mark.parametrize(
    ("changes", "texts", "features"),
    [
        ({}, 300, 0),
        ({"learner": RidgeConfig(max_features=10)}, 12, 0),
        ({"learner": RidgeConfig(max_features=20), "exploration": Softmax()}, 3, 30),
        ({"learner": RidgeConfig(max_features=16, interactions=[("context", "features")])}, 5, 5),
        ({"learner": RidgeConfig(max_features=8, action_bias=False)}, 20, 0),
    ],
)
def test_the_doctor_says_that_a_new_feature_finds_no_column(changes, texts, features):
    findings, fold = found(msgspec.structs.replace(SPEC, **changes), texts, features=features)
    finding = findings["columns"]
    assert finding.severity == "warning"
    assert finding.figures["columns"] == finding.figures["max_features"]
    assert finding.figures["without_column"] >= 20
    assert "max_features" in finding.action
    assert fold.learner.columns[0] == fold.learner.columns[1]


@pytest.mark.parametrize(("texts", "most"), [(5, 256), (254, 256)])
def test_while_there_is_room_it_says_how_much(texts, most):
    """Beside the texts: the intercept, and the feature that comes last."""
    finding = found(SPEC, texts)[0]["columns"]
    assert finding.severity == "ok"
    assert finding.figures["columns"] == texts + 2 <= most
    assert finding.figures["without_column"] == 0


def test_a_full_model_that_needs_no_more_is_well():
    spec = msgspec.structs.replace(SPEC, learner=RidgeConfig(max_features=7))
    finding = found(spec, 5)[0]["columns"]
    assert (finding.severity, finding.figures["columns"], finding.figures["without_column"]) == (
        "ok",
        7,
        0,
    )


def test_what_has_no_columns_is_not_judged():
    vw = msgspec.structs.replace(
        SPEC, learner=VwConfig("--cb_explore_adf -b 8"), exploration=Softmax()
    )
    assert "columns" not in found(vw, 5, rounds=60)[0]


def test_a_policys_figures_are_those_of_its_fullest_partition():
    one = Stats("1-0", 5, 1, "s", 1, {"joined": 2}, columns=10, max_columns=256)
    other = msgspec.structs.replace(one, columns=256)
    assert (summed([one, other]).columns, summed([one, other]).max_columns) == (256, 256)
