"""The spec that ``banditloop train`` writes for what it has trained, chosen by measurement."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bandits.errors import DataSetError
from serve_app.cli.terminal import progress_bar, say

if TYPE_CHECKING:
    from bandits.values import FeatureMap
    from policies.data.coded import CodedEvents
    from policies.data.manifest import WeightOptions
    from policies.training.fits import TrainConfig
    from simulator.ranking.asking import TrainedModels
    from simulator.ranking.report import RankingReport
    from simulator.training.place import Place

USUAL: Mapping[str, Any] = {
    "exploration": {"kind": "lints", "scale": 0.12, "draws": 64},
    "floor": 0.01,
    "prior": {"strength": 0.02},
    "join": {"window_s": 600, "default_reward": 0, "aggregation": "first"},
}
"""Fields that no data set tells: how much to explore, how much what users did without being asked
counts beside what they do when they are, how long a decision waits for a reward."""
LEARNER: Mapping[str, Any] = {
    "kind": "ridge",
    "l2": 30.0,
    "max_features": 512,
}
"""Nothing is crossed with the context: what the prior does not know of a context, such as an hour
that only requests have, is explored for a long time."""
POOL = 240
"""Candidates that all sources are asked for together where nothing can be measured: what they
propose all of them have to score, and in the small shop 17 sources earned no less by 16 or 20
candidates each than by 30 (docs/benchmarks/sources.md)."""
USERS = 2_000
"""Users that a spec is chosen by at most: as many as intervals of a hundredth need."""


@dataclass(frozen=True, slots=True)
class SpecPaths:
    """Where a spec will be, and what it names."""

    spec: Path
    artifact: Path
    profiles: Path

    def relative(self, path: Path) -> str:
        """Return a path as the spec has it: relative, so that all can be moved together."""
        return os.path.relpath(path.absolute(), self.spec.absolute().parent)


def choose_text(
    data: str,
    events: "CodedEvents",
    items: Sequence[Mapping[str, Any]],
    weights: "WeightOptions",
    contexts: "Mapping[str, FeatureMap]",
    sources: Sequence[str],
    paths: SpecPaths,
    seed: int,
    config: "TrainConfig | None",
    place: "Place",
) -> str:
    """Return a policy's YAML, chosen by what users did after the first part of the events.

    Where that cannot be measured it names all sources, and says why.

    Args:
        data: the data set's name, which becomes the policy's.
        events: all of them.
        items: the catalogue.
        weights: what events are worth.
        contexts: by user, what a caller will send.
        sources: the names of those trained.
        paths: where the spec will be, and what it names.
        seed: of all random numbers.
        config: what sources are fitted with; None for the usual.
        place: where sources are fitted.
    """
    from simulator.ranking.choose import ChosenSpec, choose_spec

    name, artifact = policy_name(data), paths.relative(paths.artifact)
    try:
        report = _measure(data, events, items, weights, contexts, sources, seed, config, place)
        chosen = choose_spec(report, name=name, artifact=artifact)
    except DataSetError as error:
        say(f"the spec names every source, for nothing can be measured: {error.message}")
        listed = [{"kind": "artifact", "name": source} for source in sources]
        chosen = ChosenSpec(
            {"name": name, "sources": listed, "artifact": artifact, "limit": usual_limit(sources)},
            {"": (f"Every source that could be trained: {error.message}",)},
        )

    fields = {"profiles": paths.relative(paths.profiles), **USUAL}
    if "learner" not in chosen.fields:
        fields["learner"] = LEARNER
    missing = {name: value for name, value in fields.items() if name not in chosen.fields}
    return chosen.with_fields(**missing).yaml


def usual_limit(sources: Sequence[str]) -> int:
    """Return how many candidates each of some sources is asked for where nothing is measured.

    Args:
        sources: their names; scorers propose nothing.
    """
    from policies.sources.scorers.artifact_scorer import SCORERS
    from policies.training.prior import LIMIT

    proposing = [name for name in sources if name not in SCORERS]
    return min(LIMIT, POOL // max(1, len(proposing)))


def _measure(
    data: str,
    events: "CodedEvents",
    items: Sequence[Mapping[str, Any]],
    weights: "WeightOptions",
    contexts: "Mapping[str, FeatureMap]",
    sources: Sequence[str],
    seed: int,
    config: "TrainConfig | None",
    place: "Place",
) -> "RankingReport":
    from policies.training.fits import FITS
    from simulator.ranking.automatic import evaluate_by_first_split
    from simulator.ranking.evaluate import RankingOptions
    from simulator.ranking.training import train_on

    with progress_bar(transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        def train(part: "CodedEvents", purpose: str) -> "TrainedModels":
            return train_on(
                part,
                items,
                sources=sources,
                config=config,
                contexts=contexts,
                seed=seed,
                progress=lambda source, done, total: show(f"{purpose}: {source}", done, total),
                map_tasks=place.map_tasks,
                checkpoints=place.checkpoints,
            )

        # What is seldom worth its time is served where a blend misses it.
        blend = any(not FITS[name].usual for name in sources)
        options = RankingOptions(seed=seed, most_users=USERS, blend=blend)
        return evaluate_by_first_split(
            data, events, items, weights, options, train, contexts=contexts, progress=show
        )


def policy_name(data: str) -> str:
    """Return a name that a policy may have, made of a data set's."""
    name = re.sub(r"[^a-z0-9_-]+", "-", data.lower()).lstrip("-_")[:64]
    return name or "policy"


def write_text(path: Path, text: str) -> None:
    """Write a file; whoever reads it meanwhile sees the old one or the new one.

    Args:
        path: the file.
        text: what it will hold.
    """
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)
