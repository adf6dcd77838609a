"""The log as training data: which user took to which of the items that were chosen for them.

The log is read once, in order. In memory are the events (24 bytes each, and the distinct ids), the
open windows, and the newest decisions, on which artifacts are compared.
"""

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from bandits.errors import BanditloopError
from bandits.log.encoded_decisions import DECISIONS, whole_record
from bandits.log.join import Join, JoinedDecision
from bandits.log.positions import log_order, position_ms
from bandits.log.records import LogEntry, TickRecord
from bandits.log.versions import FOLD
from bandits.types import frozen
from policies.data.coded import CodedEvents
from policies.fold.checkpoint import Past
from policies.fold.read_behind import ReadBehind
from policies.spec import PolicySpec
from simulator.logs.archive.rules import evaluation_rule

READ_AT_ONCE = 1000
"""Entries that are joined together."""
REWARDED = "rewarded"
"""The type of an event that is a rewarded decision."""
STRONGEST = 2.0
"""The most that one rewarded decision weighs, where one with the mean reward weighs 1."""

SpecOf = Callable[[str], PolicySpec]
"""Gives the spec of a digest, or raises."""


@dataclass(slots=True, eq=False)
class RewardedEvents:
    """Events of a log's decisions, as they are found.

    ``decisions``: how many were joined; ``anonymous``: how many rewarded ones name no user, so that
    nothing is learned of them. ``newest``: the last decisions, oldest first, at most ``kept``.
    """

    kept: int
    decisions: int = 0
    anonymous: int = 0
    newest: deque[JoinedDecision] = field(init=False)
    _users: dict[str, int] = field(default_factory=dict)
    _items: dict[str, int] = field(default_factory=dict)
    _user: "array[int]" = field(default_factory=lambda: array("i"))
    _item: "array[int]" = field(default_factory=lambda: array("i"))
    _time: "array[int]" = field(default_factory=lambda: array("q"))
    _reward: "array[float]" = field(default_factory=lambda: array("d"))

    def __post_init__(self) -> None:
        self.newest = deque(maxlen=self.kept)

    def __len__(self) -> int:
        return len(self._user)

    def add(self, joined: JoinedDecision) -> None:
        """Add what a decision says: each slot with a reward above 0 is an event.

        Args:
            joined: a decision whose window has closed, later than those before.
        """
        self.decisions += 1
        self.newest.append(joined)

        # Most decisions have no reward: their records stay encoded.
        if not any(reward > 0.0 for reward in joined.rewards):
            return
        record = whole_record(joined.record)
        if record.user is None:
            self.anonymous += 1
            return

        user = self._users.setdefault(record.user, len(self._users))
        for slot, reward in zip(joined.slots, joined.rewards, strict=True):
            if reward > 0.0:
                item = record.action_ids[record.chosen[slot]]
                self._user.append(user)
                self._item.append(self._items.setdefault(item, len(self._items)))
                self._time.append(position_ms(joined.position))
                self._reward.append(reward)

    def coded(self) -> CodedEvents:
        """Return the events as training takes them, users by their pseudonyms.

        A reward weighs as many times as much as an item of a history that is sent as it is above
        the mean reward, at most STRONGEST: rewards of 0 and 1 weigh 1.
        """
        reward = np.array(self._reward, np.float64)
        mean = reward.mean() if reward.size else 1.0
        return coded_events(
            list(self._users),
            list(self._items),
            (REWARDED,),
            np.array(self._user, np.int32),
            np.array(self._item, np.int32),
            np.zeros(len(self), np.int16),
            np.array(self._time, np.int64),
            reward.astype(np.float32),
            np.minimum(reward / mean, STRONGEST).astype(np.float32),
        )


def coded_events(
    user_ids: "list[str]",
    item_ids: "list[str]",
    types: tuple[str, ...],
    user: np.ndarray,
    item: np.ndarray,
    kind: np.ndarray,
    time: np.ndarray,
    value: np.ndarray,
    weight: np.ndarray,
) -> CodedEvents:
    """Return columns in any order as CodedEvents, which stand by user, item ids sorted.

    Args:
        user_ids: the users.
        item_ids: the items.
        types: the names of the types.
        user: int[n], into ``user_ids``.
        item: int[n], into ``item_ids``.
        kind: int[n], into ``types``.
        time: int64[n], ms since 1970, -1 for none.
        value: float[n].
        weight: float[n].
    """
    order = np.lexsort((time, user))
    by_id = sorted(range(len(item_ids)), key=item_ids.__getitem__)
    place = np.empty(len(by_id), np.int32)
    place[by_id] = np.arange(len(by_id), dtype=np.int32)
    return CodedEvents(
        user_ids=tuple(user_ids),
        item_ids=tuple(item_ids[code] for code in by_id),
        types=types,
        user=frozen(user[order].astype(np.int32)),
        item=frozen(place[item[order]]),
        type=frozen(kind[order].astype(np.int16)),
        time=frozen(time[order].astype(np.int64)),
        value=frozen(value[order].astype(np.float32)),
        weight=frozen(weight[order].astype(np.float32)),
    )


def joined_decisions(
    entries: Iterable[LogEntry], spec: PolicySpec, spec_of: SpecOf, past: Past | None = None
) -> Iterator[JoinedDecision]:
    """Yield the decisions of one log whose windows have closed, with the rewards of their slots.

    Late rewards are left out, whether or not the learner was corrected by them.

    Args:
        entries: of the log, in order.
        spec: the policy's; its join holds of rewards that come before their decisions.
        spec_of: gives the spec that a decision names.
        past: reads again the records of decisions that are open for long; None: they are kept in
            memory.
    """
    known: dict[str, PolicySpec] = {}

    def demand_spec(name: str) -> PolicySpec:
        if name not in known:
            known[name] = spec_of(name)
        return known[name]

    join = Join(
        lambda name: evaluation_rule(demand_spec(name).rule),
        rule=evaluation_rule(spec.rule),
        fold=FOLD,
        behind=None if past is None else ReadBehind(past),
    )
    iterator = iter(entries)
    while batch := list(islice(iterator, READ_AT_ONCE)):
        place = 0
        while place < len(batch):
            out: list[JoinedDecision] = []
            place = join.apply_run(batch, place, known.__contains__, out, [])
            yield from out
            if place < len(batch):
                yield from _applied(join, batch[place], demand_spec)
                place += 1


def _applied(join: Join, entry: LogEntry, demand_spec: SpecOf) -> list[JoinedDecision]:
    """Join one entry; a decision whose spec cannot be had is none, as for the learner."""
    if isinstance(entry.record, DECISIONS):
        try:
            demand_spec(entry.record.spec)
        except BanditloopError:
            join.skip(entry.id)
            entry = LogEntry(entry.id, TickRecord())
    return join.apply(entry)


def merged_by_time(logs: Iterable[Iterator[JoinedDecision]]) -> Iterator[JoinedDecision]:
    """Yield the decisions of several partitions in the order of their times."""
    from heapq import merge  # noqa: PLC0415 - one log needs none

    return merge(*logs, key=lambda joined: log_order(joined.position))
