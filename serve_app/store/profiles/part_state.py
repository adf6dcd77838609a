"""How far a part of all profiles is written: by which rule, through which entry of its log."""

import uuid
from collections.abc import Iterable, Mapping

import msgspec

from bandits.log.codec import MALFORMED
from bandits.log.positions import START, is_after
from policies.profiles.part import CutRule


class PartState(msgspec.Struct, frozen=True, array_like=True):
    """How far the part of one log is written.

    Attributes:
        position: the part says what the log's entries say, through this one.
        rule: the digest of the rule that cuts it.
        epoch: a name of this making of it.
        until: what comes up to here may be missing, for it is read anew; empty: nothing is missing.
        built: how far it has been read anew.
    """

    position: str
    rule: str
    epoch: str
    until: str = ""
    built: str = ""

    @classmethod
    def begun(cls, at: str, rule: CutRule) -> "PartState":
        """Return the state of a part that is made anew.

        Args:
            at: what its log says up to here is still to be read; START: there is nothing.
            rule: what cuts it.
        """
        return cls(at, rule.digest, uuid.uuid4().hex[:16], "" if at == START else at)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing."""
        return not self.until


def decode_part_state(data: bytes | None) -> PartState | None:
    """Return a part's state; None: it is to be made anew."""
    if data is None:
        return None
    try:
        return msgspec.msgpack.decode(data, type=PartState)
    except MALFORMED:
        return None


def state_for(state: PartState | None, rule: CutRule, *, since: str, at: str) -> PartState:
    """Return the state with which a leader begins to write a part.

    Args:
        state: the one it is in; None: there is none.
        rule: what is to cut it.
        since: the leader can tell what the log says past here.
        at: where the leader begins, if the part is to be made anew.
    """
    if state is None or is_after(since, state.position):
        return PartState.begun(at, rule)
    if state.rule != rule.digest:
        return PartState.begun(state.position, rule)
    return state


def are_whole(states: Mapping[bytes, bytes], parts: Iterable[str]) -> bool:
    """Return whether nothing is missing in any part, so that a profile says all there is to say.

    Args:
        states: the hash of the parts' states.
        parts: the names of all parts.
    """
    found = [decode_part_state(states.get(part.encode())) for part in parts]
    return all(state is not None and state.is_whole for state in found)
