"""From a joined decision to lessons: its interactions, or the chosen actions alone."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.decide import left_after, place_among
from bandits.errors import RefusedError
from bandits.log.encoded_decisions import Decision, placed_of, starts_of, whole_record
from bandits.log.join import JoinedDecision
from bandits.log.positions import position_ms
from bandits.log.records import EncodedDecision
from bandits.types import ChosenRow, Float32, Interaction, Learner, UInt32
from policies.decisions.mixture import source_actions
from policies.features import ItemRows, chosen_rows, featurise_record, rows_of_chosen
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec

AT_ONCE = 1024
"""Lessons that are taught at a time."""


class _Versions:
    """Catalogues that share their rows, each of some lessons one after the other.

    Args:
        catalogues: in the order of the lessons.
        bounds: where the lessons of each begin, and where those of the last end.
    """

    def __init__(self, catalogues: Sequence[Catalogue], bounds: Sequence[int]) -> None:
        self._catalogues, self._bounds = catalogues, bounds

    @property
    def table(self) -> tuple[UInt32, NDArray[np.int32], Float32]:
        """All features; see ``Catalogue.table``."""
        return self._catalogues[-1].table

    def rows(self, ids: Sequence[str]) -> NDArray[np.intp]:
        """Return the row of each lesson's item, -1 for one that its catalogue lacks."""
        parts = zip(self._catalogues, pairwise(self._bounds), strict=True)
        return np.concatenate([each.rows(ids[begin:end]) for each, (begin, end) in parts])


class Lessons:
    """Lessons that wait to be learned together.

    All are of decisions of one spec, whose catalogues share their rows: they are versions of one.

    Args:
        alike: returns the catalogue of a version, if it shares its rows with another one.
    """

    def __init__(self, alike: Callable[[str, Catalogue], Catalogue | None]) -> None:
        self._alike = alike
        self._of: PolicySpec | None = None
        self._spec: str | None = None
        self._catalogue: str | None = None
        # The catalogues by name; and from which lesson on which is that of the decisions.
        self._known: dict[str, Catalogue] = {}
        self._runs: list[tuple[int, Catalogue]] = []
        self._data: list[bytes] = []
        self._joined: list[JoinedDecision] = []

    def add_alike(self, joined: list[JoinedDecision], first: int) -> tuple[int, int]:
        """Add lessons from ``first`` on, up to one that may not wait with those that do.

        Args:
            joined: the lessons.
            first: the place of the first one to add.

        Returns:
            How many were added, and how many interactions they are; a correction is none.
        """
        added = learned = 0
        end = min(len(joined), first + AT_ONCE - len(self._data)) if self._of is not None else first
        spec, data = self._spec, self._data
        for place in range(first, end):
            each = joined[place]
            record = each.record
            if type(record) is not EncodedDecision or record.spec != spec or record.holdout:
                break
            if record.catalogue != self._catalogue and not self._turn_to(record.catalogue):
                break
            data.append(record.data)
            self._joined.append(each)
            added += 1
            learned += 0 if each.correction else len(each.slots)
        return added, learned

    def _turn_to(self, name: str) -> bool:
        """Let the lessons to come be of decisions of another version; return whether they may."""
        catalogue = self._known.get(name)
        if catalogue is None:
            catalogue = self._alike(name, self._runs[-1][1])
        if catalogue is None:
            return False
        self._catalogue, self._known[name] = name, catalogue
        self._runs.append((len(self._data), catalogue))
        return True

    def begin(
        self,
        joined: JoinedDecision,
        record: EncodedDecision,
        spec: PolicySpec,
        catalogue: Catalogue,
    ) -> None:
        """Add the first of some lessons.

        Args:
            joined: the decision with its rewards.
            record: the decision.
            spec: the one it was made with.
            catalogue: the one it was made from.
        """
        self._of, self._spec, self._catalogue = spec, record.spec, record.catalogue
        self._known, self._runs = {record.catalogue: catalogue}, [(0, catalogue)]
        self._data.append(record.data)
        self._joined.append(joined)

    def teach(self, learner: Learner) -> None:
        """Teach what waits, in order, and forget it."""
        if self._of is None:
            return
        spec, runs, data, joined = self._of, self._runs, self._data, self._joined
        self._of, self._spec, self._data, self._joined = None, None, [], []
        self._known, self._runs = {}, []

        counts = [len(each.slots) for each in joined]
        catalogue: ItemRows = runs[0][1]
        if len(runs) > 1:
            ends = [0, *accumulate(counts)]
            bounds = [*(ends[begin] for begin, _ in runs), ends[-1]]
            catalogue = _Versions([each for _, each in runs], bounds)
        learns = np.array([not each.correction for each in joined], np.bool_)
        rows = rows_of_chosen(
            spec,
            catalogue,
            b"".join(data),
            np.repeat(starts_of(data)[:-1], counts),
            np.array([slot for each in joined for slot in each.slots], np.int64),
            np.array([reward for each in joined for reward in each.rewards], np.float64),
            None if learns.all() else np.repeat(learns, counts),
        )
        if learner.slotted and any(placed_of(each.record) for each in joined):
            slots = [place_on_page(each.record, slot) for each in joined for slot in each.slots]
            rows = msgspec.structs.replace(rows, slots=np.array(slots, np.int64))
        if learner.timed:
            times_ms = np.array([position_ms(each.position) for each in joined], np.int64)
            rows = msgspec.structs.replace(rows, times_ms=np.repeat(times_ms, counts))
        learner.learn_rows(rows)


def place_on_page(record: Decision, slot: int) -> int:
    """Return where on the page a drawn action stood, below whatever was placed above it.

    Args:
        record: the decision.
        slot: which of its draws, from 0.
    """
    for placed in sorted(each.slot for each in placed_of(record)):
        if placed <= slot:
            slot += 1
    return slot


def imitation_of(joined: JoinedDecision) -> JoinedDecision | None:
    """Return what a decision teaches an apprentice that imitates; None: nothing.

    It is taught of its own choice: 1 where that was served, else 0. No reward changes that.
    """
    record = whole_record(joined.record)
    if joined.correction or record.apprentice is None:
        return None
    own = record.own()
    agrees = tuple(float(own.chosen[slot] == record.chosen[slot]) for slot in joined.slots)
    return msgspec.structs.replace(joined, record=own, rewards=agrees)


def taught_interactions(
    joined: JoinedDecision, spec: PolicySpec, catalogue: Catalogue
) -> Iterator[Interaction]:
    """Yield one interaction per slot, among the actions that were left.

    Of a mixture's decision the actions are its sources, and there is none without a credit.

    Args:
        joined: the decision with its rewards.
        spec: the one it was made with.
        catalogue: the one it was made from.

    Raises:
        RefusedError: it is credited to a source that scored none of its actions, or its page bars
            what it chose.
    """
    record = whole_record(joined.record)
    pmfs, time_ms = record.pmfs(), position_ms(joined.position)
    context, actions = featurise_record(spec, catalogue, record)

    for slot, reward in zip(joined.slots, joined.rewards, strict=True):
        # Each earlier slot took one action, and the page's rules may bar others beside it.
        index = record.chosen[slot]
        remaining, available = left_after(actions, record.chosen[:slot], record.page)
        chosen, propensity = place_among(remaining, index), float(pmfs[slot, index])

        if spec.kind == "mixture":
            if record.credit is None:
                return
            credited = record.credit.credited[slot]
            name = record.credit.sources[credited]
            propensity = float(record.credit.pmfs()[slot, credited])
            available = source_actions(available)
            if name not in available.ids:
                raise RefusedError(
                    f"it is credited to {name!r}, which scored none of its actions", "credit"
                )
            chosen = available.ids.index(name)

        yield Interaction(
            record.event_id,
            place_on_page(record, slot),
            context,
            available,
            chosen,
            propensity,
            reward,
            time_ms,
        )


def taught_rows(joined: JoinedDecision, spec: PolicySpec, catalogue: Catalogue) -> list[ChosenRow]:
    """Return the chosen action of each slot, without making the features of the others.

    Args:
        joined: the decision with its rewards.
        spec: the one it was made with.
        catalogue: the one it was made from.
    """
    if spec.kind == "mixture":
        return [ChosenRow.of(taught) for taught in taught_interactions(joined, spec, catalogue)]

    record = whole_record(joined.record)
    indices = [record.chosen[slot] for slot in joined.slots]
    chosen = chosen_rows(spec, catalogue, record, indices)

    # Each earlier slot took one action.
    actions, time_ms = len(record.action_ids), position_ms(joined.position)
    return [
        ChosenRow(
            action_id,
            shared,
            own,
            reward,
            actions - slot,
            record.propensity(slot),
            time_ms,
            place_on_page(record, slot),
        )
        for (action_id, shared, own), slot, reward in zip(
            chosen, joined.slots, joined.rewards, strict=True
        )
    ]
