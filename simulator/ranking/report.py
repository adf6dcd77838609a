"""The report of an evaluation of sources: what is written, shown in tables and drawn."""

from typing import Any

import msgspec

from simulator.pages import describe_time

SIGNIFICANT = 0.05
MEAN_METRICS = {
    "ndcg": "nDCG",
    "graded_ndcg": "graded nDCG",
    "recall": "recall",
    "precision": "precision",
    "f1": "F1",
    "map": "MAP",
    "mrr": "MRR",
    "hit_rate": "hit rate",
    "auc": "AUC",
    "log_loss": "log loss",
    "novelty": "novelty",
    "diversity": "diversity",
    "popularity": "popularity",
}
"""Metrics that are a mean over users, and their names for a reader."""
WHOLE_METRICS = {"coverage": "coverage", "gini": "Gini"}
"""Metrics of all lists together."""
RATING_METRICS = {"rmse": "RMSE", "mse": "MSE", "mae": "MAE"}
"""Metrics of predicted ratings."""


class SplitSummary(msgspec.Struct, frozen=True):
    """How events were split.

    Attributes:
        name: global-time, user-time or last-one.
        sentence: the same for a reader.
        cut_ms: the first time of the test part, in ms since 1970, if one time divides the parts.
        train_events: events that the sources were trained on.
        test_events: events after them.
        unknown_items: test events on items that no training event names, which no source can rank;
            they are left out.
        known_already: test events on items that the user had already, which are not ranked.
        irrelevant: test events that say nothing for their item (a low rating, a weight of 0).
        test_users: users with a relevant item in the test part.
        evaluated_users: how many of these, drawn by the seed, the figures are of.
        items: items that are ranked.
    """

    name: str
    sentence: str
    cut_ms: int | None
    train_events: int
    test_events: int
    unknown_items: int
    known_already: int
    irrelevant: int
    test_users: int
    evaluated_users: int
    items: int


class Metric(msgspec.Struct, frozen=True):
    """A mean over users and its 95% bootstrap interval; None where there is nothing to say."""

    value: float | None
    low: float | None = None
    high: float | None = None


class RankerResult(msgspec.Struct, frozen=True):
    """The result of one source, or of a fusion of all.

    Attributes:
        name: of the source, or of the way of fusing.
        kind: source, scorer (it proposes nothing, and scores what sources do), fusion, or reference
            (it is compared, and nothing can serve it).
        metrics: by name, at the report's k.
        user_groups: nDCG by group of users.
        item_groups: recall of the relevant items by group of items.
        answered: the share of the users for whom it had any candidate.
        needs_history: whether it has nothing for a user without a history.
        note: such as the weights of a fusion.
        train_s: how long training took, in seconds.
        ask_ms: how long an answer took, in ms of one user.
    """

    name: str
    kind: str
    metrics: dict[str, Metric]
    user_groups: dict[str, Metric]
    item_groups: dict[str, Metric]
    answered: float
    needs_history: bool = False
    note: str = ""
    train_s: float | None = None
    ask_ms: float | None = None


class PairedTest(msgspec.Struct, frozen=True):
    """nDCG of ``left`` less that of ``right`` on the same users.

    ``p_value`` is of Fisher's randomisation test; ``adjusted`` is for the number of comparisons
    (Holm).
    """

    left: str
    right: str
    difference: float
    low: float
    high: float
    p_value: float
    adjusted: float


class PoolRow(msgspec.Struct, frozen=True):
    """A pool of candidates, and the relevant items in it.

    Attributes:
        sources: whose best candidates make the pool.
        limit: how many of each.
        recall: mean share of a user's relevant items in the pool.
        gain: what the last of the sources adds to it; of limits, what is added to the row before.
        size: candidates in the pool, on average.
        ndcg: of the stacked scores within the pool, where it was measured.
    """

    sources: list[str]
    limit: int
    recall: float
    gain: Metric
    size: float
    ndcg: Metric | None = None


class LearnerRow(msgspec.Struct, frozen=True):
    """A learner, taught what users of the validation part did, on test pools.

    Attributes:
        name: of what was tried.
        spec: the fields of a policy spec that it was tried with.
        ndcg: of its order of the pools.
        gain: the same less that of the first learner, on the same users.
        seconds: to learn and to order.
    """

    name: str
    spec: dict[str, Any]
    ndcg: Metric
    gain: Metric
    seconds: float


class BlendRow(msgspec.Struct, frozen=True):
    """A blend without some of the sources, and what that loses and saves.

    Attributes:
        without: the sources that are left out; none in the row of the whole blend.
        reward: share of users who turned to the item that was chosen first.
        ndcg: of its order of the pool.
        lost_reward: reward of the whole blend less this, on the same users.
        lost_ndcg: the same of nDCG.
        ms: processor time of a decision, its sources asked afresh; the median.
        saved_ms: how much less that is than of the whole blend.
        mb: memory of its sources in a replica, in MB of 1,000,000 bytes.
        saved_mb: memory of those that are left out.
        verdict: keep (something is surely lost), spare (no loss is to be told from chance), harms
            (something is surely won); empty of the whole blend.
    """

    without: list[str]
    reward: Metric
    ndcg: Metric
    lost_reward: Metric
    lost_ndcg: Metric
    ms: float
    saved_ms: float
    mb: float
    saved_mb: float
    verdict: str = ""


class BlendReport(msgspec.Struct, frozen=True):
    """What each source of a blend is worth.

    Attributes:
        rows: the whole blend, then the blend without each of its sources.
        spared: without all of those that are not surely missed together; None if each is missed.
        users: who were asked for.
        limit: candidates of each source.
        seconds: how long it took.
    """

    rows: list[BlendRow]
    spared: BlendRow | None
    users: int
    limit: int
    seconds: float

    @property
    def keeps(self) -> dict[str, Metric]:
        """The sources that a blend cannot be without, and the nDCG that it loses without each.

        They are those that are missed alone, and those that are missed once others are left out.
        """
        spared = set() if self.spared is None else set(self.spared.without)
        return {
            name: row.lost_ndcg for row in self.rows for name in row.without if name not in spared
        }


class RankingReport(msgspec.Struct, frozen=True):
    """The results of an evaluation of sources.

    Attributes:
        data: the name of the data set.
        k: where lists are cut.
        seed: of the sample of users and of all resampling.
        split: how events were split.
        results: the sources, then the fusions of all of them, then what they are compared with.
        tests: of every two of the results.
        pools: the best pool of one source, of two, and so on, at the largest limit.
        limits: the pool of all sources, by limit.
        learners: learners on pools of 30 candidates of each source.
        user_groups: how many users are in each group.
        item_groups: the share of the relevant items that is in each group.
        group_sentence: what the groups of users are.
        diversity_by: what the diversity of a list is measured by.
        ratings: how a score becomes a rating, where there are ratings.
        notes: what a reader of the figures should know.
        artifact: the artifact that was evaluated, if none was trained here.
        blend: what each source of a blend is worth, if that was asked for.
        seconds: how long it took.
    """

    data: str
    k: int
    seed: int
    split: SplitSummary
    results: list[RankerResult]
    tests: list[PairedTest]
    pools: list[PoolRow]
    limits: list[PoolRow]
    learners: list[LearnerRow]
    user_groups: dict[str, int]
    item_groups: dict[str, float]
    group_sentence: str
    diversity_by: str
    ratings: str = ""
    notes: list[str] = []
    artifact: str | None = None
    blend: BlendReport | None = None
    seconds: float = 0.0

    def result(self, name: str) -> RankerResult:
        """Return the result of this name."""
        return next(result for result in self.results if result.name == name)


def metric_names(report: RankingReport) -> dict[str, str]:
    """Return the metrics that any row of the report has, with their names for a reader."""
    every = MEAN_METRICS | WHOLE_METRICS | RATING_METRICS
    return {
        name: shown
        for name, shown in every.items()
        if any(
            name in row.metrics and row.metrics[name].value is not None for row in report.results
        )
    }


def report_facts(report: RankingReport) -> list[str]:
    """Return what was evaluated how, in sentences."""
    split = report.split
    cut = f", from {describe_time(split.cut_ms)} UTC on" if split.cut_ms is not None else ""
    sample = (
        f"{split.evaluated_users:,} users"
        if split.evaluated_users == split.test_users
        else f"{split.evaluated_users:,} users drawn of {split.test_users:,}"
    )
    left_out = {
        "on items that no training event names": split.unknown_items,
        "on items that the user had": split.known_already,
        "that say nothing for their item": split.irrelevant,
    }

    counted = ", ".join(f"{count:,} {what}" for what, count in left_out.items() if count)
    facts = [
        f"{report.data}, split {split.name}: {split.sentence}{cut}",
        (
            f"{split.train_events:,} events train, {split.test_events:,} test; {sample} are asked"
            f" for, {split.items:,} items are ranked, without those of the user's history"
        ),
    ]

    if counted:
        facts.append(f"left out of the test events: {counted}")
    if report.artifact is not None:
        facts.append(f"the sources are those of {report.artifact}")
    facts.append(f"diversity is by {report.diversity_by}")
    if report.ratings:
        facts.append(report.ratings)
    return facts


def significance_sentence(report: RankingReport) -> str:
    """Return which rows are worse than the best by nDCG, as far as these users can tell."""
    best = max(report.results, key=lambda result: result.metrics["ndcg"].value or 0.0).name
    worse, alike = list[str](), list[str]()
    for test in report.tests:
        if best in {test.left, test.right}:
            other = test.right if test.left == best else test.left
            (worse if test.adjusted < SIGNIFICANT else alike).append(other)
    said = f"best by nDCG: {best}"
    if worse:
        said += f"; significantly worse (paired, p < {SIGNIFICANT}, Holm): {', '.join(worse)}"
    if alike:
        said += f"; not to be told apart from it: {', '.join(alike)}"
    return said


def blend_sentence(blend: BlendReport) -> str:
    """Return which sources may be switched off, as far as these users can tell."""
    by_verdict = {
        verdict: [name for row in blend.rows for name in row.without if row.verdict == verdict]
        for verdict in ("keep", "harms")
    }
    said = list[str]()
    if by_verdict["keep"]:
        said.append(f"missed when left out: {', '.join(by_verdict['keep'])}")
    if by_verdict["harms"]:
        said.append(f"better left out: {', '.join(by_verdict['harms'])}")
    if (row := blend.spared) is not None:
        whole, most = blend.rows[0], max(0.0, row.lost_ndcg.high or 0.0)
        said.append(
            f"can be left out{' together' * (len(row.without) > 1)}: {', '.join(row.without)}; that"
            f" loses at most {most:.4f} of nDCG {whole.ndcg.value:.4f}, and saves"
            f" {row.saved_ms:.2f} of {whole.ms:.2f} ms and {row.saved_mb:.1f} of {whole.mb:.1f} MB"
        )
    return f"as far as {blend.users:,} users can tell, {'; '.join(said)}"
