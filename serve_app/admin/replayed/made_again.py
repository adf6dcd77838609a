"""A model that is stored no more, made again: folded from a checkpoint on, until it is the one.

A learner publishes what it has learned at an entry of the log, and replicas serve that a moment
later. So the model of a decision is that of an entry shortly before the first decision that names
it; where nothing was learned in that time, of an entry shortly after the last that taught
something. These are tried, and of the log no more is read than from the nearest checkpoint on.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from bandits.exploration import LinTs
from bandits.log.positions import position_before, position_ms
from bandits.log.records import DecisionRecord, LogEntry
from bandits.types import Snapshot
from policies.decisions.derived import follow_from
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec
from serve_app.admin.decided.finding import Progress

SERVED_MS: Final = (2_000, 60_000)
"""How long before its first decision a model was learned at most; the shorter is tried first."""
PUBLISHED_MS: Final = 10_000
"""How long after what taught it last a model is published at most."""
TOGETHER: Final = 1000
"""Entries outside of such times that are folded at once."""

Entries = Callable[[str, str], Iterable[LogEntry]]
"""Gives the entries past a position, through another."""
Span = tuple[int, int]
"""A time, from its first millisecond to its last."""


class Sought(NamedTuple):
    """A decision whose model is looked for.

    Attributes:
        spec: the one that it names.
        catalogue: likewise.
        record: what it says.
        served: the first decision of the log that names the same model.
    """

    spec: PolicySpec
    catalogue: Catalogue
    record: DecisionRecord
    served: str

    def is_made_by(self, snapshot: Snapshot) -> bool:
        """Return whether the decision's probabilities follow from a model, byte for byte."""
        return follow_from(self.spec, snapshot, self.catalogue, self.record)


class Beginning(NamedTuple):
    """A state of the fold from which a model can be made again: its name, and what makes it."""

    name: str
    fold: Callable[[], Fold]


def made_again(
    sought: Sought, beginnings: Iterable[Beginning], entries: Entries, progress: Progress
) -> tuple[Snapshot, str] | None:
    """Return the model that made a decision, and the name of what it was folded from.

    Args:
        sought: the decision.
        beginnings: before it, the newest first; taken only as far as they are needed.
        entries: of the log.
        progress: see ``Progress``.

    Returns:
        None where no model of the time makes the same probabilities.
    """
    served_ms = position_ms(sought.served)
    for beginning in beginnings:
        changed: Span | None = None
        for within_ms in SERVED_MS:
            times = [(served_ms - within_ms, served_ms)]
            times += [] if changed is None else [(changed[0], changed[1] + PUBLISHED_MS)]
            trial = _Trial(sought, beginning.fold(), times, progress)
            found = trial.run(entries)
            if found is not None:
                return found, beginning.name
            changed = trial.changed

        # It is not of before the last change that was published long before it served.
        if changed is not None:
            return None
    return None


class _Trial:
    """Folds on to a decision, and tries the models of some times.

    ``changed``: the time before those in which the model changed last; None: it did not.
    """

    def __init__(self, sought: Sought, fold: Fold, times: list[Span], progress: Progress) -> None:
        self.changed: Span | None = None
        self._sought, self._fold, self._progress = sought, fold, progress
        self._times = times
        # Posterior draws are made anew at each position, also where nothing was learned.
        self._drawn = isinstance(sought.spec.exploration, LinTs)
        self._tried: object = None

    def run(self, entries: Entries) -> Snapshot | None:
        """Return the first model that the decision follows from."""
        if (found := self._try()) is not None:
            return found

        through = position_before(self._sought.served)
        for part, is_tried in self._parts(entries(self._fold.position, through)):
            before = self._fold.changes
            self._fold.apply(part)
            self._progress(self._fold.position)
            if self._fold.changes != before and part[-1].time_ms < self._times[0][0]:
                self.changed = part[0].time_ms, part[-1].time_ms
            if is_tried and (found := self._try()) is not None:
                return found
        return self._try()

    def _parts(self, entries: Iterable[LogEntry]) -> Iterator[tuple[list[LogEntry], bool]]:
        """Yield the entries in parts, and whether the model behind each is tried."""
        waiting: list[LogEntry] = []
        for entry in entries:
            is_tried = any(begin <= entry.time_ms <= end for begin, end in self._times)
            if waiting and (is_tried or len(waiting) == TOGETHER):
                yield waiting, is_tried
                waiting = []
            if is_tried:
                yield [entry], True
            else:
                waiting.append(entry)
        if waiting:
            yield waiting, False

    def _try(self) -> Snapshot | None:
        """Return the model as of now, if the decision follows from it."""
        fold = self._fold
        state = fold.position if self._drawn else (fold.changes, fold.spec_id)
        if state == self._tried or fold.spec_id != self._sought.record.spec:
            return None
        self._tried = state
        snapshot = fold.snapshot()
        return snapshot if self._sought.is_made_by(snapshot) else None
