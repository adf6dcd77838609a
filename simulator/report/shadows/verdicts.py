"""What the estimate of a shadow comes to: a code from a fixed list, what it means, what to do.

docs/reference/report.md has the list as a table.
"""

from simulator.report.verdicts import Verdict, VerdictKind

SHADOW_VERDICTS = {
    "shadow_refused": VerdictKind(
        "its spec cannot be loaded, or cannot be that of a shadow",
        "mend the field that is named, and apply the policy's spec again",
    ),
    "shadow_failed": VerdictKind(
        "its process cannot follow the log; it goes on trying",
        "do what the message says; what it has missed, it makes up for",
    ),
    "shadow_stopped": VerdictKind(
        "nobody has followed the log for it since",
        "see that the service runs, with a spec that names this shadow",
    ),
    "shadow_waits": VerdictKind(
        "it says something of fewer than 100 slots whose windows have closed",
        "look again when more windows have closed, or when it has caught up",
    ),
    "shadow_unreliable": VerdictKind(
        "the estimate cannot be relied on, as one of replay",
        "do what the reason says: mostly, explore more in the policy that serves",
    ),
    "shadow_better": VerdictKind(
        "the interval of the difference lies above 0, and the estimate is reliable",
        "serve it: give its model to the policy, or hold users out to measure it",
    ),
    "shadow_worse": VerdictKind(
        "the interval of the difference lies below 0, and the estimate is reliable",
        "take it out of the spec, or try another",
    ),
    "shadow_undecided": VerdictKind(
        "the interval holds 0, or the estimate is weak",
        "wait for more decisions; an interval of twice the rows is 0.7 times as wide",
    ),
}
"""The verdicts on a shadow, in the order in which they are looked for."""


def shadow_verdict(code: str, message: str) -> Verdict:
    """Return a verdict on a shadow.

    Args:
        code: one of the table's codes.
        message: what is so, with numbers.
    """
    return Verdict(code, message, SHADOW_VERDICTS[code].action)
