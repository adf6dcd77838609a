"""Vowpal Wabbit's scores in numpy, from the weights alone, where a score is a plain sum of them.

A replica answers with this: no VW, no parsing. ``parse_arguments`` decides whether an argument
string is one for which that is known to be exact; all others go to VW itself
(``bandits.vw.learner``).

Source: VW 9.9, ``core/interactions_predict.h`` and ``core/interactions.h``.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from bandits.alike import AlikeDecisions
from bandits.errors import SnapshotError, SpecError
from bandits.features.flat import Spaces, flatten, names_of, numbered
from bandits.kernels.alike import weigh_each
from bandits.kernels.compiled import Int32
from bandits.kernels.features import FNV_PRIME, weigh
from bandits.sums import sum_products
from bandits.types import ActionSet, Context, Float32, Float64, Namespace, UInt32, frozen
from bandits.vw.arguments import CLAIMED, DEFAULT_BITS, SCORED_CB_TYPES, read_arguments, read_bits

CONSTANT = 11650396
"""The hash of VW's constant feature."""
_WILDCARD = ord(":")
# the namespaces that VW lets a wildcard stand for
_WILDCARD_MATCHES = range(ord(" "), ord("~") + 1)
# a backslash would start a hexadecimal code
_NAMESPACE_BYTES = frozenset(_WILDCARD_MATCHES) - frozenset(b"|\\")


@dataclass(frozen=True, slots=True)
class ScorerPlan:
    """The part of an argument string that matters to a score.

    ``interactions``: the namespaces' first bytes, two or three each, in VW's order, wildcards not
    yet expanded.
    """

    bits: int = DEFAULT_BITS
    constant: bool = True
    interactions: tuple[bytes, ...] = ()

    @property
    def size(self) -> int:
        """How many weights there are."""
        return 1 << self.bits


def parse_arguments(args: str) -> ScorerPlan | None:
    """Return how to score a model trained with ``args``; None if it is not known to be exact."""
    try:
        options = read_arguments(args, CLAIMED)
        bits = read_bits(options)
    except SpecError:
        return None

    # Each cb_type that is left is one model, whose scores are a sum of weights.
    if "cb_explore_adf" not in options or not SCORED_CB_TYPES.issuperset(
        options.get("cb_type", [])
    ):
        return None

    interactions = [
        text.encode()
        for name in ("quadratic", "cubic", "interactions")
        for text in options.get(name, [])
    ]
    if not all(len(i) in (2, 3) and _NAMESPACE_BYTES.issuperset(i) for i in interactions):
        return None
    return ScorerPlan(bits, "noconstant" not in options, _without_duplicates(interactions))


def _without_duplicates(interactions: list[bytes]) -> tuple[bytes, ...]:
    """Keep, as VW does, one interaction of the same namespaces: the first in alphabetical order.

    In one that crosses a namespace with itself, repeats stand side by side.
    """
    kept: dict[bytes, bytes] = {}
    for interaction in sorted(interactions, key=lambda letters: (len(letters), letters)):
        ordered = bytes(sorted(interaction))
        repeats = len(set(interaction)) < len(interaction)
        kept.setdefault(ordered, ordered if repeats else interaction)
    return tuple(kept.values())


@lru_cache(maxsize=256)
def expand(interactions: tuple[bytes, ...], present: frozenset[int]) -> tuple[bytes, ...]:
    """Return the interactions among the namespaces of a decision, wildcards replaced.

    VW expands over all namespaces it has ever seen; those that are not in this decision have no
    features to interact.

    Args:
        interactions: as in ``ScorerPlan``.
        present: the first bytes of the decision's namespaces.
    """
    matches = sorted(present.intersection(_WILDCARD_MATCHES))
    expanded = []
    for interaction in interactions:
        wild = interaction.count(_WILDCARD)
        for picked in combinations_with_replacement(matches, wild):
            # VW writes ascending pairs of two wildcards, and descending tuples of any other number.
            fill = iter(picked if wild == 2 else picked[::-1])
            expanded.append(bytes(next(fill) if c == _WILDCARD else c for c in interaction))
    return tuple(i for i in _without_duplicates(expanded) if present.issuperset(i))


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Features of one namespace letter, of the actions or of the context, or products of such.

    ``hashes`` uint32 [K or 1, n]; ``values`` float64 [K or 1, n]; ``last``: intp [n], where each
    product's last factor stands among its own block's features.
    """

    hashes: UInt32
    values: Float64
    last: NDArray[np.intp]

    def times(self, other: "_Block", *, same: bool) -> "_Block":
        """Return the products of features here and in ``other``; of the ``same``, each once."""
        if same:
            left, right = np.nonzero(self.last[:, None] <= other.last)
            hashes = (self.hashes[:, left] * FNV_PRIME) ^ other.hashes[:, right]
            return _Block(hashes, self.values[:, left] * other.values[:, right], other.last[right])

        crossed = (self.hashes * FNV_PRIME)[:, :, None] ^ other.hashes[:, None, :]
        values = self.values[:, :, None] * other.values[:, None, :]
        shape = (self.last.size, other.last.size)
        n = shape[0] * shape[1]
        last = np.broadcast_to(other.last, shape).reshape(n)
        return _Block(crossed.reshape(len(crossed), n), values.reshape(len(values), n), last)


def first_byte(name: str) -> int:
    """Return what VW groups namespaces by; the namespace without a name is a space."""
    return name.encode()[0] if name else ord(" ")


def _blocks(namespaces: tuple[Namespace, ...]) -> dict[int, _Block]:
    """Return the features of each letter, namespaces of one letter concatenated in their order."""
    grouped: dict[int, list[Namespace]] = {}
    for namespace in namespaces:
        grouped.setdefault(first_byte(namespace.name), []).append(namespace)

    blocks = {}
    for letter, members in grouped.items():
        # The usual case: one namespace of the context.
        if len(members) == 1 and members[0].values.ndim == 1:
            (only,) = members
            blocks[letter] = _Block(
                only.hashes[None], only.values.astype(np.float64)[None], np.arange(only.hashes.size)
            )
            continue

        hashes = [np.atleast_2d(ns.cells()) for ns in members]
        if len({len(h) for h in hashes}) > 1:
            rows = max(len(h) for h in hashes)
            hashes = [np.broadcast_to(h, (rows, h.shape[1])) for h in hashes]
        values = [np.atleast_2d(ns.values) for ns in members]

        all_hashes = hashes[0] if len(members) == 1 else np.concatenate(hashes, axis=1)
        all_values = values[0] if len(members) == 1 else np.concatenate(values, axis=1)
        last = np.arange(all_hashes.shape[1])
        blocks[letter] = _Block(all_hashes, all_values.astype(np.float64), last)
    return blocks


class WeightScorer:
    """Scores actions as VW would with these weights: minus its predicted cost.

    Agrees with VW's own float32 sums to about 1e-7 (1 + Σ|weight · value|).

    Args:
        plan: how a score follows from weights.
        indices: uint32[n], strictly increasing, below 2^bits.
        values: float32[n], the weights at the indices, finite.

    Raises:
        SnapshotError: the weights are not of that form.
    """

    def __init__(self, plan: ScorerPlan, indices: UInt32, values: Float32) -> None:
        size = 1 << plan.bits
        if indices.shape != values.shape or indices.ndim != 1:
            raise SnapshotError("every weight has one index and one value", "payload")
        if indices.size and (
            int(indices[-1]) >= size or not bool(np.all(indices[:-1] < indices[1:]))
        ):
            raise SnapshotError(
                f"weight indices increase and stay below 2^{plan.bits}", "payload.indices"
            )
        if not bool(np.isfinite(values).all()):
            raise SnapshotError("weights are finite", "payload.values")

        self.plan = plan
        self._mask = np.uint32(size - 1)
        dense = np.zeros(size, dtype=np.float32)
        dense[indices] = values
        self._weights = frozen(dense)
        self.constant = float(dense[CONSTANT & (size - 1)]) if plan.constant else 0.0

    def weight(self, hashed: int) -> float:
        """Return the weight that a feature's hash, or a product's, finds."""
        return float(self._weights[hashed & int(self._mask)])

    def scores(self, context: Context, actions: ActionSet) -> Float64:
        """Return the predicted reward of each action, float64[K]; higher is better.

        Args:
            context: features that all actions share, alone and as the plan crosses them.
            actions: K of them, each scored by itself.
        """
        flat = flatten(context, actions)
        layout, others = _layout(self.plan.interactions, flat.shared_spaces, flat.spaces)
        scores: Float64 = weigh(
            self._weights,
            self.constant,
            flat.names,
            flat.codes,
            flat.values,
            flat.shared,
            flat.shared_values,
            layout,
        )

        # What the compiled loop leaves out: pairs within the actions or the context, and triples.
        if others:
            of_actions, of_context = _blocks(actions.namespaces), _blocks(context.namespaces)
            for interaction in others:
                if len(interaction) == 2:
                    products = [
                        *_products(interaction, of_actions, {}),
                        *_products(interaction, {}, of_context),
                    ]
                else:
                    products = _products(interaction, of_actions, of_context)
                for product in products:
                    scores -= self._sum(product)
        return scores

    def scores_of_each(self, decisions: AlikeDecisions) -> Float64 | None:
        """Return the scores of several decisions, float64[N]; None where a plan asks for more."""
        crossed, others = _divided(
            self.plan.interactions, decisions.shared_spaces, decisions.spaces
        )
        if others:
            return None
        return weigh_each(
            self._weights,
            self.constant,
            decisions.starts,
            decisions.items,
            decisions.names,
            decisions.values,
            decisions.rows,
            decisions.shared_starts,
            decisions.shared,
            decisions.shared_values,
            np.array(crossed, np.int32),
        )

    def _sum(self, block: _Block) -> Float64:
        """Return Σ weight · value: float64[K], or [1] for what all actions share."""
        # In float64 throughout: einsum would buffer mixed types, and a row's rounding would then
        # depend on where it stands.
        weights = self._weights.take(block.hashes & self._mask).astype(np.float64)
        return sum_products("kn,kn->k", weights, block.values)


@lru_cache(maxsize=256)
def _divided(
    interactions: tuple[bytes, ...], shared: tuple[str, ...], own: tuple[str, ...]
) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
    """Divide interactions into those that ``weigh`` takes and the others.

    Args:
        interactions: as in ``ScorerPlan``.
        shared: the names of the context's namespaces, which are numbered first.
        own: the names of the actions' namespaces.

    Returns:
        Pairs of one namespace of the actions and one of the context, as ``weigh`` takes them: the
        number of each, and 1 if the context's comes first. And the interactions that have other
        products as well.
    """
    of_context = [first_byte(name) for name in shared]
    of_actions = [first_byte(name) for name in own]
    expanded = expand(interactions, frozenset({*of_context, *of_actions}))

    crossed: list[int] = []
    for number, letter in enumerate(of_actions, start=len(shared)):
        for pair in expanded:
            if len(pair) > 2:
                continue
            first = letter == pair[0] and pair[1] in of_context
            if first or letter == pair[1]:
                partner = pair[1] if first else pair[0]
                for other, context_letter in enumerate(of_context):
                    if context_letter == partner:
                        crossed += (number, other, int(not first))

    # A pair may be of both kinds, if a letter names namespaces of the actions and of the context.
    others = [
        interaction
        for interaction in expanded
        if len(interaction) > 2
        or set(interaction) <= set(of_actions)
        or set(interaction) <= set(of_context)
    ]
    return tuple(crossed), tuple(others)


@lru_cache(maxsize=64)  # each may be of a hundred thousand names
def _layout(
    interactions: tuple[bytes, ...], shared: Spaces, own: Spaces
) -> tuple[Int32, tuple[bytes, ...]]:
    """Return the layout that ``weigh`` takes, and the interactions that it leaves out."""
    crossed, others = _divided(interactions, names_of(shared), names_of(own))
    parts = numbered(own, len(shared)), numbered(shared), np.array(crossed, np.int32)
    return frozen(np.concatenate(parts)), others


def _products(
    interaction: bytes, own: dict[int, _Block], shared: dict[int, _Block]
) -> list[_Block]:
    """Return the features of one interaction, in blocks: what only the context makes is made once.

    An action's features of a letter come before the context's, since VW appends the shared example
    to each action.

    Args:
        interaction: the letters.
        own: by letter, the features of the actions.
        shared: by letter, the features of the context.
    """
    # The letter of the last factor, whether it is the context's, and the product so far.
    partial: list[tuple[int, bool, _Block]] = []
    for position, letter in enumerate(interaction):
        factors = [(of is shared, of[letter]) for of in (own, shared) if letter in of]
        if position == 0:
            partial = [(letter, is_shared, block) for is_shared, block in factors]
            continue

        # Where a letter stands twice, each combination counts once.
        partial = [
            (
                letter,
                is_shared,
                product.times(block, same=letter == before and is_shared == was_shared),
            )
            for before, was_shared, product in partial
            for is_shared, block in factors
            if letter != before or is_shared >= was_shared
        ]
    return [product for _, _, product in partial]
