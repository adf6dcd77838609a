"""Whether an estimate can be trusted: what its weights say, in one word and one sentence.

Two things cannot be seen. One is propensities that are wrong and still have a mean weight of 1
under this target policy, say because the target policy does not tell apart the actions whose
propensities are exchanged. The other, in a log without PMFs, is target mass m on actions that the
log lacks, while m is below about 3 standard errors of the mean weight.
"""

from typing import Literal

from simulator.ope.diagnostics import Diagnostics

Verdict = Literal["reliable", "weak", "unreliable"]

FALSE_ALARM = 1e-4
"""The false-alarm rate of each test that finds an estimate unreliable.

One is of the weights, the other of the model's predictions.
"""
SUSPICION = 1e-2
"""The false-alarm rate of the same tests, to find an estimate weak."""
SURPRISE = 0.02
"""The false-alarm rate of the normal tests of the same means, to find an estimate weak.

They are right in the limit only, and they see more.
"""
TOO_FEW_ROWS, ENOUGH_ROWS = 30.0, 100.0
"""Effective sample sizes.

Below the first a standard error is itself a guess; from the second the normal limit is near.
"""
NEARLY_ALL = 0.9
"""Share of the rows that count from which on more exploration would add hardly any."""
POSITIVES = 25.0
"""Fewer are too skewed for the normal limit: n > 25 G^2, G the skewness (Cochran 1977, 2.15)."""
LARGEST_SHARE = 0.05
"""Share of the weight in one row: it would be a twentieth of the answer."""
UNSUPPORTED, UNSUPPORTED_MUCH = 0.01, 0.1
"""Shares of the target policy's choices that the log lacks: weak above one, then unreliable."""
CLIPPED = 0.05
"""Share of the weight that is taken away by clipping, switching or shrinking."""
SHIFT = 0.5
"""Standard errors by which that changed the value: an interval counts no bias."""
MISLED = 2.0
"""Squared errors of the reward model over those of a constant: above it, DR is better without."""
SQUARES_SEEN = 0.5
"""Share that was seen of the squared weights that the PMFs promise."""

CHECK_LOG = "run the doctor on the log, and do not evaluate this stretch of it"
EXPLORE = "log with more exploration, or evaluate a policy closer to the logging policy"


def judge(
    rows: Diagnostics, stderr: float, *, weighted: bool = True, modelled: bool = False
) -> tuple[Verdict, str]:
    """Judge an estimate.

    Args:
        rows: what its rows tell.
        stderr: its standard error.
        weighted: whether the estimator uses weights.
        modelled: whether it uses the reward model.

    Returns:
        The verdict, and its first cause with what to do about it.
    """
    reason = _unreliable(rows)
    if reason:
        return "unreliable", reason

    # A reward model that misleads does not bias DR, but it is the first thing to mend.
    reason = _weak(rows, stderr, weighted=weighted)
    if weighted and modelled and rows.misled > MISLED:
        reason = f"{_misled(rows)}; {reason}" if reason else _misled(rows)
    return ("weak", reason) if reason else ("reliable", _sound(rows))


def _unreliable(rows: Diagnostics) -> str:
    """Return why an estimate cannot be relied on; empty if it can."""
    p, missing = rows.weight_p_value, rows.unsupported / max(rows.decisions, 1.0)
    reason = ""

    # First a log that is wrong, then one that lacks what the policy does, then one too small.
    if rows.n == 0:
        reason = "there are no rows: give a log that is not empty, and check what filtered it"
    elif p < FALSE_ALARM:
        reason = f"{_mean_weight(rows)} (p = {p:.1g}): {_suspect(rows)}; {CHECK_LOG}"
    elif missing > UNSUPPORTED_MUCH:
        reason = f"{_unsupported(missing)}; {EXPLORE}"
    elif missing <= UNSUPPORTED and rows.balance_p_value < FALSE_ALARM:
        reason = f"{_unbalanced(rows)}: {_suspect(rows)}; {CHECK_LOG}"
    elif rows.ess < TOO_FEW_ROWS:
        reason = _few(rows) or (
            f"of {rows.n:,} rows only {rows.ess:.1f} count (effective sample size); {EXPLORE}"
        )
    elif rows.expected_ess < TOO_FEW_ROWS:
        reason = f"{_promised(rows)}; {EXPLORE}"
    return reason


def _weak(rows: Diagnostics, stderr: float, *, weighted: bool) -> str:
    """Return why an estimate is weak; empty if it is not."""
    taken = rows.clipped_fraction
    promised = rows.expected_ess >= ENOUGH_ROWS
    seen = not rows.pmfs or rows.squares >= SQUARES_SEEN * rows.second_moments
    reason = _suspicious(rows)
    if reason:
        return reason

    # Rows that count are too few, or one of them counts too much.
    if rows.ess < ENOUGH_ROWS:
        reason = _few(rows) or (
            f"of {rows.n:,} rows only {rows.ess:.0f} count (effective sample size); use more of"
            f" the log, or {EXPLORE}"
        )
    elif not (promised and seen):
        reason = f"{_promised(rows)}; use more of the log, or {EXPLORE}"
    elif rows.used_largest > LARGEST_SHARE * rows.used:
        share = rows.used_largest / rows.used
        reason = (
            f"one row has {share:.0%} of all weight (its weight is {rows.used_largest:.4g}); use"
            " more of the log"
        )

    # The estimator has a bias, or rests on rewards that are too rare.
    elif weighted and (taken > CLIPPED or abs(rows.shift) > SHIFT * stderr * rows.decisions):
        reason = (
            f"{taken:.1%} of the weight is taken away, a bias the interval does not count; raise"
            " the limit, or use dr"
        )
    elif not weighted:
        reason = (
            "the value is the reward model's alone, and no weight corrects its bias; use dr beside"
            " it"
        )
    elif rows.positives < POSITIVES:
        reason = (
            f"few or rare large rewards carry the value, as {rows.positives:.0f} alike would: an"
            " interval may miss what has not come yet; use more of the log"
        )
    return reason


def _few(rows: Diagnostics) -> str:
    """Return that there are few rows, where nearly all of them count; else nothing."""
    is_short = rows.n < ENOUGH_ROWS and rows.ess >= NEARLY_ALL * rows.n
    return f"{rows.n:,} rows are few: use more of the log, or wait until it has more" * is_short


def _suspicious(rows: Diagnostics) -> str:
    """Return what makes one doubt the log; empty if nothing does."""
    p, missing = rows.weight_p_value, rows.unsupported / rows.decisions
    if p < SUSPICION:
        return f"{_mean_weight(rows)} (p = {p:.1g}): {_suspect(rows)}; run the doctor on the log"
    if missing > UNSUPPORTED:
        return f"{_unsupported(missing)}; {EXPLORE}"
    if rows.balance_p_value < SUSPICION:
        return f"{_unbalanced(rows)}: {_suspect(rows)}; run the doctor on the log"
    if rows.surprise < SURPRISE:
        return (
            f"{_mean_weight(rows)}; weights and what they do to predictions are as far off in"
            f" {rows.surprise:.1%} of sound logs: run the doctor on the log, or use more of it"
        )
    return ""


def _misled(rows: Diagnostics) -> str:
    return (
        f"where weights are large the reward model has {rows.misled:.3g} times the squared error"
        " of a constant, so it adds to the error of dr; use snips, or another --reward-model"
    )


def _sound(rows: Diagnostics) -> str:
    return (
        f"the mean weight is {rows.mean_weight:.3f} and {rows.ess:,.0f} of {rows.n:,} rows count"
        " (effective sample size): nothing speaks against the estimate"
    )


def _mean_weight(rows: Diagnostics) -> str:
    return f"the mean weight is {rows.mean_weight:.4g} where true propensities give 1"


def _suspect(rows: Diagnostics) -> str:
    if rows.mean_weight > 1.0 or rows.pmfs:
        return "the log's propensities are not those its choices were drawn with"
    return "the target policy takes actions that the log lacks, or the log's propensities are wrong"


def _unbalanced(rows: Diagnostics) -> str:
    return (
        "weighted, the reward model's predictions miss their mean under the target policy, which"
        f" true propensities give (p = {rows.balance_p_value:.1g})"
    )


def _unsupported(share: float) -> str:
    return (
        f"{share:.1%} of the target policy's choices are actions that the logging policy never"
        " takes there"
    )


def _promised(rows: Diagnostics) -> str:
    return (
        f"the target policy takes actions so rare in the log that {rows.expected_ess:,.1f} of"
        f" {rows.n:,} rows are expected to count, whatever the {rows.ess:,.0f} seen"
    )
