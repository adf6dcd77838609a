"""The fields ``signals`` and ``on_change`` of a policy spec: what kinds of rewards are worth."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Literal

import msgspec

from bandits.durations import duration_ms
from bandits.errors import InvalidFieldError, SpecError
from bandits.log.join_rule import (
    LONGEST_S,
    UNNAMED,
    Aggregation,
    JoinRule,
    SignalledRule,
    SignalRule,
)
from policies.profiles.options import SHOWN, TypeName, Weight

REWARD = "reward"
"""What a reward that names no signal is called where signals are counted, and in a profile."""
MAX_SIGNALS = 32


class SignalOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What rewards of one signal are worth, and how they join.

    Attributes:
        weight: by what each is multiplied.
        window: how long a decision waits for them, as ``7d``: a number and s, m, h, d or w; by
            default as long as join.window_s says. A decision closes with its longest window.
        aggregation: which of several of a slot counts, or what is made of them all; by default as
            join.aggregation says.
    """

    weight: Weight
    window: str | msgspec.UnsetType = msgspec.UNSET
    aggregation: Aggregation | msgspec.UnsetType = msgspec.UNSET

    def window_ms(self, otherwise: int) -> int:
        """Return the window in milliseconds.

        Args:
            otherwise: what it is where none is given.
        """
        return otherwise if self.window is msgspec.UNSET else duration_ms(self.window)


Signals = Annotated[dict[TypeName, Weight | SignalOptions], msgspec.Meta(min_length=1)]
OnChange = Literal["keep", "relearn"]


def signal_types(signals: Mapping[str, Weight | SignalOptions]) -> dict[str, float]:
    """Return what rewards may be called in a profile, with the weight of each.

    Args:
        signals: the spec's; none where its rewards name no signals.
    """
    weights = {name: _options(given).weight for name, given in signals.items()}
    return {REWARD: 1.0, **weights}


def signalled_rule(join: JoinRule, signals: Mapping[str, Weight | SignalOptions]) -> SignalledRule:
    """Return how rewards join decisions where they name their signals.

    A reward that names none is worth its value, and joins as ``join`` says.

    Args:
        join: the spec's.
        signals: the spec's.
    """
    return _made(join, tuple(signals.items()))


@lru_cache(maxsize=256)
def _made(join: JoinRule, signals: tuple[tuple[str, Weight | SignalOptions], ...]) -> SignalledRule:
    rules = {UNNAMED: SignalRule(1.0, join.window_ms, join.aggregation)}
    for name, each in sorted(signals, key=lambda named: named[0]):
        given = _options(each)
        way = join.aggregation if given.aggregation is msgspec.UNSET else given.aggregation
        rules[name] = SignalRule(float(given.weight), given.window_ms(join.window_ms), way)

    longest_ms = max(rule.window_ms for rule in rules.values())
    window_s = join.window_s if longest_ms == join.window_ms else longest_ms / 1000
    fields = {**msgspec.structs.asdict(join), "window_s": window_s}
    return SignalledRule(**fields, signals=rules)


def check_signals(signals: Mapping[str, Weight | SignalOptions]) -> None:
    """Refuse signals that cannot be.

    Args:
        signals: the spec's.

    Raises:
        SpecError: it names the signal.
    """
    if len(signals) > MAX_SIGNALS:
        raise SpecError(f"a policy has at most {MAX_SIGNALS} signals", "signals")

    for name, given in signals.items():
        if name in (REWARD, SHOWN):
            raise SpecError(f"{name!r} is taken: call the signal something else", f"signals.{name}")
        try:
            window_ms = _options(given).window_ms(1)
        except InvalidFieldError as error:
            raise SpecError(error.message, f"signals.{name}.window") from error
        if not 0 < window_ms <= 1000 * LONGEST_S:
            raise SpecError(
                f"a window is above 0, at most {LONGEST_S // 86400}d", f"signals.{name}.window"
            )


def check_on_change(
    on_change: OnChange,
    signals: Mapping[str, Weight | SignalOptions],
    *,
    learns: bool,
    parts: int,
    sums: bool,
) -> None:
    """Refuse to learn anew where there is nothing to, or where it cannot be.

    Args:
        on_change: the spec's.
        signals: the spec's.
        learns: whether its learner does.
        parts: its partitions.
        sums: whether what they have learned is added up, so that each can learn its log anew.

    Raises:
        SpecError: it says what to do.
    """
    if not signals:
        raise SpecError("no weights can change: set signals, or leave it out", "on_change")
    if not learns:
        raise SpecError(
            "a policy that learns nothing has nothing to keep: leave it out", "on_change"
        )
    if on_change == "relearn" and parts > 1 and not sums:
        raise SpecError(
            "each partition of this learner goes on from what all have learned, and cannot learn"
            " its log anew: set partitions to 1, keep, or take the learner ridge",
            "on_change",
        )


def _options(given: Weight | SignalOptions) -> SignalOptions:
    return given if isinstance(given, SignalOptions) else SignalOptions(given)
