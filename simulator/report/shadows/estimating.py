"""What each shadow of a policy is estimated to earn, from the newest decisions it has followed."""

from collections.abc import Iterable, Sequence

import msgspec

from bandits.errors import BanditloopError
from bandits.log.positions import START, log_order, position_ms
from policies.archive.archive import ArchiveReader, archive_folders
from policies.shadows.files import NamedShadow, PolicyShadows, ShadowState
from simulator.logs.archive.pieces import archive_pieces
from simulator.logs.rows import Piece
from simulator.ope.targets import LoggingTarget
from simulator.replay.evaluate import OpeQuestion, evaluate
from simulator.report.closer import LOOKED_AT, newest_after
from simulator.report.gather import Root
from simulator.report.shadows.known import KnownPmfs, KnownRows, ShadowTarget
from simulator.report.shadows.verdicts import shadow_verdict
from simulator.report.shadows.worth import ShadowWorth
from simulator.report.verdicts import Verdict

FEWEST = 100
"""Slots below which nothing is estimated."""
SILENT_MS = 120_000
"""A shadow that is followed says how far it is far more often."""
SERVED = "what served"
"""The policy of the log among the policies of a question; no shadow has such a name."""


def shadow_worths(
    root: Root, policy: str, shadows: PolicyShadows, *, after: str = START, alpha: float = 0.05
) -> list[ShadowWorth]:
    """Return what the shadows of a policy are worth, in the order of its spec.

    Args:
        root: the archive's folder or URI, or a file system, that holds the policy's whole log.
        policy: its name.
        shadows: what they have said.
        after: only what comes past this position.
        alpha: the probability that the interval of a difference misses the truth.
    """
    named = shadows.current()
    if not named:
        return []
    folders = archive_folders(root, policy)
    readers = [ArchiveReader(root, folder) for folder in folders]
    begins = [
        max(newest_after(reader, LOOKED_AT // len(readers)), after, key=log_order)
        for reader in readers
    ]
    pieces = [
        piece
        for folder, begin in zip(folders, begins, strict=True)
        for piece in archive_pieces(root, folder, 1, skip_bad=True, after=begin)
    ]
    end = max((reader.end for reader in readers), key=log_order)
    oldest = min(begins, key=log_order)
    return [_worth(shadows, each, pieces, oldest, end, alpha) for each in named]


def _worth(
    shadows: PolicyShadows,
    named: NamedShadow,
    pieces: Sequence[Piece],
    after: str,
    end: str,
    alpha: float,
) -> ShadowWorth:
    if named.refused:
        return ShadowWorth(named.name, shadow_verdict("shadow_refused", named.refused))
    files = shadows.of(named)
    state = files.state()
    if state is None:
        said = "its process has not begun to follow the log"
        return ShadowWorth(named.name, shadow_verdict("shadow_waits", said))

    estimated = _estimated(named.name, KnownPmfs(files.newest(after)), pieces, alpha)
    behind_ms = max(0, position_ms(end) - position_ms(state.position))
    worth = msgspec.structs.replace(
        estimated,
        decisions=state.decisions,
        passed_over=state.passed_over,
        behind_s=behind_ms / 1000,
    )
    stands = _stands_still(state, end, behind_ms)
    return worth if stands is None else msgspec.structs.replace(worth, verdict=stands)


def _stands_still(state: ShadowState, end: str, behind_ms: int) -> Verdict | None:
    """Return why a shadow does not follow the log; None: it does."""
    if state.state == "failed":
        return shadow_verdict("shadow_failed", state.message)
    silent_ms = position_ms(end) - state.at_ms
    if behind_ms > SILENT_MS and silent_ms > SILENT_MS:
        return shadow_verdict(
            "shadow_stopped",
            f"it is {behind_ms / 1000:,.0f} s behind the log, and has said nothing for"
            f" {silent_ms / 1000:,.0f} s",
        )
    return None


def _estimated(name: str, known: KnownPmfs, pieces: Iterable[Piece], alpha: float) -> ShadowWorth:
    rows = [KnownRows(piece, known) for piece in pieces]
    question = OpeQuestion(
        [ShadowTarget(name, known), LoggingTarget(SERVED)], estimators=["dr"], alpha=alpha
    )
    try:
        found = evaluate(question, rows)
    except BanditloopError as error:
        if any(each.rows for each in rows):
            return ShadowWorth(name, shadow_verdict("shadow_unreliable", error.message))
        return ShadowWorth(name, shadow_verdict("shadow_waits", error.message))

    (comparison,) = found.comparisons
    result, (shadow, served) = comparison.result, found.results
    low, high = result.interval
    return ShadowWorth(
        name,
        _verdict(found.log.rows, low, high, result.verdict, result.reason),
        rows=found.log.rows,
        value=shadow.estimates["dr"].value,
        served=served.estimates["dr"].value,
        difference=result.difference,
        low=low,
        high=high,
        trust=result.verdict,
        reason=result.reason,
    )


def _verdict(rows: int, low: float, high: float, trust: str, reason: str) -> Verdict:
    interval = f"{low:+.4g} … {high:+.4g} per slot, of {rows:,} slots"
    if rows < FEWEST:
        return shadow_verdict("shadow_waits", f"it says something of {rows:,} such slots")
    if trust == "unreliable":
        return shadow_verdict("shadow_unreliable", reason)
    if trust == "weak":
        return shadow_verdict("shadow_undecided", f"{interval}; the estimate is weak: {reason}")
    if low > 0.0:
        return shadow_verdict("shadow_better", interval)
    return shadow_verdict("shadow_worse" if high < 0.0 else "shadow_undecided", interval)
