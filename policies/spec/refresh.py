"""The field ``refresh`` of a policy spec: when the artifact's sources are trained anew."""

from typing import Literal

import msgspec

from bandits.durations import duration_ms
from bandits.errors import InvalidFieldError, SpecError
from bandits.exploration import Fraction


class Refresh(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a service trains the artifact's sources anew, and on what.

    Attributes:
        every: how long after the last refresh, by the log's clock: ``6h``; a number and s, m, h, d
            or w.
        window: how far back decisions of the log are trained on.
        sources: what to train; the policy's sources of its artifact, by default.
        on: ``process`` (one of the service's own, which yields to all others) or ``ray`` (tasks of
            its cluster).
        data: a data set that is trained on beside the log, relative to the spec's file, or its URI.
        most_lacking: the share of an artifact's items that the catalogue may lack.
    """

    every: str = "6h"
    window: str = "90d"
    sources: list[str] = msgspec.field(default_factory=list)
    on: Literal["process", "ray"] = "process"
    data: str | None = None
    most_lacking: Fraction = 0.5

    def __post_init__(self) -> None:
        """Refuse what is no duration."""
        for field in ("every", "window"):
            try:
                positive = duration_ms(getattr(self, field)) > 0
            except InvalidFieldError as error:
                raise SpecError(error.message, f"refresh.{field}") from error
            if not positive:
                raise SpecError("a duration is above 0", f"refresh.{field}")

    @property
    def every_ms(self) -> int:
        """How long after the last refresh the next begins, in milliseconds."""
        return duration_ms(self.every)

    @property
    def window_ms(self) -> int:
        """How far back the log is trained on, in milliseconds."""
        return duration_ms(self.window)
