"""A spec for a data set without being told how to measure: what ``banditloop train`` writes."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from bandits.errors import BanditloopError, DataSetError
from bandits.values import FeatureMap
from policies.data.data_set import DataSet
from simulator.ranking.choose import ChosenSpec, choose_spec
from simulator.ranking.evaluate import (
    Progress,
    RankingOptions,
    Train,
    evaluate_sources,
    silent,
)
from simulator.ranking.report import RankingReport
from simulator.ranking.splits import SPLITS

USERS: Final = 2_000
"""Users that a spec is chosen by at most."""
CONTEXT_KINDS: Final = frozenset({"category", "flag", "number", "list"})
"""Kinds of columns of users that a caller could send as context."""


def choose_automatically(
    data: DataSet,
    train: Train,
    *,
    name: str,
    artifact: str,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[RankingReport, ChosenSpec]:
    """Evaluate sources by the first split that the data set allows, and choose a spec by it.

    Splits are tried in their order: by global time, by each user's time, the last event of each
    user.

    Args:
        data: the data set.
        train: trains the sources on a part of its events.
        name: of the policy.
        artifact: the path or URI that the spec names.
        seed: of all random choices.
        progress: told of steps.

    Raises:
        DataSetError: no split judges anybody; it says why of each.
    """
    events, items, contexts = data.coded(), data.items(), user_contexts(data)
    reasons = list[str]()
    options = RankingOptions(seed=seed, most_users=USERS)
    for split in SPLITS:
        try:
            report = evaluate_sources(
                data.manifest.name,
                events,
                items,
                data.manifest.weights,
                replace(options, split=split),
                train,
                contexts=contexts,
                progress=progress,
            )
        except BanditloopError as error:
            reasons.append(error.message)
        else:
            return report, choose_spec(report, name=name, artifact=artifact)
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
