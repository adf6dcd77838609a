"""``shop``: tastes, sessions whose order matters, texts, prices, seasons and new items."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bandits.errors import InvalidFieldError
from bandits.types import Float64
from simulator.worlds.frozen.base import FrozenWorld
from simulator.worlds.frozen.chance import Chance
from simulator.worlds.frozen.names import invented_words
from simulator.worlds.frozen.parameters import ShopParameters
from simulator.worlds.frozen.parts import (
    DAY_MS,
    Coded,
    Indexes,
    Population,
    SignalKind,
    examination_by_slot,
    logistic,
    start_ms,
)
from simulator.worlds.frozen.shop.items import FOR_EVER, items_of_shop
from simulator.worlds.frozen.shop.orders import order_probabilities
from simulator.worlds.frozen.shop.visits import (
    category_likings,
    seasons_of_shop,
    users_of_shop,
    visits_of_shop,
)
from simulator.worlds.frozen.tastes import user_ids

_DEVICES = ("desktop", "phone")


class ShopWorld(FrozenWorld):
    """A shop in which every page that a user opens asks for recommendations.

    A recommended item that is looked at is clicked with logit ``click`` plus taste, the item's
    appeal, its price, the season, the device and the order of the pages before; then it may be put
    into the cart, and days later be bought.

    Args:
        parameters: The world's parameters.
        seed: Seed of all that is drawn.

    Raises:
        InvalidFieldError: On some day fewer items than slots are on offer.
    """

    name = "shop"

    def __init__(self, parameters: ShopParameters, seed: int) -> None:
        self.exported, self.log_uniform = parameters.events, parameters.log_uniform
        self._shop = parameters
        self.items, self.users = items_of_shop(parameters, seed), users_of_shop(parameters, seed)
        self.plan = visits_of_shop(parameters, seed, self.users, self.items)
        self._wants = self._wanted(seed).astype(np.float32)
        self._make_offers(seed)

        people = self._people(seed)
        kinds = [
            SignalKind("click", parameters.worth_click, parameters.click_delay_s * 1000.0),
            SignalKind("cart", parameters.worth_cart, parameters.cart_delay_s * 1000.0),
            SignalKind(
                "purchase", parameters.worth_purchase, parameters.purchase_delay_days * DAY_MS
            ),
        ]
        examination = examination_by_slot(parameters.slots, parameters.examination)
        super().__init__(parameters, seed, people, kinds, examination)
        self._pool_chance = Chance(seed, "pools")

    def stages(self, visits: Indexes, items: Indexes) -> Float64:
        """Return float64[3, n]: of a click, then a cart, then a purchase; see FrozenWorld."""
        shop, users = self._shop, self.plan.users[visits]
        affinity = (self.users.tastes[users] * self.items.vectors[items]).sum(axis=-1)
        dear = self.users.sensitivities[users] * self.items.dearness[items]
        wants = self._wants[visits, self.items.categories[items]]
        clicks = shop.click + shop.taste * affinity + self.items.appeals[items] - dear + wants
        carts = shop.cart + shop.cart_taste * affinity
        purchases = shop.purchase - shop.purchase_price * dear
        return logistic(np.stack([clicks, carts, purchases]))

    def values(self, visits: Indexes, items: Indexes) -> Float64:
        """Return float64[3, n]: 1, 1, and the price; see FrozenWorld."""
        values = np.ones((3, *np.broadcast_shapes(visits.shape, items.shape)))
        values[2] = self.items.prices[items]
        return values

    def on_offer(self, visits: Indexes, items: Indexes) -> NDArray[np.bool_]:
        """Return bool[n]: whether the item has come and is not sold out.

        Args:
            visits: Numbers of visits.
            items: As many indexes of items; the two broadcast.
        """
        days = self.plan.days[visits]
        offered: NDArray[np.bool_] = (self.items.first_days[items] <= days) & (
            days < self.items.last_days[items]
        )
        return offered

    def offered(self, number: int) -> Indexes:
        """Return the indexes of the items on offer at a visit, ascending."""
        return self._offers[int(self.plan.days[number])]

    def pools(self, visits: Indexes) -> Indexes:
        """Return int64[n, pool]: different items on offer, spread evenly over those of the day."""
        pools = np.empty((len(visits), self._pool), np.int64)
        days = self.plan.days[visits]
        for day in np.unique(days).tolist():
            mine, offer = np.flatnonzero(days == day), self._shuffled[day]
            luck = self._pool_chance.at(visits[mine, None], np.arange(self._pool + 1))

            # One of each equal part of the day's list, which begins anywhere.
            bounds = np.arange(self._pool + 1) * len(offer) // self._pool
            places = bounds[:-1] + (luck[:, 1:] * np.diff(bounds)).astype(np.int64)
            begin = (luck[:, :1] * len(offer)).astype(np.int64)
            pools[mine] = offer[(places + begin) % len(offer)]
        return pools

    def recent(self, number: int) -> Sequence[int]:
        """Return indexes of the items opened in the session up to a visit, the last one last."""
        plan = self.plan
        path: list[int] = plan.paths[plan.sessions[number], : plan.steps[number] + 1].tolist()
        return path

    def log_weights(self, items: Indexes) -> Float64:
        """Return the popularity of the items."""
        weights: Float64 = self.items.popularity[items]
        return weights

    def means_without_order(self, number: int, items: Indexes) -> Float64:
        """Return float64[n]: the expected reward of items to one who cannot tell the pages' order.

        All else is known: the user, the time, and which pages the session has had. The mean is over
        the orders in which these can have been opened, by their probabilities.

        Args:
            number: The visit.
            items: Indexes of items.
        """
        shop, pages = self._shop, self.items.categories[list(self.recent(number))]
        user = self.plan.users[number]
        day = self.plan.times[number] - start_ms(shop)
        likings = category_likings(
            shop, self.seed, self.users.tastes[[user]], np.array([day / DAY_MS]), self.items
        )[0]
        follows = np.zeros((len(likings), len(likings)))
        follows[np.arange(len(likings)), self.items.successors] = shop.follow
        follows += (1.0 - shop.follow) * likings / likings.sum()

        # Only the last two pages matter, so the other orders need not be told apart.
        visits, kept = np.array([number]), self._wants[number].copy()
        told = self._order_of(pages[-1], pages[-2] if len(pages) > 1 else None)
        mean = np.zeros(len(items))
        try:
            for last, before, probability in order_probabilities(
                pages.tolist(), likings / likings.sum(), follows
            ):
                self._wants[number] = kept - told + self._order_of(last, before)
                mean += probability * self.means(visits, items)
        finally:
            self._wants[number] = kept
        return mean

    def _order_of(self, last: int, before: int | None) -> Float64:
        """Return float64[categories]: how much the last two pages raise the logits."""
        shop, raised = self._shop, np.zeros(self._shop.categories)
        raised[self.items.successors[last]] += shop.order
        raised[last] -= shop.fatigue
        if before is not None:
            raised[self.items.successors[before]] += shop.order * shop.order_fade
        return raised

    def _wanted(self, seed: int) -> Float64:
        """Return float64[visits, categories]: what season, device and order add to the logits."""
        shop, plan, rows = self._shop, self.plan, np.arange(len(self.plan.times))
        wants = seasons_of_shop(shop, seed, (plan.times - start_ms(shop)) / DAY_MS)
        wants += shop.device * Chance(seed, "device").normals(2, shop.categories)[plan.devices]

        pages = self.items.categories[plan.paths]
        last = pages[plan.sessions, plan.steps]
        wants[rows, self.items.successors[last]] += shop.order
        wants[rows, last] -= shop.fatigue

        later = plan.steps > 0
        before = pages[plan.sessions[later], plan.steps[later] - 1]
        wants[rows[later], self.items.successors[before]] += shop.order * shop.order_fade
        return wants

    def _make_offers(self, seed: int) -> None:
        """Find the items on offer on each day, ascending and shuffled."""
        shop, items = self._shop, self.items
        shuffle = Chance(seed, "shuffle").order(shop.items)
        self._offers: list[Indexes] = []
        self._shuffled: list[Indexes] = []
        for day in range(int(np.ceil(shop.days))):
            offered = (items.first_days <= day) & (day < items.last_days)
            self._offers.append(np.flatnonzero(offered))
            self._shuffled.append(shuffle[offered[shuffle]])

        fewest = min(map(len, self._offers))
        self._pool = min(shop.pool, fewest)
        if self._pool < shop.slots:
            raise InvalidFieldError(
                f"slots: {shop.slots} slots, and on some day only {fewest} items are on offer;"
                " raise items, or lower new_share and sold_out_share",
                "slots",
            )

    def _people(self, seed: int) -> Population:
        shop, plan, items = self._shop, self.plan, self.items
        groups = invented_words(Chance(seed, "group names"), shop.groups)
        of_users = [groups[at] for at in self.users.groups.tolist()]
        hours = (plan.times - start_ms(shop)) // (DAY_MS // 24) % 24

        return Population(
            item_ids=items.ids(),
            user_ids=user_ids(seed, shop.users),
            times=plan.times,
            users=plan.users,
            context={
                "group": Coded(of_users, plan.users),
                "device": Coded(_DEVICES, plan.devices),
                "hour": Coded([float(hour) for hour in range(24)], hours),
            },
            items={**items.columns(), **self._availability()},
            features=items.features(),
            user_columns={"group": of_users},
            views=plan.paths[plan.sessions, plan.steps],
            sessions=plan.sessions,
        )

    def _availability(self) -> dict[str, list[int | None]]:
        """Return columns of items.csv: when items come and go, in milliseconds since 1970."""
        begin = start_ms(self._shop)
        return {
            "available_from": [
                begin + day * DAY_MS if day else None for day in self.items.first_days.tolist()
            ],
            "available_until": [
                None if day == FOR_EVER else begin + day * DAY_MS
                for day in self.items.last_days.tolist()
            ],
        }
