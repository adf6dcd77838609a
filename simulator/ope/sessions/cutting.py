"""Sessions of a log: whose a decision is, and where one session ends and the next begins."""

from collections.abc import Iterable, Sequence

from bandits.errors import ReplayError
from simulator.logs.rows import LoggedDecision

Rows = Sequence[LoggedDecision]


def cut_sessions(
    rows: Iterable[LoggedDecision], *, session: str | None, pause_s: float
) -> list[Rows]:
    """Return the log's sessions, in the order in which they begin.

    Args:
        rows: in the log's order.
        session: the context feature that names the session; None: a user's decisions with no pause
            above ``pause_s``.
        pause_s: seconds.

    Raises:
        ReplayError: a row does not say whose session it is of, or is of a slate.
    """
    sessions: list[list[LoggedDecision]] = []
    latest: dict[str, list[LoggedDecision]] = {}
    for row in rows:
        if row.slot:
            raise ReplayError(
                "a slate is several choices of one decision: sessions are of one slot each", "slot"
            )
        owner = owner_of(row, session)
        mine = latest.get(owner)

        # A session that has a name does not end by a pause.
        paused = (
            mine is not None
            and session is None
            and row.time_ms - mine[-1].time_ms > 1000.0 * pause_s
        )
        if mine is None or paused:
            mine = latest[owner] = []
            sessions.append(mine)
        mine.append(row)
    return list(sessions)


def owner_of(row: LoggedDecision, session: str | None) -> str:
    """Return what tells a row's session, or its user's sessions, from others.

    Args:
        row: of the log.
        session: the context feature that names the session; None: the user is meant.

    Raises:
        ReplayError: the row does not say.
    """
    if session is not None:
        value = row.context.get(session)
        if value is None or value in ("", []):
            raise ReplayError(
                f"decision {row.event_id} is of no session: it has no context feature"
                f" {session!r}, or an empty one (--skip-bad counts such decisions and leaves them"
                " out)",
                "session",
            )
        return f"{type(value).__name__} {value}"

    if row.record is None or not row.record.user:
        raise ReplayError(
            f"decision {row.event_id} has no user: name the context feature that tells sessions"
            " apart (--session)",
            "session",
        )
    return row.record.user
