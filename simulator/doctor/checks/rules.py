"""What decisions could choose from is what the rules of spec and request leave of the items."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from bandits.log.records import DecisionRecord, LogEntry
from policies.rules.policy_rules import PolicyRules
from simulator.doctor.checks.findings import Finding, make_finding, nothing_to_check
from simulator.doctor.checks.references import ReferencedBlobs
from simulator.doctor.control_states import ControlStates
from simulator.doctor.ruled_again import RuledAgain

CAUSES: Final[Mapping[str, str]] = {
    "not_admitted": "a filter was applied after the draw, or looked at other items than the"
    " catalogue version that the decision names",
    "not_refused": "items were removed by another filter, or twice, or as they once were",
    "boosts": "what was added to the scores is not what the spec's conditions say of these items,"
    " or not the price that quotas had in the state that the decision names",
    "page": "what may follow what, or diversity, is not as the spec and these items have it",
    "placed": "what stands on the page without a draw is not what the spec's placements say of the"
    " items at that moment",
    "unavailable": "sources proposed what was deleted, hidden or out of its time",
    "unsaid": "the record lacks what a rule looked at: the moment, or what the user did",
}
"""By the kind of a fault, what leads to it."""


class RuledDecisions:
    """Asks the rules of a decision's spec again, of the items as its catalogue version has them.

    Of the decisions under rules it looks at the first ``limit``, then at half of as many more, a
    quarter of twice as many, and so on, so that what went wrong late is found, too. ``states``:
    those of the quotas' controller, where partition 0 was read before.
    """

    def __init__(
        self, stored: ReferencedBlobs, *, limit: int, states: ControlStates | None = None
    ) -> None:
        self._stored = stored
        self._states = ControlStates() if states is None else states
        self._limit = limit
        self._ruled = self._checked = self._removed = self._boosted = self._private = 0
        self._priced = self._placed = self._paged = self._stateless = 0
        self._faulty = 0
        self._faults: Counter[str] = Counter()
        self._first: tuple[str, str] | None = None
        self._rules: dict[str, PolicyRules | None] = {}

    def add(self, entry: LogEntry) -> None:
        """Ask again what the rules say of a decision, if it is one of the sample."""
        record = entry.record
        if not isinstance(record, DecisionRecord):
            self._states.add(entry)
            return
        spec, rules = self._stored.spec(record.spec), self._rules_of(record.spec)
        if spec is None or (rules is None and record.rules is None):
            return

        self._ruled += 1
        if self._ruled % (1 << ((self._ruled - 1) // self._limit).bit_length()):
            return
        item = self._stored.items_at(record.catalogue)
        if item is None:
            return

        again = RuledAgain(spec, rules, record, item, self._states, entry.time_ms)
        faults = list(again.faults())
        self._checked += 1
        self._removed += len(again.removed)
        self._boosted += record.boosts is not None
        self._private += again.private
        self._placed += bool(record.placed)
        self._paged += bool(record.rules is not None and record.rules.page)
        self._priced += record.rules is not None and record.rules.control is not None
        self._stateless += again.stateless
        self._faulty += bool(faults)
        self._faults.update({kind for kind, _ in faults})
        if faults and self._first is None:
            self._first = entry.id, faults[0][1]

    def _rules_of(self, name: str) -> PolicyRules | None:
        """Return the rules of a spec, which are compiled once."""
        if name not in self._rules:
            spec = self._stored.spec(name)
            self._rules[name] = None if spec is None else spec.rules
        return self._rules[name]

    def findings(self) -> Iterator[Finding]:
        """Yield one; none where no decision was made under rules."""
        if not self._ruled:
            return
        if not self._checked:
            yield nothing_to_check(
                "rules",
                f"of {self._ruled:,} decisions under rules none names items that are still stored",
                action="read a log whose catalogues, or log of items, are kept",
                figures={"decisions": self._ruled, "checked": 0},
            )
            return

        message = (
            f"of {self._ruled:,} decisions under rules, {self._checked:,} were asked again:"
            f" {self._checked - self._faulty:,} chose from what the rules leave"
        )
        if self._private:
            message += f"; of {self._private:,}, rules looked at what is private, and not logged"
        if self._stateless:
            message += f"; of {self._stateless:,}, the quotas' state was not read"
        if self._first is not None:
            message += f"; the first that did not is {self._first[0]}: {self._first[1]}"
        yield make_finding(
            "rules",
            "failure" if self._faulty else "ok",
            message,
            cause="; ".join(CAUSES[kind] for kind in CAUSES if self._faults[kind]),
            action="do not evaluate from these decisions; see that all replicas run one version,"
            " and that nothing but the service writes to the log",
            figures={
                "decisions": self._ruled,
                "checked": self._checked,
                "faulty": self._faulty,
                "removed": self._removed,
                "boosted": self._boosted,
                "under_quotas": self._priced,
                "under_page_rules": self._paged,
                "with_placements": self._placed,
                "private": self._private,
                "without_state": self._stateless,
                **{kind: self._faults[kind] for kind in CAUSES},
                "first": None if self._first is None else self._first[0],
            },
        )
