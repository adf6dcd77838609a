"""Several decisions at once, where each depends on its request, the catalogue and the model alone.

Of most batches each decision is one: explicit actions that the catalogue knows, no rules, no
sources to ask. Ids are looked up, scores added up, PMFs made and draws made for all of them in one
step each. What comes of it is what ``Decider`` makes of each by itself, byte for byte.
"""

import os
from collections.abc import Sequence
from itertools import chain, pairwise
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from bandits.alike import AlikeDecisions
from bandits.decide import decide, decide_each
from bandits.errors import InvalidInputError
from bandits.features.hashing import hash_feature
from bandits.features.namespaces import CONTEXT, FEATURES, ITEM
from bandits.kernels.actions import take_rows
from bandits.kernels.alike import ONCE, UNKNOWN, occurrences
from bandits.log.records import DecisionRecord
from bandits.types import ActionSet, Context, Float32, Namespace, UInt32, frozen
from policies.blend import Blend
from policies.decisions.decider import MAX_PAIRS, Serving
from policies.encoding import (
    check_features,
    checked_namespace,
    namespace_of,
    numbers_alike,
    rows_alike,
)
from policies.features import item_indicators
from policies.items.bare_ids import BareIds
from policies.items.catalogue import Catalogue
from policies.offered import Offered
from policies.pseudonyms import pseudonym
from policies.requests import (
    MAX_ACTIONS,
    ActionRequest,
    BareRequest,
    RankRequest,
    check_event_id,
)
from policies.spec import PolicySpec

EVENT_BYTES = 16
"""Random bytes of an event_id that is made here."""
_ID, _FEATURES, _SCORES = map(attrgetter, ("id", "features", "scores"))
_NO_ITEMS: UInt32 = frozen(np.zeros(0, np.uint32))
_NO_VALUES: Float32 = frozen(np.zeros(0, np.float32))


class _Contexts(NamedTuple):
    """The features of some contexts, one after the other; see ``AlikeDecisions``."""

    starts: NDArray[np.int64]
    hashes: UInt32
    values: Float32


class _Plain(NamedTuple):
    """A request that may be decided with others, and its place among all.

    ``ids``: of its actions, each once; ``rows``: in the catalogue, int64[K].
    """

    at: int
    request: RankRequest
    ids: list[str]
    rows: NDArray[np.int64]


class Together:
    """Makes those decisions of a batch at once that need nothing of their own."""

    def __init__(self, spec: PolicySpec, *, salt: bytes) -> None:
        """Decide by a spec.

        Args:
            spec: the policy.
            salt: draws and pseudonyms are hashed with it.
        """
        self._spec, self._salt = spec, salt
        self._ids = BareIds()
        self._spec_digest = spec.digest
        own = spec.holdout or spec.is_apprentice or spec.rules is not None
        private = spec.context_private is not UNSET or bool(spec.unseen)
        self._can = spec.kind == "blend" and FEATURES in spec.use and not (own or private)

    def decide(
        self, serving: Serving, requests: Sequence[RankRequest], offered: Offered
    ) -> list[DecisionRecord | None]:
        """Return the record of each decision; None: it has to be made by itself.

        What is wrong with a request is said there, too.

        Args:
            serving: the model.
            requests: what is asked, by users of whom nothing is looked up.
            offered: the items, and the sources over them.
        """
        records: list[DecisionRecord | None] = [None] * len(requests)
        catalogue, policy = offered.offering.catalogue, serving.policy
        names = self._names(catalogue, offered)
        if names is None or not isinstance(policy, Blend):
            return records

        plain = [*self._bare(requests, catalogue), *_decoded(requests, catalogue)]
        if not plain:
            return records
        starts = _starts([len(one.ids) for one in plain])
        rows = np.concatenate([one.rows for one in plain])

        contexts = self._contexts([one.request for one in plain])
        if contexts is None or _may_have_too_many_pairs(starts, contexts.starts, names.size + 1):
            return records
        event_ids = _event_ids([one.request for one in plain])
        decided = decide_each(
            policy,
            AlikeDecisions(
                starts,
                self._items(plain),
                names,
                catalogue.features.values,
                rows,
                *contexts,
            ),
            event_ids=event_ids,
            salt=self._salt,
            name=self._spec.name,
        )
        if decided is None:
            return records

        pmfs, chosen = decided
        encoded = pmfs.tobytes()
        bounds = (8 * starts).tolist()
        for number, (begin, end) in enumerate(pairwise(bounds)):
            one, index = plain[number], chosen[number]
            if index >= 0:
                records[one.at] = self._record(
                    serving,
                    catalogue,
                    one,
                    event_ids[number],
                    encoded[begin:end],
                    index,
                )
        return records

    def decide_one(
        self, serving: Serving, request: BareRequest, offered: Offered
    ) -> DecisionRecord | None:
        """Return the record of a decision that is asked for by itself; see ``decide``.

        Args:
            serving: the model, of whatever kind.
            request: what is asked, by a user of whom nothing is looked up.
            offered: the items, and the sources over them.
        """
        catalogue, text = offered.offering.catalogue, request.sent
        names = self._names(catalogue, offered)
        if names is None or not text or not _is_usual(request):
            return None
        found = self._ids.find_one(text, catalogue)
        if found is None:
            return None

        # What the learner sees, as ``featurise`` has it.
        ids, use = found.ids, self._spec.use
        try:
            context = checked_namespace(request.context, CONTEXT, "context")
        except InvalidInputError:
            return None
        shared = (context,) if request.context and CONTEXT in use else ()
        values, rows = catalogue.features.values, found.rows
        values = values.take(rows, 0) if found.are_known else take_rows(values, rows)
        of_items = Namespace(FEATURES, names, values)
        own = (item_indicators(ids), of_items) if ITEM in use else (of_items,)
        width = sum([each.hashes.size for each in shared])
        if _are_too_many_pairs(len(ids), width, names.size + 1):
            return None

        event_id = request.event_id or os.urandom(EVENT_BYTES).hex()
        decision = decide(
            serving.policy,
            Context(shared),
            ActionSet(tuple(ids), own),
            event_id=event_id,
            salt=self._salt,
            name=self._spec.name,
        )
        one = _Plain(0, request, ids, found.rows)
        pmf, (chosen,) = decision.pmfs.tobytes(), decision.chosen
        return self._record(serving, catalogue, one, event_id, pmf, chosen)

    def _names(self, catalogue: Catalogue, offered: Offered) -> UInt32 | None:
        """Return the names of the features of all items; None: decisions need something more."""
        if not self._can or offered.sources.scorers or "" in catalogue:
            return None
        return catalogue.features.alike

    def _record(
        self,
        serving: Serving,
        catalogue: Catalogue,
        one: _Plain,
        event_id: str,
        pmf: bytes,
        chosen: int,
    ) -> DecisionRecord:
        """Return a decision with what is not as it is left out: see ``DecisionRecord``."""
        request = one.request
        user = pseudonym(self._salt, request.user_id) if request.user_id else None
        return DecisionRecord(
            event_id,
            self._spec.name,
            self._spec_digest,
            serving.snapshot_id,
            catalogue.digest,
            request.context,
            one.ids,
            None,
            {},
            pmf,
            [chosen],
            user,
            request.defer_activation,
        )

    def _bare(self, requests: Sequence[RankRequest], catalogue: Catalogue) -> list[_Plain]:
        """Return those whose actions are as they were sent, and nothing but ids."""
        asked = [
            (at, request)
            for at, request in enumerate(requests)
            if type(request) is BareRequest and _is_usual(request)
        ]
        # Not as bytes: what is copied is copied once, when the texts are put side by side.
        texts = [request.actions for _, request in asked]
        found = self._ids.find(texts, catalogue) if texts else []
        return [
            _Plain(at, request, ids.ids, ids.rows)
            for (at, request), ids in zip(asked, found, strict=True)
            if ids is not None and (ids.are_known or "" not in ids.ids)
        ]

    def _items(self, plain: Sequence[_Plain]) -> UInt32:
        """Return the hashes of all actions' indicators, where the learner sees them."""
        if ITEM not in self._spec.use:
            return _NO_ITEMS
        hashes = [hash_feature(ITEM, each) for one in plain for each in one.ids]
        return np.array(hashes, np.uint32)

    def _contexts(self, requests: Sequence[RankRequest]) -> _Contexts | None:
        """Return what the learner sees of the contexts; None: one of them is wrong."""
        given = [request.context for request in requests]
        numbers = numbers_alike(given)
        alike = None if numbers is None else rows_alike(numbers, CONTEXT)
        try:
            if numbers is None:
                for context in given:
                    check_features(context, "context")
        except InvalidInputError:
            return None

        count = len(given)
        if CONTEXT not in self._spec.use:
            return _Contexts(np.zeros(count + 1, np.int64), _NO_ITEMS, _NO_VALUES)
        if alike is not None:
            width = alike.hashes.size
            starts = width * np.arange(count + 1, dtype=np.int64)
            return _Contexts(starts, np.tile(alike.hashes, count), alike.values.ravel())
        seen = [namespace_of(context, CONTEXT) for context in given]
        return _Contexts(
            _starts([each.hashes.size for each in seen]),
            np.concatenate([each.hashes for each in seen]),
            np.concatenate([each.values for each in seen]),
        )


def _decoded(requests: Sequence[RankRequest], catalogue: Catalogue) -> list[_Plain]:
    """Return those whose actions are decoded, and nothing but ids."""
    asked = [
        (at, request, list(map(_ID, request.actions)))
        for at, request in enumerate(requests)
        if type(request) is RankRequest
        and request.actions
        and _is_usual(request)
        and _are_bare(request.actions)
    ]
    if not asked:
        return []

    starts = _starts([len(ids) for _, _, ids in asked])
    rows = catalogue.rows([*chain.from_iterable([ids for _, _, ids in asked])])
    said, edges = occurrences(rows, starts).tolist(), starts.tolist()
    return [
        _Plain(at, request, ids, rows[begin:end])
        for (at, request, ids), often, begin, end in zip(
            asked, said, edges, edges[1:], strict=False
        )
        if often == ONCE or (often == UNKNOWN and len({"", *ids}) > len(ids))
    ]


def _are_bare(actions: Sequence[ActionRequest]) -> bool:
    """Return whether nothing is said of actions but what they are called."""
    count = len(actions)
    return count <= MAX_ACTIONS and all(
        list(map(said, actions)).count(None) == count for said in (_FEATURES, _SCORES)
    )


def _is_usual(request: RankRequest) -> bool:
    """Return whether a request is for one of its actions, whichever, by a name that may be."""
    if request.slots != 1 or request.exclude or request.filter is not None:
        return False
    try:
        return request.event_id is None or bool(check_event_id(request.event_id))
    except InvalidInputError:
        return False


def _starts(sizes: Sequence[int]) -> NDArray[np.int64]:
    starts = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=starts[1:])
    return starts


def _may_have_too_many_pairs(
    starts: NDArray[np.int64], shared_starts: NDArray[np.int64], own: int
) -> bool:
    """Return whether some decision may have more pairs of features than MAX_PAIRS."""
    count, shared = int(np.diff(starts).max()), int(np.diff(shared_starts).max())
    return _are_too_many_pairs(count, shared, own)


def _are_too_many_pairs(count: int, shared: int, own: int) -> bool:
    return count * (1 + shared + own) * (1 + own) > MAX_PAIRS


def _event_ids(requests: Sequence[RankRequest]) -> list[str]:
    """Return the name of each decision: the caller's, or one that is made here."""
    width = 2 * EVENT_BYTES
    made = os.urandom(EVENT_BYTES * len(requests)).hex()
    return [
        made[at * width : (at + 1) * width] if request.event_id is None else request.event_id
        for at, request in enumerate(requests)
    ]
