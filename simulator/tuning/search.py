"""The search for what each source is fitted with: successive halving, on Ray Tune.

The first events are fitted on, the next ones tell the trials apart, and the last ones, which no
choice has seen, say what the best of each source is worth: it is taken if it is no worse there than
the unchanged values. Trials come in brackets. In each rung of a bracket those that are left are
fitted for more epochs; the best third goes on, and the unchanged values always do. Successive
halving: Jamieson & Talwalkar 2016 (arXiv:1502.07943). Rungs are run one after another, so that a
seed gives the same table on any cluster. A source whose fit is one piece is fitted whole in every
trial.
"""

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bandits.errors import ArtifactError, BanditloopError, DataSetError
from bandits.types import Float64
from bandits.values import FeatureMap
from policies.data.coded import CodedEvents
from policies.data.manifest import WeightOptions
from policies.training.histories import histories_of
from simulator.ranking.evaluate import weighed_part
from simulator.ranking.metrics.significance import bootstrap, intervals
from simulator.ranking.report import Metric
from simulator.ranking.splits import SPLITS, Split, split_events
from simulator.ranking.task import make_task
from simulator.trials import Scores, run_trials
from simulator.tuning.report import SourceChoice, SourceTrial, TuningReport, describe_values
from simulator.tuning.score import FitPart, FitTask, score_source
from simulator.tuning.spaces import SPACES, values_to_try, with_values

if TYPE_CHECKING:
    from policies.training.fits import TrainConfig
    from policies.training.training_data import TrainingData

BRACKET: Final = 9
HALVING: Final = 3
"""Trials that begin together; one in so many goes on from each rung."""
JUDGES: Final = 2_000
"""Users who judge at most."""

Progress = Callable[[str, int, int], None]
"""Told (what is being done, steps done, steps in all)."""
RunTrials = Callable[..., Mapping[int, Scores]]
"""``run_trials``, or the like of it."""


@dataclass(frozen=True, slots=True)
class SearchBudget:
    """How long to search: ``trials`` of each source, and ``minutes`` in all, None for no end.

    Where time ends first, the table is the beginning of what it would have been.
    """

    trials: int = BRACKET
    minutes: float | None = None


def search_sources(
    name: str,
    events: CodedEvents,
    items: Sequence[Mapping[str, Any]],
    weights: WeightOptions,
    budget: SearchBudget,
    *,
    sources: Sequence[str] | None = None,
    config: "TrainConfig | None" = None,
    contexts: Mapping[str, FeatureMap] | None = None,
    seed: int = 0,
    address: str = "local",
    progress: Progress = lambda *_: None,
    run: RunTrials = run_trials,
) -> "tuple[TrainConfig, TuningReport]":
    """Search for what sources are fitted with; return that, and the table of trials.

    Args:
        name: of the data set.
        events: all of its events.
        items: of the data set, ``{"id", "features"}``.
        weights: what its events are worth.
        budget: how long to search.
        sources: which; every usual one that the events are enough for, by default.
        config: the unchanged hyperparameters.
        contexts: by user, what a caller will say of each with a request.
        seed: of the draws, the fits and the sample of users.
        address: of the Ray cluster, as ``OnRay`` takes it.
        progress: told of steps.
        run: makes the trials of a rung.

    Raises:
        ArtifactError: a source is unknown, or none of them can be searched.
        DataSetError: the events cannot be split, or nobody can judge.
    """
    from policies.training.fits import TrainConfig  # noqa: PLC0415 - torch

    config = config or TrainConfig()
    parts = _parts(events, items, weights, config, contexts or {}, seed)
    searched, notes = _searched(sources, parts.early.data, config)

    with tempfile.TemporaryDirectory(prefix="banditloop-search-") as folder:
        table = _Table(
            {source: values_to_try(source, budget.trials, seed=seed) for source in searched}
        )
        rounds = _Rounds(parts, config, seed, Path(folder), address, budget, progress, run)
        rounds.fill(table)
        if rounds.over:
            notes.append(f"{budget.minutes:g} minutes were over before every trial was made")
        choices = rounds.choose(table)

    for choice in choices:
        config = with_values(config, choice.source, choice.values)
    report = TuningReport(
        data=name,
        seed=seed,
        split=parts.split.name,
        learn_events=parts.learn_events,
        select_events=parts.select_events,
        test_events=parts.test_events,
        select_users=parts.early.judges.users,
        test_users=parts.late.judges.users,
        trials_asked=budget.trials,
        minutes=budget.minutes,
        choices=choices,
        trials=table.rows(),
        notes=[*parts.split.notes, *notes],
    )
    return config, report


def _searched(
    sources: Sequence[str] | None, data: "TrainingData", config: "TrainConfig"
) -> tuple[list[str], list[str]]:
    """Return the sources to search, and what is to be said of the others.

    Raises:
        ArtifactError: there are none.
    """
    from policies.training.fits import EVERY, FITS, choose_sources  # noqa: PLC0415

    # The first part may be too small for what all events are enough for.
    named = None if sources in (None, (EVERY,), [EVERY]) else sources
    if named is not None and not set(named) <= set(FITS):
        choose_sources(named, data, config)
    wanted, left_out = choose_sources(sources if named is None else [EVERY], data, config)
    if named is not None:
        wanted = tuple(source for source in named if source in wanted)
        left_out = {source: why for source, why in left_out.items() if source in named}

    notes = [f"{source} is not searched: {why}" for source, why in left_out.items()]
    if plain := [source for source in wanted if source not in SPACES]:
        notes.append(f"nothing to search of {', '.join(plain)}")
    searched = [source for source in wanted if source in SPACES]
    if not searched:
        raise ArtifactError(f"no source can be searched: {'; '.join(notes)}", "search")
    return searched, notes


@dataclass(frozen=True, slots=True, eq=False)
class _Parts:
    """``early``: the first events, judged by the next; ``late``: both of these, judged by the rest.

    ``split``: of the test part.
    """

    early: FitPart
    late: FitPart
    split: Split
    learn_events: int
    select_events: int
    test_events: int


def _parts(
    events: CodedEvents,
    items: Sequence[Mapping[str, Any]],
    weights: WeightOptions,
    config: "TrainConfig",
    contexts: Mapping[str, FeatureMap],
    seed: int,
) -> _Parts:
    """Split events in three, by the first way that they allow.

    Raises:
        DataSetError: there is no such way; it says why of each.
    """
    from policies.training.content.descriptions import describe  # noqa: PLC0415
    from policies.training.training_data import TrainingData, features_of  # noqa: PLC0415

    catalogue = tuple(dict(item) for item in items)
    said, features = describe(catalogue, config.content), features_of(catalogue)

    def part(whole: CodedEvents, split: Split) -> FitPart:
        histories = histories_of(weighed_part(whole, split, weights))
        judges = make_task(
            whole,
            split,
            histories.items,
            rating_scale=weights.rating_scale,
            most_users=JUDGES,
            seed=seed,
            contexts=contexts,
        )
        return FitPart(TrainingData(histories, said, features, contexts), judges)

    reasons = list[str]()
    for name in SPLITS:
        try:
            last = split_events(events, name)
            before = events.select(last.train).compact()
            middle = split_events(before, name)
            return _Parts(
                part(before, middle),
                part(events, last),
                last,
                int(middle.train.sum()),
                int(middle.test.sum()),
                int(last.test.sum()),
            )
        except BanditloopError as error:
            reasons.append(error.message)
    raise DataSetError(f"nothing can be searched: {'; '.join(dict.fromkeys(reasons))}", "data")


@dataclass(slots=True)
class _Table:
    """Trials and what was found of each: ``values`` by source, ``found`` by (source, trial)."""

    values: Mapping[str, list[dict[str, Any]]]
    found: dict[tuple[str, int, float], Scores] = field(default_factory=dict)
    kept: set[tuple[str, int, float]] = field(default_factory=set)

    def brackets(self) -> list[range]:
        """Return the numbers of the trials that begin together."""
        most = max(map(len, self.values.values()))
        return [range(first, min(first + BRACKET, most)) for first in range(0, most, BRACKET)]

    def mean(self, source: str, trial: int, share: float = 1.0) -> float:
        """Return the mean nDCG of a trial; -inf if there is none."""
        judged = self.found.get((source, trial, share), {}).get("ndcg")
        return -math.inf if judged is None else float(np.mean(judged))

    def best(self, source: str) -> int:
        """Return the best trial that was fitted whole; an earlier one before its equals."""
        numbers = range(len(self.values[source]))
        return max(numbers, key=lambda trial: (self.mean(source, trial), -trial))

    def rows(self) -> list[SourceTrial]:
        """Return all that was found, by source."""
        order = {source: number for number, source in enumerate(self.values)}
        keys = sorted(self.found, key=lambda key: (order[key[0]], key[1], key[2]))
        return [
            SourceTrial(
                source,
                trial,
                self.values[source][trial],
                share,
                None if "note" in found else float(np.mean(found["ndcg"])),
                (source, trial, share) in self.kept,
                round(found["seconds"], 3),
                found.get("note", ""),
            )
            for source, trial, share in keys
            for found in [self.found[source, trial, share]]
        ]


@dataclass(slots=True)
class _Rounds:
    """The rounds of a search, one after another; ``over``: whether time has ended."""

    parts: _Parts
    config: "TrainConfig"
    seed: int
    folder: Path
    address: str
    budget: SearchBudget
    progress: Progress
    run: RunTrials
    over: bool = False
    began: float = field(default_factory=time.monotonic)

    def fill(self, table: _Table) -> None:
        """Make the trials of a table, bracket by bracket."""
        for number, bracket in enumerate(table.brackets()):
            left = {
                source: [trial for trial in bracket if trial < len(values)]
                for source, values in table.values.items()
            }
            shares = _shares(len(bracket))

            for share in shares:
                # A fit that is one piece is made whole at once, so that a short time is enough.
                whole = share == shares[0]
                tasks = [
                    FitTask(source, trial, table.values[source][trial], share if parted else 1.0)
                    for source, trials in left.items()
                    for parted in [SPACES[source].epochs is not None]
                    if parted or whole
                    for trial in trials
                ]
                what = f"bracket {number + 1}, {share:.0%} of the epochs"
                self._run(table, tasks, what)
                if self.over:
                    return
                if share < 1:
                    self._halve(table, left, share)

    def choose(self, table: _Table) -> list[SourceChoice]:
        """Return what becomes of each source, judged on the test part."""
        best = {source: table.best(source) for source in table.values}
        for source, trial in best.items():
            if table.mean(source, trial) > -math.inf:
                table.kept.add((source, trial, 1.0))
        tasks = [
            FitTask(source, number, table.values[source][number])
            for source, trial in best.items()
            if trial != 0
            for number in (0, trial)
        ]
        said = self._trials(tasks, self.parts.late, "judging the best", None) if tasks else {}
        judged = {
            (task.source, task.trial): said[number]["ndcg"]
            for number, task in enumerate(tasks)
            if "ndcg" in said.get(number, {})
        }
        return [self._choice(table, source, trial, judged) for source, trial in best.items()]

    def _choice(
        self,
        table: _Table,
        source: str,
        trial: int,
        judged: Mapping[tuple[str, int], Sequence[float]],
    ) -> SourceChoice:
        values = table.values[source][trial]
        mine, theirs = judged.get((source, trial)), judged.get((source, 0))
        gain = Metric(None)
        taken, reason = trial != 0, "best on the selecting part, and no worse on the test part"
        if mine is not None and theirs is not None and taken:
            gain = _metric(np.array(mine) - np.array(theirs), self.seed)

        if trial == 0:
            reason = "nothing was better on the selecting part"
            if table.mean(source, 0) == -math.inf:
                reason = "no trial could be made whole"
        elif mine is None:
            taken, reason = False, f"{describe_values(values)} could not be fitted on more events"
        elif gain.value is not None and gain.value < 0:
            taken, reason = False, f"{describe_values(values)}: worse on the test part"

        whole = [table.mean(source, number) for number in (trial, 0)]
        best, unchanged = (None if mean == -math.inf else mean for mean in whole)
        return SourceChoice(
            source,
            trial,
            dict(values) if taken else {},
            best,
            unchanged,
            _metric(mine, self.seed),
            _metric(theirs, self.seed),
            gain,
            taken,
            reason,
        )

    def _halve(self, table: _Table, left: dict[str, list[int]], share: float) -> None:
        """Keep the best of each source that was fitted in part, and the unchanged values."""
        for source, trials in left.items():
            if SPACES[source].epochs is None:
                continue
            ranked = sorted(trials, key=lambda trial: (-table.mean(source, trial, share), trial))
            kept = ranked[: max(1, len(trials) // HALVING)]
            left[source] = sorted({*kept, *(trial for trial in trials if trial == 0)})
            table.kept |= {(source, trial, share) for trial in left[source]}

    def _run(self, table: _Table, tasks: Sequence[FitTask], what: str) -> None:
        """Make trials, and put what they say into the table; note if time ends."""
        ordered = sorted(tasks, key=lambda task: task.trial)
        if not ordered:
            return
        within = None
        if self.budget.minutes is not None:
            within = 60 * self.budget.minutes - (time.monotonic() - self.began)
        said = (
            {}
            if within is not None and within <= 0
            else self._trials(ordered, self.parts.early, what, within)
        )
        for number, scores in said.items():
            task = ordered[number]
            table.found[task.source, task.trial, task.share] = scores
        self.over = len(said) < len(ordered)

    def _trials(
        self, tasks: Sequence[FitTask], part: FitPart, what: str, within_s: float | None
    ) -> Mapping[int, Scores]:
        self.progress(what, 0, len(tasks))
        folder = self.folder / ("early" if part is self.parts.early else "late")
        return self.run(
            score_source,
            tasks,
            (part, self.config, self.seed, folder),
            address=self.address,
            within_s=within_s,
            done=lambda count: self.progress(what, count, len(tasks)),
        )


def _shares(trials: int) -> list[float]:
    """Return the share of the epochs in each rung of a bracket, the whole in the last."""
    rungs = 0
    while HALVING ** (rungs + 1) <= trials:
        rungs += 1
    return [HALVING**-rung for rung in range(rungs, 0, -1)] + [1.0]


def _metric(values: Sequence[float] | Float64 | None, seed: int) -> Metric:
    if values is None:
        return Metric(None)
    column = np.asarray(values, np.float64)
    low, high = intervals(bootstrap(column[:, None], seed=seed))[0].tolist()
    return Metric(float(column.mean()), low, high)
