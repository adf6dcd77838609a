"""A network in a running service: published by the learner, verified against the log, replaced and refused."""

import numpy as np
from support.loops import KEYS, decide, head, make, settle, verdicts

from bandits.exploration import Softmax
from bandits.log.codec import digest
from bandits.log.encoded_decisions import DECISIONS, whole_record
from bandits.log.join import JoinRule
from bandits.log.records import WarmStartRecord
from bandits.rl.config import RlConfig
from bandits.rl.feature_schema import FeatureSchema
from bandits.rl.network import Network, encode_network, shapes
from policies.artifacts.learner_model import TrainedModel
from policies.blend import load_policy
from policies.features import featurise_record
from policies.spec import PolicySpec
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.store.event_log import RedisLog

SCHEMA = FeatureSchema.of(context=["hour"], item=["a", "b", "c"])
SPEC = PolicySpec(
    "home",
    kind="rl",
    learner=RlConfig(SCHEMA.digest),
    exploration=Softmax(),
    join=JoinRule(window_s=0.02),
    floor=0.1,
)


def network(seed: int) -> Network:
    rng = np.random.default_rng(seed)
    return Network.of(
        SCHEMA.names,
        {name: rng.normal(size=shape) for name, shape in shapes(len(SCHEMA), 4).items()},
    )


def warm_start(client, payload: bytes) -> None:
    data = TrainedModel(spec_bytes=SPEC.encoded, learned=70, checkpoint=payload).encoded
    reader = RedisLog(client, KEYS)
    reader.put_blob(digest(data), data)
    reader.append(WarmStartRecord(digest(data)))


def test_what_is_served_is_the_network_that_the_log_names(client):
    loop = make(client, SPEC)
    settle(loop)
    decide(client, 4, spec=SPEC)
    settle(loop)
    untaught = head(client)
    warm_start(client, encode_network(network(1), 70))
    settle(loop)
    first = head(client)
    assert first != untaught
    decide(client, 10, spec=SPEC, prefix="f")
    settle(loop)
    assert loop.fold.join.counts["joined"] == 7
    assert head(client) == first, "rewards teach it nothing, so there is nothing to publish"
    bad = encode_network(network(2), 70).replace(
        network(2).arrays["own"], np.full((4, 4), np.nan, "<f4").tobytes()
    )
    warm_start(client, bad)
    settle(loop)
    assert head(client) == first
    assert loop.fold.refused_warm_starts == 1
    warm_start(client, encode_network(network(3), 70))
    settle(loop)
    assert head(client) != first
    assert set(verdicts(client)) == {"identical"}
    stored = StoredPolicy(client, "home")
    published = stored.find(head(client))[1]
    record = next(
        whole_record(entry.record)
        for entry in stored.history.encoded("0-0", "9" * 15 + "-0")
        if isinstance(entry.record, DECISIONS)
    )
    policy = load_policy(SPEC, published.snapshot)
    assert policy.pmf(*featurise_record(SPEC, loop.fold.catalogue, record)).min() >= 0.1 / 3
    again = make(client, SPEC)
    settle(again)
    assert head(client) == stored.find(head(client))[0]
    assert again.fold.snapshot().payload == encode_network(network(3), 70)
