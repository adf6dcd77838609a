"""How rewards join decisions: a part of the spec."""

from bisect import insort
from typing import Annotated, Literal

import msgspec

UNNAMED = ""
"""The signal of a reward that names none."""
LONGEST_S = 30 * 86400

PageReward = Literal["sum", "largest"]
"""What a page earns: what its slots earn together, or the most that one of them does."""
Aggregation = Literal["first", "last", "sum", "max", "min", "average", "median"]
OF_ALL: frozenset[Aggregation] = frozenset(("average", "median"))
"""Those that do not follow from what was made of the rewards before and from one more."""


class JoinRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How rewards join decisions.

    Attributes:
        window_s: how long a decision waits for its rewards, in seconds from its entry. A later
            reward is late as long as the decision is remembered, one more window.
        default_reward: the reward of a decision that got none.
        aggregation: which of several rewards of a slot counts, or what is made of them all.
        learn: whether a decision is learned when its window closes, or at once with the default
            reward and then corrected by each reward that counts.
        late: whether a late reward is ignored, or corrects the model.
        page_reward: what each slot of a page is taught: the ``sum`` of what its slots earned, or
            the ``largest`` of it. Without it each is taught what it earned itself.
    """

    window_s: Annotated[float, msgspec.Meta(gt=0, le=LONGEST_S)] = 600.0
    default_reward: float = 0.0
    aggregation: Aggregation = "first"
    learn: Literal["at_close", "as_it_arrives"] = "at_close"
    late: Literal["ignore", "correct"] = "ignore"
    page_reward: PageReward | msgspec.UnsetType = msgspec.UNSET

    @property
    def window_ms(self) -> int:
        """The window in milliseconds, the log's unit of time."""
        return round(self.window_s * 1000)

    def shortened(self, window_s: float) -> "JoinRule":
        """Return the rule with no window above this one, in seconds."""
        return msgspec.structs.replace(self, window_s=min(window_s, self.window_s))


class SignalRule(msgspec.Struct, frozen=True):
    """How rewards of one signal join.

    Attributes:
        weight: what one is worth.
        window_ms: how long a decision waits for them, in milliseconds from its entry.
        aggregation: which of several of a slot counts, or what is made of them all.
    """

    weight: float
    window_ms: int
    aggregation: Aggregation


class SignalledRule(JoinRule, frozen=True):
    """How rewards join decisions where they name their signals.

    The reward of a slot is the sum of what its signals are worth: of each that came its weight
    times its aggregate, in the order of their names. ``window_s`` is the longest of all windows.

    Attributes:
        signals: by name, in the order of names; that of rewards which name none is UNNAMED.
    """

    signals: dict[str, SignalRule] = {}

    def shortened(self, window_s: float) -> "SignalledRule":
        """Return the rule with no window above this one, in seconds."""
        most = round(window_s * 1000)
        signals = {
            name: msgspec.structs.replace(each, window_ms=min(most, each.window_ms))
            for name, each in self.signals.items()
        }
        return msgspec.structs.replace(self, window_s=min(window_s, self.window_s), signals=signals)

    def is_past(self, signal: str | None, age_ms: int) -> bool:
        """Return whether a reward is late, though its decision may still be open for others.

        Args:
            signal: what it names.
            age_ms: how long after its decision it came.
        """
        own = self.signals.get(signal or UNNAMED)
        return own is not None and age_ms >= own.window_ms

    def total(self, parts: dict[str, float]) -> float:
        """Return the reward of a slot.

        Args:
            parts: the aggregates of the signals that came, at least one.
        """
        # Begun with the first, so that one reward of weight 1 is itself, bit for bit.
        signals = self.signals
        worths = [signals[name].weight * parts[name] for name in sorted(parts)]
        total = worths[0]
        for worth in worths[1:]:
            total += worth
        return total


def aggregate(
    aggregation: Aggregation, before: float | None, value: float, came: list[float]
) -> float:
    """Return the aggregate of a slot's rewards with one more.

    Args:
        aggregation: how they are put together.
        before: of those until now; None: there were none.
        value: the new one's.
        came: what is kept of those until now, brought up to date; only of an aggregation that is
            ``OF_ALL``.
    """
    if aggregation == "average":
        return _average(came, value)
    if aggregation == "median":
        return _median(came, value)
    if before is None or aggregation == "last":
        return value
    if aggregation == "sum":
        return before + value
    if aggregation == "max":
        return max(before, value)
    return min(before, value) if aggregation == "min" else before


def _average(came: list[float], value: float) -> float:
    """Return the mean with one more; ``came`` is how many there are, and their sum."""
    if not came:
        came[:] = 1.0, value
        return value
    came[0] += 1.0
    came[1] += value
    return came[1] / came[0]


def _median(came: list[float], value: float) -> float:
    """Return the median with one more; of an even number the mean of the two in the middle."""
    insort(came, value)
    middle, odd = divmod(len(came), 2)
    return came[middle] if odd else (came[middle - 1] + came[middle]) / 2.0
