"""The rules of a policy, asked of rows of a log: what it may choose there, and what is added.

A filter that lets through more than the log's did may choose what that one removed, as far as the
records name it. Nothing of such a choice was ever seen: its probability is missing from the PMF of
a row's actions, which then sums to less than 1.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.errors import ReplayError
from bandits.log.records import NO_RULES, DecisionRecord
from bandits.page import STORED
from bandits.types import ActionSet, Context, Float32, Pmf, Policy, check_pmf
from bandits.values import FeatureMap
from policies.features import boosted, featurise
from policies.items.catalogue import Catalogue
from policies.requests import is_private
from policies.rules.filters import FilterRule
from policies.rules.pages.ruled_page import RuledPage
from policies.rules.policy_rules import PolicyRules
from policies.rules.ruled_items import Asked, RuledItems
from policies.spec import PolicySpec
from simulator.learners.features import featurise_row
from simulator.logs.actions.columns import Places
from simulator.logs.rows import LoggedDecision

OF_POOLS = (
    "its filter is asked of what each decision could choose from: sources would have proposed"
    " others for what it refuses"
)
OF_QUOTAS = "its quotas are not asked: no controller holds them here"
OF_PAGES = (
    "its page's rules are asked in each slot of what the log let stand there, below what the log"
    " shows above"
)
_NO_ITEMS = Catalogue()


class RowRuling(NamedTuple):
    """What a policy sees of a row, and what its rules let it choose.

    ``actions``: the row's ``own``, then those that the log's filters removed. ``may``: which of all
    of them it may choose, bool. ``page``: what may stand below what is on the page; None: anything.
    """

    context: Context
    actions: ActionSet
    may: NDArray[np.bool_]
    own: int
    page: RuledPage | None = None

    def pmf(self, policy: Policy, left: Places | None = None) -> Pmf:
        """Return the policy's probabilities of the row's actions, float64[K], or of what is left.

        Args:
            policy: the policy.
            left: places of those of the row's actions that are left; None: all.
        """
        places = np.arange(self.own) if left is None else np.arange(self.own)[left]
        actions, may = self._below(places)
        if left is None and may.all() and self.own == len(actions):
            return check_pmf(policy.pmf(self.context, actions))
        among = np.concatenate([places, np.arange(self.own, len(actions))])
        kept = np.flatnonzero(may[among])
        out = np.zeros(len(among))
        if kept.size:
            out[kept] = check_pmf(policy.pmf(self.context, actions.take(among[kept])))
        return out[: len(places)]

    def _below(self, left: Places) -> tuple[ActionSet, NDArray[np.bool_]]:
        """Return the actions, and which may be chosen, where those that are not left stand above.

        Raises:
            ReplayError: what may follow depends on their order, which nobody said.
        """
        if self.page is None:
            return self.actions, self.may
        gone = np.ones(self.own, np.bool_)
        gone[left] = False
        above = np.flatnonzero(gone).tolist()
        if above and self.page.goes_by_order:
            raise ReplayError(
                "page.in_a_row depends on the order in which a page was filled, which iips and pi"
                " do not know: use rips",
                "page.in_a_row",
            )
        offsets = self.page.after(above)
        if offsets is None:
            return self.actions, self.may

        # As a decision's record would hold them; see ``HeardPage``.
        offsets = offsets.astype(STORED).astype(np.float64)
        barred, boosts = np.isnan(offsets), self.actions.boosts
        added = np.where(barred, 0.0, offsets) + (0.0 if boosts is None else boosts)
        return boosted(self.actions, added), self.may & ~barred


class RowRules:
    """The rules of a spec, for rows of logs. ``notes``: what a reader of a report should know."""

    def __init__(self, spec: PolicySpec) -> None:
        """Compile them.

        Args:
            spec: the policy.

        Raises:
            ReplayError: they look at what no log holds.
        """
        self._spec, self._rules = spec, spec.rules
        self._looks = {} if self._rules is None else self._rules.looks_by_field
        self.notes: list[str] = []
        if spec.filter_rule is not None:
            self.notes.append(OF_POOLS)
        if self._rules is not None and self._rules.quotas is not None:
            self.notes.append(OF_QUOTAS)
        if self._rules is not None and self._rules.page is not None:
            self.notes.append(OF_PAGES)

        for target, looks in self._looks.items():
            for name in sorted(looks.context):
                if is_private(name, spec.context_private or ()):
                    raise ReplayError(
                        f"{target} looks at context.{name}, which is private: no log has it",
                        target,
                    )

    def on(self, row: LoggedDecision, seen: tuple[Context, ActionSet] | None = None) -> RowRuling:
        """Return what a policy sees of a row, and may choose there.

        Args:
            row: of a log.
            seen: what ``featurise_row`` gives of it, where it is at hand.

        Raises:
            ReplayError: a rule looks at what the row's record does not say.
        """
        said = NO_RULES if row.record is None else row.record.rules or NO_RULES
        removed = [item_id for each in said.removed.values() for item_id in each.ids]
        ids = [*row.action_ids, *removed]
        if row.record is not None and removed:
            context, actions = self._with_removed(row, row.record, ids, removed)
        else:
            context, actions = featurise_row(self._spec, row) if seen is None else seen

        # What the log's rules added is none of this policy's.
        actions = msgspec.structs.replace(actions, boosts=None)
        may, count = np.ones(len(ids), np.bool_), len(row.action_ids)
        if self._rules is None and not (removed and said.filter):
            return RowRuling(context, actions, may, count)

        features = _features(row, removed)
        asked, page = self._asked(row), None
        if removed and said.filter is not None:
            # What the request asks for holds under any policy.
            request = RuledItems(_of_request(said.filter))
            request.take_in(removed, features[count:])
            may[count:] = request.admits(request.rows(removed), asked)
        if self._rules is not None:
            items = RuledItems(self._rules)
            items.take_in(ids, features)
            places = items.rows(ids)
            may &= items.admits(places, asked)
            offsets = items.offsets(places, asked)
            actions = boosted(actions, None if offsets is None else offsets.astype(np.float64))
            page = self._page(row, ids, features)
        return RowRuling(context, actions, may, count, page)

    def _page(
        self, row: LoggedDecision, ids: Sequence[str], features: Sequence[FeatureMap]
    ) -> RuledPage | None:
        """Return what the page's rules say below what the log shows above; None: there are none.

        Args:
            row: of a log.
            ids: its actions, and those that rules removed there.
            features: of each.

        Raises:
            ReplayError: the log does not say what stands above.
        """
        page = None if self._rules is None else self._rules.page
        if page is None or self._rules is None:
            return None
        record = row.record
        if record is None and row.slot:
            raise ReplayError(
                "the rules of its page look at what stands above, which the service's archive alone"
                " says of a slot: leave page out",
                "page",
            )

        on_page: dict[int, tuple[str, FeatureMap | None]] = {}
        if record is not None:
            own = record.features or [None] * len(record.action_ids)
            above = zip(record.page_slots(), record.chosen[: row.slot], strict=False)
            on_page = {at: (record.action_ids[k], own[k]) for at, k in above}
            on_page |= {each.slot: (each.action_id, None) for each in record.placed}
        slots = sorted(on_page)
        there = [on_page[slot] for slot in slots]
        every = [*ids, *(item_id for item_id, _ in there)]

        items = RuledItems(self._rules)
        items.take_in(every, [*features, *(_known(row, *each) for each in there)])
        vectors = None
        if items.vectors is not None:
            items.vectors.item_of = row.item or items.vectors.item_of
            vectors = items.vectors.of(every)
        return RuledPage(page, items.columns, items.rows(every), slots, vectors)

    def _with_removed(
        self, row: LoggedDecision, record: DecisionRecord, ids: Sequence[str], removed: list[str]
    ) -> tuple[Context, ActionSet]:
        """Return what a policy sees of a row and of what rules removed there.

        That had no scores, and has the features that the catalogue says.
        """
        every = [*record.action_ids, *removed]
        own = None if record.features is None else [*record.features, *(None for _ in removed)]
        scores = {
            source: _padded(values, len(removed))
            for source, values in record.source_scores().items()
        }
        catalogue = row.catalogue or _NO_ITEMS
        context, actions = featurise(self._spec, catalogue, row.context, every, own, scores)
        if len(ids) == len(every):
            return context, actions

        # A later slot of a page has what those before have left.
        at = {action_id: place for place, action_id in enumerate(every)}
        return context, actions.take([at[action_id] for action_id in ids])

    def _asked(self, row: LoggedDecision) -> Asked:
        """Return what rules look at beside the items."""
        said = NO_RULES if row.record is None else row.record.rules or NO_RULES
        did = said.did or {}
        for target, looks in self._looks.items():
            for name in sorted(looks.activities.difference(did)):
                raise ReplayError(
                    f"{target} looks at profile.{name}, of which the record of event"
                    f" {row.event_id} says nothing: a record holds what the rules looked at that"
                    " it was made under",
                    target,
                )
        now_ms = row.time_ms if said.now_ms is None else said.now_ms
        return Asked(row.context, lambda: did, now_ms)


def _features(row: LoggedDecision, removed: Sequence[str]) -> list[FeatureMap]:
    """Return the features of actions: what the request says of each, or else the catalogue."""
    own = [*(row.features or [None] * len(row.action_ids)), *(None for _ in removed)]
    return [_known(row, *each) for each in zip([*row.action_ids, *removed], own, strict=True)]


def _known(row: LoggedDecision, item_id: str, said: FeatureMap | None) -> FeatureMap:
    """Return the features of an item: what the request says of it, or else the catalogue."""
    item = row.item(item_id) if said is None and row.item is not None else None
    return said if said is not None else {} if item is None else item.features


def _padded(values: Float32, count: int) -> Float32:
    """Return scores, and none for some actions more."""
    return np.concatenate([values, np.full(count, np.nan, np.float32)])


@lru_cache(maxsize=256)
def _of_request(where: str) -> PolicyRules:
    """Return what a request's filter asks."""
    return PolicyRules(FilterRule(where))
