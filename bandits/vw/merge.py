"""Merging VW models that were trained apart from one base, by VW's own deltas. See also ``vw.py``.

VW merges two deltas weight by weight, each in proportion to what its adaptive update has seen of
that feature, so a partition that never met a feature does not dilute what another has learned of
it.
"""

from collections.abc import Sequence
from typing import Any

from vowpal_wabbit_next import apply_delta, calculate_delta, merge_deltas

from bandits.errors import SpecError
from bandits.vw.accepted import KNOWN
from bandits.vw.learner import VwLearner, decode_model, encode_model, open_workspace
from bandits.vw.weights import read_arguments, read_bits

BITS = 18
"""VW merges in a workspace that it makes by itself, which always has its default size."""


def check_mergeable(args: str) -> None:
    """Refuse arguments whose models VW cannot merge.

    Raises:
        SpecError: names ``learner.args``.
    """
    bits = read_bits(read_arguments(args, KNOWN))
    if bits != BITS:
        raise SpecError(
            f"VW merges models of {BITS} bits only, not of -b {bits}: leave -b out, or set"
            " partitions to 1",
            "learner.args",
        )
    fresh = VwLearner(args, by_row=True).checkpoint()
    try:
        merge_vw(args, fresh, [fresh, fresh])
    except RuntimeError as error:
        raise SpecError(
            f"VW cannot merge models of '{args}' ({error}): set partitions to 1", "learner.args"
        ) from error


def merge_vw(args: str, base: bytes, derived: Sequence[bytes]) -> bytes:
    """The checkpoint of ``base`` with what each of ``derived``, checkpoints trained on from it, has learned.

    The same checkpoints in the same order give the same bytes.
    """
    if len(derived) < 2:  # VW merges two or more
        return derived[0] if derived else base
    saved = decode_model(base)
    others = [decode_model(each) for each in derived]
    start = open_workspace(args, saved.model)
    deltas = [calculate_delta(start, open_workspace(args, each.model)) for each in others]
    merged: Any = apply_delta(start, merge_deltas(deltas))
    gained = [(each.learned - saved.learned, each.available - saved.available) for each in others]
    return encode_model(
        args, *_taught((saved.learned, saved.available), *gained), merged.serialize()
    )


def carry_vw(args: str, merged: bytes, since: bytes, now: bytes) -> bytes:
    """The checkpoint of ``merged`` with what a learner that went from ``since`` to ``now`` has learned on the way."""
    if now == since:
        return merged
    onto, before, after = (decode_model(each) for each in (merged, since, now))
    delta = calculate_delta(open_workspace(args, before.model), open_workspace(args, after.model))
    carried: Any = apply_delta(open_workspace(args, onto.model), delta)
    gained = after.learned - before.learned, after.available - before.available
    return encode_model(args, *_taught((onto.learned, onto.available), gained), carried.serialize())


def _taught(*parts: tuple[int, int]) -> tuple[int, int]:
    """Interactions learned, and the actions that there were to choose from, of all parts together.

    Models of one base go on in its way; but from a fresh one, under two specs, one may have been
    taught by row and another not, which has not counted its actions: then the whole goes on by row,
    and as many are assumed of the other.
    """
    learned, available = (sum(numbers) for numbers in zip(*parts, strict=True))
    counted = sum(interactions for interactions, actions in parts if actions)
    return learned, available if counted in {0, learned} else round(available * learned / counted)
