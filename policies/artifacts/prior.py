"""The rows of a prior: what users did with candidates, before a policy's first decision.

An artifact brings them and the log names them by digest, so they are a blob: msgpack, no pickle, no
user. They are grouped as decisions are, since a candidate's features depend on the others: a source
ranks them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import msgspec
import numpy as np

from bandits.errors import ArtifactError, InvalidInputError
from bandits.log.codec import MALFORMED, digest
from bandits.types import Float32
from bandits.values import MAX_NUMBER, FeatureMap
from policies.artifacts.source_artifact import Artifact
from policies.encoding import check_features
from policies.requests import MAX_ACTIONS
from policies.spec import PRIOR_STRENGTH, PolicySpec

FORMAT = "banditloop prior 1"
MAX_ROWS = 100_000


class PriorDecision(msgspec.Struct, frozen=True, array_like=True):
    """K candidates that some user would have been offered, and what came of them.

    ``scores``: by source, float32[K], NaN where it did not propose the candidate. ``rewards``:
    float32[K], NaN where nothing is known of the candidate: it is no row, and has its rank.
    """

    context: FeatureMap
    action_ids: list[str]
    scores: dict[str, bytes]
    rewards: bytes

    @classmethod
    def of(
        cls,
        context: FeatureMap,
        action_ids: Sequence[str],
        scores: Mapping[str, Float32],
        rewards: Float32,
    ) -> Self:
        """Return a decision of arrays; numbers in the context become floats, as in a request.

        Args:
            context: what a caller would send with the request.
            action_ids: the K candidates.
            scores: by source, float[K].
            rewards: float[K].
        """
        shared: FeatureMap = {
            name: value if isinstance(value, bool | str | list) else float(value)
            for name, value in context.items()
        }
        columns = {name: _bytes(values) for name, values in sorted(scores.items())}
        return cls(shared, list(action_ids), columns, _bytes(rewards))

    def source_scores(self) -> dict[str, Float32]:
        """Return the scores by source, float32[K]."""
        return {source: np.frombuffer(data, "<f4") for source, data in self.scores.items()}

    def known_rewards(self) -> Float32:
        """Return the rewards, float32[K], NaN where none is known."""
        return np.frombuffer(self.rewards, "<f4")


class PriorRows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rows of a prior, in the order in which they are taught.

    Args:
        decisions: all of them; the candidates whose reward is known are the rows.
    """

    decisions: list[PriorDecision]
    format: str = FORMAT

    @classmethod
    def of(cls, decisions: Iterable[PriorDecision]) -> Self:
        """Return the rows of some decisions.

        Raises:
            ArtifactError: one cannot be, or there are no rows or too many.
        """
        rows = cls(list(decisions))
        _check(rows)
        return rows

    @property
    def encoded(self) -> bytes:
        """The bytes of a file, or of the blob that the log names."""
        return msgspec.msgpack.encode(self, order="deterministic")

    @property
    def digest(self) -> str:
        """The name of the blob in the log."""
        return digest(self.encoded)

    def __len__(self) -> int:
        """How many rows there are."""
        return sum(int(np.isfinite(each.known_rewards()).sum()) for each in self.decisions)


def decode_prior(data: bytes) -> PriorRows:
    """Return the rows in a blob.

    Raises:
        ArtifactError: it holds none, or some that cannot be; ``target`` is the field.
    """
    try:
        rows = msgspec.msgpack.decode(data, type=PriorRows)
    except MALFORMED as error:
        raise ArtifactError(f"no rows of a prior: {error}", "prior") from error
    if rows.format != FORMAT:
        raise ArtifactError(f"not a {FORMAT!r}, but a {rows.format[:40]!r}", "prior.format")
    _check(rows)
    return rows


def prior_of(spec: PolicySpec, artifact: Artifact | None) -> tuple[bytes | None, str]:
    """Return the prior that a policy is deployed with, None if none; and what to say of it.

    Args:
        spec: the policy.
        artifact: the one whose sources serve; None: there is nothing to say.
    """
    if artifact is None:
        return None, ""
    if artifact.prior is None:
        return None, "no prior: the artifact brings none"
    if spec.prior_strength == 0.0:
        return None, "no prior: the spec says prior: none"
    if not spec.learner.learns:
        return None, f"no prior: a policy of kind {spec.kind} learns from no rows"

    try:
        rows = decode_prior(artifact.prior)
    except ArtifactError as error:
        return None, f"the artifact's prior is refused: {error.message} ({error.target})"
    strength = PRIOR_STRENGTH if spec.prior_strength is None else spec.prior_strength
    return artifact.prior, (
        f"prior: {len(rows):,} rows, each worth {strength:g} interactions, are taught to a model"
        " that has learned nothing"
    )


def _bytes(values: Float32) -> bytes:
    return np.ascontiguousarray(values, "<f4").tobytes()


def _check(rows: PriorRows) -> None:
    """Refuse what a request or a reward event could not say."""
    for number, decision in enumerate(rows.decisions):
        _check_decision(decision, f"prior.decisions[{number}]")

    count = len(rows)
    if not 0 < count <= MAX_ROWS:
        raise ArtifactError(f"a prior has 1 to {MAX_ROWS:,} rows, not {count:,}", "prior.decisions")


def _check_decision(decision: PriorDecision, at: str) -> None:
    ids = decision.action_ids
    if not 0 < len(ids) <= MAX_ACTIONS:
        raise ArtifactError(f"1 to {MAX_ACTIONS} candidates, not {len(ids)}", f"{at}.action_ids")
    if len(set(ids)) != len(ids) or "" in ids:
        raise ArtifactError("candidates have ids, and are distinct", f"{at}.action_ids")
    try:
        check_features(decision.context, f"{at}.context")
    except InvalidInputError as error:
        raise ArtifactError(error.message, error.target) from error

    columns = {f"scores.{name}": data for name, data in decision.scores.items()}
    for name, data in {**columns, "rewards": decision.rewards}.items():
        if len(data) != 4 * len(ids):
            raise ArtifactError(f"{len(ids)} float32, not {len(data)} bytes", f"{at}.{name}")
        values = np.frombuffer(data, "<f4")
        if not (np.isnan(values) | (np.abs(values) <= MAX_NUMBER)).all():
            raise ArtifactError(f"numbers up to {MAX_NUMBER:g}, or none", f"{at}.{name}")
