"""Merging VW models that were trained apart from one base, by VW's own deltas.

VW merges two deltas weight by weight, each in proportion to what its adaptive update has seen of
that feature, so a partition that never met a feature does not dilute what another has learned of
it.
"""

from collections.abc import Sequence
from typing import Any

from vowpal_wabbit_next import apply_delta, calculate_delta, merge_deltas

from bandits.errors import SpecError
from bandits.vw.accepted_arguments import KNOWN
from bandits.vw.arguments import read_arguments, read_bits
from bandits.vw.learner import VwLearner, open_workspace
from bandits.vw.payloads import decode_model, encode_model

BITS = 18
"""VW merges in a workspace that it makes itself, which always has its default size."""


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

    # Whether it merges others, only VW can tell.
    fresh = VwLearner(args, by_row=True).checkpoint()
    try:
        merge_vw(args, fresh, [fresh, fresh])
    except RuntimeError as error:
        raise SpecError(
            f"VW cannot merge models of '{args}' ({error}): set partitions to 1", "learner.args"
        ) from error


def merge_vw(args: str, base: bytes, derived: Sequence[bytes]) -> bytes:
    """Return the checkpoint of ``base`` with what each of ``derived`` has learned on top of it.

    The same checkpoints in the same order give the same bytes.

    Args:
        args: the learner's arguments.
        base: a checkpoint.
        derived: checkpoints of learners that went on from it.
    """
    if len(derived) < 2:  # VW merges two or more
        return derived[0] if derived else base

    saved = decode_model(base)
    others = [decode_model(checkpoint) for checkpoint in derived]
    start = open_workspace(args, saved.model)
    deltas = [calculate_delta(start, open_workspace(args, other.model)) for other in others]
    merged: Any = apply_delta(start, merge_deltas(deltas))

    before = saved.learned, saved.available
    gains = [(other.learned - before[0], other.available - before[1]) for other in others]
    return encode_model(args, *_total(before, *gains), merged.serialize())


def carry_vw(args: str, merged: bytes, since: bytes, now: bytes) -> bytes:
    """Return the checkpoint of ``merged`` with what was learned from ``since`` to ``now``.

    Args:
        args: the learner's arguments.
        merged: the checkpoint that a learner goes on from.
        since: its own checkpoint as ``merged`` knows it.
        now: its checkpoint by now.
    """
    if now == since:
        return merged

    onto, before, after = (decode_model(checkpoint) for checkpoint in (merged, since, now))
    delta = calculate_delta(open_workspace(args, before.model), open_workspace(args, after.model))
    carried: Any = apply_delta(open_workspace(args, onto.model), delta)

    gain = after.learned - before.learned, after.available - before.available
    return encode_model(args, *_total((onto.learned, onto.available), gain), carried.serialize())


def _total(*parts: tuple[int, int]) -> tuple[int, int]:
    """Return the interactions that all parts learned, and the actions there were to choose from.

    Models of one base go on in its way. But from a fresh one, under two specs, one may have been
    taught by row and another not, which has not counted its actions. Then the whole goes on by row,
    and per interaction as many actions are assumed of the one that did not count.
    """
    learned, available = (sum(numbers) for numbers in zip(*parts, strict=True))
    counted = sum(interactions for interactions, actions in parts if actions)
    return learned, available if counted in {0, learned} else round(available * learned / counted)
