"""Method rejection: replay by rejection sampling.

A log is thinned to what the policy would have chosen itself.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bandits.decide import uniform
from bandits.errors import InvalidFieldError, ReplayError
from policies.spec import PolicySpec
from simulator.learners.curve import Curve, CurvePoint
from simulator.learners.online import PUBLISH_EVERY, OnlinePolicy, salt_of
from simulator.logs.left_out import LeftOut, left_out_of
from simulator.logs.rows import Piece

PURPOSE_REJECTION = "rejection"
UNIFORM_SLACK = 1e-4
"""How far propensity times K may be from 1 in a uniformly random log: logs round their numbers."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """The result of a policy on the rows that it would have chosen itself.

    This is not the quantity of ``simulator.learners.progressive``. There the policy learns from
    every row and is scored by importance weights; here it learns only from the rows that it would
    have chosen itself, as if it had been live for ``accepted`` decisions. A learning policy's value
    depends on how much it has learned, so the two differ even in expectation.

    Attributes:
        rows: How many rows were read.
        clipped: Rows whose chosen action had an importance weight above the bound.
        exact: Whether the log is uniformly random, so that each accepted row is distributed as if
            the policy had been live (Li et al. 2011, section 3). Otherwise that holds only if the
            importance weight of no action ever exceeds the bound.
        mean_accepted_reward: Mean reward of the accepted rows; NaN without any.
        curve: How that mean came about.
        notes: For a reader of the report.
    """

    rows: int
    skipped: int
    accepted: int
    clipped: int
    exact: bool
    mean_accepted_reward: float
    curve: tuple[CurvePoint, ...]
    left_out: LeftOut = field(default_factory=LeftOut)
    notes: Sequence[str] = ()


def rejection(
    spec: PolicySpec,
    pieces: Iterable[Piece],
    *,
    bound: float | None = None,
    publish_every: int = PUBLISH_EVERY,
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> Rejection:
    """Replay a log by rejection (Li, Chu, Langford & Wang 2011, arXiv:1003.5956, section 3).

    Without a ``bound`` the log must be uniformly random over K actions, the same K in each row: a
    row is accepted if the policy chooses its action, with probability pmf(chosen). With a bound,
    a row of any log is accepted with probability min(1, pmf(chosen) / (bound propensity)), as in
    Dudík et al. 2012, arXiv:1210.4862.

    An accepted row is learned from with the policy's own probability as its propensity, because
    that is how it was chosen among the accepted. Whether a row is accepted is hashed from its
    event_id, its slot and ``seed``. A row counts once, however many decisions it stands for.

    Args:
        spec: The policy.
        pieces: The log.
        bound: Bound on importance weights; one over the least propensity always clips nothing.
        publish_every: Accepted rows between two models.
        seed: Seed of the policy's own chance and of what is accepted.
        progress: Told how many rows were read.

    Raises:
        BadRowError: A row is malformed.
        ReplayError: There is no bound, and the log is not uniformly random; it cannot be read; no
            row was accepted; or the spec is of a mixture.
        InvalidFieldError: The bound is not a positive number.
    """
    check_bound(bound)
    online = OnlinePolicy(spec, publish_every=publish_every, seed=seed)
    salt = salt_of(seed)

    rows = accepted = clipped = actions_of_all = 0
    left_out = LeftOut()
    reward = Curve()
    for piece in pieces:
        for batch in piece.batches():
            for row in batch.decisions:
                if bound is None:
                    actions_of_all = check_uniform(
                        row.event_id, row.propensity, len(row.action_ids), actions_of_all
                    )

                # The slack is for rounding, where the weight equals the bound.
                context, actions = online.features(row)
                target = float(online.pmf(row, context, actions)[row.chosen])
                chance = target if bound is None else target / (bound * row.propensity)
                clipped += chance > 1.0 + 1e-9
                draw = uniform(salt, spec.name, row.event_id, row.slot, PURPOSE_REJECTION)
                accept = draw < chance

                reward.add(row.reward if accept else 0.0, float(accept))
                if accept:
                    accepted += 1
                    online.learn(row, context, actions, target)
            rows += len(batch)
            progress(rows)
        left_out.merge(left_out_of([piece]))

    if rows and not accepted:
        raise ReplayError(
            f"none of {rows:,} rows was accepted, so nothing can be said: give more of the log,"
            " or a smaller bound",
            "log",
        )
    return Rejection(
        rows,
        left_out.skipped,
        accepted,
        clipped,
        bound is None,
        reward.value,
        reward.points(),
        left_out,
    )


def check_bound(bound: float | None) -> None:
    """Raise if ``bound`` cannot bound importance weights.

    Raises:
        InvalidFieldError: It is no positive number.
    """
    if bound is not None and not (math.isfinite(bound) and bound > 0.0):
        raise InvalidFieldError(
            f"a bound on importance weights is a positive number, not {bound}", "bound"
        )


def check_uniform(event_id: str, propensity: float, count: int, count_before: int) -> int:
    """Return ``count``, if the row was chosen uniformly among as many actions as those before it.

    Args:
        event_id: The row's, for the error.
        propensity: The propensity of its choice.
        count: How many actions it was among.
        count_before: The same of the rows before it, or 0.

    Raises:
        ReplayError: It was not.
    """
    if count_before and count_before != count:
        raise ReplayError(
            f"rows have {count_before} and {count} actions: give a bound, the largest number of"
            " actions",
            "bound",
        )
    if abs(propensity * count - 1.0) > UNIFORM_SLACK:
        raise ReplayError(
            f"{event_id!r} was chosen with propensity {propensity:g} among {count} actions, not"
            " uniformly:"
            " give a bound on the importance weights, such as 1 / the least propensity",
            "bound",
        )
    return count
