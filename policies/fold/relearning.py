"""The same log learned under other weights: beside the fold that goes on, which then takes it over.

A fold beside reads the log from its start, and joins every decision under the signals of one spec.
An entry names its checkpoint. There it is taken over: whoever folds the log resumes from the
checkpoint, reads on to the entry, and goes on as that fold. So nothing is missed in between, and
what is taken over has the bytes of the fold beside.
"""

import msgspec

from bandits.log.join_rule import JoinRule
from policies.profiles.signals import signalled_rule
from policies.spec import PolicySpec


class Relearned(msgspec.Struct, frozen=True, array_like=True):
    """Whose signals weigh the rewards of decisions that were made with other specs.

    Attributes:
        by: the digest of the spec whose signals do.
        specs: those of the decisions, by digest.
    """

    by: str
    specs: list[str]


def weighed_by(spec: PolicySpec, by: PolicySpec) -> JoinRule:
    """Return how rewards join the decisions of a spec under the signals of another.

    Args:
        spec: the one that the decisions name, whose join counts.
        by: the one whose signals count.
    """
    if by.signals is msgspec.UNSET:
        return spec.join
    return signalled_rule(spec.join, by.signals)
