"""The report of a refresh: what it trained on, what was measured, and what became of it."""

from collections.abc import Sequence
from typing import Literal

import msgspec

Kind = Literal["accepted", "refused", "measured", "stored"]
"""``measured``: it was only a trial; ``stored``: where the policy does not look."""


ALPHA = 0.05 / 2
"""Intervals of two measures decide: both hold with a probability of 95%."""


class Measure(msgspec.Struct, frozen=True):
    """A measure of the artifact that serves and of a new one, on the same decisions or users.

    Attributes:
        what: the measure.
        of: what it was measured on: ``decisions`` of the log, or ``users``.
        weights: whose weights the blend had with the new artifact: ``current`` or ``taught again``.
        n: how many there were.
        serving: with the artifact that serves; None if there is none.
        fresh: with the new one.
        low: of the difference, fresh less serving: the lower end of its interval, see ALPHA.
        high: the upper end.
        decides: whether the new artifact is refused for it.
        note: what to know of it.
    """

    what: str
    of: str
    weights: str
    n: int
    serving: float | None
    fresh: float
    low: float | None = None
    high: float | None = None
    decides: bool = True
    note: str = ""

    @property
    def worse(self) -> bool:
        """Whether the new artifact is worse by more than the interval."""
        return self.decides and self.high is not None and self.high < 0.0


class ScaleShift(msgspec.Struct, frozen=True):
    """How a source's scores of the same actions moved from one artifact to the other.

    ``shift``: of their mean, in standard deviations of those that serve; ``ratio``: of the standard
    deviations.
    """

    source: str
    shift: float
    ratio: float
    moved: bool


class RefreshReport(msgspec.Struct, frozen=True, kw_only=True):
    """The report of a refresh.

    Attributes:
        policy: its name.
        outcome: what became of the new artifact.
        artifact: its version.
        serving: the version that served when it began; None if none was known.
        sources: what was trained.
        events: how many events it was trained on; ``log_events`` of them are of the log.
        users: of these events.
        items: of these events; ``lacking`` of them the catalogue lacks.
        anonymous: rewarded decisions that name no user, so that nothing was learned of them.
        from_ms: where the window begins, in ms of the log's clock.
        cut_ms: up to when training has seen the log.
        weights: whose weights the blend goes on with: ``current``, or ``taught again``.
        measures: what was measured.
        shifts: how the scale of scores moved.
        notes: what else is to be said.
        train_s: seconds that training took; ``compare_s``: what the comparison took.
        why: why it was refused.
    """

    policy: str
    outcome: Kind
    artifact: str
    serving: str | None
    sources: list[str]
    events: int
    log_events: int
    users: int
    items: int
    lacking: int
    anonymous: int
    from_ms: int
    cut_ms: int
    weights: str
    measures: list[Measure]
    shifts: list[ScaleShift]
    notes: list[str]
    train_s: float
    compare_s: float
    why: str = ""


def why_refused(measures: Sequence[Measure]) -> str:
    """Return which measures an artifact is worse by, in words; "" if by none.

    Args:
        measures: all of those of the weights that it would be served with.
    """
    return "; ".join(
        f"{each.what} of {each.n:,} {each.of}: {each.fresh:.4g} where {each.serving:.4g} is served,"
        f" a difference between {each.low:.4g} and {each.high:.4g}"
        for each in measures
        if each.worse
    )
