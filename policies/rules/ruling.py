"""What the rules say of one request."""

from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from itertools import compress
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.log.records import MAX_REMOVED, NO_RULES, Removed, Ruled
from bandits.types import Float32
from bandits.values import FeatureMap
from policies.candidate_pool import Pool
from policies.requests import RankRequest
from policies.rules.columns import Bools
from policies.rules.conditions import CompiledCondition, Looks
from policies.rules.pages.ruled_page import RuledPage
from policies.rules.placements import OnPage
from policies.rules.policy_rules import unanswered
from policies.rules.quotas.prices import ScarceGroup
from policies.rules.quotas.quota import Control
from policies.rules.ruled_items import NO_ROW, Asked, RuledItems
from policies.rules.sent import SentItems

POLICY_FILTER = "filter.where"
"""What the policy's filter removed is listed under its field in the spec."""
FEW: Final = 0.05
"""The share of all items up to which those that are admitted are looked at one by one."""
REQUEST_FILTER = "filter"
"""What the request's filter removed, and the policy's did not, is under its field there."""


class Admission:
    """What the filters of a policy and of a request admit, whoever asks of whatever items.

    ``removed``: the items that were proposed and are not admitted, in the order of the proposals.
    ``narrows``: whether it refuses more than the offering does, which sources keep to.
    """

    def __init__(self, items: RuledItems, asked: Asked) -> None:
        """Ask for one request.

        Args:
            items: as the rules see them.
            asked: what is looked at beside them.
        """
        self.items = items
        self.removed: dict[str, None] = {}
        self.narrows = items.narrows(asked)
        self._asked = asked
        self._of_all: Bools | None = None
        self._few: NDArray[np.intp] | None = None
        self._has_others = False

    def go_on(self, before: "Admission", *, same_items: bool) -> None:
        """Go on from what was removed before.

        Args:
            before: what has removed it.
            same_items: whether the items were then as they are now, so that whatever was removed
                is refused now.
        """
        self.removed |= before.removed
        moment = self._asked.now_ms
        if not same_items or (moment != before._asked.now_ms and self._looks_at_time):  # noqa: SLF001 - one of its own
            self._has_others = True

    @property
    def _looks_at_time(self) -> bool:
        own = self._asked.filter
        return self.items.rules.looks.time or (own is not None and own.condition.looks.time)

    async def look_at_all(self) -> None:
        """Find out once of every item whether it may be chosen, as sources will ask of many."""
        if self.narrows and self._of_all is None:
            self._of_all = await self.items.admits_in_turns(self._asked)

    async def sift(
        self, ids: Sequence[str], rows: NDArray[np.intp] | None = None
    ) -> NDArray[np.intp]:
        """Return the places of those that are admitted, ascending; the others are removed.

        Args:
            ids: of n items.
            rows: theirs, int[n], if they are known.
        """
        rows = self.items.rows(ids) if rows is None else rows
        if self._of_all is None:
            admitted = await self.items.admits_in_turns(self._asked, rows)
        else:
            admitted = self.at(rows)
        [kept] = admitted.nonzero()
        if kept.size < rows.size:
            [refused] = np.logical_not(admitted).nonzero()
            self.removed.update(dict.fromkeys(map(ids.__getitem__, refused.tolist())))
        return kept

    def removed_by_rule(self) -> dict[str, Removed]:
        """Return what is removed, each item under the first rule that refuses it.

        Where the items have changed since it was proposed, what is admitted now is not listed.
        Where they have not, all that was removed is, so that the doctor sees what no rule refuses.
        """
        if not self.removed:
            return {}
        ids = list(self.removed)
        if self._asked.filter is None and not self._has_others:
            return {POLICY_FILTER: Removed(ids[:MAX_REMOVED], len(ids))}
        rows = self.items.rows(ids)
        by_both = ~self.at(rows) if self._has_others else np.ones(len(ids), np.bool_)
        by_policy = by_both
        if self._asked.filter is not None:
            asked = msgspec.structs.replace(self._asked, filter=None)
            by_policy = ~self.items.admits(rows, asked)

        listed = {
            rule: list(compress(ids, refused))
            for rule, refused in (
                (POLICY_FILTER, by_policy),
                (REQUEST_FILTER, by_both & ~by_policy),
            )
        }
        return {
            rule: Removed(refused[:MAX_REMOVED], len(refused))
            for rule, refused in listed.items()
            if refused
        }

    def among(self, ids: Sequence[str]) -> Bools:
        """Return which of some items may be chosen, bool[n]."""
        return self.at(self.items.rows(ids))

    def at(self, rows: NDArray[np.intp]) -> Bools:
        """Return which items may be chosen, bool[n], by their rows; see ``RuledItems.rows``."""
        known = self._known()
        if known is None:
            return self.items.admits(rows, self._asked)
        admitted: Bools = known[rows]
        return admitted

    def few(self) -> NDArray[np.intp] | None:
        """Return the rows of all items that may be chosen, ascending, if these are few; else None.

        Also None if not all were looked at, or if items of which nothing is known may be chosen.
        """
        known = self._known()
        if known is None or known[NO_ROW]:
            return None
        if self._few is None and np.count_nonzero(known) <= FEW * known.size:
            self._few = np.flatnonzero(known)
        return self._few

    def why_nothing(self, names: Callable[[], Collection[str]] = list) -> Iterator[str]:
        """Yield what the filters ask and nobody answers, so that they can admit nothing.

        Args:
            names: gives the names of features that items have, of which the nearest is suggested.
        """
        own = (POLICY_FILTER, self.items.rules.filter), (REQUEST_FILTER, self._asked.filter)
        for target, asked in own:
            if asked is None or asked.admits_unknown:
                continue
            looks = asked.condition.looks
            for said in unanswered(looks.needs, self.items.columns, names):
                yield f"{target}: {said}"
            for name in sorted(looks.context - self._asked.context.keys()):
                yield f"{target}: the request has no context.{name}"

    def _known(self) -> Bools | None:
        """Return of all items whether they may be chosen, by their rows; None: not looked at."""
        known = self._of_all
        if known is not None and known.size < len(self.items):
            newer = np.arange(known.size, len(self.items))
            known = self._of_all = np.concatenate([known, self.items.admits(newer, self._asked)])
            self._few = None
        return known

    def count(self) -> int:
        """Return how many of all items may be chosen."""
        return int(np.count_nonzero(self.at(np.arange(1, len(self.items)))))


class GroupAdmission(Admission):
    """What is admitted of one group of items; see Admission. What is not of it is not removed.

    ``group``: the group; ``base``: what is admitted of all items.
    """

    def __init__(
        self, items: RuledItems, asked: Asked, base: Admission, group: ScarceGroup
    ) -> None:
        """Ask for one request.

        Args:
            items: as the rules see them.
            asked: what is looked at beside them.
            base: what is admitted of all items.
            group: the group.
        """
        super().__init__(items, asked)
        self.narrows = True
        self.base, self.group = base, group

    async def sift(
        self, ids: Sequence[str], rows: NDArray[np.intp] | None = None
    ) -> NDArray[np.intp]:
        """Return the places of those that are of the group, and admitted, ascending.

        Args:
            ids: of n items.
            rows: theirs, int[n], if they are known.
        """
        return np.flatnonzero(self.among(ids) if rows is None else self.at(rows))

    def at(self, rows: NDArray[np.intp]) -> Bools:
        """Return which items are of the group, and may be chosen, bool[n], by their rows."""
        admitted = self.group.members(rows)
        admitted[admitted] = self.base.at(rows[admitted])
        return admitted


class Ruling:
    """What the rules of a policy say for one request.

    ``admission``: what its filters admit, and the request's; None: there are none. ``on_page``:
    what stands on the page without a draw, once ``place`` was asked.
    """

    def __init__(
        self,
        items: RuledItems,
        asked: Asked,
        filter_text: str | None,
        sent: SentItems | None = None,
    ) -> None:
        """Ask for one request.

        Args:
            items: as the rules see them.
            asked: what is looked at beside them.
            filter_text: the request's own filter, as it was sent.
            sent: what requests have said of items; None: that is not kept.
        """
        self._sent_items = SentItems(items.rules) if sent is None else sent
        self._items = items
        self._asked = asked
        self._filter_text = filter_text
        self.admission = None if items.rules.filter_rule is None else Admission(items, asked)
        self.on_page = OnPage([], [])
        self._sent: Mapping[str, FeatureMap | None] = {}
        self._actions: RuledItems | None = None

    def place(
        self, request: RankRequest, offered: Container[str], excluded: Collection[str]
    ) -> None:
        """Find out what stands on the page without a draw.

        Args:
            request: the decision's.
            offered: the items that may be offered now.
            excluded: what is not to be shown to whoever asks.
        """
        placements = self._items.rules.placements
        if placements is None:
            return
        is_sent = request.actions is not None
        sent = self._sent = {action.id: action.features for action in request.actions or ()}

        def rows_of(item: str) -> tuple[RuledItems, NDArray[np.intp]]:
            features = sent.get(item)
            return self._of_actions([item], None if features is None else [features])

        def holds(condition: CompiledCondition, item: str) -> bool:
            items, rows = rows_of(item)
            return bool(items.holds(condition, rows, self._asked).all())

        def refused(item: str) -> str:
            items, rows = rows_of(item)
            admitted = items.admits(rows, self._asked).all()
            # What a request sends may be anything, in the catalogue or not.
            if is_sent and item not in sent:
                return "not_sent"
            if not is_sent and item not in offered:
                is_known = self._items.rows([item]).all()
                return "filtered" if is_known and not admitted else "unavailable"
            if item in excluded:
                return "excluded"
            return "" if admitted else "filtered"

        self.on_page = placements.on_page(request.slots, self._asked.now_ms, holds, refused)

    @property
    def placed(self) -> list[str]:
        """The items that stand on the page without a draw."""
        return [each.action_id for each in self.on_page.placed]

    @property
    def has_quotas(self) -> bool:
        """Whether the policy has quotas, so that a decision is made under a controller's state."""
        return self._items.rules.quotas is not None

    @property
    def seeks_groups(self) -> bool:
        """Whether items of a group may have to be looked for, since it is to have a share."""
        return self._items.priced is not None and self._items.priced.lifts

    def scarce(self, ids: Sequence[str], limit: int, turn: int) -> list[tuple[int, Admission]]:
        """Return what is to be looked for beside some candidates, so that quotas can be held.

        Args:
            ids: the candidates.
            limit: how many candidates one source proposes.
            turn: see ``GroupPrices.scarce``.

        Returns:
            Of each group of which there are too few: how many there should be, and what admits
            its items alone.
        """
        items, asked = self._items, self._asked
        if items.priced is None:
            return []
        groups = items.priced.scarce(items.rows(ids), limit, turn)
        base = self.admission or Admission(items, asked)
        return [(each.wanted, GroupAdmission(items, asked, base, each)) for each in groups]

    async def sift(
        self, ids: Sequence[str], features: Sequence[FeatureMap | None] | None
    ) -> NDArray[np.intp]:
        """Return the places of the actions that a request sends and that may be chosen, ascending.

        Args:
            ids: theirs.
            features: what the request says of each; of None the catalogue's.
        """
        if self.admission is None:
            return np.arange(len(ids))
        items, rows = self._of_actions(ids, features)
        if items is not self.admission.items:
            self.admission = Admission(items, self._asked)
        return await self.admission.sift(ids, rows)

    def boosts(
        self,
        ids: Sequence[str],
        features: Sequence[FeatureMap | None] | None,
        control: Control | None = None,
    ) -> Float32 | None:
        """Return what is added to the score of each action, float32[K]; None: nothing to any.

        Args:
            ids: theirs.
            features: what the request says of each; of None the catalogue's.
            control: the state of the quotas' controller; None: there is none.
        """
        if self._items.rules.boosts is None and control is None:
            return None
        items, rows = self._of_actions(ids, features)
        offsets, prices = items.offsets(rows, self._asked), items.prices(rows, control)
        if prices is not None:
            offsets = (prices if offsets is None else prices + offsets).astype(np.float32)
        return offsets if offsets is not None and offsets.any() else None

    @property
    def has_page(self) -> bool:
        """Whether pages have rules, so that they may be shorter than was asked for."""
        return self._items.rules.page is not None

    def page(self, request: RankRequest, pool: Pool, *, diverse: bool) -> RuledPage | None:
        """Return the rules of the page; None: there are none.

        Args:
            request: what is asked.
            pool: the actions.
            diverse: whether diversity counts, beside the limits.
        """
        page, vectors = self._items.rules.page, self._items.vectors
        if page is None or request.slots == 1:
            return None
        ids, features = [*pool.ids, *self.placed], pool.features
        if features is not None or self._sent:
            own = features or [None] * len(pool.ids)
            features = [*own, *(self._sent.get(item) for item in self.placed)]
        items, rows = self._of_actions(ids, features)
        slots = [each.slot for each in self.on_page.placed]
        compared = None if vectors is None or not diverse else vectors.of(ids)
        return RuledPage(page, items.columns, rows, slots, compared, diverse=diverse)

    def record(
        self,
        boosts: Float32 | None,
        control: Control | None = None,
        page: bytes = b"",
        short: str | None = None,
    ) -> Ruled | None:
        """Return what a decision's record says of its rules; None: nothing.

        Args:
            boosts: what was added to the score of each action, float32[K].
            control: the state of the quotas' controller that it was made under.
            page: what the page's rules said; see ``Ruled.page``.
            short: why there are fewer slots than were asked for.
        """
        looked = self._items.rules.looks
        if self._asked.filter is not None:
            looked = Looks.at_all([looked, self._asked.filter.condition.looks])
        done = self._asked.done() if looked.activities else {}
        ruled = Ruled(
            self._filter_text,
            self._asked.now_ms if looked.time else None,
            {name: list(done.get(name, ())) for name in sorted(looked.activities)} or None,
            {} if self.admission is None else self.admission.removed_by_rule(),
            boosts=b"" if boosts is None else boosts.astype("<f4").tobytes(),
            control=None if control is None else control.entry,
            short=short,
            page=page,
            placed=self.on_page.placed,
            unplaced=self.on_page.unplaced,
        )
        return None if ruled == NO_RULES else ruled

    def _of_actions(
        self, ids: Sequence[str], features: Sequence[FeatureMap | None] | None
    ) -> tuple[RuledItems, NDArray[np.intp]]:
        """Return the items among which the actions have a row, and the rows."""
        if features is None and np.count_nonzero(rows := self._items.rows(ids)) == len(ids):
            return self._items, rows

        # What a request says of an action is the same whenever it is asked.
        if self._actions is not None and (rows := self._actions.rows(ids)).all():
            return self._actions, rows
        own = features or [None] * len(ids)
        said = [each for each in own if each is not None]
        if len(said) == len(ids):
            self._actions = self._sent_items.take_in(ids, said)
        else:
            self._actions = self._items.with_features(ids, own)
        return self._actions, self._actions.rows(ids)
