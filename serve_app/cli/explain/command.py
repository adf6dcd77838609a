"""``banditloop explain``: why a decision of the log is as it is."""

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from serve_app.cli.options import AsJson, DataDir, PolicyName, RedisUrl, one_command
from serve_app.cli.terminal import output, progress_bar, say

if TYPE_CHECKING:
    from banditloop_client.console_schemas import ExplainedEvent
    from serve_app.admin.replayed.explaining import FoundDecision

app = one_command()

GONE = 3
"""Exit status where the decision is found, and why it is so can be said no more."""
VERIFIED = {
    "equal": "the logged probabilities follow from it, byte for byte",
    "unequal": "the logged probabilities do NOT follow from it",
    "older_build": "another build made it, whose last digits differ",
    "gone": "nothing, for the model is gone",
    "not_asked": "nothing, for no model was asked",
}


@app.command()
def explain(
    event_id: Annotated[str, typer.Argument(help="The decision's event_id")],
    entry: Annotated[
        str,
        typer.Option(help="Its entry in the log, if that is known: then it is found at once"),
    ] = "",
    policy: PolicyName = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Say why a decision of the log is as it is, however long ago it was made.

    The model that made it is stored for a while. Later it is made again: the log is folded from the
    checkpoint before the decision, until the logged probabilities follow from it byte for byte.

    Exit status 0: it is explained. 3: the decision is there, and its model cannot be had any more;
    the reason is told.
    """
    from serve_app.admin.open import opened
    from serve_app.admin.replayed.explaining import EventExplainer
    from serve_app.admin.replayed.verification import LogAddress

    with opened(policy, redis_url, data_dir) as (stored, settings):
        address = LogAddress(
            str(settings.redis_url), stored.keys.policy, settings.archive_root(), settings.secret()
        )
        with progress_bar(transient=True) as bar:
            task = bar.add_task("reading the log", total=None)
            found = EventExplainer(stored, address).explain(
                event_id,
                entry,
                lambda position: bar.update(task, description=f"reading {position}"),
            )

    if as_json:
        typer.echo(msgspec.json.encode(_as_json(found)).decode())
    else:
        _print(found)
    if found.explanation is None:
        raise typer.Exit(GONE)


def _as_json(found: "FoundDecision") -> "ExplainedEvent":
    from banditloop_client.console_schemas import ExplainedEvent

    record = found.record
    return ExplainedEvent(
        found.entry,
        record.event_id,
        record.policy,
        record.snapshot_id,
        found.source,
        found.verified,
        record.context,
        [record.action_ids[at] for at in record.chosen],
        [record.propensity(slot) for slot in range(record.slots)],
        record.holdout,
        found.explanation,
        None if record.apprentice is None else record.apprentice.served,
    )


def _print(found: "FoundDecision") -> None:
    from serve_app.cli.explain.tables import print_explanation

    record = found.record
    shown = [
        f"{record.action_ids[at]} (probability {record.propensity(slot):.4f})"
        for slot, at in enumerate(record.chosen)
    ]
    say(f"{record.event_id}: {', '.join(shown)}, among {len(record.action_ids):,}", on=output)
    say(f"model: {found.source}", on=output)
    say(f"verified: {VERIFIED[found.verified]}", on=output)
    if found.explanation is not None:
        print_explanation(found.explanation)
