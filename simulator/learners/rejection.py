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
    """``mean_accepted_reward``: of the ``accepted`` among the ``rows``; NaN without any.

    ``curve``: of that mean.

    Not the quantity of ``simulator.learners.progressive``: there the policy learns from every row and is
    scored by importance weights; here it learns only from the rows that it would have chosen
    itself, as if it had been live for ``accepted`` decisions. A learning policy's value depends on
    how much it has learned, so the two differ even in expectation. ``exact``: the log is uniformly
    random, so that each accepted row is distributed as if the policy had been live (Li et al. 2011,
    section 3). Otherwise that holds only if the importance weight of no action ever exceeds the
    bound; ``clipped`` counts the rows whose chosen action's did. ``notes``: for a reader of the
    report.
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
    """Replay by rejection (Li, Chu, Langford & Wang 2011, arXiv:1003.5956, section 3).

    Without ``bound`` the log must be uniformly random over K actions, the same K in each row: a row
    is accepted if the policy chooses its action, which is with probability pmf(chosen). With it, of
    any log, a row is accepted with probability min(1, pmf(chosen) / (bound propensity)), as in
    Dudík et al. 2012, arXiv:1210.4862; one over the least propensity is always a bound that clips
    nothing.

    An accepted row is learned from with the policy's own probability as its propensity, because
    that is how it was chosen among the accepted. The model is published every ``publish_every``
    accepted rows. Whether a row is accepted is hashed from its event_id, its slot and ``seed``. A
    row counts once, however many decisions it stands for.

    Raises: BadRowError: a row is malformed. ReplayError: no bound, and the log is not uniformly
        random; it cannot be read; no row was accepted; or the spec
            is of a mixture.
        InvalidFieldError: the bound is not a positive number.
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
                context, actions = online.features(row)
                target = float(online.pmf(context, actions)[row.chosen])
                chance = target if bound is None else target / (bound * row.propensity)
                clipped += chance > 1.0 + 1e-9
                accept = (
                    uniform(salt, spec.name, row.event_id, row.slot, PURPOSE_REJECTION) < chance
                )
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
    """Refuse what is no bound.

    Raises:
        InvalidFieldError
    """
    if bound is not None and not (math.isfinite(bound) and bound > 0.0):
        raise InvalidFieldError(
            f"a bound on importance weights is a positive number, not {bound}", "bound"
        )


def check_uniform(event_id: str, propensity: float, count: int, known: int) -> int:
    """K, if the row was chosen uniformly among K = ``count`` actions, as were the rows before it (``known``, or 0).

    Raises:
        ReplayError: it was not.
    """
    if known and known != count:
        raise ReplayError(
            f"rows have {known} and {count} actions: give a bound, the largest number of actions",
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
