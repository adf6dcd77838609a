"""The same log learned under other weights: beside the fold that goes on, which then takes it over.

A fold beside reads the log from its start, and joins every decision under the signals of one spec.
An entry names its checkpoint. There it is taken over: whoever folds the log resumes from the
checkpoint, reads on to the entry, and goes on as that fold. So nothing is missed in between, and
what is taken over has the bytes of the fold beside.

Of several partitions each learns its own log anew, where their models are added up: what one has
learned depends on its own log alone. Until all have, a merge adds up models under both weights.
"""

import msgspec

from bandits.errors import CodecError, RefusedError
from bandits.log.join_rule import JoinRule
from bandits.log.positions import has_reached
from policies.fold.checkpoint import SignalledState, decode_state
from policies.profiles.signals import signalled_rule
from policies.spec import PolicySpec


def weighed_by(spec: PolicySpec, by: PolicySpec) -> JoinRule:
    """Return how rewards join the decisions of a spec under the signals of another.

    Args:
        spec: the one that the decisions name, whose join counts.
        by: the one whose signals count.
    """
    if by.signals is msgspec.UNSET:
        return spec.join
    return signalled_rule(spec.join, by.signals)


def state_beside(data: bytes, through: str, by: str | None, position: str) -> SignalledState:
    """Return the checkpoint of a fold beside that may be taken over.

    Args:
        data: the bytes that the entry names.
        through: up to where the entry says that it has learned.
        by: the spec in force, by digest.
        position: the entry's.

    Raises:
        RefusedError: it is none, or of another spec or position.
    """
    try:
        state = decode_state(data)
    except CodecError as error:
        raise RefusedError(error.message, error.target) from error

    made = state.relearned if isinstance(state, SignalledState) else None
    if not isinstance(state, SignalledState) or made is None or made.by != by:
        raise RefusedError("it was learned anew for another spec than is in force", "spec")
    if state.position != through or not has_reached(position, state.position):
        raise RefusedError(f"it has not learned up to {through}", "through")
    return state
