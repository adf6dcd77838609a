"""The command ``banditloop doctor``: its options, exit status and findings for a person."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from serve_app.cli.errors import say_error
from serve_app.cli.options import (
    AND_POLICY,
    POLICY_AS_ARGUMENT,
    AsJson,
    DataDir,
    PolicyName,
    RedisUrl,
    ReportFile,
    one_command,
    policy_name_of,
)
from serve_app.cli.terminal import empty_table, messages, print_report

if TYPE_CHECKING:
    from simulator.doctor.checks.findings import DoctorReport

TRUSTED, UNTRUSTED, UNEXAMINED, UNPROVED = 0, 1, 2, 3
STYLES = {"ok": "green", "nothing": "cyan", "warning": "yellow", "failure": "bold red"}

app = one_command()


@app.command(context_settings=POLICY_AS_ARGUMENT, options_metavar=AND_POLICY)
def doctor(
    context: typer.Context,
    policy: PolicyName = None,
    redis_url: RedisUrl = None,
    archive: Annotated[
        str | None, typer.Option(help="Read this archive instead: a path or URI")
    ] = None,
    data_dir: DataDir = None,
    salt_file: Annotated[
        list[Path] | None,
        typer.Option(
            help="File of a salt of the service; may be repeated [default: the salt in --data-dir]"
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Skip older entries: a span before the end (24h), a time, or an entry id"
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Read at most this many entries")] = None,
    demand: Annotated[
        list[str] | None,
        typer.Option(help="Exit with status 3 if this check had nothing to check; may be repeated"),
    ] = None,
    out: ReportFile = None,
    as_json: AsJson = False,
) -> None:
    """Audit a policy's log.

    Exit status 0: the log can be trusted. 1: it cannot. 2: it could not be examined.

    3: no fault was found, but nothing proves the log either: no choice and no PMF could be derived
    again and there are too few choices to compare, or a check that --demand names had nothing to
    check.
    """
    from pydantic import ValidationError

    from serve_app.cli.doctor.examination import run_doctor
    from serve_app.settings import Settings

    name = policy_name_of(policy, context)

    # With an invalid setting nothing is examined, which has an exit status of its own.
    try:
        settings = Settings.with_options(redis_url=redis_url, data_dir=data_dir)
    except ValidationError as error:
        say_error(error)
        raise typer.Exit(UNEXAMINED) from error

    report = run_doctor(
        name,
        settings,
        archive=archive,
        salt_files=salt_file or [],
        since=since,
        limit=limit,
        console=messages,
    )
    print_report(report, [findings_table(report)], out, as_json=as_json)
    raise typer.Exit(exit_status(report, demand or ()))


def exit_status(report: "DoctorReport", demanded: Collection[str] = ()) -> int:
    """Return the command's exit status.

    Args:
        report: What was found.
        demanded: Names of checks that must have had something to check.
    """
    if report.trusted is False:
        return UNTRUSTED
    if not report.decisions:
        return UNEXAMINED

    checked = {finding.check for finding in report.findings if finding.severity != "nothing"}
    return TRUSTED if report.trusted and checked.issuperset(demanded) else UNPROVED


def findings_table(report: "DoctorReport") -> Table:
    """Return the report for a person: every finding, with cause and remedy where it has them."""
    table = empty_table(
        *("check", "", "finding"), title=_title(report), whole=("check", ""), show_lines=True
    )

    for finding in report.findings:
        text = Text(finding.message)
        if finding.cause:
            text.append("\nwhy", "dim").append(f"  {finding.cause}")
        if finding.action:
            text.append("\ndo", "dim").append(f"   {finding.action}")
        table.add_row(finding.check, Text(finding.severity, STYLES[finding.severity]), text)
    return table


def _title(report: "DoctorReport") -> str:
    if report.trusted is None and report.decisions:
        verdict = "shows no fault, and nothing that could be derived again"
    else:
        verdict = {
            True: "can be trusted",
            False: "cannot be trusted",
            None: "could not be examined",
        }[report.trusted]

    if report.unchecked:
        verdict += f"; nothing to check: {', '.join(report.unchecked)}"
    policy = report.policy or "no policy"
    return f"the log of {policy}, {report.decisions:,} decisions, {verdict}"
