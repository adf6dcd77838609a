"""The one place where chance enters: draw from exactly the PMF that is logged."""

import hashlib
import struct
from collections.abc import Sequence
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.alike import AlikeDecisions, PolicyOfEach
from bandits.errors import (
    EmptyActionsError,
    InvalidFieldError,
    InvalidPmfError,
    NoCandidatesError,
    RefusedError,
)
from bandits.kernels.actions import draw_checked
from bandits.kernels.alike import draw_each
from bandits.page import PageRule
from bandits.types import ActionSet, Context, Float64, Pmf, Policy, check_pmf, frozen

PURPOSE_ACTION = "action"
PURPOSE_SOURCE = "source"
PURPOSE_HOLDOUT = "holdout"
PURPOSE_APPRENTICE = "apprentice"
_FLOAT64 = np.dtype(np.float64)
_LENGTH = struct.Struct("<I").pack


class Decision(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The chosen actions, slot by slot, and their probabilities.

    ``pmfs``: float64[slots, K]; row j is the PMF slot j was drawn from, 0 at the actions of earlier
    slots. ``chosen``: one index into the ActionSet per slot.
    """

    event_id: str
    chosen: tuple[int, ...]
    pmfs: Float64

    @property
    def propensities(self) -> tuple[float, ...]:
        """The conditional propensity of each slot's action, given the slots before it."""
        return tuple(float(self.pmfs[slot, index]) for slot, index in enumerate(self.chosen))


@lru_cache(maxsize=1024)
def _field(text: str) -> bytes:
    """Return a field of what is hashed: its length, then itself."""
    return _LENGTH(len(data := text.encode())) + data


@lru_cache(maxsize=1024)
def _begun(salt: bytes, policy: str) -> "hashlib.blake2b":
    """Return the hash of a policy's draws as far as all are the same; others copy it and go on."""
    return hashlib.blake2b(_field(policy), key=salt, digest_size=8)


@lru_cache(maxsize=1024)
def _ending(purpose: str, slot: int) -> bytes:
    """Return what ends all that is hashed for a slot's draws."""
    return _field(purpose) + _LENGTH(slot)


def uniform(salt: bytes, policy: str, event_id: str, slot: int, purpose: str) -> float:
    """Return a uniform in [0, 1) hashed from what the draw is for: 53 bits of keyed BLAKE2b.

    So no two draws share one, and any can be derived again.

    Args:
        salt: the key, 1 to 64 secret bytes.
        policy: the policy's name.
        event_id: the decision.
        slot: which of its slots.
        purpose: what is drawn.
    """
    event = event_id.encode()
    hashed = _begun(salt, policy).copy()
    hashed.update(_LENGTH(len(event)) + event + _ending(purpose, slot))
    return float(int.from_bytes(hashed.digest(), "little") >> 11) * 2.0**-53


def uniform_of_each(
    salt: bytes, policy: str, event_ids: Sequence[str], slot: int, purpose: str
) -> Float64:
    """Return ``uniform`` of each of R decisions, float64[R].

    Args:
        salt: see ``uniform``.
        policy: the policy's name.
        event_ids: the decisions.
        slot: which of their slots.
        purpose: what is drawn.
    """
    begun, rest, digests = _begun(salt, policy), _ending(purpose, slot), list[bytes]()
    for event_id in event_ids:
        event, hashed = event_id.encode(), begun.copy()
        hashed.update(_LENGTH(len(event)) + event + rest)
        digests.append(hashed.digest())
    bits = np.frombuffer(b"".join(digests), "<u8") >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def decide(
    policy: Policy,
    context: Context,
    actions: ActionSet,
    *,
    event_id: str,
    salt: bytes,
    name: str = "",
    slots: int = 1,
    page: PageRule | None = None,
    purpose: str = PURPOSE_ACTION,
) -> Decision:
    """Choose ``slots`` actions one after another, without replacement.

    Args:
        policy: what makes a PMF of the actions that are left.
        context: what the actions share.
        actions: what is chosen from.
        event_id: the decision's name.
        salt: 1 to 64 secret bytes; who knows them can predict every choice.
        name: the policy's name.
        slots: how many are chosen; fewer where the page rule leaves none.
        page: what may stand beside what; None: anything.
        purpose: what is drawn: what is served, or what an apprentice would have chosen.

    Raises:
        EmptyActionsError: no actions.
        InvalidFieldError: slots is not in 1..K.
        NoCandidatesError: the page rule leaves none for the first slot.
        InvalidPmfError: the policy returned something that is not a PMF.
    """
    count = len(actions)
    if count == 0:
        raise EmptyActionsError("a decision needs at least one action", "actions")
    if not 1 <= slots <= count:
        raise InvalidFieldError(
            f"slots must be between 1 and the number of actions ({count}), not {slots}", "slots"
        )

    if slots == 1 and page is None:
        pmf = policy.pmf(context, actions)
        drawn = _drawn(pmf, count, uniform(salt, name, event_id, 0, purpose))
        return Decision(event_id, (drawn,), frozen(pmf[None]))

    # Each further slot is drawn among what is left; everything else has probability 0 there.
    pmfs, chosen = list[Float64](), list[int]()
    for slot in range(slots):
        remaining, left = left_after(actions, chosen, page)
        if not remaining.size:
            break
        pmf = policy.pmf(context, left)
        drawn = _drawn(pmf, remaining.size, uniform(salt, name, event_id, slot, purpose))
        chosen.append(int(remaining[drawn]))
        pmfs.append(np.zeros(count))
        pmfs[slot][remaining] = pmf

    if not chosen:
        raise NoCandidatesError("what stands on the page already leaves room for nothing", "page")
    return Decision(event_id, tuple(chosen), frozen(np.stack(pmfs)))


def decide_each(
    policy: PolicyOfEach,
    decisions: AlikeDecisions,
    *,
    event_ids: Sequence[str],
    salt: bytes,
    name: str,
) -> tuple[Float64, list[int]] | None:
    """Choose one action for each of several decisions, as ``decide`` does of each.

    Args:
        policy: what makes PMFs.
        decisions: R of them, over N actions in all.
        event_ids: their names.
        salt: see ``decide``.
        name: the policy's name.

    Returns:
        The PMFs that were drawn from, float64[N], and the index of each decision's action among its
        own, or -1 where the policy returned what is no PMF; None: it has to be asked one by one.
    """
    pmfs = policy.pmf_of_each(decisions)
    if pmfs is None:
        return None
    uniforms = uniform_of_each(salt, name, event_ids, 0, PURPOSE_ACTION)
    return frozen(pmfs), draw_each(pmfs, decisions.starts, uniforms).tolist()


def left_after(
    actions: ActionSet, chosen: Sequence[int], page: PageRule | None = None
) -> tuple[NDArray[np.intp], ActionSet]:
    """Return what may follow on a page: the places of R of the K actions, and these.

    Args:
        actions: all K.
        chosen: the places of those that were drawn for the page already, in their order.
        page: what may stand beside what; None: anything.
    """
    offsets = None if page is None else page.after(chosen)
    remaining = places_left(len(actions), chosen, offsets)
    if offsets is None:
        return remaining, actions.take(remaining) if len(chosen) else actions

    left, added = actions.take(remaining), offsets[remaining]
    if added.any():
        boosts = added if left.boosts is None else left.boosts + added
        left = msgspec.structs.replace(left, boosts=boosts)
    return remaining, left


def places_left(
    count: int, chosen: Sequence[int], offsets: Float64 | None = None
) -> NDArray[np.intp]:
    """Return the places of the actions that may follow on a page, int64[R], ascending.

    Args:
        count: how many actions there are, K.
        chosen: the places of those that were drawn already.
        offsets: what the page rule says, float64[K]; see PageRule.
    """
    remaining = np.delete(np.arange(count), np.array(chosen, np.intp))
    return remaining if offsets is None else remaining[~np.isnan(offsets[remaining])]


def place_among(remaining: NDArray[np.intp], index: int) -> int:
    """Return where an action is among those that could follow.

    Args:
        remaining: see ``places_left``.
        index: its place among all.

    Raises:
        RefusedError: it is none of them: the record contradicts itself.
    """
    place = int(np.searchsorted(remaining, index))
    if place == remaining.size or remaining[place] != index:
        raise RefusedError("its page's rules bar what it chose", "rules.page")
    return place


def _drawn(pmf: Pmf, count: int, u: float) -> int:
    """Return the index drawn from what has to be a PMF over ``count`` actions; else raise."""
    drawn = draw_checked(pmf, u) if pmf.dtype == _FLOAT64 and pmf.shape == (count,) else -1
    if drawn < 0:
        check_pmf(pmf)
        raise InvalidPmfError(
            f"the policy returned {pmf.size} probabilities for {count} actions", "pmf"
        )
    return drawn
