"""What a search for a policy tried: a part of a report."""

from typing import Any

import msgspec

NEVER = -1e300
"""The lower end of what cannot be relied on."""


class Trial(msgspec.Struct, frozen=True):
    """What a spec scored in a rung, having learned from ``rows``.

    ``lower``: the lower end of DR's 95% interval on the selecting rows, by which it was ranked; a
    value that cannot be relied on ranks last.
    """

    spec: str
    rung: int
    rows: int
    value: float
    lower: float
    verdict: str
    kept: bool


class SearchSummary(msgspec.Struct, frozen=True):
    """``best``: the spec found, as its YAML would hold it.

    ``trials``: rung by rung, the best first.
    """

    best: dict[str, Any]
    trials: list[Trial]
