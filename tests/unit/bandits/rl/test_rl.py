"""A network as a policy: the paper's equation, what is refused, and what stays as it was."""

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from support.fakes import SALT, FakeLog, FakePast
from support.strategies import decision_features

from bandits.errors import ArtifactError, InvalidFieldError, SnapshotError, SpecError
from bandits.exploration import EpsilonGreedy, LinTs, Softmax, SquareCB
from bandits.log.codec import digest
from bandits.log.records import CheckpointRecord, RewardRecord, TickRecord, WarmStartRecord
from bandits.rl.config import RlConfig
from bandits.rl.feature_schema import FeatureSchema
from bandits.rl.network import Network, RlScores, encode_network, shapes
from bandits.types import Snapshot
from policies.artifacts.learner_model import TrainedModel
from policies.blend import load_policy, make_learner
from policies.decisions.mixture import Mixture
from policies.features import featurise
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue
from policies.ranker import Ranker
from policies.requests import ActionRequest, RankRequest
from policies.sources import load_sources
from policies.spec import PolicySpec, RemoteSource, RlSource, decode_spec, load_spec

NAMES = [
    ("context", "hour"),
    ("context", "device=phone"),
    ("features", "topic=sport"),
    ("scores", "cf.score"),
]
SCHEMA = FeatureSchema(NAMES)
ACTIONS = [
    ActionRequest(f"a{k}", {"topic": "sport" if k % 2 else "news"}, {"cf": k / 7}) for k in range(8)
]
REQUEST = RankRequest(event_id="e", context={"hour": 0.5, "device": "phone"}, actions=ACTIONS)


def network(seed: int = 0, names=NAMES, width: int = 6, **replaced) -> Network:
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(size=shape) for name, shape in shapes(len(names) + 1, width).items()}
    return Network.of(names, arrays | replaced)


def spec_of(**changes) -> PolicySpec:
    fields = {
        "learner": RlConfig(SCHEMA.digest),
        "exploration": Softmax(0.5),
        "floor": 0.1,
    } | changes
    return PolicySpec("rl", kind="rl", **fields)


def snapshot(given: Network | bytes, position: str = "1-0") -> Snapshot:
    payload = given if isinstance(given, bytes) else encode_network(given, 500)
    return Snapshot("rl", position, 500, payload)


def test_scores_are_those_of_the_equation():
    net = network()
    scores = RlScores(net)
    each = scores._arrays
    x = np.random.default_rng(1).normal(size=(4, len(SCHEMA)))
    hidden = [np.maximum(row @ each["embed"] + each["embed_bias"], 0) for row in x]
    mean = sum(hidden) / len(hidden)
    expected = [
        float(np.maximum(h @ each["own"] + mean @ each["others"] + each["bias"], 0) @ each["score"])
        for h in hidden
    ]
    np.testing.assert_allclose(scores.of_matrix(x), expected, rtol=1e-12)


def test_the_schema_lays_out_what_it_names_and_leaves_out_the_rest():
    context, actions = featurise(
        spec_of(),
        Catalogue(),
        {"hour": 2.0, "device": "tablet", "unknown": 9.0},
        ["a", "b"],
        [{"topic": "sport"}, {"topic": "news", "unknown": 3.0}],
        {"cf": np.array([0.25, np.nan], np.float32)},
    )
    np.testing.assert_array_equal(
        SCHEMA.matrix(context, actions), [[1, 2, 0, 1, 0.25], [1, 2, 0, 0, 0]]
    )


def test_a_schema_names_each_feature_once():
    with pytest.raises(SnapshotError, match="each once"):
        FeatureSchema([*NAMES, NAMES[0]])
    assert FeatureSchema(NAMES[::-1]).digest != SCHEMA.digest


async def test_its_pmf_is_a_softmax_above_the_floor_and_is_what_is_logged():
    ranker = Ranker(spec_of(), [], salt=SALT)
    ranker.serve("s0", snapshot(network()))
    record = await ranker.rank(REQUEST)
    pool = [action.features for action in ACTIONS]
    features = featurise(
        spec_of(), Catalogue(), REQUEST.context, record.action_ids, pool, record.source_scores()
    )
    scores = RlScores(network()).scores(*features)
    weights = np.exp((scores - scores.max()) / 0.5)
    np.testing.assert_allclose(
        record.pmfs()[0], 0.9 * weights / weights.sum() + 0.1 / 8, rtol=1e-12
    )
    assert record.pmfs()[0].min() >= 0.1 / 8


async def test_before_there_is_a_network_all_actions_are_alike():
    ranker = Ranker(spec_of(), [], salt=SALT)
    ranker.serve("s0", make_learner(spec_of(), salt=SALT).snapshot("0-0"))
    np.testing.assert_allclose((await ranker.rank(REQUEST)).pmfs()[0], 1 / 8, rtol=1e-12)


BAD = {
    "another schema": (lambda: encode_network(network(names=NAMES[::-1]), 1), "learner.features"),
    "fewer features": (lambda: encode_network(network(names=NAMES[:3]), 1), "learner.features"),
    "NaN": (lambda: damaged("own", np.full((6, 6), np.nan)), "network.own"),
    "infinite": (lambda: damaged("score", np.full(6, np.inf)), "network.score"),
    "wrong action dimension": (lambda: damaged("embed", np.ones((4, 6))), "network.embed"),
    "wrong width": (lambda: damaged("score", np.ones(7)), "network.score"),
    "no array": (lambda: damaged("score", None), "network.arrays"),
    "junk": (lambda: b"junk", "payload"),
    "nothing": (lambda: b"", "payload"),
}


def damaged(name: str, array) -> bytes:
    """A network's bytes with one array replaced, as no export would write them."""
    arrays = dict(network().arrays)
    if array is None:
        del arrays[name]
    else:
        arrays[name] = np.asarray(array, "<f4").tobytes()
    raw = {"names": NAMES, "width": 6, "arrays": arrays}
    return msgspec.msgpack.encode({"features": SCHEMA.digest, "network": raw, "learned": 1})


@pytest.mark.parametrize("name", BAD)
async def test_what_cannot_be_served_is_refused_and_the_previous_policy_keeps_serving(name):
    make, target = BAD[name]
    payload = make()
    ranker = Ranker(spec_of(), [], salt=SALT)
    ranker.serve("good", snapshot(network()))
    before = (await ranker.rank(REQUEST)).pmf
    with pytest.raises(SnapshotError) as refused:
        ranker.serve("bad", snapshot(payload))
    assert refused.value.target == target
    after = await ranker.rank(REQUEST)
    assert (after.snapshot_id, after.pmf) == ("good", before)
    if payload:
        with pytest.raises(SnapshotError):
            make_learner(spec_of(), salt=SALT, checkpoint=payload)


def test_an_export_that_could_not_be_served_is_not_made():
    with pytest.raises(SnapshotError, match="not finite"):
        encode_network(network(bias=np.full(6, np.nan)), 1)


def test_the_learner_hands_on_what_it_was_given():
    learner = make_learner(spec_of(), salt=SALT, checkpoint=encode_network(network(), 500))
    snapshot = learner.snapshot("7-1")
    assert (snapshot.kind, snapshot.position, snapshot.learned) == ("rl", "7-1", 500)
    again = make_learner(spec_of(), salt=SALT, checkpoint=learner.checkpoint())
    assert again.checkpoint() == learner.checkpoint()
    with pytest.raises(SnapshotError, match="does not fit"):
        load_policy(PolicySpec("ridge"), snapshot)
    with pytest.raises(SnapshotError, match="does not fit"):
        load_policy(spec_of(), make_learner(PolicySpec("ridge"), salt=SALT).snapshot("0-0"))


@pytest.mark.parametrize(
    ("changes", "target"),
    [
        ({"exploration": LinTs()}, "exploration.kind"),
        ({"exploration": SquareCB()}, "exploration.kind"),
        ({"learner": PolicySpec("x").learner}, "learner.kind"),
    ],
)
def test_a_spec_that_cannot_work_is_refused(changes, target):
    with pytest.raises(SpecError) as refused:
        spec_of(**changes)
    assert refused.value.target == target
    with pytest.raises(SpecError, match="is for policies of kind"):
        PolicySpec("x", learner=RlConfig(SCHEMA.digest), exploration=EpsilonGreedy())


def written(tmp_path: Path) -> RlSource:
    model = TrainedModel(
        spec_bytes=spec_of().encoded, learned=500, checkpoint=encode_network(network(), 500)
    )
    (tmp_path / "model").write_bytes(model.encoded)
    return RlSource("longterm", str(tmp_path / "model"), digest(model.encoded))


async def test_in_a_mixture_it_is_one_of_the_actions(tmp_path):
    """Its scores are in the record, so a decision is derived again without the network."""
    source = written(tmp_path)
    spec = PolicySpec(
        "mixed",
        kind="mixture",
        sources=[RemoteSource("cf", "http://x"), source],
        within=Softmax(0.5),
        floor=0.05,
    )
    loaded = load_sources(None, [source])
    ranker = Ranker(spec, list(loaded.values()), salt=SALT)
    ranker.serve("s", make_learner(spec, salt=SALT).snapshot("0-0"))
    record = await ranker.rank(REQUEST)
    assert set(record.scores) == {"cf", "longterm"}
    assert record.credit.sources == ["cf", "longterm"]
    alone = Ranker(spec_of(), [], salt=SALT)
    alone.serve("s", snapshot(network()))
    scores = record.source_scores()
    weights = np.exp(scores["longterm"].astype(np.float64) / 0.5)
    np.testing.assert_allclose(
        0.9 * weights / weights.sum() + 0.1 / 8, (await alone.rank(REQUEST)).pmfs()[0], rtol=1e-5
    )
    pool = [action.features for action in ACTIONS]
    features = featurise(spec, Catalogue(), record.context, record.action_ids, pool, scores)
    assert isinstance(ranker.serving.policy, Mixture)
    assert ranker.serving.policy.pmf(*features).tobytes() == record.pmf
    with pytest.raises(InvalidFieldError) as refused:
        await ranker.rank(
            msgspec.structs.replace(
                REQUEST, actions=[ActionRequest("a", {}, {"longterm": 1.0}), ActionRequest("b")]
            )
        )
    assert refused.value.target == "actions.scores.longterm"


async def test_a_score_that_is_no_number_drops_the_source_and_is_counted(tmp_path):
    source = written(tmp_path)
    spec = PolicySpec("mixed", kind="mixture", sources=[RemoteSource("cf", "http://x"), source])
    ranker = Ranker(spec, list(load_sources(None, [source]).values()), salt=SALT)
    ranker.serve("s", make_learner(spec, salt=SALT).snapshot("0-0"))
    record = await ranker.rank(msgspec.structs.replace(REQUEST, context={"hour": 1e12}))
    assert set(record.scores) == {"cf"}
    assert ranker.proposers.answers.failures == {"longterm": 1}


def test_a_source_whose_file_is_another_is_refused(tmp_path):
    source = written(tmp_path)
    with pytest.raises(ArtifactError) as refused:
        load_sources(None, [msgspec.structs.replace(source, digest="0" * 32)])
    assert refused.value.target == "sources.digest"
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_sources(None, [msgspec.structs.replace(source, model=str(tmp_path / "none"))])


def test_a_spec_finds_the_model_beside_it_and_its_name_in_the_log_has_no_path(tmp_path):
    source = written(tmp_path)
    spec = PolicySpec(
        "mixed", kind="mixture", sources=[msgspec.structs.replace(source, model="model")]
    )
    (tmp_path / "mixed.yaml").write_bytes(msgspec.yaml.encode(spec))
    loaded = load_spec(tmp_path / "mixed.yaml")
    assert loaded.sources == [source]
    assert decode_spec(loaded.encoded) == spec
    assert loaded.digest == spec.digest
    (tmp_path / "rl.yaml").write_bytes(msgspec.yaml.encode(spec_of()))
    assert load_spec(tmp_path / "rl.yaml") == spec_of()


@pytest.mark.slow
def test_a_replica_that_serves_one_imports_neither_torch_nor_rllib(tmp_path):
    """A process of its own: what serving imports, a network loaded, a decision made."""
    (tmp_path / "payload").write_bytes(encode_network(network(), 1))
    code = f"""
import sys
from pathlib import Path
import serve_app.app, serve_app.replica.policy_service
from bandits.types import Snapshot
from policies.candidate_pool import explicit_pool
from policies.ranker import Ranker
from policies.requests import ActionRequest, RankRequest
from policies.spec import decode_spec
spec = decode_spec(bytes.fromhex({spec_of().encoded.hex()!r}))
ranker = Ranker(spec, [], salt=b"x")
payload = Path({str(tmp_path / "payload")!r}).read_bytes()
ranker.serve("s", Snapshot("rl", "1-0", 1, payload))
request = RankRequest(context={{"hour": 1.0}}, actions=[ActionRequest("a"), ActionRequest("b")])
print(ranker.decide(request, explicit_pool(request.actions)).chosen)
print(sorted(name for name in sys.modules if name in {{"torch", "gymnasium", "ray.rllib"}}))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stdout.splitlines()[0] in {"[0]", "[1]"}


def test_the_order_of_the_actions_changes_nothing():
    names = [(ns, f"c{j}") for ns in ("context", "scores") for j in range(3)]
    scores = RlScores(network(names=names))
    context, actions = decision_features(3, 9)
    order = np.random.default_rng(0).permutation(9)
    np.testing.assert_allclose(
        scores.scores(context, actions.take(order)),
        scores.scores(context, actions)[order],
        rtol=1e-12,
        atol=1e-13,
    )


async def test_a_warm_start_is_an_entry_of_the_log_and_a_bad_one_changes_nothing():
    """The fold serves what the log says; rewards teach it nothing.

    Replaying the log gives the same bytes.
    """
    log = FakeLog(spec_of())

    def start(payload: bytes, at: int, spec: PolicySpec) -> None:
        data = TrainedModel(spec_bytes=spec.encoded, learned=500, checkpoint=payload).encoded
        log.blobs[digest(data)] = data
        log.append(WarmStartRecord(digest(data)), at=at)

    start(encode_network(network(), 500), 10, spec_of())
    ranker = Ranker(spec_of(), [], salt=SALT)
    ranker.serve("s", log.fold().snapshot())
    record = await ranker.rank(REQUEST)
    log.append(record, at=20)
    log.append(RewardRecord("e", 1.0), at=21)
    log.append(TickRecord(), at=10_000_000)
    fold = log.fold()
    assert fold.join.counts["joined"] == 1
    assert (fold.learned, fold.changes) == (500, 1)
    good = fold.snapshot().payload
    assert good == encode_network(network(), 500)
    start(damaged("own", np.full((6, 6), np.nan)), 10_000_001, spec_of())
    other = FeatureSchema(NAMES[::-1])
    start(
        encode_network(network(names=other.names), 1),
        10_000_002,
        spec_of(learner=RlConfig(other.digest)),
    )
    log.append(CheckpointRecord(), at=10_000_003)
    after = log.fold(cuts=[1, 3, 5])
    assert after.refused_warm_starts == 2
    assert after.snapshot().payload == good
    resumed = Fold(log.blobs.__getitem__, salt=SALT, past=FakePast(log))
    resumed.resume(after.state(), FakePast(log))
    assert resumed.snapshot().payload == good
