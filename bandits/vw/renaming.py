"""Weights of a model of Vowpal Wabbit, taken over where its features have other names.

A weight is found by the hash of a feature's name, or of two that are crossed, and a hash tells no
name. So weights can be taken over as far as decisions are known whose features are named in both
ways: each weight that they meet there is put where they meet it here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandits.errors import SpecError
from bandits.kernels.features import FNV_PRIME
from bandits.types import Float32, Float64, UInt32
from bandits.vw.learner import VwLearner, open_workspace
from bandits.vw.payloads import decode_model, encode_model
from bandits.vw.weights import CONSTANT, ScorerPlan, expand, parse_arguments

NAMELESS = 0
"""The letter, here, of a feature that has no name here: it is 1 wherever it is."""
AT_ONCE = 1 << 21
"""Terms that are counted together."""
_ITS_OWN = "--cb_explore_adf"
"""The other arguments are in the model."""
_COMPARED = 2000
"""Actions whose scores are compared."""
UInt64 = NDArray[np.uint64]
Letters = NDArray[np.uint8]


class RenamedAction(NamedTuple):
    """The n features of one action, and then of its context, as they are named there and here.

    Attributes:
        letters: uint8[n], the first byte of each one's namespace there.
        hashes: uint32[n], there.
        new_letters: uint8[n], here; NAMELESS of one that is 1 everywhere and has no name here.
        new_hashes: uint32[n], here.
        values: float64[n].
    """

    letters: Letters
    hashes: UInt32
    new_letters: Letters
    new_hashes: UInt32
    values: Float64


@dataclass(frozen=True, slots=True)
class RenamedModel:
    """A model whose features are named as here.

    Attributes:
        checkpoint: what a learner goes on from.
        carried: how many weights there, that are not 0, were met, and so have been taken over.
        weights: how many weights there are not 0.
        decisions: how many decisions were looked at.
        apart: the largest difference that was found between a score there and here.
    """

    checkpoint: bytes
    carried: int
    weights: int
    decisions: int
    apart: float


@dataclass(frozen=True, slots=True)
class _Terms:
    """The terms of an action's score: where each is found there, its whole hash here, its value.

    ``left``, ``left_values``: of those that are not crossed here.
    """

    there: UInt32
    here: UInt32
    values: Float64
    left: UInt32
    left_values: Float64

    @property
    def values_here(self) -> Float64:
        """The values here: of several terms there that are one here the first has it."""
        keys = (self.here.astype(np.uint64) << np.uint64(32)) | self.there
        terms, which = np.unique(keys, return_inverse=True)
        first = np.unique(terms >> np.uint64(32), return_index=True)[1]
        is_first = np.zeros(terms.size, np.bool_)
        is_first[first] = True
        values: Float64 = np.where(is_first[which], self.values, 0.0)
        return values


class WeightRenamer:
    """Takes weights over, action by action; then says what came of it.

    Args:
        there: the arguments that the model was made with.
        model: its bytes.
        here: the arguments of the learner that is to go on from it.

    Raises:
        SpecError: the scores of one of them are no sums of weights of single features and pairs.
        SnapshotError: Vowpal Wabbit cannot read the model.
    """

    def __init__(self, there: str, model: bytes, here: str) -> None:
        self._here = here
        self._plans = _plan_of(there), _plan_of(here)
        self._there = np.array(open_workspace(_ITS_OWN, model).weights()[:, 0, :])
        # Pairs of a whole hash here and an index there, ascending, and how often each came.
        self._keys, self._times = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        self._waiting: list[UInt64] = []
        self._terms = 0
        self._compared: list[_Terms] = []
        self._decisions = self._actions = 0

    def add(self, actions: Iterable[RenamedAction]) -> None:
        """Look at the actions of one decision; without any it counts for nothing."""
        is_any = False
        for action in actions:
            terms = _terms_of(action, *self._plans)
            here = terms.here.astype(np.uint64) << np.uint64(32)
            self._waiting.append(here | terms.there)
            self._terms += terms.here.size
            self._actions, is_any = self._actions + 1, True
            if len(self._compared) < _COMPARED:
                self._compared.append(terms)
            if self._terms >= AT_ONCE:
                self._count()
        self._decisions += is_any

    def renamed(self) -> RenamedModel:
        """Return the model with all that was found."""
        self._count()
        keys, times = self._keys, self._times
        there = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)

        # Several weights there may be one here; of those that collide here, the most frequent
        # stays.
        whole, which = np.unique(keys >> np.uint64(32), return_inverse=True)
        sums = np.zeros((whole.size, self._there.shape[1]))
        np.add.at(sums, which, self._there[there])
        often = np.zeros(whole.size, np.int64)
        np.maximum.at(often, which, times)
        indices = (whole & np.uint64(self._plans[1].size - 1)).astype(np.int64)
        order = np.argsort(often, kind="stable")

        fresh = VwLearner(self._here, by_row=True)
        workspace = open_workspace(self._here, decode_model(fresh.checkpoint()).model)
        weights = workspace.weights()[:, 0, :]
        lanes = min(weights.shape[1], sums.shape[1])
        weights[indices[order], :lanes] = sums[order, :lanes]

        learned = max(self._decisions, 1)
        available = max(self._actions, learned) if fresh.by_row else 0
        met = np.unique(there[self._there[there, 0] != 0]).size
        return RenamedModel(
            encode_model(self._here, learned, available, workspace.serialize()),
            int(met),
            int(np.count_nonzero(self._there[:, 0])),
            self._decisions,
            self._apart(weights[:, 0]),
        )

    def _apart(self, here: Float32) -> float:
        """Return how far the scores of the first actions are from what they were."""
        there = self._there[:, 0]
        mask = np.uint32(self._plans[1].size - 1)
        apart = []
        for each in self._compared:
            before = float(there[each.there] @ each.values + there[each.left] @ each.left_values)
            apart.append(abs(before - float(here[each.here & mask] @ each.values_here)))
        return max(apart, default=0.0)

    def _count(self) -> None:
        """Count the terms that wait."""
        fresh = np.concatenate([np.zeros(0, np.uint64), *self._waiting])
        keys, times = np.unique(fresh, return_counts=True)
        both = np.concatenate([self._keys, keys])
        self._keys, which = np.unique(both, return_inverse=True)
        held, self._times = self._times, np.zeros(self._keys.size, np.int64)
        np.add.at(self._times, which, np.concatenate([held, times]))
        self._waiting.clear()
        self._terms = 0


def _plan_of(args: str) -> ScorerPlan:
    plan = parse_arguments(args)
    if plan is None or any(len(letters) > 2 for letters in plan.interactions):
        raise SpecError(
            f"the scores of '{args}' are no sums of weights of single features and pairs",
            "arguments",
        )
    return plan


def _terms_of(action: RenamedAction, there: ScorerPlan, here: ScorerPlan) -> _Terms:
    """Return the terms of an action's score there, and what each is here."""
    single = _singles(action)
    left, right = _pairs(action.letters, there)
    crossed = (action.hashes[left] * FNV_PRIME) ^ action.hashes[right]
    new, is_there = _crossed_here(action, left, right, here)
    values = action.values[left] * action.values[right]

    mask = np.uint32(there.size - 1)
    parts = [(action.hashes, single, action.values), (crossed[is_there], new, values[is_there])]
    if there.constant and here.constant:
        one = np.array([CONSTANT], np.uint32)
        parts.append((one, one, np.ones(1)))
    return _Terms(
        np.concatenate([part[0] for part in parts]) & mask,
        np.concatenate([part[1] for part in parts]),
        np.concatenate([part[2] for part in parts]),
        crossed[~is_there] & mask,
        values[~is_there],
    )


def _singles(action: RenamedAction) -> UInt32:
    """Return the hash here of each feature by itself; without a name it is the constant's."""
    nameless = action.new_letters == NAMELESS
    return np.where(nameless, np.uint32(CONSTANT), action.new_hashes).astype(np.uint32)


def _pairs(letters: Letters, plan: ScorerPlan) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the pairs of features that a plan crosses, in the order in which it does."""
    places = {letter: np.flatnonzero(letters == letter) for letter in set(letters.tolist())}
    lefts, rights = [np.zeros(0, np.intp)], [np.zeros(0, np.intp)]
    for first, second in expand(plan.interactions, frozenset(places)):
        one, other = places[first], places[second]
        if first == second:
            upper = np.triu_indices(one.size)
            lefts.append(one[upper[0]])
            rights.append(one[upper[1]])
        else:
            lefts.append(np.repeat(one, other.size))
            rights.append(np.tile(other, one.size))
    return np.concatenate(lefts), np.concatenate(rights)


def _crossed_here(
    action: RenamedAction, left: NDArray[np.intp], right: NDArray[np.intp], plan: ScorerPlan
) -> tuple[UInt32, NDArray[np.bool_]]:
    """Return the hash here of the pairs that are crossed here, and which of all they are."""
    letters, hashes = action.new_letters, _singles(action)
    first, second = letters[left], letters[right]

    # +1: crossed in this order; -1: in the other; 0: not at all.
    way = np.zeros((256, 256), np.int8)
    for one, other in expand(plan.interactions, frozenset(letters[letters != NAMELESS].tolist())):
        way[one, other], way[other, one] = 1, -1
        if one == other:
            way[one, other] = 1
    turned = way[first, second]
    # Of one letter, the feature that stands first comes first.
    turned = np.where((first == second) & (left > right), -turned, turned)

    # Beside what is 1 everywhere there is only the other one.
    lone = (first == NAMELESS) | (second == NAMELESS)
    named = np.where(first == NAMELESS, right, left)
    is_there = lone | (turned != 0)
    ahead = np.where(turned < 0, right, left)
    behind = np.where(turned < 0, left, right)
    crossed = (hashes[ahead] * FNV_PRIME) ^ hashes[behind]
    both = (first == NAMELESS) & (second == NAMELESS)
    alone = np.where(both, np.uint32(CONSTANT), hashes[named])
    return np.where(lone, alone, crossed).astype(np.uint32)[is_there], is_there
