"""The fields ``profile`` and ``repeat`` of a policy spec: what is known of users, and what it does.

Both are of a space: its policies share what their users did.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from bandits.durations import duration_ms
from bandits.errors import InvalidFieldError, SpecError

SHOWN = "shown"
"""What ``repeat`` says of items that were merely chosen for a user."""
PURCHASED = "purchased"
"""Another name of the type ``purchase`` in ``repeat``."""
TYPES = {"view": 1.0, "click": 1.0, "cart": 1.0, "purchase": 1.0}
MAX_ITEMS = 500

TypeName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$(?!\n)")]
Weight = Annotated[float, msgspec.Meta(ge=-1000, le=1000)]


class ProfileOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of each user, and what their activity may be.

    Attributes:
        items: how many of the newest items, with what was done with them and when.
        types: what users do, and how strongly each speaks for its item to the sources, as a history
            sent with a request does by 1; 0 or less: it does not.
        fade: after so many newer items an item speaks half as strongly, and all that a file says of
            the user as the rest of that row would; 0: items of long ago speak as strongly as new
            ones.
    """

    items: Annotated[int, msgspec.Meta(ge=1, le=MAX_ITEMS)] = 50
    types: dict[TypeName, Weight] = msgspec.field(default_factory=TYPES.copy)
    fade: Annotated[float, msgspec.Meta(ge=0, le=MAX_ITEMS)] = 3.0

    def __post_init__(self) -> None:
        """Refuse a type that ``repeat`` could not tell from what was merely chosen for a user."""
        if SHOWN in self.types:
            raise SpecError(f"{SHOWN!r} is taken: call the type something else", "profile.types")


class Times(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often an item may come in a span of time.

    Attributes:
        times: so often, and not once more.
        within: a duration, as ``1d``; a number and s, m, h, d or w.
    """

    times: Annotated[int, msgspec.Meta(ge=1, le=100)]
    within: str

    @property
    def within_ms(self) -> int:
        """The span in milliseconds."""
        return duration_ms(self.within)


Repeat = dict[str, Literal["never"] | Times]


def type_of(name: str) -> str:
    """Return the type of activity that a key of ``repeat`` is about; ``shown`` is itself."""
    return "purchase" if name == PURCHASED else name


def check_repeat(
    repeat: Mapping[str, Literal["never"] | Times], types: Mapping[str, float]
) -> None:
    """Refuse a rule about what no user does, or in a span that is none.

    Args:
        repeat: the spec's.
        types: what its users do.

    Raises:
        SpecError: it names the key.
    """
    for name, rule in repeat.items():
        if rule != "never":
            _check_span(rule, f"repeat.{name}.within")
        if name != SHOWN and rule != "never" and rule.times > 1:
            raise SpecError(
                "of each item and type a profile has the newest event alone: times is 1 here",
                f"repeat.{name}.times",
            )
        if name != SHOWN and type_of(name) not in types:
            known = ", ".join([SHOWN, *types])
            raise SpecError(f"nobody does {type_of(name)!r}: one of {known}", f"repeat.{name}")


def _check_span(rule: Times, target: str) -> None:
    try:
        positive = rule.within_ms > 0
    except InvalidFieldError as error:
        raise SpecError(error.message, target) from error
    if not positive:
        raise SpecError("a duration is above 0", target)
