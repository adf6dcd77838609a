"""The command ``banditloop preview``: asks a running service, over HTTP like any caller."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from serve_app.cli.options import AsJson, PolicyName, one_command
from serve_app.cli.terminal import empty_table, output, say

if TYPE_CHECKING:
    from banditloop_client.console_schemas import PreviewResponse

app = one_command()

URL = "http://127.0.0.1:8000"
CANDIDATES = 20
"""Candidates that the terminal shows; --json has all."""


@app.command("preview")
def preview_request(
    user: Annotated[
        str | None, typer.Argument(help="User to decide for [default: nobody in particular]")
    ] = None,
    policy: PolicyName = None,
    url: Annotated[str, typer.Option(help="Address of the running service")] = URL,
    context: Annotated[
        str, typer.Option(help="Features of the request, as JSON: '{\"hour\": 21}'")
    ] = "{}",
    slots: Annotated[int, typer.Option(min=1, max=50, help="Number of slots")] = 1,
    request: Annotated[
        Path | None,
        typer.Option(help="File with the whole body of a rank request; - is standard input"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a running service would choose, and why; nothing is logged.

    It takes what rank takes, and answers what rank would answer now. A user who is not known stays
    so. Where the service demands API keys, BANDITLOOP_API_KEY has one with the scope console.
    """
    import os

    from banditloop_client import Client
    from banditloop_client.console_schemas import PREVIEW
    from banditloop_client.exchange import Exchange

    body = _body(request, user, context, slots)
    key = os.environ.get("BANDITLOOP_API_KEY")
    with Client(url, policy or "", api_key=key, retries=0, timeout_s=30.0) as client:
        path = PREVIEW.url(policy=policy or _only(client.policies()))
        shown = client.send(Exchange(PREVIEW.method, path, body, PREVIEW.decode))

    if as_json:
        typer.echo(msgspec.json.encode(shown).decode())
    else:
        _print(shown)


def _body(path: Path | None, user: str | None, context: str, slots: int) -> bytes:
    """Return the body: that of a file, or made of the options. The service says what is wrong."""
    from bandits.errors import InvalidFieldError

    if path is not None:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    try:
        features = msgspec.json.decode(context, type=dict)
    except msgspec.MsgspecError as error:
        raise InvalidFieldError(f"--context: {error}", "context") from error
    return msgspec.json.encode({"user_id": user, "context": features, "slots": slots})


def _only(names: list[str]) -> str:
    from bandits.errors import UnknownPolicyError

    if len(names) != 1:
        raise UnknownPolicyError(f"several policies: name one with --policy; there are {names}")
    return names[0]


def _print(shown: "PreviewResponse") -> None:
    from serve_app.cli.explain.tables import print_explanation

    chosen = ", ".join(f"{each.id} (probability {each.propensity:.4f})" for each in shown.chosen)
    say(f"{shown.policy}: {chosen or 'nothing is drawn'}", on=output)
    say(f"model: snapshot {shown.snapshot_id}", on=output)
    for placed in shown.placed:
        say(f"placed in slot {placed.slot}: {placed.id}", on=output)
    for unplaced in shown.unplaced:
        say(f"not placed in slot {unplaced.slot}: {unplaced.id}, {unplaced.reason}", on=output)
    for removed in shown.removed:
        say(f"{removed.rule} removed {removed.count:,}: {', '.join(removed.ids[:5])}", on=output)
    for source, why in shown.failed.items():
        say(f"source {source} said nothing: {why}", on=output)

    table = empty_table("candidate", "probability", "proposed by", numbers=("probability",))
    for each in shown.candidates[:CANDIDATES]:
        said = ", ".join(f"{name} #{of.rank}" for name, of in each.sources.items())
        table.add_row(each.id, f"{each.probability:.4f}", said)
    output.print(table)
    print_explanation(shown.explanation)
