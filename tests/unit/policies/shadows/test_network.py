"""A shadow whose network was trained apart: it says of a decision what the network would do."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from support.fakes import SALT, FakeLog, FakePast
from support.shadowed import ITEMS, as_bytes, encoded, policy_of, served

from bandits.exploration import Softmax
from bandits.log.codec import digest
from bandits.log.records import DecisionRecord, PriorRecord
from bandits.rl.config import RlConfig
from bandits.rl.feature_schema import FeatureSchema
from bandits.rl.network import Network, encode_network, shapes
from bandits.types import Snapshot
from policies.artifacts.learner_model import TrainedModel
from policies.artifacts.prior import PriorDecision, PriorRows
from policies.blend import load_policy
from policies.fold.checkpoint import decode_state
from policies.shadows.fold import ShadowFold
from policies.shadows.following import ShadowFollower, pmfs_of
from policies.shadows.opening import Shadow, shadows_of
from policies.spec import PolicySpec, load_spec, spec_of

SCHEMA = FeatureSchema.of(context=["hour", "device=d1"], features=["size"])
APART = PolicySpec(
    "sessions",
    kind="rl",
    use=["context", "features"],
    learner=RlConfig(SCHEMA.digest),
    exploration=Softmax(),
    floor=0.1,
)
RIDGE = {"learner": {"kind": "ridge"}}


def network(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(size=shape) for name, shape in shapes(len(SCHEMA), 4).items()}
    return encode_network(Network.of(SCHEMA.names, arrays), 70)


def trained(path: Path, seed: int = 1) -> Path:
    """A file as ``train rl`` writes it."""
    path.parent.mkdir(exist_ok=True)
    model = TrainedModel(spec_bytes=APART.encoded, learned=70, checkpoint=network(seed))
    path.write_bytes(model.encoded)
    return path


def shadow(path: Path, **more: Any) -> Shadow:
    said = {"name": "longterm", "kind": "rl", "model": str(path), **more}
    (found,) = shadows_of(spec_of({**policy_of(RIDGE), "shadow": [said]}))
    return found


def follower(of: Shadow, log: FakeLog, kept: dict[str, bytes] | None = None) -> ShadowFollower:
    assert of.spec is not None, of.refused
    states = {} if kept is None else kept
    fold = ShadowFold(
        of.spec,
        log.blobs.__getitem__,
        network=of.network,
        salt=SALT,
        past=FakePast(log),
        on_checkpoint=lambda at, data: states.update({at: data()}),
    )
    if kept is not None and states:
        fold.resume(decode_state(states[max(states)]), FakePast(log))
    return ShadowFollower(of.spec, fold)


def test_it_says_what_the_network_would_do_from_the_first_decision_on(tmp_path: Path) -> None:
    """Byte for byte, in each slot; the rewards of the log teach it nothing."""
    log = served(spec_of(policy_of(RIDGE)), rounds=8, slots=2)
    made = follower(shadow(trained(tmp_path / "model")), log).follow(encoded(log.entries))
    policy = load_policy(APART, Snapshot("rl", "0-0", 70, network(1)))
    records = [each.record for each in log.entries if isinstance(each.record, DecisionRecord)]
    assert len(made) == len(records) > 20
    for said, record in zip(made, records, strict=True):
        wanted = pmfs_of(APART, policy, ITEMS, record)
        assert [each.tobytes() for each in said.pmfs] == [each.tobytes() for each in wanted]
        assert np.ptp(said.pmfs[0]) > 0.0


def test_from_a_checkpoint_it_goes_on_with_the_same(tmp_path: Path) -> None:
    log = served(spec_of(policy_of(RIDGE)), rounds=10)
    longterm, kept = shadow(trained(tmp_path / "model")), dict[str, bytes]()
    whole = follower(longterm, log, kept).follow(encoded(log.entries))
    again = follower(longterm, log, kept)
    rest = again.follow(encoded([each for each in log.entries if each.id > max(kept)]))
    assert 0 < len(rest) < len(whole)
    assert as_bytes(list(rest)) == as_bytes(list(whole))[-len(rest) :]


def test_what_would_teach_a_model_of_the_log_changes_no_network(tmp_path: Path) -> None:
    """A prior, and one of decisions that come after it."""
    log = served(spec_of(policy_of(RIDGE)), rounds=3)
    last = next(each for each in reversed(log.entries) if isinstance(each.record, DecisionRecord))
    rewards = np.array([1.0, 0.0], np.float32)
    prior = PriorRows.of([PriorDecision.of({}, ["i0", "i1"], {}, rewards)]).encoded
    log.blobs[digest(prior)] = prior
    log.append(PriorRecord(digest(prior), 0.5), at=log.entries[-1].time_ms + 1)
    late = msgspec.structs.replace(last.record, event_id="late")
    log.append(late, at=log.entries[-1].time_ms + 2000)
    made = follower(shadow(trained(tmp_path / "model")), log).follow(encoded(log.entries))
    at = {each.position: as_bytes([each])[0][2] for each in made}
    assert at[log.entries[-1].id] == at[last.id]


def test_the_file_is_looked_for_beside_what_names_it(tmp_path: Path) -> None:
    """In the policy's spec, and in a file of its own, such as the one that training wrote."""
    trained(tmp_path / "rl" / "model")
    (tmp_path / "rl" / "policy.yaml").write_text("name: own\nkind: rl\nmodel: model\n")
    (tmp_path / "home.yaml").write_text(
        "name: home\nshadow: [rl/policy.yaml, {name: said, kind: rl, model: rl/model, floor: 0.2}]"
    )
    own, said = shadows_of(load_spec(tmp_path / "home.yaml"))
    assert own.spec is not None
    assert said.spec is not None
    assert (own.name, own.spec.floor, own.spec.use) == ("own", 0.1, APART.use)
    assert (said.name, said.spec.floor) == ("said", 0.2)
    assert own.network == said.network == network(1)


def test_another_network_is_another_shadow(tmp_path: Path) -> None:
    one, other = (shadow(trained(tmp_path / f"{seed}", seed)) for seed in (1, 2))
    assert one.digest != other.digest


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"learner": {"kind": "rl", "features": "0" * 16}}, "was made for the features"),
        ({"learner": {"kind": "ridge"}}, "learner.kind: "),
        ({"exploration": {"kind": "lints"}}, "exploration"),
    ],
)
def test_what_does_not_fit_the_network_is_said(tmp_path: Path, said: Any, why: str) -> None:
    refused = shadow(trained(tmp_path / "model"), **said)
    assert refused.spec is None
    assert why in refused.refused


def test_a_model_that_learns_from_the_log_needs_no_file(tmp_path: Path) -> None:
    model = TrainedModel(spec_bytes=spec_of(policy_of(RIDGE)).encoded, learned=0, checkpoint=b"")
    (tmp_path / "model").write_bytes(model.encoded)
    assert "is no network" in shadow(tmp_path / "model").refused
