"""Pages of a log: all slots of one decision, the rows of a page one after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bandits.errors import ReplayError
from bandits.types import Float64
from simulator.logs.actions.columns import Bools, Int64
from simulator.logs.actions.from_rows import with_actions
from simulator.logs.left_out import LeftOut
from simulator.logs.rows import LogBatch, LoggedDecision, Piece, batch_of
from simulator.logs.text_records import WEIGHT
from simulator.ope.slates.kernels import places_on_page

BROKEN = "slots of pages that lack another slot"
"""Why rows are left out: what a slot was worth depends on those above it."""
WIDER = "slots of pages whose later slots have an action that the first has not"
"""Another reason, as where a rule lets an item stand only further down."""
PAGES_AT_ONCE = 500


@dataclass(frozen=True, slots=True, eq=False)
class Pages:
    """n pages of at most S slots, whose rows are a batch.

    Attributes:
        batch: the rows, with their actions as columns; those of a page in the order of its slots.
        starts: int64[n + 1]; page i has the rows ``starts[i]`` to ``starts[i + 1]``.
        horizon: S.
        cut: how many of the pages went on after S slots.
        places: int64[total], the place of each row's actions among those of its page's first slot.
    """

    batch: LogBatch
    starts: Int64
    horizon: int
    cut: int
    places: Int64

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> Int64:
        """Return how many slots each page has, int64[n]."""
        return np.diff(self.starts)

    @property
    def there(self) -> Bools:
        """Return which slots each page has, bool[n, S]."""
        there: Bools = np.arange(self.horizon) < self.lengths[:, None]
        return there

    def take(self, which: slice) -> "Pages":
        """Return some of the pages, one after the other."""
        first, stop, _ = which.indices(len(self))
        actions = self.batch.actions
        assert actions is not None  # noqa: S101 - of every batch here
        starts = self.starts[first : stop + 1]
        rows = slice(int(starts[0]), int(starts[-1]))
        cells = slice(int(actions.offsets[rows.start]), int(actions.offsets[rows.stop]))
        batch = self.batch.take(rows)
        return Pages(batch, starts - starts[0], self.horizon, 0, self.places[cells])

    def laid_out(self, values: Float64, rest: float = 0.0) -> Float64:
        """Return one value a row as float64[n, S].

        Args:
            values: float64[rows].
            rest: what stands where a page has no slot.
        """
        out = np.full(self.there.shape, rest)
        out[self.there] = values
        return out


def pages_of(piece: Piece, horizon: int, left_out: LeftOut) -> Iterator[Pages]:
    """Yield a piece's pages, some at a time.

    Pages that lack one of their slots, as where bad rows were left out, are left out, and so are
    those of which a later slot has an action that the first has not.

    Args:
        piece: of the log.
        horizon: the slots of a page that count, the first ones.
        left_out: counts the rows of broken pages.

    Raises:
        ReplayError: rows have no actions, or stand for several decisions each.
    """
    for batch in _whole(piece):
        slots = _slots_of(batch)
        begin = slots == 0
        begin[:1] = True
        begin[1:] |= batch.keys[1:] != batch.keys[:-1]
        first = np.flatnonzero(begin)
        begins = np.concatenate([first, [len(slots)]])

        # The slots of a page are 0, 1, 2, ...
        expected = np.arange(len(slots)) - np.repeat(first, np.diff(begins))
        wrong = (slots != expected).astype(np.int64)
        broken = np.add.reduceat(wrong, first) > 0 if len(first) else wrong > 0
        lost = int(np.diff(begins)[broken].sum())
        if lost:
            left_out.counts[BROKEN] += lost

        whole = np.flatnonzero(~broken)
        for start in range(0, len(whole), PAGES_AT_ONCE):
            pages = _cut(batch, begins, whole[start : start + PAGES_AT_ONCE], horizon, left_out)
            if len(pages):
                yield pages


def _cut(batch: LogBatch, begins: Int64, which: Int64, horizon: int, left_out: LeftOut) -> Pages:
    """Return some pages of a batch, up to the horizon."""
    all_slots = np.diff(begins)[which]
    counts = np.minimum(all_slots, horizon)
    starts = np.zeros(len(which) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    rows = np.repeat(begins[which] - starts[:-1], counts) + np.arange(starts[-1])

    kept = batch.take(rows)
    actions = kept.actions
    assert actions is not None  # noqa: S101 - of every batch here
    places = places_on_page(starts, actions.offsets, actions.ids)
    if len(places) and places.min() < 0:
        odd = np.add.reduceat(places < 0, actions.offsets[starts[:-1]]) > 0
        left_out.counts[WIDER] += int(counts[odd].sum())
        return _cut(batch, begins, which[~odd], horizon, left_out)
    return Pages(kept, starts, horizon, int((all_slots > horizon).sum()), places)


def _whole(piece: Piece) -> Iterator[LogBatch]:
    """Yield batches with the columns of their actions, none of which ends within a page."""
    carried: list[LoggedDecision] = []
    for batch in piece.batches():
        if len(batch.decisions) != len(batch):
            raise ReplayError(
                "pages need the actions of each row, and this log has only numbers", "log"
            )
        if WEIGHT in batch.columns and (batch.columns[WEIGHT] != 1.0).any():
            raise ReplayError(
                "this log has left decisions out at random (pdrop), which method slates does not"
                " count: use method ope",
                "method",
            )

        # An archive's batches are of whole decisions.
        if batch.records is not None:
            yield with_actions(batch)
            continue
        rows = [*carried, *batch.decisions]
        last = next((at for at in range(len(rows) - 1, -1, -1) if rows[at].slot == 0), 0)
        carried = rows[last:]
        if last:
            yield with_actions(batch_of(rows[:last]))
    if carried:
        yield with_actions(batch_of(carried))


def _slots_of(batch: LogBatch) -> Int64:
    """Return each row's slot, int64[n]."""
    if batch.records is not None:
        return batch.records.slots
    return np.fromiter((row.slot for row in batch.decisions), np.int64, len(batch))


def rows_of_first_slots(pages: Pages) -> Sequence[LoggedDecision]:
    """Return the row of each page's first slot, which has all actions of the page."""
    return list(pages.batch.take(pages.starts[:-1]).decisions)
