"""The rows of a prior as a blob: what comes back, and what is refused."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from support.small_artifact import make_artifact

from bandits.errors import ArtifactError
from bandits.exploration import Greedy
from bandits.rl.config import RlConfig
from policies.artifacts.prior import PriorDecision, PriorRows, decode_prior, prior_of
from policies.spec import PolicySpec, Prior

NAN = np.nan


def _decision(**changed: object) -> PriorDecision:
    decision = PriorDecision.of(
        {"age": 31, "device": "phone"},
        ["a", "b", "c"],
        {"knn": np.array([0.5, NAN, 0.1], np.float32)},
        np.array([1.0, 0.0, NAN], np.float32),
    )
    return msgspec.structs.replace(decision, **changed)


def test_rows_come_back_as_they_were_and_always_have_the_same_bytes():
    """Encode, decode, encode: one blob, whose rows are the candidates with a known reward."""
    rows = PriorRows.of([_decision(), _decision()])
    back = decode_prior(rows.encoded)

    assert len(rows) == len(back) == 4
    assert back.encoded == rows.encoded
    assert back.digest == rows.digest
    assert back.decisions[0].context == {"age": 31.0, "device": "phone"}
    np.testing.assert_array_equal(back.decisions[0].known_rewards(), [1.0, 0.0, NAN])
    np.testing.assert_array_equal(
        back.decisions[0].source_scores()["knn"], np.array([0.5, NAN, 0.1], np.float32)
    )


@pytest.mark.parametrize(
    ("decision", "target"),
    [
        (_decision(action_ids=[]), "prior.decisions[0].action_ids"),
        (_decision(action_ids=["a", "b", "a"]), "prior.decisions[0].action_ids"),
        (_decision(action_ids=["a", "b", ""]), "prior.decisions[0].action_ids"),
        (_decision(context={"x": float("inf")}), "prior.decisions[0].context.x"),
        (_decision(scores={"knn": bytes(8)}), "prior.decisions[0].scores.knn"),
        (
            _decision(scores={"knn": np.array([1, np.inf, 0], "<f4").tobytes()}),
            "prior.decisions[0].scores.knn",
        ),
        (_decision(rewards=bytes(4)), "prior.decisions[0].rewards"),
        (
            _decision(rewards=np.array([1e20, 0, 0], "<f4").tobytes()),
            "prior.decisions[0].rewards",
        ),
        (_decision(rewards=np.full(3, NAN, "<f4").tobytes()), "prior.decisions"),
    ],
)
def test_rows_that_cannot_be_are_refused_with_the_name_of_their_field(
    decision: PriorDecision, target: str
):
    """Nothing that a request or a reward event could not say gets into a model."""
    data = msgspec.msgpack.encode(PriorRows([decision]))
    with pytest.raises(ArtifactError) as refused:
        decode_prior(data)
    assert refused.value.target == target


def test_what_becomes_of_an_artifacts_prior_is_said_in_a_line():
    """Brought, absent, unwanted, of no use, or damaged."""
    rows = PriorRows.of([_decision()])
    spec, artifact = PolicySpec("home", artifact="shop"), make_artifact()
    brought = replace(artifact, prior=rows.encoded)

    assert prior_of(spec, None) == (None, "")
    assert prior_of(spec, artifact) == (None, "no prior: the artifact brings none")
    data, note = prior_of(msgspec.structs.replace(spec, prior=Prior(0.25)), brought)
    assert data == rows.encoded
    assert "2 rows, each worth 0.25 interactions" in note
    assert prior_of(spec.without_prior, brought) == (
        None,
        "no prior: the spec says prior: none",
    )

    rl = PolicySpec(
        "home", kind="rl", learner=RlConfig("0" * 16), exploration=Greedy(), artifact="shop"
    )
    assert prior_of(rl, brought)[0] is None
    assert "kind rl learns from no rows" in prior_of(rl, brought)[1]
    data, note = prior_of(spec, replace(artifact, prior=rows.encoded[:-2]))
    assert data is None
    assert note.startswith("the artifact's prior is refused: no rows of a prior")


def test_what_are_no_rows_is_refused():
    """Damaged bytes, another format, no rows at all, too many."""
    whole = PriorRows.of([_decision()]).encoded
    for data in (b"", whole[:-3], msgspec.msgpack.encode(PriorRows([_decision()], "another"))):
        with pytest.raises(ArtifactError):
            decode_prior(data)

    with pytest.raises(ArtifactError, match="1 to 100,000 rows, not 0"):
        PriorRows.of([])
    with pytest.raises(ArtifactError, match="not 100,002"):
        PriorRows.of([_decision()] * 50_001)
