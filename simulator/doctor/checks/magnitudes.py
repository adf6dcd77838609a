"""Numbers so large that Vowpal Wabbit learns nothing of the decisions that hold them."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import prod

from bandits.log.records import DecisionRecord, LogEntry
from bandits.types import Row
from bandits.vw.accepted import KNOWN
from bandits.vw.weights import expand, first_byte, read_arguments
from policies.features import chosen_rows
from policies.spec import VwConfig
from simulator.doctor.checks.findings import Finding, Severity, make_finding, percent
from simulator.doctor.checks.references import ReferencedBlobs

LARGEST = 1.8446743e19
"""A number, or a product of crossed numbers, whose square a 32-bit float still holds (VW, ``core/reductions/gd.cc``).

Beyond it VW leaves every weight of the example as it is, and raises nothing.
"""


class Magnitudes:
    """Looks at the chosen action of the first ``limit`` decisions of specs whose learner is Vowpal Wabbit."""

    def __init__(self, stored: ReferencedBlobs, *, limit: int) -> None:
        self._stored = stored
        self._limit = limit
        self._checked = self._lost = 0
        self._worst, self._where = 0.0, ""

    def add(self, entry: LogEntry) -> None:
        """Look at a decision."""
        record = entry.record
        if self._checked >= self._limit or not isinstance(record, DecisionRecord) or record.holdout:
            return
        spec, catalogue = self._stored.spec(record.spec), self._stored.catalogue(record.catalogue)
        if spec is None or catalogue is None or not isinstance(spec.learner, VwConfig):
            return

        self._checked += 1
        ((_, shared, own),) = chosen_rows(spec, catalogue, record, record.chosen[:1])
        largest, where = _largest(spec.learner.args, shared, own)
        self._lost += largest > LARGEST
        if largest > self._worst:
            self._worst, self._where = largest, where

    def findings(self) -> Iterator[Finding]:
        """One, where any decision is of such a spec."""
        if not self._checked:
            return
        severity: Severity = "warning" if self._lost else "ok"
        share = percent(self._lost, self._checked)
        yield make_finding(
            "magnitudes",
            severity,
            f"{self._lost:,} of {self._checked:,} decisions, {share}, hold numbers too large for"
            " Vowpal Wabbit;"
            f" the largest is {self._worst:.3g} ({self._where or 'no number'})",
            cause="VW learns nothing of a decision, not even of its other features, where a number"
            " or a product of"
            f" crossed numbers is beyond {LARGEST:.3g}",
            action="scale what is that large before it is sent: days since then instead of a"
            " timestamp, thousands of a"
            " price; or take the cross out of the learner's arguments",
            figures={"decisions": self._checked, "not_learned": self._lost, "largest": self._worst},
        )


def _largest(args: str, shared: Row, own: Row) -> tuple[float, str]:
    """The largest number that VW makes of these features, and of which namespaces."""
    most: dict[int, float] = {}
    names: dict[int, str] = {}
    for namespace in (*shared, *own):
        if namespace.values.size:
            letter = first_byte(namespace.name)
            most[letter] = max(most.get(letter, 0.0), float(abs(namespace.values).max()))
            names.setdefault(letter, namespace.name)

    alone = [bytes((letter,)) for letter in most]
    products = (*alone, *expand(_interactions(args), frozenset(most)))
    return max(
        (
            (prod(most[letter] for letter in each), " x ".join(names[letter] for letter in each))
            for each in products
        ),
        default=(0.0, ""),
    )


@lru_cache(maxsize=64)
def _interactions(args: str) -> tuple[bytes, ...]:
    options = read_arguments(args, KNOWN)
    given: Sequence[str] = [
        text for name in ("quadratic", "cubic", "interactions") for text in options.get(name, [])
    ]
    return tuple(text.encode() for text in given)
