"""Measuring shares: how much of the mass of decisions' PMFs was on the items of which group."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from banditloop_client.schemas import Item
from bandits.log.records import DecisionRecord
from bandits.types import Float64
from bandits.values import FeatureMap
from policies.items.catalogue import Catalogue
from policies.items.table import FeatureTable
from policies.rules.columns import Bools, ItemColumns
from policies.rules.quotas.compiled import Quotas
from policies.rules.quotas.quota import MOST_GROUPS
from policies.rules.values import Frame

NO_GROUP: Final = -1


@dataclass(slots=True)
class Shares:
    """The mass of some slots' PMFs.

    ``slots``: how many; ``quotas``: by the name of a quota, the mass of the items it is of;
    ``groups``: the same by the value of the feature that groups are told by. One of which nothing
    could be chosen is not there.
    """

    slots: int = 0
    quotas: dict[str, float] = field(default_factory=dict)
    groups: dict[str, float] = field(default_factory=dict)

    def add(self, other: "Shares") -> None:
        """Add what was measured of other slots."""
        self.slots += other.slots
        for own, others in ((self.quotas, other.quotas), (self.groups, other.groups)):
            for name, mass in others.items():
                own[name] = own.get(name, 0.0) + mass


class ShareMeter:
    """Measures decisions. Of which groups an item is, is looked up once for each of its versions.

    Args:
        quotas: the policy's.
    """

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self._fields = sorted({name for at in quotas.looks_by_field.values() for name in at.items})
        self._values: dict[str, int] = {}
        self._forget(None)

    def measure(
        self, record: DecisionRecord, catalogue: Catalogue, item_of: Callable[[str], Item | None]
    ) -> Shares:
        """Return the mass of a decision's slots.

        Args:
            record: the decision.
            catalogue: the one that it names.
            item_of: gives an item of that catalogue, or as it is since.
        """
        members, groups = self._groups_of(record, catalogue, item_of)
        mass: Float64 = record.pmfs().sum(axis=0)
        found = Shares(len(record.chosen))
        masses = mass @ members
        for at in np.flatnonzero(members.any(axis=0)).tolist():
            found.quotas[self._quotas.names[at]] = float(masses[at])

        if self._quotas.group is not None:
            of = groups != NO_GROUP
            by_value = np.bincount(groups[of], mass[of], len(self._values)).tolist()
            there = set(groups[of].tolist())
            found.groups = {
                value: by_value[code] for value, code in self._values.items() if code in there
            }
        return found

    def _groups_of(
        self, record: DecisionRecord, catalogue: Catalogue, item_of: Callable[[str], Item | None]
    ) -> tuple[Bools, NDArray[np.int32]]:
        """Return of each action of which quotas it is, bool[K, Q], and its group, int32[K]."""
        if catalogue.features is not self._table:
            self._forget(catalogue.features)
        ids, rows = record.action_ids, catalogue.rows(record.action_ids)
        if catalogue.features.rows >= len(self._known):
            self._make_room(catalogue.features.rows)

        # Whatever is not in the catalogue has the last row, of which nothing is known.
        unknown = np.flatnonzero((rows >= 0) & ~self._known[rows]).tolist()
        if unknown:
            items = [item_of(ids[at]) for at in unknown]
            features = [{} if item is None else item.features for item in items]
            which = rows[unknown]
            self._members[which], self._groups[which] = self._look(
                [ids[at] for at in unknown], features
            )
            self._known[which] = True
        members, groups = self._members[rows], self._groups[rows]

        if record.features is not None:
            own = [at for at, each in enumerate(record.features) if each is not None]
            said = [each for each in record.features if each is not None]
            members[own], groups[own] = self._look([ids[at] for at in own], said)
        return members, groups

    def _look(
        self, ids: Sequence[str], features: Sequence[FeatureMap]
    ) -> tuple[Bools, NDArray[np.int32]]:
        """Find out of which groups some items are."""
        pairs = zip(ids, features, strict=True)
        columns = ItemColumns(self._fields, [Item(name, dict(each)) for name, each in pairs])
        frame = Frame(columns, np.arange(1, len(ids) + 1), {}, {}, {}, [])
        group, groups = self._quotas.group, np.full(len(ids), NO_GROUP, np.int32)
        if group is not None:
            groups[:] = [self._code(each.get(group)) for each in features]
        return self._quotas.members(frame), groups

    def _code(self, value: Any) -> int:
        if not isinstance(value, str) or not value:
            return NO_GROUP
        if value not in self._values and len(self._values) < MOST_GROUPS:
            self._values[value] = len(self._values)
        return self._values.get(value, NO_GROUP)

    def _forget(self, table: FeatureTable | None) -> None:
        self._table = table
        self._known = np.zeros(1, np.bool_)
        self._members = np.zeros((1, len(self._quotas.names)), np.bool_)
        self._groups = np.full(1, NO_GROUP, np.int32)

    def _make_room(self, rows: int) -> None:
        """Make room for some rows, and the last one."""
        known, members, groups = self._known, self._members, self._groups
        size = 2 * rows + 1
        self._known = np.zeros(size, np.bool_)
        self._members = np.zeros((size, members.shape[1]), np.bool_)
        self._groups = np.full(size, NO_GROUP, np.int32)
        kept = len(known) - 1
        self._known[:kept], self._members[:kept] = known[:kept], members[:kept]
        self._groups[:kept] = groups[:kept]
