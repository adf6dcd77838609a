"""What is known of who asks for a decision: what sources are told, and what does not come again."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import mul
from typing import Generic, NamedTuple, TypeVar

import msgspec

from bandits.log.codec import digest
from policies.profiles.options import MAX_ITEMS, SHOWN, ProfileOptions, Repeat, type_of
from policies.profiles.part import ProfileEvent
from policies.profiles.user_profile import UserProfile

REWARD = "reward"
"""The type of a reward that names no signal; where no weight of it is said, it is 1."""
REMEMBERED = 1_000
"""Users of whom it is remembered what follows from what they did."""
NOTHING = "0" * 16
"""The version of the profile of a user of whom no log says anything."""

Events = tuple[ProfileEvent, ...]
T = TypeVar("T")


class LiveHistory(NamedTuple):
    """What a user did of late, as sources read it.

    Attributes:
        key: two of the same key are the same.
        weights: by item, oldest first, how strongly it speaks for itself (1 = as much as one sent
            with a request).
        earlier: what all that was known before may weigh, in all.
    """

    key: str
    weights: Mapping[str, float]
    earlier: float = math.inf


class Before(NamedTuple):
    """What a user did before the log began, as a file of profiles has it.

    Attributes:
        version: its digest.
        events: newest first; the entry's time is that of the event.
    """

    version: str
    events: Events


class KnownUser(msgspec.Struct, frozen=True):
    """What is known of who asks for a decision.

    Attributes:
        pseudonym: what the decision is logged under; None: nobody is named, or it is not known.
        profile: what is known of them; None: nobody is named, or it could not be read.
        visit: what this visit was shown.
        whole: whether all of that could be read, and says all that the logs say.
        filed: whether a file of profiles may be asked about the id that they gave, too.
        filed_as: the keyed pseudonyms of other ids of theirs, which it may be asked about.
        before: what such a file says that they did, as far as rules look at it; None: nothing.
    """

    pseudonym: str | None = None
    profile: UserProfile | None = None
    visit: frozenset[str] = frozenset()
    whole: bool = True
    filed: bool = True
    filed_as: tuple[str, ...] = ()
    before: Before | None = None

    @property
    def version(self) -> str | None:
        """What the decision's record says of the profile; see ``DecisionRecord.profile``."""
        if not self.whole:
            return ""
        if self.profile is None:
            return None
        version = self.profile.version or NOTHING
        return version if self.before is None else _joined(version, self.before.version)

    @property
    def did(self) -> Events:
        """What they did, newest first: what the log says, and behind it what a file does."""
        did = () if self.profile is None else self.profile.events
        return did if self.before is None else did + self.before.events


def named_in_files(keyed: str | None, known: KnownUser) -> tuple[str, ...]:
    """Return the keyed pseudonyms that files of profiles are asked about.

    Args:
        keyed: that of the id that was given; None: none was.
        known: whose it is.
    """
    if keyed is None:
        return ()
    if not known.filed_as:
        return (keyed,) if known.filed else ()
    own = (keyed,) if known.filed and keyed not in known.filed_as else ()
    return (*known.filed_as, *own)


def live_history(events: Events, options: ProfileOptions) -> LiveHistory | None:
    """Return the newest items that speak for themselves; None if there are none.

    Of what a user did with an item the strongest counts, as in training. What speaks against an
    item undoes what was done with it before. The newest speaks as strongly as its weight says, and
    each older one less.

    Args:
        events: of the user's profile, newest first.
        options: how many items are told, how strongly each type speaks, and how fast that fades.
    """
    weight_of = {REWARD: 1.0, **options.types}.get
    weights: dict[str, float] = {}
    against: set[str] = set()
    for _, _, _, item, kind in events:
        weight = weight_of(kind, 0.0)
        if weight < 0:
            against.add(item)
        elif weight > weights.get(item, 0.0) and item not in against:
            if item not in weights and len(weights) == options.items:
                break
            weights[item] = weight
    if not weights:
        return None

    earlier = math.inf
    if options.fade:
        factor, shares = _faded(options.fade)
        weights = dict(zip(weights, map(mul, weights.values(), shares), strict=False))
        earlier = shares[len(weights)] / (1.0 - factor)
    # Not the profile's version: that is another with every showing, and scores can be kept longer.
    told = dict(reversed(weights.items()))
    return LiveHistory(f"{hash((*told.items(), earlier)):x}", told, earlier)


def _joined(version: str, before: str) -> str:
    return digest(f"{version} {before}".encode())[:16]


@lru_cache
def _faded(fade: float) -> tuple[float, Sequence[float]]:
    """Return the share of an item that stays with each newer one, and by how many newer ones."""
    factor: float = 0.5 ** (1.0 / fade)
    return factor, [factor**age for age in range(MAX_ITEMS + 1)]


class OfEvents(Generic[T]):
    """What follows from a user's events: the same on most pages of a visit, so found once.

    Parts of profiles stay decoded, so often the events are the same object; to look them up by what
    they say is to go through them.
    """

    def __init__(self, find: Callable[[Events], T]) -> None:
        """Find it.

        Args:
            find: what follows from some events.
        """
        self._find = lru_cache(REMEMBERED)(find)
        # The events are kept as well: none that come later have their address.
        self._found: dict[int, tuple[Events, T]] = {}

    def __call__(self, events: Events) -> T:
        """Return what follows from events."""
        known = self._found.get(id(events))
        if known is not None:
            return known[1]
        if len(self._found) >= REMEMBERED:
            del self._found[next(iter(self._found))]
        found = self._find(events)
        self._found[id(events)] = events, found
        return found


class RepeatRules:
    """What a policy offers nobody again."""

    def __init__(self, repeat: Repeat) -> None:
        """Take the rules.

        Args:
            repeat: the spec's.
        """
        rules = {type_of(name): rule for name, rule in repeat.items()}
        # How often an item may have been shown, and in what span; None: as often as may be.
        shown = rules.pop(SHOWN, None)
        self._shown: tuple[int, float] | None = None
        if shown is not None:
            self._shown = (1, math.inf) if shown == "never" else (shown.times, shown.within_ms)
        never = frozenset(name for name, rule in rules.items() if rule == "never")
        self._spans = {name: rule.within_ms for name, rule in rules.items() if rule != "never"}
        self._never: OfEvents[frozenset[str]] = OfEvents(
            lambda events: frozenset(event.item for event in events if event.type in never)
        )

    def held_back(self, known: KnownUser, now_ms: float) -> frozenset[str]:
        """Return the items that may not be chosen for a user.

        Args:
            known: what is known of them.
            now_ms: the time of the log's clock.
        """
        profile, before, out = known.profile, known.before, known.visit
        if before is not None:
            out = out.union(self._done(before.events, now_ms))
        if profile is None:
            return out
        done = self._done(profile.events, now_ms)
        out = out.union(done) if out else done
        if self._shown is not None:
            times, span_ms = self._shown
            often = profile.shown_often(times, int(max(now_ms - span_ms, 0)))
            out = out.union(often) if often else out
        return out

    def _done(self, events: Events, now_ms: float) -> frozenset[str]:
        """Return the items of events that may not come again."""
        spans, out = self._spans, self._never(events)
        if spans:
            out = out.union(
                item
                for _, entry_ms, _, item, kind in events
                if kind in spans and now_ms - entry_ms < spans[kind]
            )
        return out
