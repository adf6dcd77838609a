"""An evaluation without being told how: by the first split that there is, for a spec's choice."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from bandits.errors import BanditloopError, DataSetError
from bandits.values import FeatureMap
from policies.data.coded import CodedEvents
from policies.data.data_set import DataSet
from policies.data.manifest import WeightOptions
from simulator.ranking.evaluate import (
    Progress,
    RankingOptions,
    Train,
    evaluate_sources,
    silent,
)
from simulator.ranking.report import RankingReport
from simulator.ranking.splits import SPLITS

CONTEXT_KINDS: Final = frozenset({"category", "flag", "number", "list"})
"""Kinds of columns of users that a caller could send as context."""


def evaluate_by_first_split(
    name: str,
    events: CodedEvents,
    items: Sequence[Mapping[str, Any]],
    weights: WeightOptions,
    options: RankingOptions,
    train: Train,
    *,
    contexts: Mapping[str, FeatureMap] | None = None,
    progress: Progress = silent,
) -> RankingReport:
    """Evaluate sources by the first split that the data set allows.

    Splits are tried in their order: by global time, by each user's time, the last event of each
    user.

    Args:
        name: of the data set.
        events: all of its events.
        items: of the data set, ``{"id", "features"}``.
        weights: what its events are worth.
        options: how to judge, whatever their split.
        train: trains the sources on a part of the events.
        contexts: by user, what a caller would say of each with a request.
        progress: told of steps.

    Raises:
        DataSetError: no split judges anybody; it says why of each.
    """
    reasons = list[str]()
    for split in SPLITS:
        try:
            return evaluate_sources(
                name,
                events,
                items,
                weights,
                replace(options, split=split),
                train,
                contexts=contexts,
                progress=progress,
            )
        except BanditloopError as error:
            reasons.append(error.message)
    raise DataSetError(f"nothing can be measured: {'; '.join(dict.fromkeys(reasons))}", "data")


def user_contexts(data: DataSet) -> Mapping[str, FeatureMap]:
    """Return what a caller could say of each user with a request: the data set's own columns."""
    table = data.users()
    names = [n for n, kind in data.manifest.user_columns.items() if kind in CONTEXT_KINDS]
    if table is None or not names:
        return {}
    rows = table.select(["id", *names]).to_pylist()
    return {row.pop("id"): _context(row) for row in rows}


def _context(row: dict[str, Any]) -> FeatureMap:
    """Return the values of a row that are known, as a request would have them."""
    known: FeatureMap = {}
    for name, value in row.items():
        if isinstance(value, bool | str):
            known[name] = value
        elif isinstance(value, list):
            known[name] = [text for text in value if text is not None]
        elif value is not None and math.isfinite(value):
            known[name] = float(value)
    return known
