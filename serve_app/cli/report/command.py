"""The command ``banditloop report``: its options, each declared here and nowhere else."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli.options import (
    AND_POLICY,
    POLICY_AS_ARGUMENT,
    AsJson,
    DataDir,
    PolicyName,
    RedisUrl,
    ReportFile,
    one_command,
    options_from,
    out_file,
    policy_name_of,
)
from serve_app.cli.terminal import print_report

app = one_command()


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportOptions:
    """The options of the command, one a field, with the field's name unless it has another."""

    context: typer.Context
    policy: PolicyName = None
    since: Annotated[
        str | None,
        typer.Option(
            help="Skip older entries: a span before the end (24h), a time, or an entry id"
        ),
    ] = None
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="Field of the context to divide decisions by; may be repeated"
            " [default: every text or flag with at most 12 values]"
        ),
    ] = None
    group: Annotated[
        str | None,
        typer.Option(
            help="Feature of items: say how much each of its values is shown"
            " [default: exposure.group of the spec]"
        ),
    ] = None
    alpha: Annotated[
        float,
        typer.Option(
            min=1e-6, max=0.5, help="Significance level; intervals cover with probability 1 - alpha"
        ),
    ] = 0.05
    with_doctor: Annotated[
        bool,
        typer.Option("--doctor/--no-doctor", help="Have the doctor look at the newest entries"),
    ] = True
    redis_url: RedisUrl = None
    archive: Annotated[str | None, typer.Option(help="Read this archive alone: a path or URI")] = (
        None
    )
    data_dir: DataDir = None
    out: ReportFile = None
    as_json: AsJson = False
    html: Annotated[
        Path | None, out_file("File to write the report to as a self-contained page", "--html")
    ] = None


@app.command("report", context_settings=POLICY_AS_ARGUMENT, options_metavar=AND_POLICY)
@options_from(ReportOptions)
def report_policy(options: ReportOptions) -> None:
    """Say what a policy is worth: its rewards, its uplift over the holdout, and what to do.

    The uplift's interval holds at every look: look as often as you like, and stop when you like.
    """
    # Arrow's own pool keeps much of what threads have freed. Which it has is read at its import; a
    # fork has imported it before.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())
    from serve_app.cli.report.run import run_report
    from serve_app.cli.report.tables import policy_report_tables
    from simulator.report.page import policy_page

    found = run_report(options, policy_name_of(options.policy, options.context))
    if options.html is not None:
        options.html.write_text(policy_page(found), encoding="utf-8")
    print_report(found, policy_report_tables(found), options.out, as_json=options.as_json)
