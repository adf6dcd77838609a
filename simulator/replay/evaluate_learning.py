"""Evaluation of policies that learn from the log on the way: methods progressive and rejection."""

from collections.abc import Callable, Sequence
from pathlib import Path

from bandits.errors import ReplayError
from bandits.vw.log_reader import LogFormat
from policies.spec import PolicySpec
from simulator.learners.online import PUBLISH_EVERY
from simulator.learners.progressive import UNLABELLED, progressive, vw_progressive
from simulator.learners.rejection import Rejection, rejection
from simulator.learners.row_rules import RowRules
from simulator.learners.vw_rejection import vw_rejection
from simulator.learners.vw_target import FORMATS
from simulator.logs.archive.ordered import in_time_order
from simulator.logs.files import files_of
from simulator.logs.left_out import EMPTY_LOG_ADVICE, LeftOut
from simulator.logs.rows import Piece, caution_of, no_rows_error
from simulator.logs.text_records import RecordPiece
from simulator.replay.laxer import laxer_filter
from simulator.replay.parse_policy import VwPolicy
from simulator.replay.report import PolicyResult

METHODS = ("progressive", "rejection")


def evaluate_learning(
    asked: PolicySpec | VwPolicy,
    method: str,
    pieces: Sequence[Piece],
    *,
    log: str,
    log_format: str,
    seed: int = 0,
    bound: float | None = None,
    skip_bad: bool = False,
    publish_every: int = PUBLISH_EVERY,
    every_s: Sequence[int] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[PolicyResult, LeftOut]:
    """Evaluate one policy that learns from the log on the way.

    Args:
        asked: the policy.
        method: one of METHODS.
        pieces: the log.
        log: the same, as ``open_log`` takes it; VW reads its logs itself.
        log_format: of the log.
        seed: of what the policy draws.
        bound: of rejection, on importance weights; without it the log has to be uniform.
        skip_bad: count malformed rows and leave them out.
        publish_every: rows after which a policy of this project acts by what it has learned.
        every_s: widths of windows of time to say its value in, too, in seconds.
        progress: told how many rows were read.

    Returns:
        What was found of the policy, and what of the log was no row to it.

    Raises:
        ReplayError: VW's own arguments need VW's own log and method progressive; the log has no
            rows; or what the method says.
    """
    if isinstance(asked, VwPolicy):
        if log_format not in FORMATS:
            raise ReplayError(
                "kind vw reads VW's own logs (dsjson, vw): of others give a spec with learner:"
                " {kind: vw}",
                "policy",
            )

        # VW reads its own logs by its own driver, so that it learns as it would by itself.
        form = FORMATS[log_format]
        if method == "rejection":
            return _vw_rejection(
                asked, pieces, form, bound=bound, seed=seed, skip_bad=skip_bad, progress=progress
            )
        return _vw_progressive(asked, log, form, skip_bad=skip_bad, progress=progress)

    # A policy acts by what it learned from earlier rows only.
    pieces = in_time_order(pieces)
    every = "every row" if publish_every == 1 else f"every {publish_every:,} rows"
    notes = [
        f"acts by what it has learned after {every}",
        *RowRules(asked).notes,
        *filter(None, [laxer_filter(asked, pieces), caution_of(pieces)]),
    ]
    if method == "progressive":
        done = progressive(
            asked,
            pieces,
            publish_every=publish_every,
            seed=seed,
            every_s=every_s,
            progress=progress,
        )
        if not done.rows:
            raise no_rows_error(pieces)
        result = PolicyResult(
            asked.name,
            method,
            average_loss=-done.ips,
            curve=list(done.ips_curve),
            learned={
                "rows": float(done.rows),
                "skipped": float(done.skipped),
                "ips": done.ips,
                "ips_stderr": done.ips_stderr,
                "snips": done.snips,
            },
            notes=notes,
            over_time=list(done.over_time),
        )
        return _with_left_out(result, done.left_out)

    accepted = rejection(
        asked, pieces, bound=bound, publish_every=publish_every, seed=seed, progress=progress
    )
    if not accepted.rows:
        raise no_rows_error(pieces)
    return _rejection_result(asked.name, accepted, notes)


def _vw_progressive(
    asked: VwPolicy,
    log: str,
    form: LogFormat,
    *,
    skip_bad: bool,
    progress: Callable[[int], None],
) -> tuple[PolicyResult, LeftOut]:
    """Let VW's own driver learn from its own log."""
    model = None if asked.model is None else Path(asked.model)
    done = vw_progressive(
        files_of(log), asked.args, form, model=model, skip_bad=skip_bad, progress=progress
    )

    # VW counts an example without a label; to an evaluation it is no row.
    if done.examples > done.labelled:
        done.left_out.counts[UNLABELLED] += done.examples - done.labelled
    if not done.labelled:
        raise _nothing_to_evaluate(done.left_out)

    result = PolicyResult(
        asked.label,
        "progressive",
        average_loss=done.average_loss,
        curve=list(done.curve),
        learned={
            "rows": float(done.labelled),
            "examples": float(done.examples),
            "skipped": float(done.skipped),
        },
        notes=list(done.notes),
    )
    return _with_left_out(result, done.left_out)


def _vw_rejection(
    asked: VwPolicy,
    pieces: Sequence[Piece],
    form: LogFormat,
    *,
    bound: float | None,
    seed: int,
    skip_bad: bool,
    progress: Callable[[int], None],
) -> tuple[PolicyResult, LeftOut]:
    """Let VW learn from the rows that rejection accepts."""
    spans = [piece.span for piece in pieces if isinstance(piece, RecordPiece)]
    accepted = vw_rejection(
        asked, spans, form, bound=bound, seed=seed, skip_bad=skip_bad, progress=progress
    )
    if not accepted.rows:
        raise _nothing_to_evaluate(accepted.left_out)
    return _rejection_result(asked.label, accepted, accepted.notes)


def _nothing_to_evaluate(left_out: LeftOut) -> ReplayError:
    return ReplayError(
        f"the log has no rows to evaluate: {left_out or EMPTY_LOG_ADVICE}",
        "log",
    )


def _rejection_result(
    name: str, done: Rejection, notes: Sequence[str]
) -> tuple[PolicyResult, LeftOut]:
    """Return what rejection found of a policy."""
    learned = {
        "rows": float(done.rows),
        "skipped": float(done.skipped),
        "accepted": float(done.accepted),
        "clipped": float(done.clipped),
        "mean_accepted_reward": done.mean_accepted_reward,
    }
    notes = list(notes)
    if not done.exact:
        notes.append(
            "the log is not uniformly random: exact only while no weight exceeds the bound"
        )

    result = PolicyResult(name, "rejection", curve=list(done.curve), learned=learned, notes=notes)
    return _with_left_out(result, done.left_out)


def _with_left_out(result: PolicyResult, left_out: LeftOut) -> tuple[PolicyResult, LeftOut]:
    """Note what of the log was no row."""
    if left_out:
        result.notes.append(f"no rows: {left_out}")
    return result, left_out
