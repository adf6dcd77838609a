"""The evaluation of ``banditloop replay``: open the log, find the policies, ask the simulator."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeElapsedColumn

from bandits.errors import InvalidFieldError, ReplayError
from bandits.log.positions import START, log_order
from policies.archive.archive import ArchiveReader, archive_folders
from policies.spec import PolicySpec, decode_spec
from policies.typed_yaml import as_type, encode_yaml, parse_yaml
from serve_app.admin.open import opened
from serve_app.admin.readable_logs import position_since, span_s
from serve_app.cli.replay.command import ReplayOptions
from serve_app.cli.terminal import messages, progress_bar, progress_count, text_column
from serve_app.host.placement import on_node_for
from simulator.learners.online import PUBLISH_EVERY
from simulator.learners.trained import FrozenPolicy
from simulator.learners.vw_target import FORMATS, VwTarget, read_model, with_lines
from simulator.logs.csv_columns import CsvColumns
from simulator.logs.formats import archived_policy, open_log
from simulator.logs.left_out import LeftOut
from simulator.logs.rows import Piece
from simulator.ope.formulas import FORMULAS
from simulator.ope.reward_model import DEFAULT_KINDS
from simulator.ope.targets import ColumnTarget, LoggingTarget, Target
from simulator.parallel import OnRay, in_processes
from simulator.replay.evaluate import OpeQuestion, OpeTally, evaluate, tally_piece
from simulator.replay.evaluate_learning import METHODS, evaluate_learning
from simulator.replay.evaluate_sessions import SessionQuestion, evaluate_sessions, tally_sessions
from simulator.replay.evaluate_slates import (
    SlateQuestion,
    SlateTally,
    evaluate_slates,
    tally_slates,
)
from simulator.replay.leakage import ServiceLog
from simulator.replay.parse_policy import ParsedPolicy, VwPolicy, parse_policy
from simulator.replay.report import EvaluationReport, LogSummary, PolicyResult, Trial
from simulator.replay.search import search
from simulator.replay.search_space import load_space

SNAPSHOT = "snapshot:"
TALLIED = ("ope", "sessions", "slates")
"""The methods for policies that learn no more."""


def run_replay(options: ReplayOptions) -> EvaluationReport:
    """Evaluate what the options name, with a progress bar.

    Raises:
        BanditloopError: An option or a row is at fault; the error names it.
    """
    if not options.policy and options.search is None:
        raise ReplayError(
            "name a policy to evaluate (--policy), or a space to search (--search)", "policy"
        )
    if options.method not in (*TALLIED, *METHODS):
        raise ReplayError(
            f"a method is one of {', '.join((*TALLIED, *METHODS))}, not {options.method!r}",
            "method",
        )

    # Policies come first: a policy may be a column of the log, which then has to be read.
    policies = [_policy_of(text, options) for text in options.policy or ()]
    # The slots of a page are lines of a table: a piece that ends between them would cut the page.
    shards = options.piece_count
    after, through = _range(options)
    pieces = open_log(
        options.log,
        options.log_format,
        shards=1 if options.method == "slates" and options.log_format == "csv" else shards,
        skip_bad=options.skip_bad,
        columns=csv_columns(options.columns),
        extra=[policy.column for policy in policies if isinstance(policy, ColumnTarget)],
        window_s=options.window_s,
        after=after,
        through=through,
    )

    learns = options.method in METHODS and any(
        isinstance(policy, PolicySpec) for policy in policies
    )
    if options.publish_every is not None and not learns:
        raise ReplayError(
            "--publish-every needs a policy's own spec, and --method progressive or rejection",
            "publish_every",
        )

    _check_every(options, policies)
    if options.search is not None:
        return _search(options, options.search, pieces)
    if options.method in METHODS:
        return _learn(options, policies, pieces)
    return _evaluate(options, policies, pieces)


def _check_every(options: ReplayOptions, policies: Sequence[ParsedPolicy]) -> None:
    """Refuse windows of time where they would have no effect."""
    of_ope = options.method == "ope" and options.search is None
    learns = options.method == "progressive" and not any(
        isinstance(policy, VwPolicy) for policy in policies
    )
    if options.every and not (of_ope or learns):
        raise ReplayError("--every is of method ope, or of a spec by --method progressive", "every")


def spans_of(texts: Sequence[str] | None) -> tuple[int, ...]:
    """Return spans in seconds.

    Raises:
        ReplayError: One is no span.
    """
    widths: list[int] = []
    for text in texts or ():
        width = span_s(text)
        if not width:
            raise ReplayError(
                f"--every is a span, such as 90s, 5m, 1h or 7d, not {text!r}", "every"
            )
        widths.append(width)
    return tuple(widths)


def _range(options: ReplayOptions) -> tuple[str, str | None]:
    """Return the positions that decisions are past, and up to.

    Raises:
        ReplayError: The log is no archive.
        DataUnavailableError: A text is no time.
    """
    if options.since is None and options.until is None:
        return START, None
    if options.log_format != "archive":
        raise ReplayError("--since and --until are of an archive", "since")
    root, policy = archived_policy(options.log)
    ends = [ArchiveReader(root, folder).end for folder in archive_folders(root, policy)]
    end = max(ends, key=log_order)
    through = None if options.until is None else position_since(options.until, end)
    return position_since(options.since, end), through


def _policy_of(text: str, options: ReplayOptions) -> ParsedPolicy:
    """Return the policy that a text names: a snapshot that a service keeps, or as ``parse_policy``.

    A snapshot is named ``snapshot:ID`` or ``snapshot:POLICY/ID``.
    """
    if not text.startswith(SNAPSHOT):
        return parse_policy(text)

    policy, _, snapshot_id = text.removeprefix(SNAPSHOT).rpartition("/")
    with opened(policy or None, options.redis_url, options.data_dir) as (stored, _):
        name, published = stored.find(snapshot_id)
        spec = decode_spec(stored.history.blob(published.spec))

    note = (
        f"snapshot {name}: learned from {published.learned:,} interactions up to log position"
        f" {published.position}"
    )
    # What it learned from its own log must not be evaluated on the same rows.
    learns = published.learned and spec.kind != "rl"
    provenance = ServiceLog(stored.keys.policy, published.position) if learns else None
    return FrozenPolicy(text, spec, published.snapshot, (note,), provenance)


def _learn(
    options: ReplayOptions, policies: Sequence[ParsedPolicy], pieces: Sequence[Piece]
) -> EvaluationReport:
    """Let every policy learn from the log on the way, by method progressive or rejection."""
    results: list[PolicyResult] = []
    left_out = LeftOut()
    for policy in policies:
        if not isinstance(policy, PolicySpec | VwPolicy):
            raise ReplayError(f"{policy.name} does not learn: use --method ope", "method")

        with progress_count("rows") as progress:
            task = progress.add_task(f"{options.method}: a policy learns", total=None)
            result, omitted = evaluate_learning(
                policy,
                options.method,
                pieces,
                log=options.log,
                log_format=options.log_format,
                seed=options.seed,
                bound=options.bound,
                skip_bad=options.skip_bad,
                publish_every=options.publish_every or PUBLISH_EVERY,
                every_s=spans_of(options.every),
                progress=partial(_show_completed, progress, task),
            )
        results.append(result)
        left_out = left_out or omitted

    # These methods go through the log row by row, and do not summarize its rewards and times.
    unknown = float("nan")
    log = LogSummary(
        rows=int(results[0].learned["rows"]),
        skipped=left_out.skipped,
        first_ms=0,
        last_ms=0,
        mean_reward=unknown,
        min_propensity=unknown,
        left_out=dict(left_out.counts),
        first_bad=left_out.first_bad,
    )
    return EvaluationReport(log.of(pieces), results, [])


def _show_completed(progress: Progress, task: TaskID, count: int) -> None:
    progress.update(task, completed=count)


def _evaluate(
    options: ReplayOptions, policies: Sequence[ParsedPolicy], pieces: Sequence[Piece]
) -> EvaluationReport:
    """Evaluate policies that learn no more, by method ope, sessions or slates."""
    if any(isinstance(policy, VwPolicy) for policy in policies):
        policies = [_without_learning(policy, options.log_format) for policy in policies]
        pieces = with_lines(pieces)

    targets = [policy for policy in policies if not isinstance(policy, PolicySpec | VwPolicy)]
    if len(targets) != len(policies):
        raise ReplayError(
            "a policy that learns is replayed with --method progressive or rejection; to evaluate"
            " what it has learned from another log, banditloop train policy first, then --policy"
            " '{kind: trained, path: ...}'",
            "method",
        )

    # The policy that made the log is what the others are compared with.
    if not any(isinstance(target, LoggingTarget) for target in targets):
        targets = [LoggingTarget(), *targets]

    with progress_bar("{task.fields[rate]}") as progress:
        run_all = _with_progress(_executor(options), progress)
        if options.method == "sessions":
            return evaluate_sessions(_session_question(options, targets), pieces, run_all)
        if options.method == "slates":
            return evaluate_slates(_slate_question(options, targets), pieces, run_all)
        return evaluate(_question(options, targets), pieces, run_all)


def _without_learning(policy: ParsedPolicy, log_format: str) -> ParsedPolicy:
    """Return a VW policy as it is, so that it learns no more; return any other unchanged."""
    if not isinstance(policy, VwPolicy):
        return policy

    command = policy.command
    if command.learns and command.model is None:
        raise ReplayError(
            f"{policy.label} learns: use --method progressive; to evaluate VW as it is, give -t,"
            " or a model that it has saved: {kind: vw, model: FILE}",
            "method",
        )
    if log_format not in FORMATS:
        raise ReplayError(
            f"{policy.label} reads VW's own logs: --format {' or '.join(FORMATS)}", "policy"
        )
    return VwTarget(policy.label, command, FORMATS[log_format], read_model(command.model))


Executor = Callable[..., Iterable[Any]]
"""Applies a function to all pieces, and yields the results in their order."""


def _executor(options: ReplayOptions) -> Executor:
    if options.address:
        return OnRay(options.address, lambda: on_node_for("replay"))
    return in_processes(options.jobs)


def _with_progress(run_all: Executor, progress: Progress) -> Executor:
    """Return the executor, showing in ``progress`` what it has done."""

    def run_and_show(function: Callable[[Piece], Any], pieces: Sequence[Piece]) -> Iterable[Any]:
        tallies = getattr(function, "func", None) in {tally_piece, tally_sessions, tally_slates}
        description = "evaluating" if tallies else "fitting a model"
        task, rows = progress.add_task(description, total=len(pieces), rate=""), 0

        for result in run_all(function, pieces):
            rows += result.rows if isinstance(result, OpeTally | SlateTally) else 0
            elapsed = progress.tasks[task].elapsed or 1e-9
            details = [f"{rows / elapsed:,.0f} rows/s"] if rows else []
            if isinstance(run_all, OnRay):
                details.append(f"{run_all.nodes} nodes (at most {run_all.most})")
            progress.update(task, advance=1, rate="  ".join(details))
            yield result

    return run_and_show


def _question(options: ReplayOptions, targets: Sequence[Target]) -> OpeQuestion:
    given = {"clip": options.clip, "tau": options.tau, "lambda_": options.lambda_}
    return OpeQuestion(
        targets,
        tuple(options.estimator or ()),
        parameters_of(given),
        options.interval,
        options.alpha,
        options.bits,
        options.folds,
        tuple(options.reward_model or ()) or DEFAULT_KINDS,
        spans_of(options.every),
    )


def _session_question(options: ReplayOptions, targets: Sequence[Target]) -> SessionQuestion:
    return SessionQuestion(
        targets,
        tuple(options.estimator or ()),
        horizon=options.horizon,
        gamma=options.gamma,
        interval=options.interval,
        alpha=options.alpha,
        session=options.session,
        pause_s=options.pause_s,
        skip_bad=options.skip_bad,
    )


def _slate_question(options: ReplayOptions, targets: Sequence[Target]) -> SlateQuestion:
    page_reward: Any = options.page_reward
    return SlateQuestion(
        targets,
        tuple(options.estimator or ()),
        horizon=options.horizon,
        interval=options.interval,
        alpha=options.alpha,
        page_reward=page_reward,
    )


def parameters_of(texts: Mapping[str, str | None]) -> dict[str, dict[str, Any]]:
    """Return the estimators' parameters by estimator.

    Args:
        texts: By parameter, a number, ``auto``, or None where it is not given.

    Raises:
        ReplayError: A text is neither a number nor ``auto``.
    """
    parameters: dict[str, dict[str, Any]] = {}
    for estimator, formula in FORMULAS.items():
        # An estimator without a parameter has the name "", which no option has.
        name = formula.tuned or ""
        text = texts.get(name)
        if text is None:
            continue

        try:
            parameters[estimator] = {name: text if text == "auto" else float(text)}
        except ValueError as error:
            flag = f"--{name.rstrip('_')}"
            raise ReplayError(f"{flag} is a number or auto, not {text!r}", name) from error
    return parameters


def _search(options: ReplayOptions, path: Path, pieces: Sequence[Piece]) -> EvaluationReport:
    """Search a space of specs, and write the best one and its model where the options say."""
    if options.policy or options.method != "ope":
        raise ReplayError(
            "a search has its own policies, and evaluates them by ope: leave the others out",
            "search",
        )

    space, base = load_space(path)
    columns = (
        text_column("rung"),
        BarColumn(),
        MofNCompleteColumn(),
        text_column("{task.fields[best]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=messages) as progress:
        task = progress.add_task("rung", total=None, best="")

        def show(rung: int, rungs: int, trials: Sequence[Trial]) -> None:
            best = f"best of {len(trials)}: {trials[0].spec}, at least {trials[0].lower:.6g}"
            progress.update(task, completed=rung, total=rungs, best=best)

        # Trials of a search always run on Ray, by default on a cluster of this machine's own.
        result = search(
            space,
            base,
            pieces,
            address=options.address or "local",
            options=lambda: on_node_for("replay"),
            seed=options.seed,
            progress=show,
        )

    if options.best is not None:
        options.best.write_bytes(encode_yaml(result.best))
    if options.model is not None:
        options.model.write_bytes(result.model.encoded)
    return result.report


def csv_columns(text: str | None) -> CsvColumns | None:
    """Return the columns that ``--columns`` names, None if it is not given.

    Raises:
        ReplayError: The text is no YAML, or has an unknown key.
    """
    if text is None:
        return None

    try:
        return as_type(parse_yaml(text), CsvColumns)
    except InvalidFieldError as error:
        at = f"{error.target}: " if error.target else ""
        raise ReplayError(f"--columns: {at}{error.message}", "columns") from error
