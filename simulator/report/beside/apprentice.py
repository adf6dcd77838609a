"""What an apprentice would have chosen and earned, beside the choices that were served."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import NormalDist

import numpy as np

from bandits.errors import BanditloopError, ReplayError
from bandits.log.records import Apprentice
from bandits.statistics.intervals import ALPHA
from simulator.logs.rows import LoggedDecision, MemoryPiece, Piece
from simulator.ope.targets import ApprenticeTarget, LoggingTarget
from simulator.ope.verdict import Verdict
from simulator.replay.evaluate import OpeQuestion, evaluate
from simulator.report.beside.pages import page_worth
from simulator.report.report import ApprenticeWorth

HELD_OUT = "holdout"
Gain = tuple[float, float, float, Verdict, str]
"""The apprentice's mean reward less that of what was served, the ends of an interval, and how far
that can be relied on, and why."""


def apprentice_worth(pieces: Sequence[Piece]) -> ApprenticeWorth | None:
    """Return what an apprentice is worth on some rows of a log; None where there is none.

    Args:
        pieces: the rows.
    """
    # What stands below follows from what was chosen above, and that was another's choice.
    every = list(_beside(pieces))
    rows = [row for row in every if row.slot == 0]
    if not rows:
        return None

    # The baseline's, and what was served to those held out of it.
    theirs = [row for row in rows if _own(row).served != HELD_OUT]
    held = [row for row in rows if _own(row).served == HELD_OUT]
    rewards = np.array([row.reward for row in theirs])
    agreed = np.array([_own(row).chosen[0] == row.chosen for row in theirs], np.bool_)
    earned = float(rewards.mean()) if theirs else math.nan

    gain, low, high, verdict, reason = _gain(theirs, held)
    relied = verdict != "unreliable"
    return ApprenticeWorth(
        rows=len(rows),
        served=dict(sorted(Counter(_own(row).served for row in rows).items())),
        agreed=float(agreed.mean()) if theirs else math.nan,
        explored=sum(row.propensity < 1.0 for row in rows) / len(rows),
        earned=earned,
        earned_agreed=float(rewards[agreed].mean()) if agreed.any() else math.nan,
        value=earned + gain if relied else math.nan,
        difference=gain if relied else math.nan,
        low=low if relied else -math.inf,
        high=high if relied else math.inf,
        verdict=verdict,
        reason=reason,
        page=page_worth(every, HELD_OUT),
    )


def _beside(pieces: Sequence[Piece]) -> Iterator[LoggedDecision]:
    for piece in pieces:
        for batch in piece.batches():
            for row in batch.decisions:
                if row.record is not None and row.record.apprentice is not None:
                    yield row


def _own(row: LoggedDecision) -> Apprentice:
    assert row.record is not None  # noqa: S101 - chosen by it
    assert row.record.apprentice is not None  # noqa: S101 - likewise
    return row.record.apprentice


def _gain(theirs: Sequence[LoggedDecision], held: Sequence[LoggedDecision]) -> Gain:
    """Return what the apprentice is estimated to earn more than the baseline.

    Who is held out is drawn by chance, so what they got tells what others than the baseline's
    choices earn, where it never tries any.
    """
    try:
        if held and theirs:
            return _from_holdout(theirs, held)
        return _from_all([*theirs, *held])
    except BanditloopError as error:
        return math.nan, -math.inf, math.inf, "unreliable", error.message


def _from_all(rows: Sequence[LoggedDecision]) -> Gain:
    question = OpeQuestion([ApprenticeTarget(), LoggingTarget()], estimators=["dr"])
    (comparison,) = evaluate(question, [MemoryPiece(rows)]).comparisons
    found = comparison.result
    return found.difference, *found.interval, found.verdict, found.reason


def _from_holdout(theirs: Sequence[LoggedDecision], held: Sequence[LoggedDecision]) -> Gain:
    question = OpeQuestion([ApprenticeTarget()], estimators=["dr"])
    (result,) = evaluate(question, [MemoryPiece(held)]).results
    own = result.estimates["dr"]
    rewards = np.array([row.reward for row in theirs])
    if len(rewards) < 2:
        raise ReplayError("the baseline has served one decision: wait for more", "rows")

    # Two groups that chance has divided.
    stderr = math.hypot(own.stderr, float(rewards.std(ddof=1)) / math.sqrt(len(rewards)))
    wide = NormalDist().inv_cdf(1.0 - ALPHA / 2.0) * stderr
    gain = own.value - float(rewards.mean())
    return gain, gain - wide, gain + wide, own.verdict, f"of {len(held):,} held out: {own.reason}"
