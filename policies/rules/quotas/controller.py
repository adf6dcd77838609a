"""The controller of quotas: what is added to the scores of a group so that its share comes out.

Each quota has a price, the dual variable of its constraint in the problem "as much reward as
possible, each share within its bound": at the right price, choosing by score plus price is that
problem's solution, so no other way of holding the quota costs less. The price moves against the
error of the share that was measured, in its logarithm: dual mirror descent with the entropic mirror
map (Balseiro, Lu & Mirrokni 2023, doi:10.1287/opre.2021.2242, algorithm 1). So no step has to know
in which unit rewards are.

Differs from the paper: the budget is a share, and not spent once and for all; errors are in units
of share * (1 - share), the variance of a single choice; the step grows with the error of the last
while, so that a new quota is held within minutes, and one that holds is hardly moved.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from policies.rules.quotas.compiled import Goal, Quotas
from policies.rules.quotas.measure import Shares
from policies.rules.quotas.quota import MOST_FLOORS, QuotaState, group_name

PERIOD_MS: Final = 1000
"""How long shares are measured before prices move."""
STARTS: Final = 1e-3
"""Where a price begins, as a share of its cap."""
LEAST: Final = 1e-6
"""A price that is not more than this share of its cap is none."""
LOG_LEAST: Final = math.log(LEAST)
STEP_S: Final = 0.07
"""The largest step of a second, in logarithms: a decision obeys a price some seconds later."""
STEP_WITHIN: Final = 20.0
"""The step of a quota that holds, in the time within which it is to come out."""
STEP_CHOICE: Final = 0.05
"""The largest step of one choice, in the error of its share: few of them say little."""
FRESH_CHOICE: Final = 0.05
"""How much one choice counts in the error of the last while, times share * (1 - share)."""
TOLERATED: Final = 0.1
"""The error at which steps begin to grow."""
CHANGED: Final = 0.01
"""A price that has moved by less than this share of it is the same."""


@dataclass(slots=True)
class _Price:
    """A price by its logarithm, as a share of its cap; and the error of the last while."""

    goal: Goal
    log: float = math.log(STARTS)
    error: float = 0.0
    share: float = math.nan

    @property
    def value(self) -> float:
        """What is added to a score."""
        if self.log <= LOG_LEAST:
            return 0.0
        return float(f"{self.goal.sign * self.goal.cap * math.exp(self.log):.4g}")

    @property
    def state(self) -> QuotaState:
        """How what it is of stands."""
        share = None if math.isnan(self.share) else self.share
        return QuotaState(share, self.goal.share, self.value, self.log == 0.0)

    def move(self, share: float, choices: float, passed_s: float, goal: float) -> None:
        """Move against the error of a share that was measured.

        Args:
            share: of all choices.
            choices: how many there were.
            passed_s: how long that took, in seconds.
            goal: what it is to come to.
        """
        unit, within_s = goal * (1.0 - goal), self.goal.within_s
        error = self.goal.sign * (goal - share) / unit

        # The last while is long enough for what is measured in it to mean something.
        while_s = min(60.0, max(5.0, within_s / 60.0))
        fresh = min(1.0 - math.exp(-passed_s / while_s), FRESH_CHOICE * unit * choices)
        self.error += fresh * (error - self.error)
        self.share = share if math.isnan(self.share) else self.share + fresh * (share - self.share)

        # What is far off on the whole is slowed down, and no single error is cut: that would move
        # the mean of many.
        far = abs(self.error)
        grown = 1.0 + (far / TOLERATED) ** 2
        step = min(
            STEP_S * passed_s / max(1.0, far),
            grown * STEP_WITHIN / within_s * passed_s,
            grown * STEP_CHOICE * unit * choices,
        )
        self.log = min(0.0, max(LOG_LEAST, self.log + step * error))


class Controller:
    """Holds the quotas of a policy. A pure function of what it is told, in its order.

    Args:
        quotas: the policy's.
    """

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self._prices = {name: _Price(goal) for name, goal in quotas.goals.items()}
        self._groups: dict[str, _Price] = {}
        self._since_ms: int | None = None
        self._measured = Shares()

    @property
    def prices(self) -> dict[str, float]:
        """What is added to the scores of each group, of those to which anything is."""
        known = {**self._prices, **self._groups}
        return {name: value for name in sorted(known) if (value := known[name].value)}

    @property
    def states(self) -> dict[str, QuotaState]:
        """How each quota and each group that was met stands, by its name."""
        known = {**self._prices, **self._groups}
        return {name: price.state for name, price in sorted(known.items())}

    def measured(self, time_ms: int, shares: Shares) -> None:
        """Take what was measured of a decision; move the prices once a second.

        Args:
            time_ms: when it was made, in ms; one that is told again does not count.
            shares: of its slots.
        """
        if self._since_ms is None:
            self._since_ms = time_ms
        passed_ms = time_ms - self._since_ms
        if passed_ms < 0:
            return
        if passed_ms >= PERIOD_MS:
            self._move(passed_ms / 1000)
            self._since_ms, self._measured = time_ms, Shares()
        self._measured.add(shares)

    def obey(self, prices: Mapping[str, float]) -> None:
        """Go on from prices that somebody else has set."""
        floor, group = self._quotas.floor, self._quotas.group
        if floor is not None and group is not None:
            prefix = group_name(group, "")
            for name in prices:
                if name.startswith(prefix):
                    self._groups.setdefault(name, _Price(floor))

        known = {**self._prices, **self._groups}
        for name, price in known.items():
            share = abs(prices.get(name, 0.0)) / price.goal.cap
            if share > 0 or price.log > math.log(STARTS):
                price.log = math.log(min(1.0, max(LEAST, share)))

    def changed_from(self, prices: Mapping[str, float]) -> bool:
        """Return whether prices are others than these, by more than a little."""
        own = self.prices
        return own.keys() != prices.keys() or any(
            abs(price - prices[name]) > CHANGED * abs(prices[name]) for name, price in own.items()
        )

    def _move(self, passed_s: float) -> None:
        found = self._measured
        if not found.slots:
            return

        # A group of which nothing could be chosen is not moved: nothing it is given would help.
        for name, mass in found.quotas.items():
            price = self._prices[name]
            price.move(mass / found.slots, found.slots, passed_s, price.goal.share)

        floor, group = self._quotas.floor, self._quotas.group
        if floor is None or group is None:
            return
        for value in found.groups:
            self._groups.setdefault(group_name(group, value), _Price(floor))
        goal = min(floor.share, MOST_FLOORS / len(self._groups)) if self._groups else floor.share
        for value, mass in found.groups.items():
            price = self._groups[group_name(group, value)]
            price.move(mass / found.slots, found.slots, passed_s, goal)
