"""The report of a search for hyperparameters: every trial, and what became of each source."""

from typing import Any

import msgspec

from simulator.ranking.report import Metric


class SourceTrial(msgspec.Struct, frozen=True):
    """A source, fitted with some values and judged by what users did next.

    Attributes:
        source: its name.
        trial: its number; 0 is what the source is fitted with when nobody searches.
        values: what differs from that, by field.
        share: how much of its epochs it was fitted for.
        ndcg: nDCG@10 on the selecting part; None if it could not be fitted.
        kept: whether it went on, to more epochs or to the choice.
        seconds: to fit and to judge, of one processor; the only figure that chance has a part in.
        note: why it could not be fitted.
    """

    source: str
    trial: int
    values: dict[str, Any]
    share: float
    ndcg: float | None
    kept: bool = False
    seconds: float = 0.0
    note: str = ""


class SourceChoice(msgspec.Struct, frozen=True):
    """What a source is fitted with after a search.

    Attributes:
        source: its name.
        trial: the number of the trial that was best on the selecting part.
        values: the values that the source is now fitted with; {}: as if nobody had searched.
        best: nDCG@10 of the best trial on the selecting part, which it was chosen by.
        unchanged: that of trial 0 there.
        test: nDCG@10 of the best trial on the test part, which no choice has seen; None where that
            is trial 0, for there is nothing to decide.
        unchanged_test: that of trial 0 there.
        gain: their difference on the same users.
        taken: whether the best trial's values are taken.
        reason: why, in words.
    """

    source: str
    trial: int
    values: dict[str, Any]
    best: float | None
    unchanged: float | None
    test: Metric
    unchanged_test: Metric
    gain: Metric
    taken: bool
    reason: str


class TuningReport(msgspec.Struct, frozen=True):
    """The results of a search for hyperparameters.

    Attributes:
        data: the name of the data set.
        seed: of the draws, of the fits, and of the sample of users.
        split: how events were split, in words.
        learn_events: events that trials are fitted on.
        select_events: events after them, which tell trials apart.
        test_events: events after these, which say what the best are worth.
        select_users: users whose lists tell trials apart.
        test_users: users whose lists are judged in the end.
        trials_asked: trials of each source that were asked for.
        minutes: the budget of time; None if there was none.
        choices: what became of each source.
        trials: all of them, by source, in the order of their numbers and shares.
        notes: what a reader should know.
        artifact: the version of the artifact that was then trained.
    """

    data: str
    seed: int
    split: str
    learn_events: int
    select_events: int
    test_events: int
    select_users: int
    test_users: int
    trials_asked: int
    minutes: float | None
    choices: list[SourceChoice]
    trials: list[SourceTrial]
    notes: list[str] = []
    artifact: str = ""


def describe_values(values: dict[str, Any]) -> str:
    """Return values in a few words; those of nobody's search are "unchanged"."""
    shown = [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    ]
    return ", ".join(shown) or "unchanged"


def search_facts(report: TuningReport) -> list[str]:
    """Return what was searched how, in sentences."""
    budget = f"{report.trials_asked} trials of each source"
    if report.minutes is not None:
        budget += f", in {report.minutes:g} minutes"
    return [
        f"{report.data}, split {report.split}; {budget}, seed {report.seed}",
        (
            f"trials are fitted on {report.learn_events:,} events and compared by nDCG@10 of"
            f" {report.select_users:,} users on the {report.select_events:,} after them; the best"
            f" of each source is fitted on both and judged by {report.test_users:,} users on the"
            f" last {report.test_events:,}, which no choice has seen"
        ),
        *report.notes,
    ]
