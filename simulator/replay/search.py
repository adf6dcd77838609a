"""Search for a better policy on a log: successive halving over specs, on Ray Tune.

The log's first part is learned from, the next one tells the candidates apart, and the last one,
which no choice has seen, says what the finalists are worth. Successive halving: Jamieson &
Talwalkar 2016 (arXiv:1502.07943). In each rung the specs that are left learn from more of the first
part, always its latest rows; of those that score best, one in ``halving`` goes on. Rungs are run
one after another, so that a seed gives the same result on any cluster.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from bandits.errors import BanditloopError, ReplayError
from policies.artifacts.learner_model import TrainedModel
from policies.spec import PolicySpec
from simulator.learners.online import check_blend
from simulator.learners.trained import FrozenPolicy, frozen_policy, train_on_log
from simulator.logs.row_ranges import count_rows, row_range
from simulator.logs.rows import Piece, no_rows_error
from simulator.ope.reward_model import FittedRewardModel
from simulator.ope.targets import LoggingTarget
from simulator.parallel import OnRay
from simulator.replay.evaluate import (
    OpeQuestion,
    evaluate,
    fit_reward_model,
    make_plan,
    tally_piece,
)
from simulator.replay.report import NO_LOWER_END, EvaluationReport, SearchSummary, Trial
from simulator.replay.search_space import SearchSpace, specs_of
from simulator.trials import run_trials

LEARN_END, SELECT_END = 0.6, 0.8
"""Where the rows that are learned from and those that select end, as shares of the log's rows."""
FINALISTS = 2
"""Specs that are left in the last rung, at least."""


class SearchResult(msgspec.Struct, frozen=True):
    """The results of a search.

    ``best`` is the finalist with the highest lower bound in the last rung, and ``model`` is what it
    learned from all but the last part. ``report`` says what finalists, the unchanged spec and the
    logging policy earn on that part, and lists every trial.
    """

    best: PolicySpec
    model: TrainedModel
    report: EvaluationReport


def search(
    space: SearchSpace,
    base: PolicySpec,
    pieces: Sequence[Piece],
    *,
    address: str = "local",
    options: Callable[[], dict[str, Any]] = dict,
    seed: int = 0,
    progress: Callable[[int, int, Sequence[Trial]], None] = lambda _rung, _rungs, _trials: None,
) -> SearchResult:
    """Search a space of specs for the best on a log.

    Args:
        space: what to search.
        base: the unchanged spec.
        pieces: the log.
        address: of the Ray cluster, as ``OnRay`` takes it.
        options: of Ray's tasks, as ``OnRay`` takes them.
        seed: of what is drawn.
        progress: told of each rung when it is done, of how many, and its trials.

    Raises:
        SpecError: the space describes what is no spec.
        ReplayError: the log is too short, or cannot be learned from or evaluated by DR.
    """
    specs = specs_of(space, base, seed=seed)
    for spec in specs:
        check_blend(spec)

    counts = [count_rows(piece) for piece in pieces]
    total = sum(counts)
    first, second = math.floor(LEARN_END * total), math.floor(SELECT_END * total)
    rungs = 1 + max(0, math.ceil(math.log(len(specs), space.halving) - 1e-9))
    if not total:
        raise no_rows_error(pieces, "rows to search")
    if first // space.halving ** (rungs - 1) < 1 or second == first:
        raise ReplayError(
            f"{total} rows are too few to search {len(specs)} specs: give more rows or fewer"
            " trials",
            "log",
        )

    # One reward model serves all rungs: it depends on the selecting rows alone.
    selecting = row_range(pieces, counts, first, second)
    question = OpeQuestion([LoggingTarget()], ("dr",))
    mapper = OnRay(address, options)
    model = fit_reward_model(question, selecting, mapper)

    trials: list[Trial] = []
    left = specs
    for rung in range(rungs):
        rows = first // space.halving ** (rungs - 1 - rung)
        learning = row_range(pieces, counts, first - rows, first)
        scored = _score_rung(
            left, learning, selecting, model, address=address, options=options, seed=seed
        )

        # Specs are ranked by what they earn at least, so that luck is no advantage.
        ranked = sorted(zip(left, scored, strict=True), key=lambda pair: -pair[1]["lower"])
        keep = min(len(left), max(FINALISTS, len(left) // space.halving))
        trials += [
            Trial(spec.name, rung, rows, kept=at < keep, **scores)
            for at, (spec, scores) in enumerate(ranked)
        ]
        left = [spec for spec, _ in ranked[:keep]]
        progress(rung + 1, rungs, trials[-len(ranked) :])

    # The finalists learn from all that has been looked at, and are checked on what has not.
    learned = [
        train_on_log(spec, row_range(pieces, counts, 0, second))
        for spec in _with_baseline(left, specs[0])
    ]
    targets = [_frozen(model, seed) for model in learned]
    final = evaluate(
        OpeQuestion([LoggingTarget(), *targets]), row_range(pieces, counts, second, total), mapper
    )

    summary = SearchSummary(msgspec.to_builtins(left[0]), trials)
    return SearchResult(left[0], learned[0], msgspec.structs.replace(final, search=summary))


def score_spec(
    spec: PolicySpec,
    learning: Sequence[Piece],
    selecting: Sequence[Piece],
    model: FittedRewardModel,
    seed: int,
) -> dict[str, Any]:
    """Return what a spec earns on some rows after it has learned from others.

    Args:
        spec: the policy.
        learning: rows to learn from.
        selecting: rows to evaluate on.
        model: the reward model of those rows.
        seed: of what the policy draws.

    Returns:
        ``value``, ``lower`` and ``verdict`` of a Trial.
    """
    target = _frozen(train_on_log(spec, learning), seed)
    plan = make_plan(OpeQuestion([target], ("dr",)), selecting)
    total = plan.empty()
    for piece in selecting:
        total.merge(tally_piece(plan, model, piece))

    # What cannot be relied on ranks last.
    estimate = total.estimates[target.name, "dr"].estimate(plan.question.bounds())
    usable = estimate.verdict != "unreliable" and math.isfinite(estimate.interval[0])
    return {
        "value": estimate.value,
        "lower": estimate.interval[0] if usable else NO_LOWER_END,
        "verdict": estimate.verdict,
    }


def _score_rung(
    specs: Sequence[PolicySpec],
    learning: Sequence[Piece],
    selecting: Sequence[Piece],
    model: FittedRewardModel,
    *,
    address: str,
    options: Callable[[], dict[str, Any]],
    seed: int,
) -> list[dict[str, Any]]:
    """Return the scores of specs, in their order, by trials of Ray Tune."""
    scored = run_trials(
        _score_or_fault,
        list(specs),
        (learning, selecting, model, seed),
        address=address,
        options=options,
    )
    refused = next((scores["error"] for scores in scored.values() if "error" in scores), None)
    if refused is not None:
        raise ReplayError(refused, "search")
    return [dict(scored[at]) for at in range(len(specs))]


def _score_or_fault(spec: PolicySpec, *rest: Any) -> dict[str, Any]:
    """Return the scores of a spec, or what would be wrong in every try."""
    try:
        return score_spec(spec, *rest)
    except BanditloopError as error:
        return {"error": f"{spec.name}: {error.message}"}


def _frozen(model: TrainedModel, seed: int) -> FrozenPolicy:
    return frozen_policy(model, model.spec().name, seed=seed)


def _with_baseline(specs: Sequence[PolicySpec], baseline: PolicySpec) -> list[PolicySpec]:
    """Return the specs, and the baseline if it is none of them."""
    return [*specs] if baseline in specs else [*specs, baseline]
