"""Policies that learn from the log on the way: methods progressive and rejection, as results of a report."""

from collections.abc import Callable, Sequence
from pathlib import Path

from bandits.errors import ReplayError
from policies.spec import PolicySpec
from simulator.learners.online import PUBLISH_EVERY
from simulator.learners.progressive import UNLABELLED, progressive, vw_progressive
from simulator.learners.rejection import Rejection, rejection
from simulator.learners.vw_rejection import vw_rejection
from simulator.learners.vw_target import FORMATS
from simulator.logs.archive import in_time_order
from simulator.logs.files import files_of
from simulator.logs.left_out import EMPTY_LOG_ADVICE, LeftOut
from simulator.logs.rows import Piece, caution_of, no_rows_error
from simulator.logs.text_records import RecordPiece
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
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[PolicyResult, LeftOut]:
    """One policy's replay, and what of the log was no row to it. ``log``: as ``open_log`` takes it.

    ``bound``: of rejection, on importance weights; without it the log has to be uniform.
    ``publish_every``: rows after which a policy of this project acts by what it has learned.
    ``progress`` is told how many rows were read.

    Raises: ReplayError: VW's own arguments need VW's own log and method progressive; the log has no
        rows; or what the
            method says.
    """
    if isinstance(asked, VwPolicy):
        if log_format not in FORMATS:
            raise ReplayError(
                "kind vw reads VW's own logs (dsjson, vw): of others give a spec with learner:"
                " {kind: vw}",
                "policy",
            )
        model = None if asked.model is None else Path(asked.model)
        form = FORMATS[log_format]
        if method == "rejection":
            spans = [piece.span for piece in pieces if isinstance(piece, RecordPiece)]
            thinned = vw_rejection(
                asked, spans, form, bound=bound, seed=seed, skip_bad=skip_bad, progress=progress
            )
            if not thinned.rows:
                raise ReplayError(
                    f"the log has no rows to evaluate: {thinned.left_out or EMPTY_LOG_ADVICE}",
                    "log",
                )
            return _thinned(asked.called, thinned, thinned.notes)
        vw = vw_progressive(
            files_of(log), asked.args, form, model=model, skip_bad=skip_bad, progress=progress
        )
        if vw.examples > vw.labelled:
            vw.left_out.counts[UNLABELLED] += vw.examples - vw.labelled
        if not vw.labelled:
            raise ReplayError(
                f"the log has no rows to evaluate: {vw.left_out or EMPTY_LOG_ADVICE}", "log"
            )
        numbers = {"rows": vw.labelled, "examples": vw.examples, "skipped": vw.skipped}
        result = PolicyResult(
            asked.called,
            method,
            average_loss=vw.average_loss,
            curve=list(vw.curve),
            learned={name: float(value) for name, value in numbers.items()},
            notes=list(vw.notes),
        )
        return _said(result, vw.left_out)
    pieces = in_time_order(pieces)
    every = "every row" if publish_every == 1 else f"every {publish_every:,} rows"
    notes = [f"acts by what it has learned after {every}", *filter(None, [caution_of(pieces)])]
    if method == "progressive":
        done = progressive(asked, pieces, publish_every=publish_every, seed=seed, progress=progress)
        if not done.rows:
            raise no_rows_error(pieces)
        learned = {
            "rows": float(done.rows),
            "skipped": float(done.skipped),
            "ips": done.ips,
            "snips": done.snips,
        }
        curve = list(done.ips_curve)
        result = PolicyResult(
            asked.name, method, average_loss=-done.ips, curve=curve, learned=learned, notes=notes
        )
        return _said(result, done.left_out)
    thinned = rejection(
        asked, pieces, bound=bound, publish_every=publish_every, seed=seed, progress=progress
    )
    if not thinned.rows:
        raise no_rows_error(pieces)
    return _thinned(asked.name, thinned, notes)


def _thinned(name: str, done: Rejection, notes: Sequence[str]) -> tuple[PolicyResult, LeftOut]:
    learned = {
        "rows": float(done.rows),
        "skipped": float(done.skipped),
        "accepted": float(done.accepted),
        "clipped": float(done.clipped),
        "mean_accepted_reward": done.mean_accepted_reward,
    }
    exact = (
        []
        if done.exact
        else ["the log is not uniformly random: exact only while no weight exceeds the bound"]
    )
    result = PolicyResult(
        name, "rejection", curve=list(done.curve), learned=learned, notes=[*notes, *exact]
    )
    return _said(result, done.left_out)


def _said(result: PolicyResult, left_out: LeftOut) -> tuple[PolicyResult, LeftOut]:
    if left_out:
        result.notes.append(f"no rows: {left_out}")
    return result, left_out
