"""Tables of a frozen world, as a shop would export them: events.csv, items.csv, users.csv.

A logging policy of the world's own has recommended meanwhile: each slot is filled from what is left
of the visit's pool, with probability ``log_uniform`` uniformly, else in proportion to
``log_weights``. decisions.csv has what it has shown, with propensities.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bandits.types import Float64
from simulator.worlds.frozen.base import FrozenWorld
from simulator.worlds.frozen.parts import Indexes

_CHUNK = 20_000
_VIEW = "view"


class WorldTables(msgspec.Struct, frozen=True):
    """The tables that were written.

    Attributes:
        world: The world's name.
        version: Its version.
        seed: Its seed.
        digest: What makes it this world: name, parameters and seed.
        folder: Where the files are.
        rows: Rows of each file.
        visits: How many visits the tables cover, the first in time.
        ends: The time of the last row.
    """

    world: str
    version: int
    seed: int
    digest: str
    folder: str
    rows: dict[str, int]
    visits: int
    ends: str


@dataclass(frozen=True, slots=True, eq=False)
class LoggedLists:
    """The lists that the logging policy shows at n visits: S slots out of pools of K items.

    Attributes:
        visits: int64[n].
        pools: int64[n, K], what it chooses among.
        chosen: int64[n, S], places in the pools.
        propensities: float64[n, S], each given the slots before.
    """

    visits: Indexes
    pools: Indexes
    chosen: Indexes
    propensities: Float64

    @property
    def items(self) -> Indexes:
        """int64[n, S]: the items shown."""
        return np.take_along_axis(self.pools, self.chosen, axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class _Events:
    """Rows of events.csv: arrays [n]; kind -1 is a view."""

    times: Indexes
    visits: Indexes
    kinds: Indexes
    items: Indexes
    slots: Indexes
    values: Float64

    def take(self, rows: Any) -> "_Events":
        """Return some of the rows."""
        return _Events(
            *(
                getattr(self, name)[rows]
                for name in ("times", "visits", "kinds", "items", "slots", "values")
            )
        )


def logged_lists(world: FrozenWorld, visits: Indexes) -> LoggedLists:
    """Let the logging policy choose.

    Args:
        world: The world.
        visits: Numbers of visits.
    """
    pools = world.pools(visits)
    weights, left = world.log_weights(pools).copy(), np.ones(pools.shape)
    rows, uniform = np.arange(len(visits)), world.log_uniform
    chosen = np.empty((len(visits), world.slots), np.int64)
    propensities = np.empty(chosen.shape)
    for slot in range(world.slots):
        pmfs = (1.0 - uniform) * weights / weights.sum(axis=1, keepdims=True)
        pmfs += uniform * left / (pools.shape[1] - slot)
        cumulative = np.cumsum(pmfs, axis=1)
        luck = world.log_chance(visits, slot)[:, None] * cumulative[:, -1:]
        chosen[:, slot] = picks = np.argmax(cumulative > luck, axis=1)
        propensities[:, slot] = pmfs[rows, picks]
        weights[rows, picks] = left[rows, picks] = 0.0
    return LoggedLists(visits, pools, chosen, propensities)


def write_tables(
    world: FrozenWorld,
    folder: Path,
    *,
    decisions: bool = False,
    progress: Callable[[int], None] | None = None,
) -> WorldTables:
    """Write the tables of a world; the same world gives the same bytes.

    Args:
        world: The world.
        folder: Where to; it is made, and files of the same names are replaced.
        decisions: Whether to write decisions.csv, too: what was shown, among what, with which
            propensity, and what it earned by the end of the export.
        progress: Told how many rows of events there are by now.
    """
    folder.mkdir(parents=True, exist_ok=True)
    events, shown = _played(world, progress or (lambda _: None))
    ends = int(events.times[-1]) if len(events.times) else int(world.people.times[0])

    rows = {
        "events.csv": _write(folder / "events.csv", *_event_rows(world, events)),
        "items.csv": _write(folder / "items.csv", *_item_rows(world, ends)),
        "users.csv": _write(folder / "users.csv", *_user_rows(world)),
    }
    covered = int((world.people.times <= ends).sum())
    if world.exported is None:
        covered = world.visits
    if decisions:
        table = _decision_rows(world, shown, events, covered)
        rows["decisions.csv"] = _write(folder / "decisions.csv", *table)

    return WorldTables(
        world=world.name,
        version=world.parameters.version,
        seed=world.seed,
        digest=world.digest,
        folder=str(folder),
        rows=rows,
        visits=covered,
        ends=_iso(np.array([ends]))[0],
    )


def _played(
    world: FrozenWorld, progress: Callable[[int], None]
) -> tuple[_Events, list[LoggedLists]]:
    """Return the events in the order of time, as many as are exported, and all that was shown."""
    parts: list[_Events] = []
    shown: list[LoggedLists] = []
    for first in range(0, world.visits, _CHUNK):
        visits = np.arange(first, min(first + _CHUNK, world.visits))
        shown.append(logged_lists(world, visits))
        parts.append(_events(world, shown[-1]))
        progress(sum(len(part.times) for part in parts))

        # Visits are in the order of time, so nothing that comes later is before this one.
        now = world.people.times[visits[-1]]
        done = sum(int((part.times <= now).sum()) for part in parts)
        if world.exported is not None and done >= world.exported:
            break

    whole = _Events(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("times", "visits", "kinds", "items", "slots", "values")
        )
    )
    order = np.lexsort((whole.slots, whole.kinds, whole.visits, whole.times))
    return whole.take(order[: world.exported]), shown


def _events(world: FrozenWorld, shown: LoggedLists) -> _Events:
    """Return the views of some visits, and what the recommendations earn."""
    count, slots = shown.chosen.shape
    visits, places = np.repeat(shown.visits, slots), np.tile(np.arange(slots), count)
    items = shown.items.ravel()
    draws = world.draws(visits, places, items)
    kinds, rows = draws.happened.nonzero()

    times = world.people.times
    came = _Events(
        times[visits[rows]] + draws.delays_ms[kinds, rows],
        visits[rows],
        kinds,
        items[rows],
        places[rows],
        draws.values[kinds, rows],
    )
    if world.people.views is None:
        return came

    nothing = np.full(count, -1)
    opened = _Events(
        times[shown.visits],
        shown.visits,
        nothing,
        world.people.views[shown.visits],
        nothing,
        np.ones(count),
    )
    return _Events(
        *(
            np.concatenate([getattr(opened, name), getattr(came, name)])
            for name in ("times", "visits", "kinds", "items", "slots", "values")
        )
    )


def _event_rows(world: FrozenWorld, events: _Events) -> tuple[list[str], Iterator[Any]]:
    people, kinds = world.people, [*(kind.name for kind in world.kinds), _VIEW]
    users = people.users[events.visits].tolist()
    columns: dict[str, Iterable[Any]] = {
        "time": _iso(events.times),
        "user": [people.user_ids[user] for user in users],
        "item": [people.item_ids[item] for item in events.items.tolist()],
        "type": [kinds[kind] for kind in events.kinds.tolist()],
        # Only a purchase has a value: its amount.
        "value": [
            f"{value:.2f}" if kinds[kind] == "purchase" else ""
            for kind, value in zip(events.kinds.tolist(), events.values.tolist(), strict=True)
        ],
        "visit": [f"v{visit}" for visit in events.visits.tolist()],
    }
    if people.sessions is not None:
        columns["session"] = [f"s{session}" for session in people.sessions[events.visits].tolist()]
    return list(columns), zip(*columns.values(), strict=True)


def _item_rows(world: FrozenWorld, ends: int) -> tuple[list[str], Iterator[Any]]:
    """Return the table of items; what sells out after the export is not known to have."""
    columns: dict[str, Sequence[Any]] = {"item": world.people.item_ids, **world.people.items}
    for name in columns.keys() & {"available_from", "available_until"}:
        known = [
            None if time is None or (name == "available_until" and time > ends) else time
            for time in columns[name]
        ]
        texts = iter(_iso(np.array([time for time in known if time is not None], np.int64)))
        columns[name] = ["" if time is None else next(texts) for time in known]
    return list(columns), zip(*columns.values(), strict=True)


def _user_rows(world: FrozenWorld) -> tuple[list[str], Iterator[Any]]:
    """Return the table of users, by their ids: the order of indexes would tell who is who."""
    columns = {"user": world.people.user_ids, **world.people.user_columns}
    return list(columns), iter(sorted(zip(*columns.values(), strict=True)))


def _decision_rows(
    world: FrozenWorld, shown: Iterable[LoggedLists], events: _Events, covered: int
) -> tuple[list[str], Iterator[Any]]:
    heads = ["event_id", "time", "user", "slot", "action", "actions", "propensity", "reward"]
    earned = _earned(world, events)

    def rows() -> Iterator[Any]:
        for lists in shown:
            yield from _rows_of_lists(world, lists, covered, earned)

    return [*heads, *world.people.context], rows()


def _earned(world: FrozenWorld, events: _Events) -> Mapping[tuple[int, int], float]:
    """Return what each slot of each visit has earned by the end of the export, if anything."""
    earned: dict[tuple[int, int], float] = {}
    for visit, slot, kind, value in zip(
        events.visits.tolist(),
        events.slots.tolist(),
        events.kinds.tolist(),
        events.values.tolist(),
        strict=True,
    ):
        if kind >= 0:
            worth = world.kinds[kind]
            more = worth.worth + worth.worth_of_value * value
            earned[visit, slot] = earned.get((visit, slot), 0.0) + more
    return earned


def _rows_of_lists(
    world: FrozenWorld,
    lists: LoggedLists,
    covered: int,
    earned: Mapping[tuple[int, int], float],
) -> Iterator[tuple[Any, ...]]:
    people, visits = world.people, lists.visits[lists.visits < covered]
    times = _iso(people.times[visits])
    for at, visit in enumerate(visits.tolist()):
        ids = [people.item_ids[item] for item in lists.pools[at].tolist()]
        context = [values[codes[visit]] for values, codes in people.context.values()]
        user = people.user_ids[people.users[visit]]
        left, chosen = dict.fromkeys(ids), lists.chosen[at].tolist()
        for slot, propensity in enumerate(lists.propensities[at].tolist()):
            action = ids[chosen[slot]]
            reward = round(earned.get((visit, slot), 0.0), 6)
            yield (
                *(f"v{visit}", times[at], user, slot, action, "|".join(left)),
                *(f"{propensity:.12g}", reward, *context),
            )
            del left[action]


def _iso(times: Indexes) -> list[str]:
    """Return times in milliseconds since 1970 as ISO 8601 texts."""
    texts: list[str] = np.datetime_as_string(times.astype("datetime64[ms]"), "ms").tolist()
    return [f"{text}Z" for text in texts]


def _write(path: Path, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
    """Write a CSV and return how many rows it has, without the header."""
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(heads)
        for row in rows:
            writer.writerow(row)
            count += 1
    return count
