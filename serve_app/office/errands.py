"""The errands of the office, by name: those that a command does, and those done at once."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from bandits.errors import NotFoundError
from serve_app.office.commands import Command
from serve_app.settings import Settings

Asked = Mapping[str, Any]


def _explain(policy: str, asked: Asked) -> Command:
    at = ("--entry", str(asked["entry"])) if asked.get("entry") else ()
    # An event_id may begin with a dash.
    return ("explain", "--policy", policy, "--json", *at, "--", str(asked["event_id"]))


def _report(policy: str, asked: Asked) -> Command:
    since = (f"--since={asked['since']}",) if asked.get("since") else ()
    return ("report", "--policy", policy, "--json", *since)


def _doctor(policy: str, _asked: Asked) -> Command:
    return ("doctor", "--policy", policy, "--json")


COMMANDS: Mapping[str, Callable[[str, Asked], Command]] = {
    "explain": _explain,
    "report": _report,
    "doctor": _doctor,
}
AT_ONCE = ("decisions", "event", "snapshots", "pin", "unpin", "rollback")


def command_of(errand: str, policy: str, asked: Asked) -> Command | None:
    """Return the command that does an errand; None: it is done at once, in this process.

    Args:
        errand: its name.
        policy: of which policy.
        asked: what the path and the query of the request say.
    """
    make = COMMANDS.get(errand)
    return None if make is None else make(policy, asked)


def do_now(settings: Settings, errand: str, policy: str, asked: Asked) -> msgspec.Struct:
    """Do an errand that takes no longer than a page may.

    Args:
        settings: of the service.
        errand: its name.
        policy: of which policy.
        asked: what the path and the query of the request say.

    Raises:
        BanditloopError: it cannot be done; with the reason.
    """
    # Imported when first asked: pyarrow takes memory that an office nobody asks can do without.
    from serve_app.office import desk  # noqa: PLC0415

    if errand not in AT_ONCE:
        raise NotFoundError(f"the office does not know the errand {errand!r}", "path")
    return desk.Desk(settings, policy).do(errand, asked)
