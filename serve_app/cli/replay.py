"""``banditloop replay``: what other policies would have earned on a log, as a table, JSON and a page."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from bandits.errors import InvalidFieldError, ReplayError
from policies.spec import PolicySpec, decode_spec
from policies.typed_yaml import as_type, parse_yaml
from serve_app.admin.open import opened
from serve_app.cli.terminal import table, words
from serve_app.host.placement import on_node_for
from simulator.learners.online import PUBLISH_EVERY
from simulator.learners.trained import FrozenPolicy
from simulator.learners.vw_target import FORMATS, VwTarget, read_model, with_lines
from simulator.logs.csv_log import CsvColumns
from simulator.logs.formats import open_log
from simulator.logs.left_out import LeftOut
from simulator.logs.rows import Piece
from simulator.ope.formulas import FORMULAS
from simulator.ope.reward_model import DEFAULT_KINDS
from simulator.ope.targets import ColumnTarget, LoggingTarget, Target
from simulator.parallel import OnRay, in_processes
from simulator.replay.evaluate import OpeQuestion, OpeTally, evaluate, tally_piece
from simulator.replay.evaluate_learning import METHODS, evaluate_learning
from simulator.replay.evaluate_sessions import SessionQuestion, evaluate_sessions, tally_sessions
from simulator.replay.leakage import ServiceLog
from simulator.replay.parse_policy import ParsedPolicy, VwPolicy, parse_policy
from simulator.replay.report import (
    EvaluationReport,
    LogSummary,
    PolicyResult,
    SearchSummary,
    Trial,
    log_remarks,
)
from simulator.replay.search import search
from simulator.replay.search_space import load_space

SNAPSHOT = "snapshot:"
COLOURS = {"reliable": "green", "weak": "yellow", "unreliable": "red"}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command was given."""

    log: str
    log_format: str
    method: str
    policies: Sequence[str]
    estimators: Sequence[str]
    parameters: Mapping[str, str | None]
    bits: int
    folds: int
    reward_models: Sequence[str] = ()
    interval: str
    alpha: float
    address: str | None
    jobs: int
    shards: int
    seed: int
    bound: float | None
    publish_every: int | None
    window_s: float | None
    horizon: int
    gamma: float
    session: str | None
    pause_s: float
    columns: str | None
    skip_bad: bool
    search: Path | None = None
    best: Path | None = None
    model: Path | None = None
    redis_url: str | None = None
    data_dir: Path | None = None


def run_replay(options: Options, console: Console) -> EvaluationReport:
    """Do as asked, with a progress bar on ``console``.

    Raises:
        BanditloopError: names the option or the row at fault.
    """
    if not options.policies and options.search is None:
        raise ReplayError(
            "name a policy to evaluate (--policy), or a space to search (--search)", "policy"
        )
    if options.method not in ("ope", "sessions", *METHODS):
        raise ReplayError(
            f"a method is one of ope, sessions, {', '.join(METHODS)}, not {options.method!r}",
            "method",
        )
    asked = [_policy_of(text, options) for text in options.policies]
    extra = [each.column for each in asked if isinstance(each, ColumnTarget)]
    pieces = open_log(
        options.log,
        options.log_format,
        shards=options.shards,
        skip_bad=options.skip_bad,
        columns=csv_columns(options.columns),
        extra=extra,
        window_s=options.window_s,
    )
    learns = options.method in METHODS and any(isinstance(each, PolicySpec) for each in asked)
    if options.publish_every is not None and not learns:
        raise ReplayError(
            "--publish-every is of a policy's own spec, by --method progressive or rejection",
            "publish_every",
        )
    if options.search is not None:
        return _search(options, options.search, pieces, console)
    if options.method in {"ope", "sessions"}:
        if any(isinstance(each, VwPolicy) for each in asked):
            asked, pieces = (
                [_as_it_is(each, options.log_format) for each in asked],
                with_lines(pieces),
            )
        return _ope(options, asked, pieces, console)
    results: list[PolicyResult] = []
    left_out = LeftOut()
    for policy in asked:
        if not isinstance(policy, PolicySpec | VwPolicy):
            raise ReplayError(f"{policy.name} does not learn: use --method ope", "method")
        with console.status(Text(f"{options.method}: a policy learns, row by row")):
            result, of_it = evaluate_learning(
                policy,
                options.method,
                pieces,
                log=options.log,
                log_format=options.log_format,
                seed=options.seed,
                bound=options.bound,
                skip_bad=options.skip_bad,
                publish_every=options.publish_every or PUBLISH_EVERY,
            )
        results.append(result)
        left_out = left_out or of_it
    rows, unknown = int(results[0].learned["rows"]), float("nan")
    counts, first_bad = dict(left_out.counts), left_out.first_bad
    log = LogSummary(
        rows, left_out.skipped, 0, 0, unknown, unknown, left_out=counts, first_bad=first_bad
    )
    return EvaluationReport(log.of(pieces), results, [])


def _search(
    options: Options, path: Path, pieces: Sequence[Piece], console: Console
) -> EvaluationReport:
    if options.policies or options.method != "ope":
        raise ReplayError(
            "a search has its own policies, and evaluates them by ope: leave the others out",
            "search",
        )
    space, base = load_space(path)
    said = words("{task.fields[best]}")
    with Progress(
        words("rung"), BarColumn(), MofNCompleteColumn(), said, TimeElapsedColumn(), console=console
    ) as progress:
        task = progress.add_task("rung", total=None, best="")

        def done(rung: int, rungs: int, trials: Sequence[Trial]) -> None:
            best = f"best of {len(trials)}: {trials[0].spec}, at least {trials[0].lower:.6g}"
            progress.update(task, completed=rung, total=rungs, best=best)

        address, where = options.address or "local", lambda: on_node_for("replay")
        found = search(
            space, base, pieces, address=address, options=where, seed=options.seed, progress=done
        )
    if options.best is not None:
        options.best.write_bytes(msgspec.yaml.encode(found.best))
    if options.model is not None:
        options.model.write_bytes(found.model.encoded)
    return found.report


def _policy_of(text: str, options: Options) -> ParsedPolicy:
    """``snapshot:ID`` or ``snapshot:POLICY/ID``, one that a service keeps.

    Or what ``policy_of`` knows.
    """
    if not text.startswith(SNAPSHOT):
        return parse_policy(text)
    policy, _, snapshot_id = text.removeprefix(SNAPSHOT).rpartition("/")
    with opened(policy or None, options.redis_url, options.data_dir) as (stored, _):
        name, published = stored.find(snapshot_id)
        spec = decode_spec(stored.history.blob(published.spec))
    note = (
        f"learned from {published.learned:,} interactions up to log position {published.position}"
    )
    learns = published.learned and spec.kind != "rl"
    provenance = ServiceLog(stored.keys.policy, published.position) if learns else None
    return FrozenPolicy(text, spec, published.snapshot, (f"snapshot {name}: {note}",), provenance)


def _as_it_is(asked: ParsedPolicy, log_format: str) -> ParsedPolicy:
    """A VW policy that learns no more; others as they are."""
    if not isinstance(asked, VwPolicy):
        return asked
    command = asked.command
    if command.learns and command.model is None:
        raise ReplayError(
            f"{asked.called} learns: use --method progressive; to evaluate VW as it is, give -t,"
            " or a model that it"
            " has saved: {kind: vw, model: FILE}",
            "method",
        )
    if log_format not in FORMATS:
        raise ReplayError(
            f"{asked.called} reads VW's own logs: --format {' or '.join(FORMATS)}", "policy"
        )
    return VwTarget(asked.called, command, FORMATS[log_format], read_model(command.model))


def _ope(
    options: Options, asked: Sequence[ParsedPolicy], pieces: Sequence[Piece], console: Console
) -> EvaluationReport:
    targets = [each for each in asked if not isinstance(each, PolicySpec | VwPolicy)]
    if len(targets) != len(asked):
        raise ReplayError(
            "a policy that learns is replayed with --method progressive or rejection; to evaluate"
            " what it has learned"
            " from another log, banditloop train policy first, then --policy '{kind: trained,"
            " path: ...}'",
            "method",
        )
    if not any(isinstance(each, LoggingTarget) for each in targets):
        targets = [LoggingTarget(), *targets]
    ray = OnRay(options.address, lambda: on_node_for("replay")) if options.address else None
    fan: Callable[..., Iterable[Any]] = ray or in_processes(options.jobs)
    columns = (
        words("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        words("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:

        def watched(function: Callable[[Piece], Any], given: Sequence[Piece]) -> Iterable[Any]:
            name = (
                "evaluating"
                if getattr(function, "func", None) in {tally_piece, tally_sessions}
                else "fitting a model"
            )
            task, rows = progress.add_task(name, total=len(given), rate=""), 0
            for result in fan(function, given):
                rows += result.rows if isinstance(result, OpeTally) else 0
                elapsed = progress.tasks[task].elapsed or 1e-9
                rate = f"{rows / elapsed:,.0f} rows/s" if rows else ""
                nodes = f"{ray.nodes} nodes (at most {ray.most})" if ray else ""
                progress.update(task, advance=1, rate=f"{rate}  {nodes}".strip())
                yield result

        if options.method == "sessions":
            return evaluate_sessions(_sessions(options, targets), pieces, watched)
        question = OpeQuestion(
            targets,
            tuple(options.estimators),
            parameters_of(options.parameters),
            options.interval,
            options.alpha,
            options.bits,
            options.folds,
            tuple(options.reward_models) or DEFAULT_KINDS,
        )
        return evaluate(question, pieces, watched)


def parameters_of(given: Mapping[str, str | None]) -> dict[str, dict[str, Any]]:
    """By estimator, of what was given by parameter: a number, or ``auto``.

    Raises:
        ReplayError: it is neither.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, kind in FORMULAS.items():
        text = given.get(kind.tuned or "")
        if text is not None:
            try:
                found[name] = {str(kind.tuned): text if text == "auto" else float(text)}
            except ValueError as error:
                raise ReplayError(
                    f"--{kind.tuned} is a number or auto, not {text!r}", str(kind.tuned)
                ) from error
    return found


def _sessions(options: Options, targets: Sequence[Target]) -> SessionQuestion:
    return SessionQuestion(
        targets,
        tuple(options.estimators),
        horizon=options.horizon,
        gamma=options.gamma,
        interval=options.interval,
        alpha=options.alpha,
        session=options.session,
        pause_s=options.pause_s,
        skip_bad=options.skip_bad,
    )


def csv_columns(text: str | None) -> CsvColumns | None:
    """What ``--columns`` says.

    Raises:
        ReplayError: no YAML, or an unknown key.
    """
    if text is None:
        return None
    try:
        return as_type(parse_yaml(text), CsvColumns)
    except InvalidFieldError as error:
        at = f"{error.target}: " if error.target else ""
        raise ReplayError(f"--columns: {at}{error.message}", "columns") from error


def tables(report: EvaluationReport) -> list[Table | Text]:
    """The report for a terminal."""
    searched = [] if report.search is None else [_searched(report.search)]
    if said := log_remarks(report.log):
        searched.insert(0, _said(said))
    compared = [_compared(report)] if report.comparisons else []
    model = [] if report.reward_model is None else [Text(report.reward_model.said)]
    return [*searched, *map(_table_of, report.results), *model, *compared]


def _said(said: Sequence[tuple[str, str]]) -> Table:
    made = table("what", "how", title="log", show_header=False)
    for what, how in said:
        made.add_row(what, how)
    return made


def _searched(found: SearchSummary) -> Table:
    caption = f"best: {json.dumps(found.best)}"
    numbers = ("rung", "learned from", "DR at least", "DR")
    made = table(
        "rung",
        "spec",
        *numbers[1:],
        "verdict",
        "",
        title="search",
        numbers=numbers,
        whole=("verdict",),
        caption=caption,
    )
    for each in found.trials:
        lower = f"{each.lower:.6g}" if each.verdict != "unreliable" else "-"
        verdict = Text(each.verdict, COLOURS[each.verdict])
        kept = "goes on" if each.kept else ""
        made.add_row(
            str(each.rung), each.spec, f"{each.rows:,}", lower, f"{each.value:.6g}", verdict, kept
        )
    return made


def _table_of(result: PolicyResult) -> Table:
    title, said = (
        f"{result.policy} · {result.method}",
        "\n".join([*result.notes, *_reasons(result)]),
    )
    if not result.estimates:
        made = table("what", "value", title=title, numbers=("value",), caption=said or None)
        if result.average_loss is not None:
            made.add_row("average loss", f"{result.average_loss:.6f}")
        for name, value in result.learned.items():
            made.add_row(name.replace("_", " "), f"{value:.6g}")
        return made
    heads, numbers = (
        ("estimator", "value", "interval", "ESS", "max weight", "verdict"),
        ("value", "ESS", "max weight"),
    )
    made = table(
        *heads, title=title, numbers=numbers, whole=("estimator", "verdict"), caption=said or None
    )
    for name, each in result.estimates.items():
        low, high = each.interval
        verdict = Text(each.verdict, COLOURS[each.verdict])
        cells = (
            f"{each.value:.6g}",
            f"{low:.6g} … {high:.6g}",
            f"{each.ess:,.0f}",
            f"{each.max_weight:.4g}",
        )
        made.add_row(name, *cells, verdict)
    return made


def _reasons(result: PolicyResult) -> list[str]:
    """Why estimates are not reliable, each cause once."""
    named: dict[str, list[str]] = {}
    for name, each in result.estimates.items():
        if each.verdict != "reliable":
            named.setdefault(f"{each.verdict}: {each.reason}", []).append(name)
    return [f"{', '.join(names)} {reason}" for reason, names in named.items()]


def _compared(report: EvaluationReport) -> Table:
    best = (
        f"best: {report.winner}"
        if report.winner
        else "no policy is shown to be better than every other"
    )
    heads = ("left less right", "estimator", "difference", "interval", "p (Holm)", "verdict")
    numbers, whole = ("difference", "p (Holm)"), ("estimator", "verdict")
    made = table(
        *heads, title="differences on the same rows", numbers=numbers, whole=whole, caption=best
    )
    for each in report.comparisons:
        result = each.result
        low, high = result.interval
        made.add_row(
            f"{each.left} - {each.right}",
            each.estimator,
            f"{result.difference:.6g}",
            f"{low:.6g} … {high:.6g}",
            f"{result.adjusted:.3g}{' *' if result.shown else ''}",
            Text(result.verdict, COLOURS[result.verdict]),
        )
    return made
