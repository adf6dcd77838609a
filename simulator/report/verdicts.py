"""What a report ends in: a code from a fixed list, what it means, and what to do.

docs/reference/report.md has the list as a table.
"""

from typing import NamedTuple

import msgspec


class VerdictKind(NamedTuple):
    """A case. ``when``: what makes it so; ``action``: what to do then."""

    when: str
    action: str


VERDICTS = {
    "no_decisions": VerdictKind(
        "no decision in the range has a closed window",
        "wait until a window has closed (join.window_s), choose an earlier --since, or see that"
        " rank answers: what it refuses is not logged",
    ),
    "no_rewards": VerdictKind(
        "no reward event came in the range",
        "see that the caller sends rewards, with the event_id that rank has answered",
    ),
    "rewards_all_equal": VerdictKind(
        "every decision earned the same",
        "there is nothing to compare: reward what is worth more than something else",
    ),
    "log_untrusted": VerdictKind(
        "the doctor found that the log cannot be trusted",
        "do what the doctor says first: no number here can be relied on",
    ),
    "apprentice_unknown": VerdictKind(
        "the policy is an apprentice, and what it would earn cannot be estimated: the baseline"
        " never, or hardly, tries what it would choose",
        "send the baseline's probabilities, or hold out a share that is served uniformly"
        " (holdout: {fraction: 0.05, policy: uniform})",
    ),
    "apprentice_better": VerdictKind(
        "the policy is an apprentice, and the interval of what it would earn more lies above 0",
        "let it decide: set mode to online, with a holdout by the baseline to measure it",
    ),
    "apprentice_worse": VerdictKind(
        "the policy is an apprentice, and the interval of what it would earn more lies below 0",
        "do not let it decide yet: let it learn on, and look at its features and its learner",
    ),
    "apprentice_undecided": VerdictKind(
        "the policy is an apprentice, and the interval of what it would earn more holds 0",
        "let it learn on; more decisions that might have been others make the interval smaller",
    ),
    "no_holdout": VerdictKind(
        "the spec holds nobody out",
        "add holdout: {fraction: 0.05} to the spec, and look again in some days",
    ),
    "holdout_empty": VerdictKind(
        "one of the two groups has no decision yet, or a single unit",
        "wait for more users, or bring holdout.fraction nearer to a half: of 0 nobody is held out,"
        " of 1 everybody",
    ),
    "assignment_broken": VerdictKind(
        "users are not divided as the spec says, more than chance would",
        "find out which requests are lost, retried or filtered in one group only; until then the"
        " difference is not the policy's",
    ),
    "too_early": VerdictKind(
        "a group has fewer than 50 units, or one unit a fifth of the variance",
        "wait: no interval is right with so few",
    ),
    "better": VerdictKind(
        "the interval of the uplift lies above 0",
        "keep the policy; a smaller holdout still measures it",
    ),
    "worse": VerdictKind(
        "the interval of the uplift lies below 0",
        "serve the holdout's policy instead, and find out why: by segment, by source, by drift",
    ),
    "no_difference": VerdictKind(
        "the interval lies within a tenth of the holdout's mean, and holds 0",
        "the policy is not worth its upkeep as it is: change it, not the holdout",
    ),
    "undecided": VerdictKind(
        "the interval holds 0, and a difference that would matter",
        "wait; the report says how long it may take",
    ),
}
"""The verdicts, in the order in which they are looked for."""

CAUTIONS = {
    "skewed": VerdictKind(
        "few large rewards carry the means, so an interval may miss more often than it says",
        "wait for more units, or compare a reward with an upper end, as bought or not",
    ),
    "unserved": VerdictKind(
        "the holdout's policy could not serve more than 1% of its decisions, which are left out",
        "choose a holdout.policy that always has candidates, such as uniform",
    ),
    "holdout_changed": VerdictKind(
        "the spec's holdout is another than it was, so the comparison begins with the new one",
        "nothing, or choose a --since after the change",
    ),
    "in_both_groups": VerdictKind(
        "more than 1% of the units were in both groups, as after a merge of users or a new salt",
        "choose a --since after that",
    ),
    "early_rewards": VerdictKind(
        "more than a tenth of the decisions are left out because their windows are open",
        "look again when they have closed",
    ),
    "bad_entries": VerdictKind(
        "some entries of the log are no valid rows, and are left out",
        "run the doctor on the log",
    ),
    "signal_missing": VerdictKind(
        "of a signal of the spec no reward came in the range, though others did",
        "see that the caller sends it, and by this name; of a rare one wait for more decisions",
    ),
    "clock_jumped": VerdictKind(
        "the log's clock leapt: no decision for ten minutes or more, and for more than half of the"
        " range",
        "do not read what is said by time, nor when an answer is expected",
    ),
    "reward_drifts": VerdictKind(
        "the mean reward changed from the first quarter of the decisions to the last",
        "the uplift is the mean over a time that was not all alike: see a later --since",
    ),
    "context_drift": VerdictKind(
        "of a feature of the context a tenth or more of the values were others in the beginning",
        "see whether the feature is still sent as it was; if so, others come now than then",
    ),
    "candidates_drift": VerdictKind(
        "a tenth of what there is to choose among, or more, was not there in the beginning",
        "nothing, if the items changed; else see which source proposes other items, or none",
    ),
    "doctor_warns": VerdictKind(
        "the doctor warns of something",
        "read its findings",
    ),
}
"""What is to be known beside the verdict."""


class Verdict(msgspec.Struct, frozen=True):
    """A case that holds.

    Attributes:
        code: one of VERDICTS or CAUTIONS.
        message: what is so, with numbers.
        action: what to do.
    """

    code: str
    message: str
    action: str


def verdict_of(code: str, message: str) -> Verdict:
    """Return a verdict or a caution.

    Args:
        code: one of the tables' codes.
        message: what is so, with numbers.
    """
    kind = VERDICTS.get(code) or CAUTIONS[code]
    return Verdict(code, message, kind.action)
