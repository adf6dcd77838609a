"""Policies that learn from the log on the way: methods progressive and rejection, as results of a report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bandits.errors import ReplayError
from policies.spec import PolicySpec
from simulator.logs.archive import in_time
from simulator.logs.base import Piece, caution_of, no_rows
from simulator.logs.files import files_of
from simulator.online import PUBLISH_EVERY
from simulator.policy_args import VwKind
from simulator.progressive import progressive, vw_progressive
from simulator.rejection import rejection
from simulator.replay import PolicyResult

METHODS = ("progressive", "rejection")


def learn_on(
    asked: PolicySpec | VwKind,
    method: str,
    pieces: Sequence[Piece],
    *,
    log: str,
    log_format: str,
    seed: int = 0,
    bound: float | None = None,
    skip_bad: bool = False,
    publish_every: int = PUBLISH_EVERY,
) -> PolicyResult:
    """One policy's replay. ``log``: as ``open_log`` takes it.

    ``bound``: of rejection, on importance weights; without it the log has to be uniform. ``publish_every``: rows after
    which a policy of this project acts by what it has learned.

    Raises:
        ReplayError: VW's own arguments need VW's own log and method progressive; or what the method says.
    """
    if isinstance(asked, VwKind):
        if method != "progressive" or log_format not in {"dsjson", "vw"}:
            raise ReplayError("kind vw reads VW's own logs (dsjson, vw), by --method progressive", "policy")
        model = None if asked.model is None else Path(asked.model)
        form: Any = "text" if log_format == "vw" else log_format
        vw = vw_progressive(files_of(log), asked.args, form, model=model, skip_bad=skip_bad)
        numbers = {"rows": vw.examples, "labelled": vw.labelled, "skipped": vw.skipped}
        return PolicyResult(
            asked.name or f"vw {asked.args}",
            method,
            average_loss=vw.average_loss,
            curve=list(vw.curve),
            learned={name: float(value) for name, value in numbers.items()},
        )
    pieces = in_time(pieces)
    every = "every row" if publish_every == 1 else f"every {publish_every:,} rows"
    notes = [f"acts by what it has learned after {every}", *filter(None, [caution_of(pieces)])]
    if method == "progressive":
        done = progressive(asked, pieces, publish_every=publish_every, seed=seed)
        if not done.rows:
            raise no_rows(pieces)
        learned = {"rows": float(done.rows), "skipped": float(done.skipped), "ips": done.ips, "snips": done.snips}
        curve = list(done.ips_curve)
        return PolicyResult(asked.name, method, average_loss=-done.ips, curve=curve, learned=learned, notes=notes)
    thinned = rejection(asked, pieces, bound=bound, publish_every=publish_every, seed=seed)
    if not thinned.rows:
        raise no_rows(pieces)
    learned = {
        "rows": float(thinned.rows),
        "skipped": float(thinned.skipped),
        "accepted": float(thinned.accepted),
        "clipped": float(thinned.clipped),
        "mean_accepted_reward": thinned.mean_accepted_reward,
    }
    if not thinned.exact:
        notes.append("the log is not uniformly random: exact only while no weight exceeds the bound")
    return PolicyResult(asked.name, method, curve=list(thinned.curve), learned=learned, notes=notes)
