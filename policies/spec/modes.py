"""Who decides: the policy itself, or somebody whose apprentice it is."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from bandits.errors import SpecError
from policies.typed_yaml import choices

if TYPE_CHECKING:
    from policies.spec.policy import PolicySpec

APPRENTICE = "apprentice"
IMITATION = "imitation"
_NOT_BESIDE = ("quota", "exposure", "page", "placements")
"""Rules of the whole page, which somebody else fills."""


def check_mode(spec: "PolicySpec") -> None:
    """Refuse an apprentice that cannot be.

    Raises:
        SpecError: it is of a kind that has no choice of its own, or rules a page that it does not
            fill, or its baseline is no source.
    """
    if not spec.is_apprentice:
        return

    if spec.kind == "mixture":
        raise SpecError(
            "a mixture credits the source that it chose by, and under an apprentice it chose by"
            " none: make it a blend",
            "mode",
        )
    for field in _NOT_BESIDE:
        if getattr(spec, field) is not msgspec.UNSET:
            raise SpecError(
                f"somebody else fills the page while mode is {APPRENTICE}: leave {field} out until"
                " the policy decides",
                field,
            )
    names = [source.name for source in spec.sources]
    if spec.baseline is not msgspec.UNSET and spec.baseline not in names:
        known = choices(spec.baseline, names) if names else "there are none"
        raise SpecError(f"the baseline is one of the sources: {known}", "baseline")


def idle_mode(spec: "PolicySpec") -> Iterator[tuple[str, str]]:
    """Yield what is said of an apprentice where there is none, or none that learns.

    Args:
        spec: the policy.
    """
    meant = {
        "learn": "learn says what an apprentice learns",
        "baseline": "baseline says whose choice is served beside an apprentice",
    }
    for field, why in meant.items():
        if getattr(spec, field) is not msgspec.UNSET and not spec.is_apprentice:
            yield field, f"{why}, and this policy decides itself: set mode to {APPRENTICE}"
    if spec.learn is not msgspec.UNSET and not spec.learner.learns:
        yield (
            "learn",
            f"a policy of kind {spec.kind} learns nothing from its log: leave learn out",
        )
