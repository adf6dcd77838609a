"""The questions to every frozen world: who comes, what a choice earns, and what is true."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.errors import InvalidFieldError
from bandits.log.codec import digest
from bandits.types import Float64, frozen
from simulator.worlds.frozen.chance import Chance, normals_from
from simulator.worlds.frozen.parameters import VisitParameters
from simulator.worlds.frozen.parts import (
    DAY_MS,
    DrawnSignals,
    FrozenVisit,
    Indexes,
    Population,
    SignalKind,
    WorldSignal,
)


class FrozenWorld(ABC):
    """A world that is a pure function of its parameters and its seed.

    Whatever is asked, in any order and by whichever policy, the same visit and the same items shown
    have the same outcome; another item has luck of its own. So policies can be compared on the same
    users with the same luck.

    Args:
        parameters: The world's parameters.
        seed: Seed of all that is drawn.
        people: Who and what there is.
        kinds: Kinds of signals, each needing the one before.
        examination: float64[slots], the probability that a slot is looked at.
    """

    name: ClassVar[str]
    exported: int | None = None
    """Rows of events.csv at most; None: all visits are exported."""
    log_uniform: float = 1.0
    """Share of the logging policy's choices that are uniform."""

    def __init__(
        self,
        parameters: VisitParameters,
        seed: int,
        people: Population,
        kinds: Sequence[SignalKind],
        examination: Float64,
    ) -> None:
        self.parameters, self.seed = parameters, seed
        self.people, self.kinds, self.examination = people, tuple(kinds), frozen(examination)
        self._chance, self._log_chance = Chance(seed, "outcome"), Chance(seed, "log")
        self._numbers = {item_id: at for at, item_id in enumerate(people.item_ids)}
        self._all_items = frozen(np.arange(len(people.item_ids)))
        self._delays = np.array([kind.delay_ms for kind in kinds])[:, None]
        self._spreads = np.array([kind.spread for kind in kinds])[:, None]
        self._worths = np.array(
            [[kind.worth for kind in kinds], [kind.worth_of_value for kind in kinds]]
        )

    # What a world says of itself.

    @abstractmethod
    def stages(self, visits: Indexes, items: Indexes) -> Float64:
        """Return float64[kinds, n]: P(signal | the item is looked at, and the signal before came).

        Args:
            visits: Numbers of visits.
            items: As many indexes of items; the two broadcast.
        """

    def values(self, visits: Indexes, items: Indexes) -> Float64:
        """Return float64[kinds, n]: the mean value of each signal.

        Args:
            visits: Numbers of visits.
            items: As many indexes of items; the two broadcast.
        """
        return np.ones((len(self.kinds), *np.broadcast_shapes(visits.shape, items.shape)))

    def looked_at(self, visits: Indexes, slots: Indexes) -> Float64:
        """Return float64[n]: the probability that the user looks at the slot.

        Args:
            visits: Numbers of visits.
            slots: As many slots; the two broadcast.
        """
        looked: Float64 = np.broadcast_to(
            self.examination[slots], np.broadcast_shapes(visits.shape, slots.shape)
        )
        return looked

    def on_offer(self, visits: Indexes, items: Indexes) -> NDArray[np.bool_]:
        """Return bool[n]: whether the item can be had at the visit.

        Args:
            visits: Numbers of visits.
            items: As many indexes of items; the two broadcast.
        """
        return np.ones(np.broadcast_shapes(visits.shape, items.shape), bool)

    def offered(self, number: int) -> Indexes:  # noqa: ARG002 - most worlds always offer all
        """Return the indexes of the items on offer at a visit, ascending."""
        return self._all_items

    def pools(self, visits: Indexes) -> Indexes:
        """Return int64[n, K]: items to choose among, K different ones on offer, for each visit.

        They stand for the candidates of a policy that has no sources.
        """
        return np.broadcast_to(self._all_items, (len(visits), len(self._all_items)))

    def recent(self, number: int) -> Sequence[int]:  # noqa: ARG002 - most worlds have no pages
        """Return indexes of the items opened in the session up to a visit, the last one last."""
        return ()

    def counted(self, visits: Indexes) -> NDArray[np.bool_]:
        """Return bool[n]: whether what happens at a visit counts for the value of a policy."""
        return np.ones(len(visits), bool)

    def log_weights(self, items: Indexes) -> Float64:
        """Return weights of the logging policy's choice, of the shape of ``items``."""
        return np.ones(items.shape)

    def log_chance(self, visits: Indexes, slot: int) -> Float64:
        """Return float64[n]: the uniform by which the logging policy chooses for a slot.

        Args:
            visits: Numbers of visits.
            slot: The slot.
        """
        return self._log_chance.at(visits, slot)

    # What may be asked.

    @cached_property
    def digest(self) -> str:
        """The digest of the world's name, parameters and seed: what makes it this world."""
        return digest(msgspec.json.encode([self.name, self.parameters, self.seed]))

    @property
    def visits(self) -> int:
        """How many visits there are."""
        return len(self.people.times)

    @property
    def slots(self) -> int:
        """How many items are shown at once, at most."""
        return len(self.examination)

    def visit(self, number: int) -> FrozenVisit:
        """Return a visit.

        Args:
            number: From 0; the order is that of time.

        Raises:
            InvalidFieldError: The world has ended.
        """
        people = self.people
        self._check(number)
        session = number if people.sessions is None else people.sessions[number]
        return FrozenVisit(
            number,
            int(people.times[number]),
            people.user_ids[people.users[number]],
            f"s{session}",
            {name: values[codes[number]] for name, (values, codes) in people.context.items()},
            tuple(people.item_ids[item] for item in self.recent(number)),
            self.offered(number),
        )

    def outcome(self, number: int, shown: Sequence[str]) -> list[WorldSignal]:
        """Return what the user of a visit does about a list of items, in the order of time.

        Args:
            number: The visit.
            shown: Ids of the items, that of slot 0 first. One that is not on offer earns nothing.

        Raises:
            InvalidFieldError: The world has ended, an item does not exist or is shown twice, or
                there are too many.
        """
        self._check(number)
        visits, slots = np.full(len(shown), number), np.arange(len(shown))
        items = self.indexes(shown)
        luck, happened = self._happened(visits, slots, items)
        if not happened.any():
            return []

        draws = self._drawn(visits, items, luck, happened)
        came = [
            WorldSignal(
                self.kinds[kind].name,
                slot,
                shown[slot],
                int(draws.delays_ms[kind, slot]),
                float(draws.values[kind, slot]),
            )
            for kind, slot in zip(
                *(each.tolist() for each in draws.happened.nonzero()), strict=True
            )
        ]
        return sorted(came, key=lambda signal: signal.delay_ms)

    def reward(self, signals: Sequence[WorldSignal]) -> float:
        """Return the reward that signals make, the sum of what each is worth."""
        worths = {kind.name: kind for kind in self.kinds}
        return sum(
            worths[signal.kind].worth + worths[signal.kind].worth_of_value * signal.value
            for signal in signals
        )

    def expected(self, number: int, items: Indexes | None = None, slot: int = 0) -> Float64:
        """Return float64[n]: the expected reward of showing each item, exactly.

        What a list earns is the sum over its slots: items do not compete.

        Args:
            number: The visit.
            items: Indexes of items; None: those on offer. One that is not on offer earns 0.
            slot: The slot in which it would be shown.

        Raises:
            InvalidFieldError: The world has ended.
        """
        self._check(number)
        visits = np.array([number])
        looked = self.looked_at(visits, np.array([slot]))
        means: Float64 = looked * self.means(
            visits, self.offered(number) if items is None else items
        )
        return means

    def means(self, visits: Indexes, items: Indexes) -> Float64:
        """Return float64[n]: the expected reward of items that are looked at; 0 if not on offer.

        Args:
            visits: Numbers of visits.
            items: Indexes of items; the two broadcast.
        """
        worths = self._worths_of(self.values(visits, items))
        means: Float64 = (self.reached(visits, items) * worths).sum(axis=0)
        return means

    def reached(self, visits: Indexes, items: Indexes) -> Float64:
        """Return float64[kinds, n]: P(each signal | the item is looked at); 0 if not on offer.

        For who weighs signals otherwise than the world does.

        Args:
            visits: Numbers of visits.
            items: Indexes of items; the two broadcast.
        """
        reached = np.cumprod(self.stages(visits, items), axis=0)
        return np.where(self.on_offer(visits, items), reached, 0.0)

    def draws(self, visits: Indexes, slots: Indexes, items: Indexes) -> DrawnSignals:
        """Return what items earn, each in its slot of its visit, as ``outcome`` does for one visit.

        Args:
            visits: Numbers of visits.
            slots: As many slots.
            items: As many indexes of items.
        """
        return self._drawn(visits, items, *self._happened(visits, slots, items))

    def _check(self, number: int) -> None:
        if not 0 <= number < self.visits:
            raise InvalidFieldError(
                f"visit {number:,}: the world has {self.visits:,}, from 0; raise visits", "visits"
            )

    def _happened(
        self, visits: Indexes, slots: Indexes, items: Indexes
    ) -> tuple[Float64, NDArray[np.bool_]]:
        """Return the luck of each item, float64[draws, kinds, n], and whether each signal comes."""
        count, n = len(self.kinds), len(items)
        # Luck belongs to the item, so that an item in another slot has the same.
        lucks = 4 if self._spreads.any() else 2
        luck = self._chance.at(
            np.arange(lucks * count)[:, None], visits[None, :], items[None, :]
        ).reshape(lucks, count, n)
        looks = self._chance.at(visits, -1 - slots) < self.looked_at(visits, slots)

        hits = luck[0] < self.stages(visits, items)
        hits[0] &= looks & self.on_offer(visits, items)
        return luck, np.logical_and.accumulate(hits, axis=0)

    def _drawn(
        self, visits: Indexes, items: Indexes, luck: Float64, happened: NDArray[np.bool_]
    ) -> DrawnSignals:
        """Return the signals with their delays and values."""
        # Log-logistic: a median, and a tail that is a power.
        odds = luck[1] / (1.0 - luck[1])
        longest = self.parameters.delay_max_days * DAY_MS
        delays = np.minimum(
            self._delays * odds ** (1.0 / self.parameters.delay_shape), longest
        ).astype(np.int64)

        values = self.values(visits, items)
        if len(luck) == 4:
            normals = normals_from(luck[2], luck[3])
            # Of mean 1.
            values = values * np.exp(self._spreads * normals - self._spreads**2 / 2.0)
        return DrawnSignals(happened, np.cumsum(delays + 1, axis=0), values)

    def rewards(self, draws: DrawnSignals) -> Float64:
        """Return float64[n]: the reward of each item of ``draws``."""
        rewards: Float64 = (draws.happened * self._worths_of(draws.values)).sum(axis=0)
        return rewards

    def _worths_of(self, values: Float64) -> Float64:
        """Return what signals of values float64[kinds, ...] add to the reward."""
        shape = (-1, *[1] * (values.ndim - 1))
        fixed, by_value = (worth.reshape(shape) for worth in self._worths)
        worths: Float64 = fixed + by_value * values
        return worths

    def indexes(self, item_ids: Sequence[str]) -> Indexes:
        """Return the indexes of a list of items.

        Raises:
            InvalidFieldError: One does not exist, stands twice, or there are more than slots.
        """
        if len(item_ids) > self.slots:
            raise InvalidFieldError(
                f"{len(item_ids)} items shown: the world has {self.slots} slots", "shown"
            )
        if len(set(item_ids)) < len(item_ids):
            raise InvalidFieldError("an item is shown twice", "shown")
        try:
            return np.array([self._numbers[item_id] for item_id in item_ids], np.int64)
        except KeyError as error:
            raise InvalidFieldError(f"there is no item {error.args[0]!r}", "shown") from error
