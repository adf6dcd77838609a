"""``banditloop snapshots``: the stored models, the one served, and whether the log gives them."""

import json
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.text import Text

from bandits.errors import SnapshotError
from bandits.log.positions import START, is_after, position_ms
from serve_app.cli.options import (
    AND_POLICY,
    POLICY_AS_ARGUMENT,
    AsJson,
    DataDir,
    Jobs,
    PolicyName,
    RedisUrl,
    ReportFile,
    command_group,
    policy_name_of,
)
from serve_app.cli.roots import Age, RemoveOlder, say_root
from serve_app.cli.terminal import empty_table, output, progress_bar, say

if TYPE_CHECKING:
    from banditloop_client.console_schemas import SnapshotSummary
    from policies.fold.verify import Verified
    from serve_app.admin.control import Outcome
    from serve_app.store.checkpoints import Root

app = command_group("Inspect, pin and verify a policy's stored models.")

CORES = os.cpu_count() or 1
PATIENCE_S = 10.0
"""Seconds to wait for a learner to do what was appended to its log."""
NOT_YET = 3
"""Exit status of a change that is in the log, and that no learner has read."""
NOTHING = 3
"""Exit status when there was nothing to compare, as for banditloop doctor."""
ID_CHARACTERS = 12
"""Characters of an id that a table shows."""
HEADS = ("snapshot", "trained through (UTC)", "learned")
STATES = ("served", "pinned", "checkpoint", "corrupt")

SnapshotId = Annotated[str, typer.Argument(help="Id of the snapshot, or its beginning")]


@app.command(
    "list",
    context_settings=POLICY_AS_ARGUMENT,
    options_metavar=AND_POLICY,
    short_help="List the stored snapshots, oldest first.",
)
def list_snapshots(
    context: typer.Context,
    policy: PolicyName = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List the snapshots that are still stored, oldest first (as JSON, newest first)."""
    from serve_app.admin.open import opened
    from serve_app.admin.snapshot_list import listed_snapshots

    with opened(policy_name_of(policy, context), redis_url, data_dir) as (stored, _):
        listed = listed_snapshots(stored)
        if as_json:
            typer.echo(msgspec.json.encode(listed).decode())
            return

        table = empty_table(
            *(*HEADS, "size", ""),
            title=stored.keys.policy,
            numbers=("learned", "size"),
            whole=("snapshot",),
        )
        for each in reversed(listed.snapshots):
            state = " ".join(name for name in STATES if getattr(each, name))
            table.add_row(each.id[:ID_CHARACTERS], *_cells(each), state)
        output.print(table)


@app.command("show", short_help="Show a snapshot, and what changed since the one before.")
def show_snapshot(
    snapshot_id: SnapshotId,
    policy: PolicyName = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Show a snapshot: its digest, what it has learned, and what changed since the one before."""
    from serve_app.admin.control import changes_between
    from serve_app.admin.open import opened

    with opened(policy, redis_url, data_dir) as (stored, _):
        name, published = stored.find(snapshot_id)

        # Snapshots come in the order of the log, so the one before is the last of the earlier ones.
        earlier = [
            other
            for _, other in stored.snapshots()
            if other and is_after(published.position, other.position)
        ]

        changes = "(the oldest)"
        if earlier:
            changes = "\n".join(changes_between(stored, earlier[-1], published))

        through = f"{_time(published.position)} UTC, log position {published.position}"
        build = ", ".join(f"{key} {value}" for key, value in published.build.items())
        table = empty_table(
            "what", "which", show_header=False, title=f"{stored.keys.policy}  {name}"
        )
        table.add_row("trained through", through)
        table.add_row("learned", f"{published.learned:,} interactions")
        table.add_row("model", f"{published.kind}, {len(published.payload):,} bytes")
        table.add_row("spec", published.spec)
        table.add_row("catalogue", published.catalogue)
        table.add_row("artifact", published.artifact or "not said")
        table.add_row("build", build)
        table.add_row("since the one before", changes)
        output.print(table)


@app.command("pin", short_help="Serve this snapshot from now on.")
def pin_snapshot(
    snapshot_id: SnapshotId,
    policy: PolicyName = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Serve this snapshot from now on, whatever is learned meanwhile.

    It ends with ``unpin``, a rollback or a new spec.
    """
    from serve_app.admin.control import pin
    from serve_app.admin.open import opened

    with opened(policy, redis_url, data_dir) as (stored, _):
        say_outcome(pin(stored, snapshot_id, within_s=PATIENCE_S))


@app.command("unpin", context_settings=POLICY_AS_ARGUMENT, options_metavar=AND_POLICY)
def unpin_snapshot(
    context: typer.Context,
    policy: PolicyName = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Serve the newest snapshot again."""
    from serve_app.admin.control import unpin
    from serve_app.admin.open import opened

    with opened(policy_name_of(policy, context), redis_url, data_dir) as (stored, _):
        say_outcome(unpin(stored, within_s=PATIENCE_S))


@app.command("rollback")
def roll_back(
    snapshot_id: SnapshotId,
    policy: PolicyName = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Restore what had been learned at this snapshot.

    What was learned since then is dropped, and not learned again.
    """
    from serve_app.admin.control import rollback
    from serve_app.admin.open import opened

    with opened(policy, redis_url, data_dir) as (stored, _):
        say_outcome(rollback(stored, snapshot_id, within_s=PATIENCE_S))


@app.command("warm-start")
def start_warm(
    model: Annotated[Path, typer.Argument(help="File that banditloop train policy wrote")],
    policy: PolicyName = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Go on learning from a model trained on another log.

    The model replaces what was learned, and the log records it.
    """
    from policies.artifacts.learner_model import decode_trained
    from serve_app.admin.control import warm_start
    from serve_app.admin.open import opened

    with opened(policy, redis_url, data_dir) as (stored, _):
        try:
            data = model.read_bytes()
        except OSError as error:
            raise SnapshotError(f"{model}: {error.strerror}", "model") from error
        say_outcome(warm_start(stored, decode_trained(data), within_s=PATIENCE_S))


@app.command(
    "verify",
    context_settings=POLICY_AS_ARGUMENT,
    options_metavar=AND_POLICY,
    short_help="Compare stored snapshots with a replay of the log.",
)
def verify_snapshots(
    context: typer.Context,
    policy: PolicyName = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Log position of a checkpoint to start from [default: the log's root, or start]",
        ),
    ] = None,
    jobs: Jobs = CORES,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    out: ReportFile = None,
    as_json: AsJson = False,
) -> None:
    """Fold the log once more, and compare every stored snapshot with the result.

    Snapshots of this build (CPU architecture and library versions) have to be the same byte for
    byte, those of other builds within 1e-6.

    Exit status 0: all are the same. 1: one differs, or is listed but gone or damaged. 3: no
    snapshot is stored, so nothing was compared.
    """
    from serve_app.admin.open import opened
    from serve_app.admin.replayed.verification import LogAddress, verify_policy

    with opened(policy_name_of(policy, context), redis_url, data_dir) as (stored, settings):
        served, corrupt = stored.served()
        root = stored.checkpoints.root()
        start = None if root is None else root.checkpoint
        start = start if from_ is None else stored.checkpoint_at(from_)
        address = LogAddress(
            str(settings.redis_url), stored.keys.policy, settings.archive_root(), settings.secret()
        )

        # The newest snapshot has learned most: so much is to be learned again.
        most = max((each.snapshot.learned for each in served), default=0)
        clock = time.perf_counter()
        with progress_bar(transient=True) as progress:
            known = root.learned_in_all if root is not None and from_ is None else 0
            total = most - (start.learned if start is not None and from_ is not None else known)
            task = progress.add_task("replaying", total=total)
            results, learned = verify_policy(
                address,
                served,
                start=start,
                jobs=jobs,
                progress=lambda count: progress.update(task, completed=count),
            )
        seconds = time.perf_counter() - clock

        verification = _Verification(stored.keys.policy, results, corrupt, learned, seconds, root)
        report = verification.as_json()
        if out is not None:
            out.write_text(report + "\n", encoding="utf-8")
        if as_json:
            typer.echo(report)
        else:
            verification.print()
        raise typer.Exit(verification.exit_status)


@app.command("root", short_help="Have verification begin at a root, which the log names.")
def state_log_root(
    age: Age,
    policy: PolicyName = None,
    remove: RemoveOlder = False,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Have a log begin at its newest checkpoint that is as old: its root.

    The root is an entry of the log, with the digest of the state there, and with that of a file of
    what was known of users; the archive keeps both. banditloop snapshots verify begins at it from
    then on, and says so. Learning and profiles need nothing of what is before; replay, doctor,
    train and refresh read the archive's files from the first that is there.

    The logs of a policy in several partitions begin behind the newest merge that is as old. They
    are folded for it from where they begin now, as by a verification.
    """
    from bandits.durations import duration_ms
    from policies.archive.archive import archive_folder
    from serve_app.admin.open import opened
    from serve_app.admin.replayed.verification import LogAddress
    from serve_app.admin.roots.older_files import older_files, remove_older
    from serve_app.admin.roots.partitions import state_roots

    with opened(policy, redis_url, data_dir) as (stored, settings):
        name, archive = stored.keys.policy, settings.archive_root()
        address = LogAddress(str(settings.redis_url), name, archive, settings.secret())
        roots = state_roots(address, stored.log.now_ms() - duration_ms(age))
        of, older = remove_older if remove else older_files, []
        for partition, root in enumerate(roots):
            older += of(root, archive, archive_folder(name, partition, len(roots)))
    say_root(roots[0].position, roots[0].digest, older, removed=remove)


class _Verification:
    """The result of a verification, for a person and as JSON."""

    def __init__(
        self,
        policy: str,
        results: Sequence["Verified"],
        corrupt: Sequence[str],
        learned: int,
        seconds: float,
        root: "Root | None" = None,
    ) -> None:
        self._root = root
        self._policy = policy
        self._results = results
        self._corrupt = corrupt
        self._learned = learned
        self._seconds = seconds
        self._holds = bool(results) and all(each.holds for each in results) and not corrupt

    @property
    def exit_status(self) -> int:
        """0, 1 or 3, as the command's help has it."""
        if self._holds:
            return 0
        return 1 if self._results or self._corrupt else NOTHING

    def as_json(self) -> str:
        """Return the report for a program."""
        snapshots = [
            {
                "id": result.snapshot_id,
                "position": result.position,
                "learned": result.learned,
                "verdict": result.verdict,
            }
            for result in self._results
        ]
        root = self._root
        stated = None if root is None else {"position": root.position, "digest": root.digest}

        return json.dumps(
            {
                "policy": self._policy,
                "holds": self._holds,
                "learned": self._learned,
                "seconds": self._seconds,
                "corrupt": self._corrupt,
                "root": stated,
                "snapshots": snapshots,
            }
        )

    def print(self) -> None:
        """Print a table of all snapshots, the speed and the verdict."""
        self._print_table()
        if self._root is not None:
            say(
                f"the log begins at its root, {self._root.position}, with the state"
                f" {self._root.digest}: what came before is not proven",
                on=output,
            )

        rate = self._learned / self._seconds if self._seconds > 0 else 0.0
        speed = f"in {self._seconds:.1f} s ({rate:,.0f}/s)"
        say(f"{self._learned:,} interactions learned again {speed}", on=output)

        # Models that have learned nothing are equal whatever the log says.
        if self._holds:
            weak = "" if self._learned else ", but nothing has been learned yet: this proves little"
            verdict = ("the live model equals the replay of its log", "green")
            say(verdict, f": {len(self._results)} snapshots{weak}", on=output)
        elif not self._results and not self._corrupt:
            reason = ": no snapshot is stored. A learner that runs publishes one at once"
            say(("nothing to compare", "red"), reason, on=output)
        else:
            say(
                ("NOT the replay of its log", "red"),
                ". Look at the first snapshot that differs: what was appended, trimmed or changed"
                " between it and the one before? If all differ: is the salt the same (--data-dir,"
                " BANDITLOOP_SALT)?",
                on=output,
            )

    def _print_table(self) -> None:
        table = empty_table(
            *(*HEADS, "replay", ""), numbers=("learned",), whole=("snapshot", "replay")
        )
        for result in self._results:
            verdict = Text(result.verdict, "green" if result.holds else "red")
            apart = "" if result.verdict == "identical" else f"differs by {result.distance:.2g}"
            name = result.snapshot_id
            shown = name if name.startswith("merge") else name[:ID_CHARACTERS]
            table.add_row(shown, _time(result.position), f"{result.learned:,}", verdict, apart)

        for name in self._corrupt:
            damage = "its bytes are gone, or are not those of its digest"
            table.add_row(name[:ID_CHARACTERS], "", "", Text("corrupt", "red"), damage)
        output.print(table)


def say_outcome(outcome: "Outcome") -> None:
    """Print what became of a change.

    Raises:
        Exit: No learner has read it yet.
    """
    if outcome.done:
        say(("done", "green"), f"  {outcome.effect}", on=output)
        return

    say(
        f"the log of {outcome.policy} says so now, but no learner has read it yet: it takes effect"
        " when one runs",
        on=output,
    )
    raise typer.Exit(NOT_YET)


def _cells(listed: "SnapshotSummary") -> tuple[str, str, str]:
    # Of a snapshot whose bytes are gone or damaged only the id is known.
    if listed.position is None:
        return "?", "?", "?"
    return _time(listed.position), f"{listed.learned:,}", f"{listed.size:,}"


def _time(position: str) -> str:
    """Return a position's time, to the millisecond."""
    if position == START:
        return "the start"
    moment = datetime.fromtimestamp(position_ms(position) / 1000, UTC)
    return moment.isoformat(" ", "milliseconds").removesuffix("+00:00")
