"""``banditloop snapshots``: which models were served, which one is, and whether the log gives them again."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.text import Text

from bandits.errors import SnapshotError
from bandits.log.codec import digest
from bandits.log.positions import START, is_after, position_ms
from bandits.log.records import PinRecord, RollbackRecord, WarmStartRecord
from policies.artifacts.learner_model import TrainedModel, decode_trained
from policies.fold.verify import Verified
from policies.spec import PolicySpec, decode_spec
from serve_app.admin.open import opened
from serve_app.admin.outcomes import has_become, is_pinned
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.admin.verification import Work, verify_policy
from serve_app.cli.options import (
    ALSO_WITHOUT,
    AsJson,
    DataDir,
    Jobs,
    PolicyName,
    RedisUrl,
    ReportFile,
    group,
    the_name,
)
from serve_app.cli.terminal import notes, printed, say, table, words
from serve_app.store.snapshots import Published

app = group("Snapshots of the model: list, show, pin, rollback, warm-start, verify.")

CORES = os.cpu_count() or 1
PATIENCE_S = 10.0
NOT_YET = 3
"""Exit status of a command that is in the log, and that no learner has read."""
NOTHING = 3
"""Exit status when there was nothing to compare, as of banditloop doctor."""
SHORT = 12
HEADS = ("snapshot", "trained through (UTC)", "learned")

SnapshotId = Annotated[str, typer.Argument(help="Its id, or the beginning of it")]


@app.command("list", context_settings=ALSO_WITHOUT)
def list_(
    context: typer.Context,
    policy: PolicyName = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """The snapshots still stored, oldest first."""
    with opened(the_name(policy, context), redis_url, data_dir) as (stored, _):
        head, pinned = stored.head(), getattr(stored.stats(), "pinned", None)
        milestones = {each.snapshot_id for each in stored.checkpoints.list()}
        made = table(
            *HEADS,
            "size",
            "",
            title=stored.keys.policy,
            numbers=("learned", "size"),
            whole=("snapshot",),
        )
        for name, published in stored.snapshots():
            said = [
                "served" * (name == head),
                "pinned" * (name == pinned),
                "checkpoint" * (name in milestones),
                "corrupt" * (published is None),
            ]
            row = ("?", "?", "?") if published is None else _row(published)
            made.add_row(name[:SHORT], *row, " ".join(filter(None, said)))
        printed.print(made)


@app.command(short_help="One snapshot, and what changed since the one before.")
def show(
    snapshot_id: SnapshotId,
    policy: PolicyName = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """One snapshot: its digest, what it has learned, and what changed since the one before it."""
    with opened(policy, redis_url, data_dir) as (stored, _):
        name, published = stored.find(snapshot_id)
        earlier = [
            p for _, p in stored.snapshots() if p and is_after(published.position, p.position)
        ]
        made = table("what", "which", show_header=False, title=f"{stored.keys.policy}  {name}")
        made.add_row(
            "trained through", f"{_time(published.position)} UTC, log position {published.position}"
        )
        made.add_row("learned", f"{published.learned:,} interactions")
        made.add_row("model", f"{published.kind}, {len(published.payload):,} bytes")
        made.add_row("spec", published.spec)
        made.add_row("catalogue", published.catalogue)
        made.add_row("build", ", ".join(f"{key} {value}" for key, value in published.build.items()))
        made.add_row(
            "since the one before",
            _changes(stored, earlier[-1], published) if earlier else "(the oldest)",
        )
        printed.print(made)


@app.command(short_help="Serve this snapshot from now on.")
def pin(
    snapshot_id: SnapshotId,
    policy: PolicyName = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Serve this snapshot from now on, whatever is learned meanwhile.

    ``unpin``, a rollback or a new spec ends it.
    """
    with opened(policy, redis_url, data_dir) as (stored, _):
        name, published = stored.find(snapshot_id)
        _same_spec(stored, published, "pinned")
        at = stored.control(PinRecord(name))
        _wait(
            stored,
            at,
            "pin",
            f"{name} is served; learning goes on",
            lambda: is_pinned(stored, name),
        )


@app.command(context_settings=ALSO_WITHOUT)
def unpin(
    context: typer.Context,
    policy: PolicyName = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Serve the newest snapshot again."""
    with opened(the_name(policy, context), redis_url, data_dir) as (stored, _):
        at = stored.control(PinRecord(None))
        _wait(stored, at, "pin", "the newest snapshot is served")


@app.command()
def rollback(
    snapshot_id: SnapshotId,
    policy: PolicyName = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Restore what had been learned at this snapshot.

    What was learned since is dropped, and not learned again.
    """
    with opened(policy, redis_url, data_dir) as (stored, _):
        name, published = stored.find(snapshot_id)
        _same_spec(stored, published, "rolled back to")
        at = stored.control(RollbackRecord(name, published.position))
        _wait(
            stored,
            at,
            "rollback",
            f"the model is that of {name} again ({published.learned:,} interactions)",
        )


@app.command("warm-start")
def warm_start_(
    model: Annotated[Path, typer.Argument(help="What banditloop train policy wrote")],
    policy: PolicyName = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Go on learning from a model trained on another log.

    It replaces what was learned, and the log says so.
    """
    with opened(policy, redis_url, data_dir) as (stored, _):
        warm_start(stored, _read(model))


def warm_start(stored: StoredPolicy, model: TrainedModel) -> None:
    """Name the model in the log, and wait until a learner goes on from it.

    Raises:
        SnapshotError: it was trained for a spec of another shape than is served.
    """
    if stored.partitions > 1:
        raise SnapshotError(
            f"{stored.keys.policy} is learned in {stored.partitions} partitions, of which none"
            " could go on from a whole"
            " model without counting it again: a warm start needs partitions: 1",
            "partitions",
        )
    head = stored.head()
    served = None if head is None else _spec(stored, stored.find(head)[1].spec)
    if served is not None and served.model_digest != model.spec().model_digest:
        raise SnapshotError(
            "the model was trained for a spec whose kind, use or learner differ from those of"
            f" {stored.keys.policy}: "
            "train it with the spec that is served",
            "spec",
        )
    data = model.encoded
    name = digest(data)
    stored.log.put_blob(name, data)
    at = stored.control(WarmStartRecord(name))
    _wait(
        stored, at, "warm_start", f"learning goes on from {model.learned:,} interactions of {name}"
    )


def _read(path: Path) -> TrainedModel:
    try:
        return decode_trained(path.read_bytes())
    except OSError as error:
        raise SnapshotError(f"{path}: {error.strerror}", "model") from error


@app.command(
    "verify",
    context_settings=ALSO_WITHOUT,
    short_help="Compare stored snapshots with a replay of the log.",
)
def verify_(
    context: typer.Context,
    policy: PolicyName = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", help="Start from this checkpoint's log position, instead of from the start"
        ),
    ] = None,
    jobs: Jobs = CORES,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    out: ReportFile = None,
    as_json: AsJson = False,
) -> None:
    """Fold the log once more, and compare every stored snapshot with what comes out: exit 0 if all are the same.

    Byte for byte within one build (CPU architecture and library versions), within 1e-6 across
    builds. Exit 1 if one differs, or is listed and gone or damaged; 3 if no snapshot is stored, so
    nothing was compared.
    """
    with opened(the_name(policy, context), redis_url, data_dir) as (stored, settings):
        served, corrupt = stored.served()
        start = stored.checkpoint_at(from_) if from_ is not None else None
        work = Work(
            str(settings.redis_url), stored.keys.policy, settings.archive_root(), settings.secret()
        )
        expected = max((each.snapshot.learned for each in served), default=0) - (
            start.learned if start else 0
        )
        clock = time.perf_counter()
        with _progress(expected) as on_progress:
            results, learned = verify_policy(
                work, served, start=start, jobs=jobs, progress=on_progress
            )
        seconds = time.perf_counter() - clock
        holds = bool(results) and all(each.holds for each in results) and not corrupt
        report = json.dumps(_as_json(stored.keys.policy, results, corrupt, holds, learned, seconds))
        if out is not None:
            out.write_text(report + "\n", encoding="utf-8")
        if as_json:
            typer.echo(report)
        else:
            _print(results, corrupt, holds, learned, seconds)
        raise typer.Exit(0 if holds else 1 if results or corrupt else NOTHING)


def _print(
    results: list[Verified], corrupt: list[str], holds: bool, learned: int, seconds: float
) -> None:
    made = table(*HEADS, "replay", "", numbers=("learned",), whole=("snapshot", "replay"))
    for each in results:
        verdict = Text(each.verdict, "green" if each.holds else "red")
        apart = "" if each.verdict == "identical" else f"differs by {each.distance:.2g}"
        name = (
            each.snapshot_id if each.snapshot_id.startswith("merge") else each.snapshot_id[:SHORT]
        )
        made.add_row(name, _time(each.position), f"{each.learned:,}", verdict, apart)
    for name in corrupt:
        made.add_row(
            name[:SHORT],
            "",
            "",
            Text("corrupt", "red"),
            "its bytes are gone, or not those of its digest",
        )
    printed.print(made)
    rate = learned / seconds if seconds > 0 else 0.0
    say(f"{learned:,} interactions learned again in {seconds:.1f} s ({rate:,.0f}/s)", on=printed)
    if holds:
        few = "" if learned else ", of which none has learned anything yet: that shows little"
        said = ("the live model equals the replay of its log", "green")
        say(said, f": {len(results)} snapshots{few}", on=printed)
    elif not results and not corrupt:
        why = ": no snapshot is stored. A learner that runs publishes one at once"
        say(("nothing to compare", "red"), why, on=printed)
    else:
        say(
            ("NOT the replay of its log", "red"),
            ". Look at the first that differs: what was appended, trimmed or changed between it"
            " and the one before?"
            " If all differ: is the salt the same (--data-dir, BANDITLOOP_SALT)?",
            on=printed,
        )


def _as_json(
    policy: str,
    results: list[Verified],
    corrupt: list[str],
    holds: bool,
    learned: int,
    seconds: float,
) -> dict[str, object]:
    return {
        "policy": policy,
        "holds": holds,
        "learned": learned,
        "seconds": seconds,
        "corrupt": corrupt,
        "snapshots": [
            {
                "id": each.snapshot_id,
                "position": each.position,
                "learned": each.learned,
                "verdict": each.verdict,
            }
            for each in results
        ],
    }


@contextlib.contextmanager
def _progress(expected: int) -> Iterator[Callable[[int], None]]:
    columns = words("replaying"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=notes, transient=True) as progress:
        task = progress.add_task("replay", total=expected)
        yield lambda learned: progress.update(task, completed=learned)


def _wait(
    stored: StoredPolicy,
    at: str,
    kind: str,
    success: str,
    demand: Callable[[], None] = lambda: None,
) -> None:
    """The learner does it when it reads the entry ``at``; say so when it has.

    ``demand`` may know better.

    Raises:
        RefusedError, StalledError: it has not, with the reason.
    """
    if has_become(stored, at, kind, within_s=PATIENCE_S):
        demand()
        say(("done", "green"), f"  {success}", on=printed)
        return
    say(
        f"the log of {stored.keys.policy} says so now, but no learner has read it yet: it takes"
        " effect when one runs",
        on=printed,
    )
    raise typer.Exit(NOT_YET)


def _same_spec(stored: StoredPolicy, published: Published, what: str) -> None:
    head = stored.head()
    current = None if head is None else stored.find(head)[1].spec
    if what == "pinned" and current not in (None, published.spec):
        raise SnapshotError(
            f"it was learned for another spec than is served now, so it cannot be {what}",
            "snapshot_id",
        )
    if current is None or current == published.spec:
        return
    specs = [_spec(stored, each) for each in (current, published.spec)]
    if specs[0].model_digest != specs[1].model_digest:
        raise SnapshotError(
            f"its model is of another shape than that of the spec in force, so it cannot be {what}",
            "snapshot_id",
        )


def _spec(stored: StoredPolicy, spec_digest: str) -> PolicySpec:
    return decode_spec(stored.history.blob(spec_digest))


def _changes(stored: StoredPolicy, before: Published, after: Published) -> str:
    lines = [
        f"{after.learned - before.learned:+,} interactions, {_seconds(before, after):,.1f} s of log"
    ]
    if before.spec != after.spec:
        old, new = _spec(stored, before.spec), _spec(stored, after.spec)
        changed = [
            name
            for name in PolicySpec.__struct_fields__
            if getattr(old, name) != getattr(new, name)
        ]
        lines.append(f"spec: {', '.join(changed)} changed")
    if before.catalogue != after.catalogue:
        lines.append("another catalogue")
    changed = [key for key in after.build if before.build.get(key) != after.build[key]]
    if changed:
        lines.append(
            "build: "
            + ", ".join(f"{key} {before.build.get(key)} -> {after.build[key]}" for key in changed)
        )
    return "\n".join(lines)


def _seconds(before: Published, after: Published) -> float:
    return (position_ms(after.position) - position_ms(before.position)) / 1000


def _row(published: Published) -> tuple[str, str, str]:
    return _time(published.position), f"{published.learned:,}", f"{len(published.payload):,}"


def _time(position: str) -> str:
    if position == START:
        return "the start"
    return (
        datetime.fromtimestamp(position_ms(position) / 1000, UTC)
        .isoformat(" ", "milliseconds")
        .removesuffix("+00:00")
    )
