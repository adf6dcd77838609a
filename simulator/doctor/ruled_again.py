"""What the rules say of one decision, when they are asked again of the items that it names."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec
import numpy as np

from bandits.errors import InvalidFieldError
from bandits.log.records import MAX_REMOVED, NO_RULES, DecisionRecord
from bandits.page import STORED, HeardPage
from bandits.values import FeatureMap
from policies.candidate_pool import Pool
from policies.items.catalogue import NEVER_PUT
from policies.items.timeline import Offer
from policies.requests import MAX_SLOTS, RankRequest, is_private
from policies.rules.conditions import Looks
from policies.rules.filters import Filter
from policies.rules.placements import OnPage
from policies.rules.policy_rules import PolicyRules
from policies.rules.ruled_items import Asked, RuledItems
from policies.rules.ruling import POLICY_FILTER, REQUEST_FILTER, Ruling
from policies.spec import PolicySpec
from simulator.doctor.control_states import ControlStates
from simulator.doctor.placed_again import PlacedAgain
from simulator.logs.archive.item_history import ItemAt

APART_MS = 60_000
"""How far a replica's clock may be from that of the log."""
CLOSE_BY = 2e-3
"""Two neighbours of what the log holds of a page, in 16 bits, are so far from one another."""
NOTHING = 0
"""The row of an item of which nothing is known."""


class RuledAgain:
    """What the rules say of one decision, when they are asked again.

    ``removed``: the ids that its record says were removed. ``private``: whether a rule looked at
    what is never logged, so that nobody can ask it again. ``stateless``: whether the state of the
    quotas' controller that it names was not read.
    """

    def __init__(
        self,
        spec: PolicySpec,
        rules: PolicyRules | None,
        record: DecisionRecord,
        item: ItemAt,
        states: ControlStates,
        time_ms: int,
    ) -> None:
        """Take in the items that the record names.

        Args:
            spec: the one that the record names.
            rules: the spec's; None: there are none.
            record: the decision.
            item: gives each item as of the record's catalogue version.
            states: of the quotas' controller.
            time_ms: when it was logged.
        """
        self._spec, self._rules = spec, rules
        self._record, self._states, self._time_ms = record, states, time_ms
        self._said = record.rules or NO_RULES
        self.removed = [each for rule in self._said.removed.values() for each in rule.ids]
        self.private = self.stateless = False

        on_page = [each.action_id for each in self._said.placed]
        on_page += [each.action_id for each in self._said.unplaced]
        meant = [] if rules is None or rules.placements is None else rules.placements.items
        self._ids = list(dict.fromkeys([*record.action_ids, *self.removed, *on_page, *meant]))
        self._found = {item_id: item(item_id) for item_id in self._ids}
        own = zip(record.action_ids, record.features or (), strict=False)
        self._own = {item_id: features for item_id, features in own if features is not None}

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong: the kind, and what it is."""
        rules = self._rules
        if rules is None and self._bars_only():
            return
        if rules is None:
            yield "not_refused", "it says what rules did, and its spec has none"
            return

        items = RuledItems(rules)
        items.take_in(self._ids, list(map(self._features, self._ids)))
        if items.vectors is not None:
            items.vectors.item_of = self._found.get
        text = self._said.filter
        try:
            own = items.own_filter(text)
        except InvalidFieldError as error:
            yield "not_admitted", f"its filter is none: {error.message}"
            return
        if text is not None and own is None:
            yield "not_admitted", "it has a filter, and its policy takes none"

        did = self._said.did or {}
        now_ms = self._time_ms if self._said.now_ms is None else self._said.now_ms
        asked = Asked(self._record.context, lambda: did, now_ms, own)
        yield from self._unsaid(rules.looks, own)
        yield from self._of_filters(items, asked)
        ruling = Ruling(items, asked, text)
        ruling.on_page = OnPage(self._said.placed, self._said.unplaced)
        yield from self._of_placements(items, asked)
        yield from self._of_boosts(rules, ruling)
        yield from self._of_page(ruling)
        yield from self._of_offers()

    def _bars_only(self) -> bool:
        """Return whether all that it says is what its request bars from single slots."""
        alone = msgspec.structs.replace(NO_RULES, page=self._said.page, short=self._said.short)
        added = np.frombuffer(self._said.page, STORED)
        return self._said == alone and not np.nan_to_num(added).any()

    def _features(self, item_id: str) -> FeatureMap:
        """Return an action as rules see it: as the request says that it is, or the catalogue."""
        found = self._found[item_id]
        return self._own.get(item_id, {} if found is None else found.features)

    def _unsaid(self, looks: Looks, own: Filter | None) -> Iterator[tuple[str, str]]:
        """Yield what a rule looked at that the record does not say."""
        if own is not None:
            looks = Looks.at_all([looks, own.condition.looks])
        now_ms, did = self._said.now_ms, self._said.did or {}
        if looks.time and now_ms is None:
            yield "unsaid", "a rule looks at the time, and the record does not say it"
        elif now_ms is not None and abs(now_ms - self._time_ms) > APART_MS:
            yield "unsaid", f"its moment is {now_ms}, and it was logged at {self._time_ms}"
        for name in sorted(looks.activities - set(did)):
            yield "unsaid", f"a rule looks at profile.{name}, and the record does not say it"

    # Filters

    def _of_filters(self, items: RuledItems, asked: Asked) -> Iterator[tuple[str, str]]:
        by_policy = self._answers(items.rules.filter, items, asked)
        by_request = self._answers(asked.filter, items, asked)
        answers = {POLICY_FILTER: by_policy, REQUEST_FILTER: by_request}
        for rule, answer in answers.items():
            for item_id in self._record.action_ids:
                if answer is not None and not answer[item_id].admits:
                    yield "not_admitted", f"{rule} refuses {item_id!r}, which could be chosen"

        yield from self._of_lists()
        if self._record.features is None:  # else what was removed may have been anything
            for rule, removed in self._said.removed.items():
                yield from self._of_removed(rule, removed.ids, answers, asked)

    def _of_removed(
        self, rule: str, ids: list[str], answers: "Mapping[str, _Answers | None]", asked: Asked
    ) -> Iterator[tuple[str, str]]:
        takes = {POLICY_FILTER: self._spec.filter_rule, REQUEST_FILTER: asked.filter}
        if takes.get(rule) is None:
            yield "not_refused", f"items are listed under {rule}, of which it has none"
        answer, by_policy = answers.get(rule), answers[POLICY_FILTER]
        for item_id in ids:
            if answer is not None and not answer[item_id].refuses:
                yield "not_refused", f"{rule} admits {item_id!r}, which it is said to refuse"
            if rule == REQUEST_FILTER and by_policy and not by_policy[item_id].admits:
                yield "not_refused", f"{item_id!r} is refused by the policy's filter already"

    def _answers(self, rule: Filter | None, items: RuledItems, asked: Asked) -> "_Answers | None":
        """Return by item what a filter says of it; None: it says nothing that can be asked again.

        What sources propose and no catalogue has may be anything; what a request sends has its id.
        Which of the two it was is not known.
        """
        if rule is None or self._looks_at_private(rule.condition.looks):
            return None
        rows = np.arange(len(items))
        frame, admitted = items.frame(rows, asked), np.ones(len(items), np.bool_)
        for part in rule.condition.parts:
            admitted &= rule.admitted(part(frame))

        answers = {}
        anything = bool(admitted[NOTHING])
        for item_id, row in zip(self._ids, items.rows(self._ids).tolist(), strict=True):
            admits = {bool(admitted[row])}
            if self._found[item_id] is None and item_id not in self._own:
                admits.add(anything)
            answers[item_id] = _Answer(True in admits, False in admits)
        return answers

    def _looks_at_private(self, looks: Looks) -> bool:
        private = self._spec.context_private or ()
        found = any(is_private(name, private) for name in looks.context)
        self.private |= found
        return found

    def _of_lists(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with the lists of what was removed, whatever the rules are."""
        for rule, removed in self._said.removed.items():
            if len(removed.ids) != min(removed.count, MAX_REMOVED):
                listed = f"{len(removed.ids)} ids are listed under {rule}"
                yield "not_refused", f"{listed}, which removed {removed.count}"
        if len(set(self.removed)) < len(self.removed):
            yield "not_refused", "an item was removed twice"
        for item_id in sorted(set(self.removed).intersection(self._record.action_ids)):
            yield "not_refused", f"{item_id!r} was removed, and could be chosen"

    # Placements

    def _of_placements(self, items: RuledItems, asked: Asked) -> Iterator[tuple[str, str]]:
        record, placements = self._record, items.rules.placements
        if placements is None:
            if self._said.placed or self._said.unplaced:
                yield "placed", "it says what was placed, and its spec has no placements"
            return
        is_private = any(map(self._looks_at_private, placements.looks_by_field.values()))
        is_told = record.features is None and bool(record.artifact or record.scores)
        offered = self._is_surely_offered if is_told and not is_private else None
        there = [item_id for item_id, found in self._found.items() if found is not None]
        yield from PlacedAgain(items, asked, record, there, offered).faults(placements)

    def _is_surely_offered(self, item_id: str) -> bool | None:
        """Return whether an item was offered; None: a request that sends it need not ask."""
        offered = self._is_offered(item_id)
        return offered if offered or self._record.artifact is not None else None

    # What is added to scores, and what is offered

    def _of_boosts(self, rules: PolicyRules, ruling: Ruling) -> Iterator[tuple[str, str]]:
        record, boosts, name = self._record, rules.boosts, self._said.control
        if boosts is not None and any(map(self._looks_at_private, boosts.looks_by_field.values())):
            return
        control = None if name is None else self._states.state(name)
        if name is not None and self._states.has_none(name):
            yield "boosts", f"it names state {name} of the quotas, and the log has none there"
        held_out = record.holdout and record.apprentice is None
        if held_out and name is not None:
            yield "boosts", "it is held out, and names a state of the quotas"
        self.stateless = name is not None and control is None
        if self.stateless:
            return

        offsets = None
        if not held_out:  # it obeys filters, and nothing that pushes
            offsets = ruling.boosts(record.action_ids, None, control)
        expected = np.zeros(len(record.action_ids)) if offsets is None else offsets
        said = record.boosts
        added = np.zeros(len(record.action_ids)) if said is None else said
        if added.shape != expected.shape:
            yield "boosts", f"{added.size} boosts of {expected.size} actions"
            return
        # Prices are summed in an order that depends on how many items there are.
        near = np.isclose(added, expected, rtol=1e-6, atol=1e-9)
        for at in np.flatnonzero(~near).tolist():
            item_id = record.action_ids[at]
            yield "boosts", f"{added[at]:g} was added to {item_id!r}, not {expected[at]:g}"

    def _of_page(self, ruling: Ruling) -> Iterator[tuple[str, str]]:
        """Yield where the page's rules say something else of a slot, given those before."""
        record, said = self._record, self._said.page
        chosen, count = record.chosen, len(record.action_ids)
        pool = Pool(tuple(record.action_ids), None, {})
        rule = ruling.page(RankRequest(slots=MAX_SLOTS), pool, diverse=not record.holdout)
        heard = None if rule is None else HeardPage(rule)
        again = b""
        if heard is not None:
            for slot in range(len(chosen)):
                heard.after(chosen[:slot])
            again = heard.encoded(len(chosen))

        if said != again and self._said.placed and not self._is_proposed:
            return  # what the request said of what is placed is not logged
        if len(said) != len(again):
            yield "page", f"{len(said)} bytes say what its page's rules added, and not {len(again)}"
            return
        ours, theirs = (np.frombuffer(each, STORED).astype(np.float64) for each in (said, again))
        near = np.isclose(ours, theirs, rtol=CLOSE_BY, atol=1e-6, equal_nan=True)
        if not near.all():
            at = int(np.flatnonzero(~near)[0])
            slot, action = len(chosen) - ours.size // count + at // count, at % count
            added = f"{ours[at]:g} was added to {record.action_ids[action]!r}"
            yield "page", f"{added} in draw {slot}, and the page's rules say {theirs[at]:g}"

        if self._said.short is not None and len(chosen) < count:
            after = None if rule is None else rule.after(chosen)
            left = np.delete(np.zeros(count) if after is None else after, chosen)
            if not np.isnan(left).all():
                yield "page", "the page is short, and its rules let another item follow"

    def _of_offers(self) -> Iterator[tuple[str, str]]:
        """Yield what could be chosen and was not offered; a request may send what it likes."""
        if not self._is_proposed:
            return
        for item_id in self._record.action_ids:
            if self._is_offered(item_id) is False:
                there = "is not offered" if self._found[item_id] else "is no item"
                yield "unavailable", f"{item_id!r} {there}, and a source proposed it"

    @property
    def _is_proposed(self) -> bool:
        """Whether sources proposed the actions, as far as that is certain."""
        return self._record.artifact is not None

    def _is_offered(self, item_id: str) -> bool | None:
        """Return whether an item was offered; None: the clocks differ by more than would matter."""
        if self._record.catalogue == NEVER_PUT:
            return True
        item = self._found[item_id]
        offer = None if item is None else Offer.of(item)
        if item is None or offer is None:
            return item is not None
        around = {offer.holds(self._time_ms + apart) for apart in (-APART_MS, 0, APART_MS)}
        return around.pop() if len(around) == 1 else None


class _Answer(NamedTuple):
    """Whether a filter may admit an item, and whether it may refuse it: one of them, or both."""

    admits: bool
    refuses: bool


_Answers = dict[str, _Answer]
